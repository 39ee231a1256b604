"""Neighbour pairs of many replicas at once, molecules and periodic cells alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alloop.errors import ModelError

MAX_PAIRS = 4_000_000
"""Candidate pairs that are looked at in one go; bounds memory to a few hundred MB."""


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

    Parameters
    ----------
    positions : (n_replicas, n_atoms, 3), Å; they need not lie inside the cell.
    cutoff : Å; may exceed the cell, all images are found.
    cell : (3, 3) or (n_replicas, 3, 3), lattice vectors as rows, Å; a row of zeros marks a
        direction that is not periodic. None for molecules.

    Raises
    ------
    ModelError
        A lattice has no volume.

    """
    n_replicas, n_atoms, _ = positions.shape
    if cell is not None:
        cell = complete_cell(cell).expand(n_replicas, 3, 3).to(positions)
    images = _images(cell, cutoff, positions)
    step = max(1, MAX_PAIRS // max(1, n_atoms * n_atoms * len(images)))
    parts = [
        _search(
            positions[start : start + step],
            cutoff,
            None if cell is None else cell[start : start + step],
            images,
            start * n_atoms,
        )
        for start in range(0, max(1, n_replicas), step)
    ]
    if len(parts) == 1:
        return parts[0]
    return Pairs(
        torch.cat([p.centre for p in parts]),
        torch.cat([p.other for p in parts]),
        torch.cat([p.vectors for p in parts]),
    )


def complete_cell(cell: Tensor) -> Tensor:
    """Fill rows of zeros with far-away lattice vectors at right angles to the others.

    The filled-in vectors are so long that no image along them can be a neighbour, which makes
    the direction non-periodic. ``cell`` is (3, 3) or (n_replicas, 3, 3), Å.
    """
    cells = cell.reshape(-1, 3, 3).clone()
    for lattice in cells:
        empty = [row for row in range(3) if not bool(lattice[row].any())]
        if not empty:
            continue
        _, _, axes = torch.linalg.svd(lattice)
        for axis, row in zip(axes[3 - len(empty) :], empty, strict=True):
            lattice[row] = axis * _FAR
    if not bool((torch.linalg.det(cells).abs() > 1e-6).all()):
        raise ModelError("the lattice vectors of the cell span no volume")
    return cells.reshape(cell.shape)


_FAR = 1e7
"""Å; length of a lattice vector along a direction that is not periodic."""


def _images(cell: Tensor | None, cutoff: float, like: Tensor) -> Tensor:
    """Return the integer shifts that can bring a wrapped neighbour within the cutoff."""
    if cell is None:
        return torch.zeros(1, 3).to(like)
    heights = 1.0 / torch.linalg.inv(cell).norm(dim=-2)
    reach = (cutoff / heights + 0.5).floor().amax(0).to(torch.int64).tolist()
    axes = [torch.arange(-n, n + 1) for n in reach]
    return torch.cartesian_prod(*axes).to(like)


def _search(
    positions: Tensor, cutoff: float, cell: Tensor | None, images: Tensor, first: int
) -> Pairs:
    n_atoms = positions.shape[1]
    vectors = positions[:, None] - positions[:, :, None]
    if cell is not None:
        # Round the difference, not the atoms: coordinates of MD runs leave the cell.
        fractional = torch.einsum("rijc,rcd->rijd", vectors, torch.linalg.inv(cell))
        vectors = vectors - torch.einsum("rijc,rcd->rijd", fractional.round(), cell)
        shifts = torch.einsum("kc,rcd->rkd", images, cell)
        vectors = vectors[:, :, :, None] + shifts[:, None, None]
    else:
        vectors = vectors[:, :, :, None]
    near = vectors.pow(2).sum(-1) < cutoff * cutoff
    home = len(images) // 2
    near[:, torch.arange(n_atoms), torch.arange(n_atoms), home] = False
    index = near.reshape(-1).nonzero()[:, 0]
    centre = index // (n_atoms * len(images))
    other = index // len(images) % n_atoms
    return Pairs(
        centre + first,
        centre // n_atoms * n_atoms + other + first,
        vectors.reshape(-1, 3).index_select(0, index),
    )
