"""HIP-NN: energies as a sum of ever smaller terms, with tensor sensitivities or without.

Lubbers, Smith and Barros, DOI 10.1063/1.5011181 (HIP-NN); Chigaev et al.,
DOI 10.1063/5.0142127 (HIP-NN-TS, here ``tensor_order`` 1). E⁰, the energy of an atom by its
element alone, is what ``Network.shift`` adds to the energies that a member keeps for its elements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alloop.errors import ModelError
from alloop.potentials.graphs.architecture import GraphArchitecture
from alloop.potentials.graphs.blocks import cosine_cutoff, distances, scatter
from alloop.potentials.graphs.graph import Graph
from alloop.potentials.graphs.network import Network, Output
from alloop.potentials.graphs.rows import Rows, product

_CUSP = 1e-6
"""Added under the root of a squared norm, whose slope is infinite at 0."""
_LEAST_SQUARE = 1e-12
"""Keeps the ratio of the squares of two terms defined where both vanish."""


@dataclass(frozen=True, slots=True)
class HipnnSettings:
    """Shape of a HIP-NN model.

    Attributes
    ----------
    features : width of the atom features.
    interactions : number of interaction blocks, each with an energy term of its own.
    onsite : layers on single atoms in each block, after its interaction layer.
    sensitivities : functions of the distance in each interaction layer.
    shortest, longest : Å, where the first and last of them have their maximum before training;
        between them they are evenly spaced in 1/r.
    tensor_order : 1 for sensitivities that know directions, 0 for distances alone.
    cutoff : Å.

    Raises
    ------
    ModelError
        The tensor order is neither 0 nor 1.

    """

    features: int = 40
    interactions: int = 2
    onsite: int = 1
    sensitivities: int = 16
    shortest: float = 0.75
    longest: float = 4.0
    tensor_order: int = 1
    cutoff: float = 5.0

    def __post_init__(self) -> None:
        if self.tensor_order not in (0, 1):
            raise ModelError(f"tensor_order of a HIP-NN is {self.tensor_order!r}, want 0 or 1")


class Sensitivities(nn.Module):
    """Functions s_ν(r) = exp(-((1/r - 1/μ_ν) σ_ν)² / 2) f_c(r) of all interaction layers.

    f_c is the cosine cutoff; μ (Å) and σ (Å) are learned, each layer has its own.
    """

    def __init__(self, shape: HipnnSettings) -> None:
        super().__init__()
        self._cutoff = shape.cutoff
        n = shape.sensitivities
        places = torch.linspace(1.0 / shape.longest, 1.0 / shape.shortest, n).reciprocal()
        self.centres = nn.Parameter(places.repeat(shape.interactions, 1))
        self.widths = nn.Parameter(torch.full((shape.interactions, n), 2.0 * n * shape.shortest))

    def forward(self, r: Tensor) -> Tensor:
        """Return the functions of distances (n_pairs,) as (n_pairs, interactions, n)."""
        off = (r.reciprocal()[:, None, None] - self.centres.reciprocal()) * self.widths
        return torch.exp(-0.5 * off.square()) * cosine_cutoff(r, self._cutoff)[:, None, None]


class Surroundings:
    """The pairs of a batch as interaction layers sum over them.

    Parameters
    ----------
    graph : the batch.
    n_elements : of the network.
    sensitivities : (n_pairs, interactions, n_sensitivities), s_ν(r_ij) of each layer.
    tensors : (n_pairs, n_tensors), T_ij: 1 and perhaps the components of r̂_ij.

    """

    def __init__(
        self, graph: Graph, n_elements: int, sensitivities: Tensor, tensors: Tensor
    ) -> None:
        self._graph, self._n_elements = graph, n_elements
        self._sensitivities, self._tensors = sensitivities, tensors

    def by_element(self) -> Tensor:
        """Sum T_ij s_ν(r_ij) of the first layer over the neighbours j of each element.

        Returns (n_atoms, n_tensors, n_elements * n_sensitivities).
        """
        graph, n = self._graph, self._n_elements
        products = self._tensors[:, :, None] * self._sensitivities[:, 0, None]
        row = graph.centre * n + graph.species[graph.other]
        sums = scatter(products, row, graph.n_atoms * n)
        return sums.view(graph.n_atoms, n, *products.shape[1:]).transpose(1, 2).flatten(2)

    def by_neighbour(self, layer: int, sent: Tensor) -> Tensor:
        """Sum T_ij s_ν(r_ij) y_jν over neighbours and ν for what atoms send, y (n_atoms, ν, n_out).

        Returns (n_atoms, n_tensors, n_out).
        """
        messages = product(self._sent[layer - 1], sent).flatten(0, 1)
        received = messages.index_select(0, self._source).view(*self._rows, sent.shape[2])
        return product(self._received, received)

    def arrange(self) -> None:
        """Prepare ``by_neighbour``."""
        graph = self._graph
        senders, receivers = Rows(graph.other, graph.n_atoms), Rows(graph.centre, graph.n_atoms)
        self._sent = senders.spread(self._sensitivities[:, 1:]).movedim(2, 0).contiguous()
        self._received = receivers.spread(self._tensors).transpose(1, 2)
        # Free places read any message and give it no weight.
        self._source = torch.zeros(graph.n_atoms * receivers.width, dtype=torch.int64)
        self._source[receivers.place] = senders.place
        self._rows = graph.n_atoms, receivers.width


class Interaction(nn.Module):
    """z_i = Σ_j m_ij + t |Σ_j m_ij r̂_ij| + W x_i + b with m_ij = Σ_ν s_ν(r_ij) V_ν x_j.

    The second term, with t for each feature, is HIP-NN-TS of order 1.
    """

    def __init__(self, n_in: int, n_out: int, shape: HipnnSettings) -> None:
        super().__init__()
        n = shape.sensitivities
        self.weights = nn.Parameter(torch.randn(n_in, n, n_out) / math.sqrt(5.0 * n_in))
        self.itself = nn.Linear(n_in, n_out)
        self.norms = nn.Parameter(torch.randn(n_out)) if shape.tensor_order else None

    def forward(self, x: Tensor, layer: int, around: Surroundings) -> Tensor:
        """Return (n_atoms, n_out) from the features (n_atoms, n_in)."""
        n_in, n, n_out = self.weights.shape
        if layer == 0:
            sums = around.by_element() @ self.weights.view(-1, n_out)
        else:
            sent = x @ self.weights.view(n_in, -1)
            sums = around.by_neighbour(layer, sent.view(-1, n, n_out))
        z: Tensor = self.itself(x) + sums[:, 0]
        if self.norms is None:
            return z
        return z + self.norms * (sums[:, 1:].square().sum(1) + _CUSP).sqrt()


class Residual(nn.Module):
    """x + A softplus(z) + a, with z from a layer on x; D x instead of x where widths differ."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.outward = nn.Linear(n_out, n_out)
        self.adjust = nn.Linear(n_in, n_out, bias=False) if n_in != n_out else None

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Return (n_atoms, n_out) from the input x (n_atoms, n_in) and z (n_atoms, n_out)."""
        change: Tensor = self.outward(nn.functional.softplus(z))
        return change + (x if self.adjust is None else self.adjust(x))


class Block(nn.Module):
    """An interaction layer and layers on single atoms, all residual."""

    def __init__(self, n_in: int, shape: HipnnSettings) -> None:
        super().__init__()
        n = shape.features
        self.interaction = Interaction(n_in, n, shape)
        self.onsite = nn.ModuleList(nn.Linear(n, n) for _ in range(shape.onsite))
        self.residuals = nn.ModuleList(Residual(width, n) for width in (n_in, *[n] * shape.onsite))

    def forward(self, x: Tensor, layer: int, around: Surroundings) -> Tensor:
        """Return (n_atoms, features)."""
        x = self.residuals[0](x, self.interaction(x, layer, around))
        for onsite, residual in zip(self.onsite, self.residuals[1:], strict=True):
            x = residual(x, onsite(x))
        return x


class Hipnn(Network):
    """The network; see ``HipnnSettings``."""

    def __init__(self, shape: HipnnSettings, n_elements: int) -> None:
        super().__init__(n_elements)
        self._n_elements, self._tensors = n_elements, shape.tensor_order == 1
        self.sensitivities = Sensitivities(shape)
        n = shape.features
        self.blocks = nn.ModuleList(
            Block(n if k else n_elements, shape) for k in range(shape.interactions)
        )
        self.readout = nn.ModuleList(nn.Linear(n, 1) for _ in range(shape.interactions))

    def forward(self, graph: Graph) -> Output:
        """Return the energies of a batch, and their non-hierarchicality as the penalty."""
        terms = self.terms(graph)
        return Output(self.total(terms.sum(1), graph), penalty=self._penalty(terms, graph))

    def terms(self, graph: Graph) -> Tensor:
        """Return E_i^n of each atom for n = 1 ... interactions, (n_atoms, interactions).

        They are in units of ``scale``.
        """
        around = self._surroundings(graph)
        x = torch.eye(self._n_elements, dtype=graph.vectors.dtype)[graph.species]
        terms = []
        for layer, (block, readout) in enumerate(zip(self.blocks, self.readout, strict=True)):
            x = block(x, layer, around)
            terms.append(readout(x))
        return torch.cat(terms, 1)

    def _surroundings(self, graph: Graph) -> Surroundings:
        r = distances(graph)
        tensors = torch.ones_like(r)[:, None]
        if self._tensors:
            tensors = torch.cat([tensors, graph.vectors / r[:, None]], 1)
        around = Surroundings(graph, self._n_elements, self.sensitivities(r), tensors)
        if len(self.blocks) > 1:
            around.arrange()
        return around

    def _penalty(self, terms: Tensor, graph: Graph) -> Tensor:
        """Return Σ_i Σ_n (E_i^n)² / ((E_i^n)² + (E_i^(n-1))²) of each structure, n from 2.

        n = 1 would compare with E⁰: total energies of atoms, next to which every term is small.
        ``scale`` cancels.
        """
        squares = terms.square()
        ratios = squares[:, 1:] / (squares[:, 1:] + squares[:, :-1] + _LEAST_SQUARE)
        empty = ratios.new_zeros(graph.n_structures)
        return empty.index_add(0, graph.structure, ratios.sum(1))


HIPNN = GraphArchitecture(
    "hipnn",
    {
        "small": HipnnSettings(),
        "paper": HipnnSettings(
            features=80,
            onsite=3,
            sensitivities=20,
            longest=5.5,
            tensor_order=0,
            cutoff=6.5,
        ),
    },
    Hipnn,
    learning_rate=1e-2,
    frozen=(r"^sensitivities", r"^blocks\.0\."),
)
