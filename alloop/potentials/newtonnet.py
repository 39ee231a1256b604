"""NewtonNet: messages that are the same both ways, and latent forces that obey Newton's laws.

Haghighatlari et al., DOI 10.1039/d2dd00008c; equations are numbered as there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from alloop.potentials.graphs.architecture import GraphArchitecture
from alloop.potentials.graphs.blocks import (
    BesselBasis,
    distances,
    half_pairs,
    mlp,
    polynomial_cutoff,
)
from alloop.potentials.graphs.graph import Graph
from alloop.potentials.graphs.network import Network, Output


@dataclass(frozen=True, slots=True)
class NewtonNetSettings:
    """Shape of a NewtonNet model.

    Attributes
    ----------
    variant : "paper" as published; "v1" as the authors' first code has it: an envelope of power 9
        instead of 7, displacements along the latest force features instead of the accumulated
        ones (equation 13), added to the displacements before (14), and a bias in φ_r.
    features : width of the atom features.
    layers : of message passing.
    basis : Bessel functions of the distance.
    cutoff : Å.

    Raises
    ------
    ValueError
        There is no such variant.

    """

    variant: Literal["paper", "v1"] = "paper"
    features: int = 64
    layers: int = 3
    basis: int = 20
    cutoff: float = 5.0

    def __post_init__(self) -> None:
        if self.variant not in ("paper", "v1"):
            raise ValueError(f"variant is {self.variant!r}, want 'paper' or 'v1'")


@dataclass(frozen=True, slots=True, eq=False)
class _Pairs:
    """What all layers need of the pairs, each of which stands once.

    ``first`` and ``second`` (n_pairs,) are its atoms, ``radial`` (n_pairs, basis + 1) and ``unit``
    (n_pairs, 3) its length and direction.
    """

    first: Tensor
    second: Tensor
    radial: Tensor
    unit: Tensor

    def collect(self, same: Tensor, n_atoms: int) -> Tensor:
        """Sum what both atoms of a pair receive alike, to (n_atoms, ...)."""
        total = same.new_zeros(n_atoms, *same.shape[1:])
        return total.index_add(0, self.first, same).index_add(0, self.second, same)

    def push(self, strength: Tensor, n_atoms: int) -> Tensor:
        """Sum forces that act along pairs and oppositely on their atoms (equation 8).

        ``strength`` is (n_pairs, n), the sum (n_atoms, 3, n).
        """
        pushes = strength[:, None, :] * self.unit[:, :, None]
        total = strength.new_zeros(n_atoms, *pushes.shape[1:])
        total = total.index_add(0, self.first, pushes)
        return total.index_add(0, self.second, pushes, alpha=-1.0)

    def carry(self, weight: Tensor, vectors: Tensor) -> Tensor:
        """Sum the other atom's vectors (n_atoms, 3, n), weighted by ``weight`` (n_pairs, n)."""
        weight = weight[:, None, :]
        to_first = weight * vectors.index_select(0, self.second)
        to_second = weight * vectors.index_select(0, self.first)
        total = torch.zeros_like(vectors).index_add(0, self.first, to_first)
        return total.index_add(0, self.second, to_second)


class _Layer(nn.Module):
    """One layer of message passing, equations 5 to 16."""

    def __init__(self, shape: NewtonNetSettings) -> None:
        super().__init__()
        n = shape.features
        self._v1 = shape.variant == "v1"
        self.radial = nn.Linear(shape.basis + 1, n, bias=False)
        self.atom = mlp((n, n, n))
        # Without bias: a message that fades at the cutoff must leave no force.
        self.strength = nn.Linear(n, 1, bias=False)
        self.force = mlp((n, n, n))
        self.step = _pair_of_layers(n, bias=self._v1)
        self.carry = _pair_of_layers(n, bias=False)
        self.energy = mlp((n, n, n))

    def forward(
        self, a: Tensor, force: Tensor | None, moved: Tensor | None, pairs: _Pairs
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return atom features, force and displacement features, and the strengths of forces.

        ``a`` is (n_atoms, n), both kinds of vector features are (n_atoms, 3, n) and None for 0,
        the strengths (n_pairs, 1).
        """
        phi = self.atom(a)
        message = phi.index_select(0, pairs.first) * phi.index_select(0, pairs.second)
        message = message * self.radial(pairs.radial)
        a = a + pairs.collect(message, len(a))
        strength = self.strength(message)
        gain = pairs.push(self.force(message) * strength, len(a))
        force = gain if force is None else force + gain
        change = self.step(a)[:, None, :] * (gain if self._v1 else force)
        if moved is not None:
            change = change + pairs.carry(self.carry(message), moved)
            if self._v1:
                change = change + moved
        a = a - self.energy(a) * (force * change).sum(1)
        return a, force, change, strength


class NewtonNet(Network):
    """The network; see ``NewtonNetSettings``. Its latent forces are the sums of equation 10."""

    def __init__(self, shape: NewtonNetSettings, n_elements: int) -> None:
        super().__init__(n_elements)
        n = shape.features
        self._cutoff = shape.cutoff
        self._power = 9 if shape.variant == "v1" else 7
        self.embedding = nn.Parameter(torch.randn(n_elements, n))
        self.basis = BesselBasis(shape.basis, shape.cutoff)
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.layers))
        self.readout = mlp((n, n, n // 2, 1))

    def forward(self, graph: Graph) -> Output:
        """Return the energies and the latent forces of a batch."""
        pairs = self._pairs(graph)
        a = self.embedding.index_select(0, graph.species)
        force = moved = None
        strengths = a.new_zeros(len(pairs.first), 1)
        for layer in self.layers:
            a, force, moved, strength = layer(a, force, moved, pairs)
            strengths = strengths + strength
        latent = pairs.push(strengths, graph.n_atoms)[:, :, 0]
        return Output(self.total(self.readout(a)[:, 0], graph), latent)

    def _pairs(self, graph: Graph) -> _Pairs:
        half = half_pairs(graph)
        r = distances(graph).index_select(0, half)
        envelope = polynomial_cutoff(r, self._cutoff, self._power)[:, None]
        return _Pairs(
            first=graph.centre.index_select(0, half),
            second=graph.other.index_select(0, half),
            # (W e + b) e_cut of equation 5 as one product with (e e_cut, e_cut).
            radial=torch.cat([self.basis(r) * envelope, envelope], 1),
            unit=graph.vectors.index_select(0, half) / r[:, None],
        )


def _pair_of_layers(n: int, *, bias: bool) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n, n, bias=bias), nn.SiLU(), nn.Linear(n, n, bias=bias))


NEWTONNET = GraphArchitecture(
    "newtonnet",
    {
        "small": NewtonNetSettings(),
        "paper": NewtonNetSettings(features=128),
        "v1": NewtonNetSettings("v1", features=128),
    },
    NewtonNet,
    learning_rate=4e-3,
    frozen=(r"^embedding", r"^layers\.[01]\."),
)
