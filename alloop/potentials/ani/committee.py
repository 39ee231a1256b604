"""ANI members evaluated together: stacked networks on one pass of descriptors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alloop.potentials.activations import activation
from alloop.potentials.ani.aev import by_atoms, by_pairs, features, strain
from alloop.potentials.ani.settings import AniSettings, layers
from alloop.potentials.ani.terms import environments
from alloop.potentials.evaluation import Evaluation, ForceKind, broken, check_elements
from alloop.potentials.member import Member
from alloop.potentials.neighbours import find_pairs
from alloop.potentials.networks import StackedNetworks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROWS_PER_CHUNK = 600
"""Atoms evaluated in one go, so that activations stay in the processor's second-level cache."""


@dataclass(frozen=True, slots=True)
class Composition:
    """Where the atoms of a batch stand in its AEV matrix: element by element.

    Attributes
    ----------
    elements : (n_replicas * n_atoms,) index of the element of each flat atom.
    rows : (n_replicas * n_atoms,) its row.
    counts : for each element of the model its atoms in one replica.

    """

    elements: Tensor
    rows: Tensor
    counts: tuple[int, ...]

    @classmethod
    @lru_cache(maxsize=64)
    def of(
        cls, numbers: tuple[int, ...], elements: tuple[int, ...], n_replicas: int
    ) -> Composition:
        """Lay out replicas of one composition; ModelError for an element that is not known."""
        check_elements(numbers, elements)
        index = torch.tensor([elements.index(z) for z in numbers]).repeat(n_replicas)
        order = torch.argsort(index, stable=True)
        rows = torch.empty_like(order)
        rows[order] = torch.arange(len(order))
        counts = tuple(numbers.count(z) for z in elements)
        return cls(index, rows, counts)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an evaluation is asked for."""

    forces: ForceKind
    virials: bool

    @property
    def nothing(self) -> bool:
        """No slopes at all."""
        return self.forces == "none" and not self.virials

    @property
    def mean(self) -> bool:
        """Slopes of the mean alone; virials are those of each member."""
        return self.forces == "mean" and not self.virials


class AniCommittee:
    """ANI members of one shape, stacked; implements ``Committee``.

    Parameters
    ----------
    members : at least one; elements, settings and weight shapes are the same for all.
    dtype : working precision of descriptors and networks. Coordinates are subtracted and
        energies summed in float64 whatever it is.

    """

    def __init__(self, members: Sequence[Member], dtype: torch.dtype = torch.float32) -> None:
        self.n_members = len(members)
        self.elements = members[0].elements
        self._dtype = dtype
        self._settings = AniSettings.from_plain(members[0].settings)
        self._networks = tuple(
            StackedNetworks.of(
                [[(w.to(dtype), b.to(dtype)) for w, b in layers(m, z)] for m in members],
                activation(self._settings.activation),
            )
            for z in self.elements
        )
        self._atoms = torch.tensor(
            [[m.atom_energies[z] for z in self.elements] for m in members], dtype=torch.float64
        )

    @torch.no_grad()
    def evaluate(
        self,
        numbers: NDArray[np.int64],
        positions: Tensor,
        *,
        forces: ForceKind,
        cell: Tensor | None = None,
        virials: bool = False,
    ) -> Evaluation:
        """Evaluate replicas of one composition; see ``Committee.evaluate``."""
        composition = tuple(int(z) for z in numbers)
        step = max(1, ROWS_PER_CHUNK // len(composition))
        wanted = Wanted(forces, virials)
        parts = [
            self._evaluate_chunk(composition, chunk, wanted, cell)
            for chunk in positions.split(step)
        ]
        energies, slopes, strains = (torch.cat(pieces, 1) for pieces in zip(*parts, strict=True))
        return Evaluation(
            energies,
            None if forces == "none" else slopes.mean(0),
            slopes if forces == "members" else None,
            strains if virials else None,
        )

    def _evaluate_chunk(
        self,
        numbers: tuple[int, ...],
        positions: Tensor,
        wanted: Wanted,
        cell: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return energies, forces and virials; empty where they are not wanted."""
        n_replicas = len(positions)
        place = Composition.of(numbers, self.elements, n_replicas)
        pairs = find_pairs(positions, self._settings.aev.radial_cutoff, cell)
        env = environments(
            pairs,
            place.elements,
            place.rows,
            len(self.elements),
            self._settings.aev,
            self._dtype,
        )
        energies, gradients = self._networks_on(features(env), place, n_replicas, wanted)
        bad = broken(positions, pairs)
        energies[:, bad] = torch.nan
        nothing = energies.new_zeros((self.n_members, n_replicas))
        if not gradients:
            return energies, nothing, nothing
        by_pair = by_pairs(env, torch.cat(gradients, 1))
        slopes = -by_atoms(env, by_pair).to(torch.float64)
        slopes = slopes.reshape(len(slopes), *positions.shape)
        slopes[:, bad] = torch.nan
        if not wanted.virials:
            return energies, slopes, nothing
        strains = strain(env, by_pair, len(numbers)).to(torch.float64)
        strains[:, bad] = torch.nan
        return energies, slopes, strains

    def _networks_on(
        self, aevs: Tensor, place: Composition, n_replicas: int, wanted: Wanted
    ) -> tuple[Tensor, list[Tensor]]:
        """Return energies (n_members, n_replicas) and, element by element, their slopes."""
        blocks = aevs.split([count * n_replicas for count in place.counts])
        counts = torch.tensor(place.counts, dtype=torch.float64)
        total = (self._atoms @ counts)[:, None].repeat(1, n_replicas)
        gradients = []
        for network, x, count in zip(self._networks, blocks, place.counts, strict=True):
            if wanted.nothing:
                atomic = network.values(x)
            else:
                atomic, gradient = network.values_and_gradients(x, mean=wanted.mean)
                gradients.append(gradient)
            # The energies of atoms differ by less than their sum: add in float64.
            total += atomic.to(torch.float64).view(self.n_members, n_replicas, count).sum(2)
        return total, gradients
