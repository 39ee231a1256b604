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
from alloop.potentials.graphs.blocks import cosine_cutoff, distances
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


class Surroundings:
    """The pairs of a batch in rows, one for each atom; free places hold zeros.

    Attributes
    ----------
    received, sent : 1/r and f_c(r), both (n_atoms, width, 1), in the rows of the atoms that
        receive and of those that send; f_c is the cosine cutoff.
    tensors : (n_atoms, n_tensors, width), 1 and perhaps the components of r̂_ij, as received.
    tensors_by_element : (n_atoms, n_tensors * n_elements, width), the same where the sender is of
        an element, 0 elsewhere.

    """

    def __init__(self, graph: Graph, shape: HipnnSettings, n_elements: int) -> None:
        senders, receivers = Rows(graph.other, graph.n_atoms), Rows(graph.centre, graph.n_atoms)
        r = distances(graph)
        radial = torch.stack([r.reciprocal(), cosine_cutoff(r, shape.cutoff)], 1)
        self.received = receivers.spread(radial).split(1, -1)
        self.sent = senders.spread(radial).split(1, -1)
        tensors = torch.ones_like(r)[:, None]
        if shape.tensor_order:
            tensors = torch.cat([tensors, graph.vectors / r[:, None]], 1)
        elements = torch.eye(n_elements, dtype=r.dtype)[graph.species[graph.other]]
        self.tensors = receivers.spread(tensors).transpose(1, 2)
        by_element = (tensors[:, :, None] * elements[:, None]).flatten(1)
        self.tensors_by_element = receivers.spread(by_element).transpose(1, 2)
        # Free places read any message and give it no weight.
        self._source = torch.zeros(graph.n_atoms * receivers.width, dtype=torch.int64)
        self._source[receivers.place] = senders.place

    def deliver(self, messages: Tensor) -> Tensor:
        """Return messages (n_atoms, width, n) of the rows of senders in the rows of receivers."""
        n_atoms, width = self.received[0].shape[:2]
        there = messages.flatten(0, 1).index_select(0, self._source)
        return there.view(n_atoms, width, messages.shape[2])


class Sensitivities(nn.Module):
    """Functions s_ν(r) = exp(-((1/r - 1/μ_ν) σ_ν)² / 2) f_c(r); μ and σ (Å) are learned."""

    def __init__(self, shape: HipnnSettings) -> None:
        super().__init__()
        n = shape.sensitivities
        places = torch.linspace(1.0 / shape.longest, 1.0 / shape.shortest, n)
        self.centres = nn.Parameter(places.reciprocal())
        # As wide as they are apart, about twice the authors' choice: learns faster, measured.
        apart = (1.0 / shape.shortest - 1.0 / shape.longest) / max(n - 1, 1)
        self.widths = nn.Parameter(torch.full((n,), 1.0 / apart))

    def forward(self, inverse: Tensor, cutoff: Tensor) -> Tensor:
        """Return (..., n) from 1/r and f_c(r), both (..., 1)."""
        off = torch.addcmul(-self.widths / self.centres, inverse, self.widths)
        return torch.exp(-0.5 * off.square()) * cutoff


class Interaction(nn.Module):
    """z_i = Σ_j m_ij + t |Σ_j m_ij r̂_ij| + W x_i + b with m_ij = Σ_ν s_ν(r_ij) V_ν x_j.

    The second term, with t for each feature, is HIP-NN-TS of order 1.
    """

    def __init__(self, n_in: int, n_out: int, shape: HipnnSettings) -> None:
        super().__init__()
        n = shape.sensitivities
        self.sensitivities = Sensitivities(shape)
        self.weights = nn.Parameter(torch.randn(n_in, n, n_out) / math.sqrt(2.0 * n_in))
        self.itself = nn.Linear(n_in, n_out)
        self.norms = nn.Parameter(torch.randn(n_out)) if shape.tensor_order else None

    def forward(self, x: Tensor, around: Surroundings) -> Tensor:
        """Return (n_atoms, n_out) from the features (n_atoms, n_in)."""
        z: Tensor = self.itself(x)
        sums = self.sums(x, around)
        if self.norms is None:
            return z + sums[:, 0]
        parts: tuple[Tensor, ...] = sums.split((1, 3), 1)
        return z + parts[0][:, 0] + self.norms * (parts[1].square().sum(1) + _CUSP).sqrt()

    def sums(self, x: Tensor, around: Surroundings) -> Tensor:
        """Return Σ_j m_ij and, of order 1, Σ_j m_ij r̂_ij, (n_atoms, 1 or 4, n_out)."""
        n_in, n, n_out = self.weights.shape
        sent = (x @ self.weights.view(n_in, n * n_out)).view(-1, n, n_out)
        messages = product(self.sensitivities(*around.sent), sent)
        return product(around.tensors, around.deliver(messages))


class FirstInteraction(Interaction):
    """The same where x_j is 1 for the element of j and else 0.

    Sensitivities are summed over the neighbours of each element before they are multiplied by V.
    """

    def sums(self, x: Tensor, around: Surroundings) -> Tensor:
        """Return what ``Interaction.sums`` does."""
        n_elements, n, n_out = self.weights.shape
        sums = product(around.tensors_by_element, self.sensitivities(*around.received))
        rows = sums.view(-1, n_elements * n) @ self.weights.view(n_elements * n, n_out)
        return rows.view(len(x), -1, n_out)


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

    def __init__(self, interaction: Interaction, shape: HipnnSettings) -> None:
        super().__init__()
        n, n_in = shape.features, len(interaction.weights)
        self.interaction = interaction
        self.onsite = nn.ModuleList(nn.Linear(n, n) for _ in range(shape.onsite))
        self.residuals = nn.ModuleList(Residual(width, n) for width in (n_in, *[n] * shape.onsite))

    def forward(self, x: Tensor, around: Surroundings) -> Tensor:
        """Return (n_atoms, features)."""
        x = self.residuals[0](x, self.interaction(x, around))
        for onsite, residual in zip(self.onsite, self.residuals[1:], strict=True):
            x = residual(x, onsite(x))
        return x


class Hipnn(Network):
    """The network; see ``HipnnSettings``."""

    def __init__(self, shape: HipnnSettings, n_elements: int) -> None:
        super().__init__(n_elements)
        self._shape, self._n_elements, n = shape, n_elements, shape.features
        first = FirstInteraction(n_elements, n, shape)
        later = [Interaction(n, n, shape) for _ in range(shape.interactions - 1)]
        self.blocks = nn.ModuleList(Block(layer, shape) for layer in (first, *later))
        self.readout = nn.ModuleList(nn.Linear(n, 1) for _ in self.blocks)

    def forward(self, graph: Graph) -> Output:
        """Return the energies of a batch, and their non-hierarchicality as the penalty."""
        terms = self.terms(graph)
        return Output(self.total(terms.sum(1), graph), penalty=self._penalty(terms, graph))

    def terms(self, graph: Graph) -> Tensor:
        """Return E_i^n of each atom for n = 1 ... interactions, (n_atoms, interactions).

        They are in units of ``scale``.
        """
        around = Surroundings(graph, self._shape, self._n_elements)
        x = torch.eye(self._n_elements, dtype=graph.vectors.dtype)[graph.species]
        terms = []
        for block, readout in zip(self.blocks, self.readout, strict=True):
            x = block(x, around)
            terms.append(readout(x))
        return torch.cat(terms, 1)

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
    frozen=(r"^blocks\.0\.",),
)
