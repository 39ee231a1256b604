"""Whether a 4D model knows what it was not shown: errors on held-out motion, transformed.

A rotated, shifted, mirrored or reversed trajectory, or one with like atoms exchanged, is as true as
the one it came from. What a model makes of its segments tells which symmetries are built in, which
it has learnt, and which it ignores.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray
from torch import Tensor

from alloop import seeds
from alloop.spacetime.coordinates.graph import CovalentGraph
from alloop.spacetime.coordinates.protocol import Dual
from alloop.spacetime.judging.disagreement import segments
from alloop.spacetime.learning.trajectories import TrajectorySet
from alloop.spacetime.model import SpacetimeModel
from alloop.spacetime.motion.orientation import endpoints
from alloop.spacetime.symmetry import MAX_TRIED, Operation, find_operations

SHIFT = (5.0, -3.0, 2.0)
"""Of the translated starts, Å."""
CHUNK = 256
"""Starts in work at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class Transformation:
    """What turns true segments into other true segments.

    Attributes
    ----------
    name : for tables.
    operation : permutation of like atoms, and mirror.
    rotation : (3, 3) float64, applied to vectors as columns.
    shift : (3,) float64, of positions, Å.
    backward : whether start and end change places and velocities their sign.

    """

    name: str
    operation: Operation
    rotation: Tensor
    shift: Tensor
    backward: bool = False

    def __call__(self, start: Dual, end: Dual) -> tuple[Dual, Dual]:
        """Return start and end, positions and velocities (n, n_atoms, 3), transformed."""
        first, last = (end, start) if self.backward else (start, end)
        return self._apply(first), self._apply(last)

    def _apply(self, state: Dual) -> Dual:
        x, v = (self.operation(part) @ self.rotation.T for part in state)
        return x + self.shift, -v if self.backward else v


def find_transformations(
    model: SpacetimeModel, frames: NDArray[np.float64], seed: int = 0
) -> list[Transformation]:
    """Return what is tried on a molecule seen in frames (n_frames, n_atoms, 3), Å.

    As is, rotated at random, translated, reversed in time, mirrored; a cycle and an exchange of the
    like atoms at the end of each bond's centre; one exchange of inner atoms, where there is one;
    and mirrored with atoms exchanged so that every centre keeps its handedness.
    """
    numbers = np.array(model.numbers)
    same = tuple(range(len(numbers)))
    unit, none = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    away = torch.tensor(SHIFT, dtype=torch.float64)
    identity, mirror = Operation(same, mirror=False), Operation(same, mirror=True)
    found = [
        Transformation("as is", identity, unit, none),
        Transformation("rotated", identity, _random_rotation(seed), none),
        Transformation("translated", identity, unit, away),
        Transformation("reversed in time", identity, unit, none, backward=True),
        Transformation("mirrored", mirror, unit, none),
    ]
    for name, permutation in _exchanges(CovalentGraph.of_frames(numbers, frames)).items():
        found.append(Transformation(name, Operation(permutation, mirror=False), unit, none))
    for operation in find_operations(model.internal, numbers, frames):
        if operation.mirror and operation.permutation != same:
            found.append(Transformation("mirrored, atoms exchanged", operation, unit, none))
            break
    return found


def transformed_errors(
    model: SpacetimeModel,
    data: TrajectorySet,
    indices: list[int],
    transformations: list[Transformation],
) -> dict[str, dict[str, float]]:
    """Return by name of the transformation the errors at the cutoff of the ensemble's mean.

    Of each kind of coordinates the root mean square error per coordinate, averaged over the kind,
    Å and rad, dihedrals the shorter way round; and ``position``, the root mean square over atoms of
    errors in space, without superposition, Å. Segments follow each other without overlap.

    Raises
    ------
    SpacetimeError
        No trajectory is longer than a segment.

    """
    start, end = segments(model, data, indices)
    return {
        transformation.name: _errors(model, *transformation(start, end))
        for transformation in transformations
    }


def _errors(model: SpacetimeModel, start: Dual, end: Dual) -> dict[str, float]:
    x, v = (part.split(CHUNK) for part in start)
    there = torch.cat([endpoints(model, *piece)[0] for piece in zip(x, v, strict=True)])
    still = torch.zeros_like(there)
    (said, _), (true, _) = (model.internal.describe(x, still) for x in (there, end[0]))
    errors = said - true
    angular = model.internal.angular
    errors[:, angular] = torch.remainder(errors[:, angular] + math.pi, 2 * math.pi) - math.pi
    roots = errors.square().mean(dim=0).sqrt()
    scores = {kind: float(roots[span].mean()) for kind, span in model.internal.kinds.items()}
    distances = (there - end[0]).square().sum(dim=-1)
    return scores | {"position": float(distances.mean().sqrt())}


def _exchanges(graph: CovalentGraph) -> dict[str, tuple[int, ...]]:
    """Return by name the permutations that are tried one by one."""
    n_atoms = len(graph.numbers)
    leaves = np.flatnonzero(graph.bonds.sum(axis=0) == 1)
    hangs_on: dict[tuple[int, int], list[int]] = {}
    for leaf in leaves.tolist():
        centre = int(np.flatnonzero(graph.bonds[leaf])[0])
        hangs_on.setdefault((centre, int(graph.numbers[leaf])), []).append(leaf)
    found: dict[str, tuple[int, ...]] = {}
    for (centre, element), group in hangs_on.items():
        kinds = [chemical_symbols[z] for z in (int(graph.numbers[centre]), element)]
        name = f"{kinds[0]}{centre}{kinds[1]}{len(group)}"
        if len(group) > 1:
            found[f"{name}: two exchanged"] = _permutation(n_atoms, group[:2])
        if len(group) > 2:
            found[f"{name}: cycle"] = _permutation(n_atoms, group)
    for image in itertools.islice(graph.automorphisms(), MAX_TRIED):
        if any(image[atom] != atom for atom in set(range(n_atoms)) - set(leaves.tolist())):
            found["inner atoms exchanged"] = tuple(image)
            break
    return found


def _permutation(n_atoms: int, cycle: list[int]) -> tuple[int, ...]:
    image = list(range(n_atoms))
    for atom, following in zip(cycle, cycle[1:] + cycle[:1], strict=True):
        image[atom] = following
    return tuple(image)


def _random_rotation(seed: int) -> Tensor:
    random = seeds.generator(seed, "rotation").normal(size=(3, 3))
    orthogonal, _ = np.linalg.qr(random)
    return torch.as_tensor(orthogonal * np.linalg.det(orthogonal))
