"""The isomers that a mirror or an exchange of like atoms makes of a molecule.

Labelled atoms of real trajectories stay in one of them, and that is all a model can learn. Motion
from the others is the same motion, mirrored or numbered otherwise: a start is brought home to the
isomer of the data by an exact operation, and what is predicted is taken back by its inverse.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alloop.errors import SpacetimeError
from alloop.spacetime.coordinates.protocol import Coordinates
from alloop.spacetime.symmetry import Operation, list_operations

EQUAL = 1e-9
"""Isomers are equally near below this difference of squares; then a start stays at home."""


@dataclass(frozen=True, slots=True, eq=False)
class Isomers:
    """The isomer of the data and the others, with the ways home.

    Attributes
    ----------
    operations : of each isomer what makes it that of the data. The first, which is that of the
        data, has the identity, and so have others that the data visit.
    hands : (n_isomers, n_centres) complex128, of each isomer the mean of what
        :meth:`~alloop.spacetime.coordinates.protocol.Coordinates.handedness` gives.

    Raises
    ------
    SpacetimeError
        The parts do not fit each other, or the first operation is not the identity.

    """

    operations: tuple[Operation, ...]
    hands: Tensor

    def __post_init__(self) -> None:
        if self.hands.ndim != 2 or not 0 < len(self.operations) == len(self.hands):
            raise SpacetimeError(
                f"isomers: {len(self.operations)} operations and handedness of shape"
                f" {tuple(self.hands.shape)}, want one row for each operation"
            )
        if self.hands.dtype != torch.complex128 or not torch.isfinite(self.hands).all():
            raise SpacetimeError("isomers: handedness is not made of finite complex numbers")
        atoms = tuple(range(self.n_atoms))
        if self.operations[0] != Operation(atoms, mirror=False):
            raise SpacetimeError("isomers: the first operation is not the identity")
        if any(tuple(sorted(one.permutation)) != atoms for one in self.operations):
            raise SpacetimeError(
                f"isomers: an operation is not a permutation of {len(atoms)} atoms"
            )

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.operations[0].permutation)

    def find(self, hands: Tensor) -> Tensor | None:
        """Return which isomers have the handedness (n, n_centres), (n,) int64; None if all are 0.

        The nearest one, by squares summed over centres; that of the data where others are as near.
        """
        if len(self.operations) == 1:
            return None
        nearness = self.nearness(hands)
        nearness[:, 0] += EQUAL
        found = nearness.argmax(dim=-1)
        return found if found.any() else None

    def nearness(self, hands: Tensor) -> Tensor:
        """Return (n, n_isomers), higher by half the squares less, of handedness (n, n_centres)."""
        products: Tensor = (hands @ self.hands.mH).real
        return products - 0.5 * self.hands.abs().square().sum(dim=-1)

    def bring_home(self, which: Tensor, vectors: Tensor) -> Tensor:
        """Return positions or velocities (n, n_atoms, 3) of isomers (n,) as that of the data."""
        return _applied(self.operations, which, vectors)

    def take_back(self, which: Tensor, vectors: Tensor) -> Tensor:
        """Return motion (..., n, n_times, n_atoms, 3) of the data's isomer as that of (n,)."""
        back = tuple(one.inverse for one in self.operations)
        return _applied(back, which.unsqueeze(-1), vectors)


def find_isomers(
    internal: Coordinates, numbers: NDArray[np.int64], frames: NDArray[np.float64]
) -> Isomers:
    """Return the isomers of a molecule seen in frames (n_frames, n_atoms, 3), Å.

    Of all operations that lead to one isomer the first is taken. The data visit an isomer if it is
    the nearest one to any of the frames.
    """
    positions = torch.as_tensor(frames)
    seen = _hands(internal, positions)
    same = Operation(tuple(range(len(numbers))), mirror=False)
    ways = [same]
    images = [seen.mean(dim=0)]
    if seen.shape[-1]:
        for operation in list_operations(numbers, frames):
            image = _hands(internal, operation(positions)).mean(dim=0)
            if not _among(image, torch.stack(images)):
                ways.append(operation.inverse)
                images.append(image)
    found = Isomers(tuple(ways), torch.stack(images))
    visited = set(found.nearness(seen).argmax(dim=-1).tolist())
    ways = [same if i in visited else way for i, way in enumerate(ways)]
    return Isomers(tuple(ways), found.hands)


def _hands(internal: Coordinates, positions: Tensor) -> Tensor:
    coordinates, _ = internal.describe(positions, torch.zeros_like(positions))
    return internal.handedness(coordinates)


def _among(image: Tensor, others: Tensor) -> bool:
    """Tell whether all centres are the same way round as in one of the others."""
    return bool(((others * image.conj()).real >= 0).all(dim=-1).any())


def _applied(operations: tuple[Operation, ...], which: Tensor, vectors: Tensor) -> Tensor:
    """Return vectors (..., n_atoms, 3) by the operations that ``which`` (...) says."""
    order = torch.tensor([one.permutation for one in operations])[which]
    mirrors = torch.tensor([[-1.0 if one.mirror else 1.0, 1.0, 1.0] for one in operations])
    permuted = vectors.gather(-2, order.unsqueeze(-1).expand(vectors.shape))
    return permuted * mirrors.to(vectors.dtype)[which].unsqueeze(-2)
