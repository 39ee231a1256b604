"""Flat batches of structures: atoms one below the other, and the pairs that are close."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alloop.potentials.fitting import FrameGroup
from alloop.potentials.neighbours import find_pairs


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """Structures of any composition and cell in one batch.

    The vectors are all that a network sees of the geometry: their gradient gives forces and
    virials alike.

    Attributes
    ----------
    species : (n_atoms,) int64, place of each atom's element among those of the network.
    structure : (n_atoms,) int64, the structure of each atom, ascending from 0.
    n_structures : how many there are.
    centre, other : (n_pairs,) int64, both atoms of each directed pair within the cutoff.
    vectors : (n_pairs, 3), from the centre to the neighbour's image, Å.

    """

    species: Tensor
    structure: Tensor
    n_structures: int
    centre: Tensor
    other: Tensor
    vectors: Tensor

    @property
    def n_atoms(self) -> int:
        """Atoms of all structures."""
        return len(self.species)


class GraphStore:
    """The graphs of a set of frames, whose pairs are found once.

    Attributes
    ----------
    n_atoms : (n_frames,) int64, atoms of each frame.
    positions : (all atoms, 3) float64, Å, frame after frame.

    Parameters
    ----------
    groups : all frames of the set.
    elements : atomic numbers of the network.
    cutoff : Å.

    """

    def __init__(
        self, groups: Sequence[FrameGroup], elements: tuple[int, ...], cutoff: float
    ) -> None:
        n_frames = sum(len(group.index) for group in groups)
        self.n_atoms = torch.zeros(n_frames, dtype=torch.int64)
        for group in groups:
            self.n_atoms[group.index] = len(group.numbers)
        self._first_atom = self.n_atoms.cumsum(0) - self.n_atoms
        self._species = torch.zeros(int(self.n_atoms.sum()), dtype=torch.int64)
        self.positions = torch.zeros(len(self._species), 3, dtype=torch.float64)
        frames, centres, others, vectors = [], [], [], []
        for group in groups:
            n_atoms = len(group.numbers)
            atoms = self._first_atom[group.index][:, None] + torch.arange(n_atoms)
            self._species[atoms] = torch.tensor([elements.index(z) for z in group.numbers])
            self.positions[atoms] = group.positions
            pairs = find_pairs(group.positions, cutoff, group.cells)
            frames.append(group.index[pairs.centre // n_atoms])
            centres.append(pairs.centre % n_atoms)
            others.append(pairs.other % n_atoms)
            vectors.append(pairs.vectors)
        frame = torch.cat(frames)
        order = torch.argsort(frame, stable=True)
        self._n_pairs = torch.bincount(frame, minlength=n_frames)
        self._first_pair = self._n_pairs.cumsum(0) - self._n_pairs
        self._centre = torch.cat(centres)[order]
        self._other = torch.cat(others)[order]
        self._vectors = torch.cat(vectors)[order]

    def graph(self, frames: Tensor, dtype: torch.dtype = torch.float32) -> Graph:
        """Return frames (k,) int64 of the set as one batch, in this order."""
        n_atoms, n_pairs = self.n_atoms[frames], self._n_pairs[frames]
        atoms = ranges(self._first_atom[frames], n_atoms)
        pairs = ranges(self._first_pair[frames], n_pairs)
        shift = (n_atoms.cumsum(0) - n_atoms).repeat_interleave(n_pairs)
        return Graph(
            species=self._species[atoms],
            structure=torch.arange(len(frames)).repeat_interleave(n_atoms),
            n_structures=len(frames),
            centre=self._centre[pairs] + shift,
            other=self._other[pairs] + shift,
            vectors=self._vectors[pairs].to(dtype),
        )

    def atoms(self, frames: Tensor) -> Tensor:
        """Return where the atoms of frames (k,) stand in arrays over all atoms of the set."""
        return ranges(self._first_atom[frames], self.n_atoms[frames])


def ranges(first: Tensor, length: Tensor) -> Tensor:
    """Return first[0], first[0] + 1, ..., first[0] + length[0] - 1, first[1], ... as one row."""
    start = length.cumsum(0) - length
    offset = (first - start).repeat_interleave(length)
    return torch.arange(len(offset)) + offset
