"""REANN and EquiREANN: squared sums of orbitals whose coefficients depend on their surroundings.

Zhang, Xia and Jiang, DOI 10.1103/PhysRevLett.127.156002 (REANN); Wu, Xia, Zhang and Jiang, "A
Simple and Efficient Equivariant Message Passing Neural Network Model for Non-Local Potential
Energy Surface" (EquiREANN), whose equations are numbered here.

Where that paper and its program differ, this follows the program: coefficients are corrected,
c ← c + g(ρ), instead of replaced (3); the orbitals that travel are those of the neighbour j, add
up over the iterations and are multiplied by c_j like its own (5); EquiREANN contracts each
iteration in its own way, REANN all alike; contractions differ between angular momenta (6); the
cutoff function is the square of the cosine.

Different from both: networks are plain perceptrons with SiLU. They see ρ relative to its mean and
its spread over a sample of the training frames: without this what comes from afar drowns in ρ, and
fits are slower. Corrections are bounded, c_0 tanh g(ρ) with the first coefficient c_0, so that
iterations do not run away far from the training frames. And if asked to ("all") the energy is read
from the ρ of every iteration.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, combinations_with_replacement, pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from alloop.potentials.graphs.architecture import GraphArchitecture
from alloop.potentials.graphs.blocks import cosine_cutoff, distances, polynomial_cutoff, scatter
from alloop.potentials.graphs.graph import Graph
from alloop.potentials.graphs.network import Network, Output

_FIRST_CENTRE = 0.5
"""Å, of the first radial function; atoms are never closer."""

_FAINTEST = 1e-3
"""Variance of ρ, as a part of the largest, from which on a direction is not amplified further."""

_LEAST_SPREAD = 1e-2
"""Largest variance of ρ, as a part of its squared mean, that is assumed at least."""


@dataclass(frozen=True, slots=True)
class ReannSettings:
    """Shape of a REANN or EquiREANN model.

    Attributes
    ----------
    cutoff : Å.
    l_max : highest angular momentum of the orbitals. EquiREANN needs 2 to see how a symmetric
        group beyond the cutoff is turned.
    gaussians : radial functions of an orbital.
    orbitals : contracted orbitals, the length of the descriptor ρ.
    iterations : how often coefficients and orbitals are renewed, T; 0 is the embedded atom
        neural network.
    width, layers : of the hidden layers of each network.
    coefficient : all c before training, the unit of c. With small ones iterations change little
        at first, with large ones more comes from afar.
    envelope : the cutoff function: "cosine", squared, as published, or "polynomial" of power 6,
        which lets more through from afar.
    readout : "last" reads the energy from the last ρ, as published; "all" adds what other networks
        read from the earlier ones.

    Raises
    ------
    ValueError
        There is no such envelope or readout, or the cutoff is shorter than any bond.

    """

    cutoff: float = 4.0
    l_max: int = 2
    gaussians: int = 8
    orbitals: int = 108
    iterations: int = 2
    width: int = 64
    layers: int = 2
    coefficient: float = 1.0 / 12.0
    envelope: Literal["cosine", "polynomial"] = "cosine"
    readout: Literal["last", "all"] = "all"

    def __post_init__(self) -> None:
        if self.envelope not in ("cosine", "polynomial"):
            raise ValueError(f"envelope is {self.envelope!r}, want 'cosine' or 'polynomial'")
        if self.readout not in ("last", "all"):
            raise ValueError(f"readout is {self.readout!r}, want 'last' or 'all'")
        if self.cutoff <= _FIRST_CENTRE:
            raise ValueError(f"cutoff is {self.cutoff} Å, want more than {_FIRST_CENTRE}")


class ElementNetworks(nn.Module):
    """One perceptron for each element, all of equal shape, for inputs brought to a like scale."""

    mean: Tensor
    whitening: Tensor

    def __init__(self, n_elements: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.weights = nn.ParameterList(
            torch.randn(n_elements, n_in, n_out) / math.sqrt(n_in)
            for n_in, n_out in pairwise(widths)
        )
        self.biases = nn.ParameterList(torch.zeros(n_elements, 1, n) for n in widths[1:])
        # Random first answers have slopes so large that a fit begins with unlearning what it sees.
        nn.init.zeros_(self.weights[-1])
        self.register_buffer("mean", torch.zeros(n_elements, 1, widths[0]))
        self.register_buffer("whitening", torch.eye(widths[0]).repeat(n_elements, 1, 1))

    def forward(self, x: Tensor, belongs: Tensor) -> Tensor:
        """Return what the network of each atom's element makes of its row, (n_atoms, n_out).

        ``belongs`` (n_elements, n_atoms, 1) is 1 for the element of an atom and 0 for others.
        """
        first = self.whitening @ self.weights[0]
        # All networks for all atoms: for few elements that costs less than to sort the atoms.
        h = torch.baddbmm(self.biases[0] - self.mean @ first, x.expand(len(first), *x.shape), first)
        # Slices of a ParameterList are new parameters, which a fit would never move.
        for weight, bias in zip(list(self.weights)[1:], list(self.biases)[1:], strict=True):
            h = torch.baddbmm(bias, nn.functional.silu(h), weight)
        return (h * belongs).sum(0)

    def adapt(self, x: Tensor, belongs: Tensor) -> None:
        """Fix the scale of the inputs by a sample x (n_atoms, n_in), for each element in it."""
        for element, atoms in enumerate(belongs[:, :, 0].bool()):
            if not atoms.any():
                continue
            rows = x[atoms]
            mean = rows.mean(0)
            variances, directions = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
            largest = torch.maximum(variances[-1], _LEAST_SPREAD * mean.square().sum())
            scale = (variances.clamp(min=0.0) + _FAINTEST * largest).rsqrt()
            self.mean[element] = mean
            self.whitening[element] = (directions * scale) @ directions.T


@dataclass(frozen=True, slots=True, eq=False)
class _Pairs:
    """What all iterations need of the pairs.

    ``orbitals`` (n_pairs, n_monomials * gaussians) are φ f_c with the φ of equation 2,
    ``envelope`` (n_pairs, 1) is f_c.
    """

    graph: Graph
    orbitals: Tensor
    envelope: Tensor


class Reann(Network):
    """The network; see ``ReannSettings``. With ``equivariant`` orbitals travel too: EquiREANN."""

    elements: Tensor
    multinomials: Tensor
    by_angle: Tensor
    by_radius: Tensor

    def __init__(self, shape: ReannSettings, n_elements: int, *, equivariant: bool) -> None:
        super().__init__(n_elements)
        self._cutoff, self._polynomial = shape.cutoff, shape.envelope == "polynomial"
        self._equivariant, self._coefficient = equivariant, shape.coefficient
        n, steps = shape.gaussians, shape.iterations
        spacing = (shape.cutoff - _FIRST_CENTRE) / n
        self.centres = nn.Parameter(_FIRST_CENTRE + spacing * torch.arange(n).repeat(n_elements, 1))
        self.exponents = nn.Parameter(torch.full((n_elements, n), 0.5 / spacing**2))
        self.coefficients = nn.Parameter(torch.ones(n_elements, n))
        n_contractions = steps + 1 if equivariant else 1
        self.contractions = nn.Parameter(
            torch.randn(n_contractions, shape.l_max + 1, n, shape.orbitals) / math.sqrt(n)
        )
        widths = [shape.orbitals, *[shape.width] * shape.layers]
        self.updates = nn.ModuleList(
            ElementNetworks(n_elements, [*widths, n]) for _ in range(steps)
        )
        self.readouts = nn.ModuleList(
            ElementNetworks(n_elements, [*widths, 1])
            for _ in range(1 if shape.readout == "last" else steps + 1)
        )
        by_l = [list(combinations_with_replacement(range(3), k)) for k in range(shape.l_max + 1)]
        self._counts = [len(powers) for powers in by_l]
        self._powers = list(chain.from_iterable(by_l))
        weights = torch.tensor([float(_multinomial(power)) for power in self._powers])
        # An orbital is the product of a monomial and a Gaussian. The last two matrices spread the
        # factors over all products: multiplications and sums are fastest in such long rows.
        for name, constant in (
            ("elements", torch.eye(n_elements)),
            ("multinomials", weights),
            ("by_angle", torch.eye(len(weights)).repeat_interleave(n, 1)),
            ("by_radius", torch.eye(n).repeat(1, len(weights))),
        ):
            self.register_buffer(name, constant, persistent=False)

    def forward(self, graph: Graph) -> Output:
        """Return the energies of a batch."""
        belongs = self.elements.index_select(1, graph.species)[:, :, None]
        pairs = self._pairs(graph)
        c = self.coefficients.index_select(0, graph.species)
        psi = self._gather(pairs, c, None)
        travelling = torch.zeros_like(psi)
        densities = [self._density(psi, 0)]
        for t, update in enumerate(self.updates, start=1):
            # Bounded: what is far from the training frames must not grow with every iteration.
            c = c + torch.tanh(update(densities[-1], belongs))
            travelling = travelling + psi
            psi = self._gather(pairs, c, travelling if self._equivariant else None)
            densities.append(self._density(psi, t))
        read = zip(self.readouts, densities[-len(self.readouts) :], strict=True)
        atomic = torch.cat([readout(rho, belongs) for readout, rho in read], 1).sum(1)
        return Output(self.total(atomic, graph))

    @torch.no_grad()
    def calibrate(self, sample: Graph) -> None:
        """Fix the scale of what the networks see by a sample of structures."""
        hooks = [
            module.register_forward_pre_hook(_adapt)
            for module in self.modules()
            if isinstance(module, ElementNetworks)
        ]
        self.double()(replace(sample, vectors=sample.vectors.double()))
        self.to(sample.vectors.dtype)
        for hook in hooks:
            hook.remove()

    def _pairs(self, graph: Graph) -> _Pairs:
        r = distances(graph)
        envelope = (
            polynomial_cutoff(r, self._cutoff, 6)
            if self._polynomial
            else cosine_cutoff(r, self._cutoff).square()
        )[:, None]
        species = graph.species.index_select(0, graph.other)
        centres, exponents = (x.index_select(0, species) for x in (self.centres, self.exponents))
        gaussians = (-exponents * (r[:, None] - centres).square()).exp() * envelope
        axes = graph.vectors.unbind(1)
        monomials: dict[tuple[int, ...], Tensor] = {(): torch.ones_like(r)}
        for power in self._powers[1:]:
            monomials[power] = monomials[power[:-1]] * axes[power[-1]]
        angular = torch.stack(list(monomials.values()), 1)
        return _Pairs(graph, (angular @ self.by_angle) * (gaussians @ self.by_radius), envelope)

    def _gather(self, pairs: _Pairs, c: Tensor, travelling: Tensor | None) -> Tensor:
        """Return ψ (n_atoms, n_monomials * gaussians) by equation 4 or, with orbitals, 5."""
        graph, factors = pairs.graph, c @ self.by_radius
        sent = factors.index_select(0, graph.other) * pairs.orbitals
        if travelling is not None:
            arriving = (factors * travelling).index_select(0, graph.other)
            sent = sent + arriving * pairs.envelope
        return self._coefficient * scatter(sent, graph.centre, graph.n_atoms)

    def _density(self, psi: Tensor, t: int) -> Tensor:
        """Return ρ (n_atoms, orbitals) of ψ (n_atoms, n_monomials * gaussians); equation 6."""
        contractions = self.contractions[t if self._equivariant else 0]
        parts = psi.unflatten(1, (-1, contractions.shape[1])).split(self._counts, 1)
        weights = self.multinomials.split(self._counts)
        squares = [
            weight @ (part @ contraction).square()
            for weight, part, contraction in zip(weights, parts, contractions, strict=True)
        ]
        return torch.stack(squares).sum(0)


def _multinomial(power: tuple[int, ...]) -> int:
    """Return l! / (l_x! l_y! l_z!) of a product of l axes."""
    counts = [math.factorial(power.count(axis)) for axis in range(3)]
    return math.factorial(len(power)) // math.prod(counts)


def _adapt(network: nn.Module, inputs: tuple[Tensor, Tensor]) -> None:
    if isinstance(network, ElementNetworks):
        network.adapt(*inputs)


def _architecture(name: str, *, equivariant: bool) -> GraphArchitecture[ReannSettings]:
    return GraphArchitecture(
        name,
        {
            "small": ReannSettings(),
            "paper": ReannSettings(cutoff=6.0, width=16, readout="last"),
        },
        partial(Reann, equivariant=equivariant),
        learning_rate=5e-3,
        frozen=(r"^(centres|exponents|coefficients|contractions)$", r"^updates\."),
    )


REANN = _architecture("reann", equivariant=False)
EQUIREANN = _architecture("equireann", equivariant=True)
