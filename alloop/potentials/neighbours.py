"""Neighbour pairs of many replicas at once, molecules and periodic cells alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import vesin
from numpy.typing import NDArray
from torch import Tensor

from alloop.errors import ModelError

ALL_PAIRS_ATOMS = 48
"""Molecules up to this size are searched all against all and together; measured crossover."""
PAIRS_AT_ONCE = 300_000
"""Candidate pairs that are looked at in one go; bounds memory to some 30 MB."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Directed pairs within a cutoff, sorted by centre; atoms are numbered replica by replica.

    Attributes
    ----------
    centre : (n_pairs,) int64, flat index ``replica * n_atoms + atom``.
    other : (n_pairs,) int64, flat index of the neighbour.
    vectors : (n_pairs, 3) float64, from the centre to the neighbour's image, Å.

    """

    centre: Tensor
    other: Tensor
    vectors: Tensor


def find_pairs(positions: Tensor, cutoff: float, cell: Tensor | None = None) -> Pairs:
    """Find every directed pair closer than ``cutoff``, self-images included.

    A replica with a coordinate that is not finite has no pairs.

    Parameters
    ----------
    positions : (n_replicas, n_atoms, 3), Å; they need not lie inside the cell.
    cutoff : Å; may exceed the cell, all images are found.
    cell : (3, 3) or (n_replicas, 3, 3), lattice vectors as rows, Å; a row of zeros marks a
        direction that is not periodic. None for molecules.

    Raises
    ------
    ModelError
        A lattice has no volume, is not finite, or is too long for a period.

    """
    positions = positions.detach().to(torch.float64)
    n_replicas, n_atoms, _ = positions.shape
    if cell is None and n_atoms <= ALL_PAIRS_ATOMS:
        step = max(1, PAIRS_AT_ONCE // max(1, n_atoms * n_atoms))
        return _join(
            [_all_against_all(part, cutoff) for part in positions.split(step)], step * n_atoms
        )
    search = vesin.NeighborList(cutoff=cutoff, full_list=True, sorted=True, n_threads=1)
    lattices = _lattices(cell, n_replicas)
    return _join([_search(search, *one) for one in zip(positions, lattices, strict=True)], n_atoms)


def _join(parts: list[Pairs], n_atoms: int) -> Pairs:
    """Number the atoms of searches of ``n_atoms`` each one after the other."""
    if len(parts) == 1:
        return parts[0]
    nothing = torch.zeros(0, dtype=torch.int64)
    parts = parts or [Pairs(nothing, nothing, torch.zeros(0, 3, dtype=torch.float64))]
    shift = torch.arange(len(parts)) * n_atoms
    shift = shift.repeat_interleave(torch.tensor([len(part.centre) for part in parts]))
    return Pairs(
        torch.cat([part.centre for part in parts]).add_(shift),
        torch.cat([part.other for part in parts]).add_(shift),
        torch.cat([part.vectors for part in parts]),
    )


def _all_against_all(positions: Tensor, cutoff: float) -> Pairs:
    n_atoms = positions.shape[1]
    vectors = positions[:, None] - positions[:, :, None]
    near = vectors.square().sum(-1) < cutoff * cutoff
    near.diagonal(dim1=1, dim2=2).fill_(False)
    # NaN is not near anything, but the other atoms of its replica would be.
    near &= torch.isfinite(positions).flatten(1).all(1)[:, None, None]
    index = near.reshape(-1).nonzero()[:, 0]
    centre = index // n_atoms
    other = centre // n_atoms * n_atoms + index % n_atoms
    return Pairs(centre, other, vectors.reshape(-1, 3).index_select(0, index))


@dataclass(frozen=True, slots=True)
class _Lattice:
    """A cell with zeros where it is not periodic, and unit vectors (k, 3) across its periods."""

    cell: Array
    periodic: NDArray[np.bool_]
    across: Array

    @classmethod
    def of(cls, cell: Array) -> _Lattice:
        """Find the directions without period; ModelError if the others span no volume."""
        periodic = np.abs(cell).max(axis=1) > 0.0
        if not np.isfinite(cell).all():
            raise ModelError("the lattice vectors of the cell are not finite")
        if np.abs(cell).max() > _LONGEST:
            raise ModelError(
                f"a lattice vector of {np.abs(cell).max():.3g} Å is too long: where there is no"
                " period its row must be zeros"
            )
        across = np.linalg.svd(cell)[2][periodic.sum() :] if periodic.any() else np.eye(3)
        if not abs(np.linalg.det(np.concatenate([cell[periodic], across]))) > _LEAST_VOLUME:
            raise ModelError("the lattice vectors of the cell span no volume")
        return cls(cell, periodic, across)


_LONGEST = 1e5
"""Å; from about 1e6 Å on vesin divides by zero, which ends the process."""
_LEAST_VOLUME = 1e-6
"""Å³; per Å along each direction without period."""


def _lattices(cell: Tensor | None, n_replicas: int) -> Sequence[_Lattice]:
    if cell is None:
        cell = torch.zeros(3, 3)
    cells = cell.detach().to(torch.float64).reshape(-1, 3, 3).numpy()
    lattices = [_Lattice.of(each) for each in cells]
    return lattices * n_replicas if len(lattices) == 1 else lattices


def _search(search: vesin.NeighborList, positions: Tensor, lattice: _Lattice) -> Pairs:
    atoms: Array = positions.numpy()
    if not np.isfinite(atoms).all():
        atoms = atoms[:0]
    for axis in lattice.across:
        atoms = _close_gaps(atoms, axis, 2.0 * search.cutoff)
    centre, other, vectors = search.compute(atoms, lattice.cell, lattice.periodic, "ijD")
    return Pairs(
        torch.from_numpy(centre.view(np.int64)),
        torch.from_numpy(other.view(np.int64)),
        torch.from_numpy(vectors),
    )


def _close_gaps(atoms: Array, axis: Array, widest: float) -> Array:
    """Shorten empty space along an axis without period to ``widest``, which changes no pair.

    vesin divides space into cells and crashes when a fragment has flown off too far.
    """
    height = atoms @ axis
    order = np.argsort(height)
    gaps = np.diff(height[order])
    if not (gaps > widest).any():
        return atoms
    closed = np.empty_like(height)
    closed[order] = np.append(0.0, np.minimum(gaps, widest).cumsum())
    return atoms - np.outer(height, axis) + np.outer(closed, axis)
