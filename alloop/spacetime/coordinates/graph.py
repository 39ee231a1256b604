"""The covalent graph of a molecule: who is bonded, how far apart, which atoms are alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

BOND_FACTOR = 1.25
"""Two atoms are bonded when closer than this times the sum of their covalent radii."""


@dataclass(frozen=True, slots=True, eq=False)
class CovalentGraph:
    """Atoms and bonds, connected: each fragment hangs on its nearest neighbour by one more edge.

    Attributes
    ----------
    numbers : (n_atoms,) int64, atomic numbers.
    distances : (n_atoms, n_atoms) float64, mean distances over the sampled frames, Å.
    bonds : (n_atoms, n_atoms) bool, symmetric.

    """

    numbers: NDArray[np.int64]
    distances: NDArray[np.float64]
    bonds: NDArray[np.bool_]

    @classmethod
    def of_frames(cls, numbers: NDArray[np.int64], frames: NDArray[np.float64]) -> CovalentGraph:
        """Return the graph of frames (n_frames, n_atoms, 3), Å, by their mean distances."""
        separations = frames[:, :, None] - frames[:, None]
        distances = np.linalg.norm(separations, axis=-1).mean(axis=0)
        radii = covalent_radii[numbers]
        bonds = distances < BOND_FACTOR * (radii[:, None] + radii)
        np.fill_diagonal(bonds, False)
        graph = cls(np.asarray(numbers), distances, bonds)
        graph._join_fragments()
        return graph

    def _join_fragments(self) -> None:
        while True:
            reached = np.isfinite(self.steps_from(0))
            if reached.all():
                return
            inside, outside = np.flatnonzero(reached), np.flatnonzero(~reached)
            gaps = self.distances[np.ix_(inside, outside)]
            i, j = np.unravel_index(np.argmin(gaps), gaps.shape)
            a, b = inside[i], outside[j]
            self.bonds[a, b] = self.bonds[b, a] = True

    def steps_from(self, root: int) -> NDArray[np.float64]:
        """Return the number of bonds from ``root`` to each atom; inf where there is no way."""
        steps = np.full(len(self.numbers), np.inf)
        steps[root] = 0.0
        shell, depth = self.bonds[root].copy(), 1
        while (fresh := shell & np.isinf(steps)).any():
            steps[fresh] = depth
            shell, depth = self.bonds[fresh].any(axis=0), depth + 1
        return steps

    def central_atoms(self) -> list[int]:
        """Return all atoms, heavy ones first, then by how near the farthest atom is."""
        reach = [self.steps_from(atom).max() for atom in range(len(self.numbers))]
        light = self.numbers == 1
        return sorted(range(len(reach)), key=lambda atom: (light[atom], reach[atom], atom))

    def automorphisms(self) -> Iterator[list[int]]:
        """Yield permutations p that keep elements and bonds, the identity first: i becomes p[i]."""
        order = [int(atom) for atom in np.argsort(self.steps_from(0), kind="stable")]
        degrees = self.bonds.sum(axis=0)
        kinds = list(zip(self.numbers.tolist(), degrees.tolist(), strict=True))

        def extend(image: dict[int, int]) -> Iterator[dict[int, int]]:
            if len(image) == len(order):
                yield image
                return
            atom = order[len(image)]
            for other in range(len(order)):
                fits = kinds[other] == kinds[atom] and other not in image.values()
                if fits and all(
                    self.bonds[atom, a] == self.bonds[other, b] for a, b in image.items()
                ):
                    yield from extend({**image, atom: other})

        for image in extend({}):
            yield [image[atom] for atom in range(len(order))]
