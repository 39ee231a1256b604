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

    @property
    def axial(self) -> bool:
        """Whether turns about the z axis of ``place`` are among the coordinates."""
        ...

    def describe(self, positions: Tensor, velocities: Tensor) -> Dual:
        """Return coordinates (..., n_coordinates), Å and rad, and their rates per fs.

        ``positions`` and ``velocities`` are (..., n_atoms, 3), Å and Å/fs.
        """
        ...

    def place(self, coordinates: Tensor, rates: Tensor) -> Dual:
        """Return positions (..., n_atoms, 3), Å, in a frame of their own, and velocities, Å/fs.

        The frame does not spin about its z axis where ``axial``.
        """
        ...

    def follow(self, positions: Tensor, velocities: Tensor) -> Dual:
        """Return what ``describe`` gives, made continuous in time.

        ``positions`` and ``velocities`` are those of consecutive frames of one trajectory,
        (n_frames, n_atoms, 3), Å and Å/fs.
        """
        ...

    def fold(self, start: Dual, motion: Dual) -> tuple[Dual, Dual]:
        """Return states as ``describe`` gives them, and what follows them as seen from there.

        Parameters
        ----------
        start : coordinates and rates (n, n_coordinates) of frames from ``follow``, or reversed in
            time.
        motion : (n, n_steps, n_coordinates) each, coordinates less those of the start, and rates.

        """
        ...

    def same_isomer(self, positions: Tensor, others: Tensor) -> bool:
        """Tell whether frames are as much at home in these coordinates as others, the data's own.

        Both are (n_frames, n_atoms, 3), Å. False for the isomers that like atoms exchanged or a
        mirror lead to.
        """
        ...

    def handedness(self, coordinates: Tensor) -> Tensor:
        """Return the handedness (..., n_centres) of centres, complex128, of (..., n_coordinates).

        Numbers of magnitude 1 that tell apart isomers of labelled atoms and hardly change with the
        motion of one; no centres where the coordinates know of none.
        """
        ...

    def definition(self) -> Mapping[str, Any]:
        """Return what :func:`alloop.spacetime.coordinates.choice.restore` needs, plain JSON."""
        ...
