"""What a 4D model needs to know of any kind of internal coordinates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

Dual = tuple[Tensor, Tensor]
"""A value and its time derivative, of equal shape."""


class Coordinates(Protocol):
    """Internal coordinates of one molecule; arrays are batched over all leading axes."""

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        ...

    @property
    def n_coordinates(self) -> int:
        """Number of coordinates."""
        ...

    @property
    def kinds(self) -> dict[str, slice]:
        """Where the coordinates of each kind lie, kinds without members left out."""
        ...

    @property
    def angular(self) -> slice:
        """Where the coordinates lie that are angles modulo 2 pi."""
        ...

    @property
    def oriented(self) -> bool:
        """Whether ``place`` tells how the molecule stands in space, not only its shape."""
        ...

    def describe(self, positions: Tensor, velocities: Tensor) -> Dual:
        """Return coordinates (..., n_coordinates), Å and rad, and their rates per fs.

        ``positions`` and ``velocities`` are (..., n_atoms, 3), Å and Å/fs.
        """
        ...

    def place(self, coordinates: Tensor, rates: Tensor) -> Dual:
        """Return positions (..., n_atoms, 3), Å, in a frame of their own, and velocities, Å/fs."""
        ...

    def unwrap(self, coordinates: Tensor, positions: Tensor) -> Dual:
        """Make the coordinates of one trajectory continuous in time.

        Parameters
        ----------
        coordinates : (n_frames, n_coordinates), of consecutive frames, as ``describe`` gives.
        positions : (n_frames, n_atoms, 3) of the same frames, Å.

        Returns
        -------
        (n_frames, n_coordinates) continuous coordinates, and signs of the same shape by which the
        rates are to be multiplied.

        """
        ...

    def same_isomer(self, positions: Tensor, others: Tensor) -> bool:
        """Tell whether the centres of two sets of frames have the same handedness.

        Both are (n_frames, n_atoms, 3), Å.
        """
        ...

    def definition(self) -> Mapping[str, Any]:
        """Return what :func:`alloop.spacetime.coordinates.choice.restore` needs, plain JSON."""
        ...
