"""Exact symmetries of molecular motion, by which one trajectory teaches as much as several.

Exchanging like atoms and mirroring turn a trajectory into another true one. Kept are those
operations that leave the handedness of every centre as it is in the data: the others lead to
isomers that the labelled atoms never visit (see ``isomers``).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alloop.spacetime.coordinates.graph import CovalentGraph
from alloop.spacetime.coordinates.protocol import Coordinates

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

    @property
    def inverse(self) -> Operation:
        """What undoes it."""
        back = sorted(range(len(self.permutation)), key=self.permutation.__getitem__)
        return Operation(tuple(back), self.mirror)


def list_operations(numbers: NDArray[np.int64], frames: NDArray[np.float64]) -> Iterator[Operation]:
    """Yield the exchanges of like atoms, each as it is and mirrored, the identity first.

    ``frames`` are (n_frames, n_atoms, 3), Å. At most MAX_TRIED exchanges are looked at.
    """
    mirrors = (False, True) if len(numbers) > 3 else (False,)
    graph = CovalentGraph.of_frames(numbers, frames)
    for permutation in itertools.islice(graph.automorphisms(), MAX_TRIED):
        for mirror in mirrors:
            yield Operation(tuple(permutation), mirror)


def find_operations(
    internal: Coordinates, numbers: NDArray[np.int64], frames: NDArray[np.float64]
) -> list[Operation]:
    """Return the symmetries of a molecule seen in frames (n_frames, n_atoms, 3), Å.

    The identity comes first. At most MAX_OPERATIONS are returned.
    """
    positions = torch.as_tensor(frames)
    found = [
        operation
        for operation in list_operations(numbers, frames)
        if internal.same_isomer(operation(positions), positions)
    ]
    return found[:MAX_OPERATIONS]
