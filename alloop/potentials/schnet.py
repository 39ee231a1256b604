"""SchNet: continuous-filter convolutions, the invariant baseline.

Schütt et al., DOI 10.1063/1.5019779.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alloop.potentials.graphs.architecture import GraphArchitecture
from alloop.potentials.graphs.blocks import (
    GaussianBasis,
    cosine_cutoff,
    distances,
    half_pairs,
    mlp,
    scatter,
)
from alloop.potentials.graphs.graph import Graph
from alloop.potentials.graphs.network import Network, Output


@dataclass(frozen=True, slots=True)
class SchNetSettings:
    """Shape of a SchNet model.

    Attributes
    ----------
    features : width of the atom features and of the filters.
    interactions : number of interaction blocks.
    basis : Gaussians of the radial grid.
    cutoff : Å.

    """

    features: int = 64
    interactions: int = 3
    basis: int = 20
    cutoff: float = 5.0


class ShiftedSoftplus(nn.Module):
    """ln(0.5 eˣ + 0.5), which is 0 at 0."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the function of each value."""
        return nn.functional.softplus(x) - math.log(2.0)


class Interaction(nn.Module):
    """x_i + dense(Σ_j x_j ∘ W(r_ij)); figure 2 of the paper."""

    def __init__(self, shape: SchNetSettings) -> None:
        super().__init__()
        n = shape.features
        self.filter = mlp((shape.basis, n, n), ShiftedSoftplus).append(ShiftedSoftplus())
        self.inward = nn.Linear(n, n, bias=False)
        self.outward = mlp((n, n, n), ShiftedSoftplus)

    def forward(
        self, x: Tensor, first: Tensor, second: Tensor, basis: Tensor, envelope: Tensor
    ) -> Tensor:
        """Return the features (n_atoms, features) after one convolution.

        Each pair stands once: its filter is the same both ways.
        """
        weights = self.filter(basis) * envelope[:, None]
        inward = self.inward(x)
        gathered = scatter(inward.index_select(0, second) * weights, first, len(x))
        gathered = gathered.index_add(0, second, inward.index_select(0, first) * weights)
        change: Tensor = self.outward(gathered)
        return x + change


class SchNet(Network):
    """The network; see ``SchNetSettings``."""

    def __init__(self, shape: SchNetSettings, n_elements: int) -> None:
        super().__init__(n_elements)
        self._cutoff = shape.cutoff
        self.embedding = nn.Parameter(torch.randn(n_elements, shape.features))
        self.basis = GaussianBasis(shape.basis, 0.0, shape.cutoff)
        self.interactions = nn.ModuleList(Interaction(shape) for _ in range(shape.interactions))
        self.readout = mlp((shape.features, shape.features // 2, 1), ShiftedSoftplus)

    def forward(self, graph: Graph) -> Output:
        """Return the energies of a batch."""
        half = half_pairs(graph)
        first, second = graph.centre.index_select(0, half), graph.other.index_select(0, half)
        r = distances(graph).index_select(0, half)
        basis, envelope = self.basis(r), cosine_cutoff(r, self._cutoff)
        x = self.embedding.index_select(0, graph.species)
        for interaction in self.interactions:
            x = interaction(x, first, second, basis, envelope)
        return Output(self.total(self.readout(x)[:, 0], graph))


SCHNET = GraphArchitecture(
    "schnet",
    {
        "small": SchNetSettings(),
        "paper": SchNetSettings(features=128, interactions=5, basis=50),
    },
    SchNet,
    learning_rate=1e-2,
    frozen=(r"^embedding", r"^interactions\.[01]\."),
)
