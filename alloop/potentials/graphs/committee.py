"""Graph networks evaluated together: one search for pairs, one pass for each member."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alloop.potentials.evaluation import Evaluation, ForceKind, broken, check_elements
from alloop.potentials.graphs.graph import Graph
from alloop.potentials.graphs.network import Network, differentiate
from alloop.potentials.neighbours import find_pairs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ATOMS_PER_CHUNK = 600
PAIRS_PER_CHUNK = 6000
"""What is evaluated in one go, so that activations stay in the processor's cache; measured."""


class GraphCommittee:
    """Networks of one shape; implements ``Committee``.

    Parameters
    ----------
    networks : at least one, in the working precision, equal but for their weights.
    atom_energies : for each member by element, eV.
    elements : atomic numbers of the networks.
    cutoff : Å.

    """

    def __init__(
        self,
        networks: Sequence[Network],
        atom_energies: Sequence[Sequence[float]],
        elements: tuple[int, ...],
        cutoff: float,
    ) -> None:
        self._networks = networks
        self._atoms = torch.tensor(atom_energies, dtype=torch.float64)
        self._cutoff = cutoff
        self.elements = elements
        self.n_members = len(networks)
        self._dtype = next(networks[0].parameters()).dtype
        for network in networks:
            network.requires_grad_(requires_grad=False)

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
        check_elements(numbers.tolist(), self.elements)
        species = torch.tensor([self.elements.index(z) for z in numbers.tolist()])
        slopes = forces != "none" or virials
        parts = [
            self._chunk(species, chunk, cell, slopes)
            for chunk in positions.split(self._replicas_at_once(positions, cell))
        ]
        energies, each, strains = (torch.cat(pieces, 1) for pieces in zip(*parts, strict=True))
        return Evaluation(
            energies,
            None if forces == "none" else each.mean(0),
            each if forces == "members" else None,
            strains if virials else None,
        )

    def _replicas_at_once(self, positions: Tensor, cell: Tensor | None) -> int:
        if len(positions) < 2:
            return 1
        # Replicas of one composition have about as many pairs each.
        n_pairs = len(find_pairs(positions[:1], self._cutoff, cell).centre)
        n_atoms = positions.shape[1]
        return max(1, min(ATOMS_PER_CHUNK // n_atoms, PAIRS_PER_CHUNK // max(1, n_pairs)))

    def _chunk(
        self, species: Tensor, positions: Tensor, cell: Tensor | None, slopes: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return energies, forces and virials of each member; zeros without ``slopes``."""
        n_replicas, n_atoms, _ = positions.shape
        pairs = find_pairs(positions, self._cutoff, cell)
        graph = Graph(
            species=species.repeat(n_replicas),
            structure=torch.arange(n_replicas).repeat_interleave(n_atoms),
            n_structures=n_replicas,
            centre=pairs.centre,
            other=pairs.other,
            vectors=pairs.vectors.to(self._dtype).requires_grad_(slopes),
        )
        energies = torch.empty(self.n_members, n_replicas, dtype=torch.float64)
        forces = torch.zeros(self.n_members, *positions.shape, dtype=torch.float64)
        virials = torch.zeros(self.n_members, n_replicas, 3, 3, dtype=torch.float64)
        # Networks need not know what to do with no atoms at all.
        for member, network in enumerate(self._networks if n_replicas else ()):
            with torch.set_grad_enabled(slopes):
                energy = network(graph).energies
            energies[member] = energy.detach()
            if slopes:
                slope = differentiate(energy, graph, create_graph=False)
                forces[member] = slope.forces.view(positions.shape)
                virials[member] = slope.virials(graph).detach()
        # The energies of atoms differ by less than their sum: add in float64.
        energies += self._atoms[:, species].sum(1)[:, None]
        bad = broken(positions, pairs)
        for values in (energies, forces, virials):
            values[:, bad] = torch.nan
        return energies, forces, virials
