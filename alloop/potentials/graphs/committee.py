"""Graph networks evaluated together: one search for pairs, one pass for each member."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alloop.potentials.evaluation import Evaluation, ForceKind, check_elements
from alloop.potentials.graphs.graph import Graph
from alloop.potentials.graphs.network import Network, differentiate
from alloop.potentials.neighbours import find_pairs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ATOMS_PER_CHUNK = 1500
"""Atoms evaluated in one go; bounds memory."""


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
    ) -> Evaluation:
        """Evaluate replicas of one composition; see ``Committee.evaluate``."""
        check_elements(numbers.tolist(), self.elements)
        species = torch.tensor([self.elements.index(z) for z in numbers.tolist()])
        step = max(1, ATOMS_PER_CHUNK // len(species))
        parts = [self._chunk(species, chunk, forces, cell) for chunk in positions.split(step)]
        energies = torch.cat([energy for energy, _ in parts], 1)
        broken = ~torch.isfinite(positions).flatten(1).all(1)
        energies[:, broken] = torch.nan
        if forces == "none":
            return Evaluation(energies, None, None)
        each = torch.cat([force for _, force in parts], 1)
        each[:, broken] = torch.nan
        return Evaluation(energies, each.mean(0), each if forces == "members" else None)

    def _chunk(
        self, species: Tensor, positions: Tensor, forces: ForceKind, cell: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        n_replicas, n_atoms, _ = positions.shape
        pairs = find_pairs(positions, self._cutoff, cell)
        graph = Graph(
            species=species.repeat(n_replicas),
            structure=torch.arange(n_replicas).repeat_interleave(n_atoms),
            n_structures=n_replicas,
            centre=pairs.centre,
            other=pairs.other,
            vectors=pairs.vectors.to(self._dtype).requires_grad_(forces != "none"),
        )
        energies, slopes = [], []
        for network in self._networks:
            if forces == "none":
                with torch.no_grad():
                    energies.append(network(graph).energies)
                continue
            with torch.enable_grad():
                energy = network(graph).energies
                slope = differentiate(energy, graph, create_graph=False)
            energies.append(energy.detach())
            slopes.append(slope.forces.view(n_replicas, n_atoms, 3))
        total = torch.stack(energies).double() + self._atoms[:, species].sum(1)[:, None]
        return total, torch.stack(slopes).double() if slopes else total
