"""Exact symmetries of molecular motion, by which one trajectory teaches as much as several.

Exchanging like atoms and mirroring turn a trajectory into another true one. Kept are those
operations that leave the handedness of every centre as it is in the data: the others lead to
isomers that the labelled atoms never visit.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alloop.spacetime.graph import CovalentGraph
from alloop.spacetime.internal import to_internal
from alloop.spacetime.zmatrix import ZMatrix

MAX_OPERATIONS = 24
"""Only so many are kept: their number grows exponentially with the number of like groups."""
MAX_TRIED = 1000
"""Only so many permutations are looked at."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A permutation of like atoms, with or without a mirror."""

    permutation: tuple[int, ...]
    mirror: bool

    def __call__(self, vectors: Tensor) -> Tensor:
        """Return transformed positions or velocities (..., n_atoms, 3)."""
        permuted = vectors[..., list(self.permutation), :]
        return permuted * permuted.new_tensor([-1.0, 1.0, 1.0]) if self.mirror else permuted


def find_operations(
    zmatrix: ZMatrix, numbers: NDArray[np.int64], frames: NDArray[np.float64]
) -> list[Operation]:
    """Return the symmetries of a molecule seen in frames (n_frames, n_atoms, 3), Å.

    The identity comes first. At most MAX_OPERATIONS are returned.
    """
    graph = CovalentGraph.of_frames(numbers, frames)
    positions = torch.as_tensor(frames)
    handedness = _handedness(zmatrix, positions)
    mirrors = (False, True) if zmatrix.n_dihedrals else (False,)
    found: list[Operation] = []
    for permutation in itertools.islice(graph.automorphisms(), MAX_TRIED):
        for mirror in mirrors:
            operation = Operation(tuple(permutation), mirror)
            agreement = _handedness(zmatrix, operation(positions)) * handedness.conj()
            if bool((agreement.real >= 0).all()):
                found.append(operation)
    return found[:MAX_OPERATIONS]


def _handedness(zmatrix: ZMatrix, positions: Tensor) -> Tensor:
    """Return the mean exp(i phi) of the dihedrals between atoms that hang on the same bond."""
    bond_of = {row[0]: row[1:3] for row in zmatrix.rows[2:]}
    stiff = [row[1:3] == bond_of.get(row[3]) for row in zmatrix.rows[3:]]
    coordinates, _ = to_internal(zmatrix, positions, torch.zeros_like(positions))
    start = zmatrix.n_bonds + zmatrix.n_angles
    angles = coordinates[:, start:][:, stiff]
    return torch.polar(torch.ones_like(angles), angles).mean(dim=0)
