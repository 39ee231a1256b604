"""EGNN of dynamic training: messages from distances in random Fourier features.

Žugec et al., "Dynamic Training Enhances Machine Learning Potentials for Long-Lasting Molecular
Dynamics", J. Chem. Inf. Model. (2025), whose equations are numbered here. Despite its name it
knows distances alone. Layers, normalisation and the residual update, which the paper leaves open,
follow its count of parameters and its program.

As published it is not smooth and not extensive: pairs appear at the cutoff with full weight, the
readout has kinks, and it acts on the sum over all atoms. ``envelope``, ``readout`` "atomic" and
``activation`` "silu" mend that, and every size but "paper" has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from alloop.errors import ModelError
from alloop.potentials.graphs.architecture import GraphArchitecture
from alloop.potentials.graphs.blocks import distances, mlp, polynomial_cutoff, scatter
from alloop.potentials.graphs.graph import Graph
from alloop.potentials.graphs.network import Network, Output

Readout = Literal["sum_of_features", "atomic"]
Activation = Literal["relu", "silu"]

_ENVELOPE_POWER = 6


@dataclass(frozen=True, slots=True)
class EgnnSettings:
    """Shape of an EGNN model.

    Attributes
    ----------
    features : width of the atom features.
    layers : of message passing.
    frequencies : random Fourier frequencies; each gives a sine and a cosine.
    sigma : standard deviation of the frequencies, 1/Å.
    readout : "atomic" sums energies of atoms; "sum_of_features" makes one energy of the sum of all
        atom features, so that two molecules far apart have another energy than each alone.
    activation : of the readout. With "relu" forces have jumps.
    envelope : whether messages fade out towards the cutoff. Without it energies jump there.
    normalise : whether layer normalisation follows each linear map of the messages and updates;
        it takes most of the time of a training step.
    cutoff : Å.

    Raises
    ------
    ModelError
        The readout or its activation is none of those.

    """

    features: int = 64
    layers: int = 3
    frequencies: int = 32
    sigma: float = 1.5
    readout: Readout = "atomic"
    activation: Activation = "silu"
    envelope: bool = True
    normalise: bool = False
    cutoff: float = 5.0

    def __post_init__(self) -> None:
        for name, known in (("readout", get_args(Readout)), ("activation", get_args(Activation))):
            if getattr(self, name) not in known:
                wanted = " or ".join(repr(one) for one in known)
                raise ModelError(f"{name} of an EGNN is {getattr(self, name)!r}, want {wanted}")

    @property
    def smooth(self) -> bool:
        """Whether energies and forces are continuous."""
        return self.envelope and self.activation == "silu"

    @property
    def extensive(self) -> bool:
        """Whether the energy of molecules far apart is the sum of theirs."""
        return self.readout == "atomic"


class FourierFeatures(nn.Module):
    """[sin b_k r, cos b_k r] with b_k from a normal distribution; equation 3.

    The frequencies are drawn with the first weights, never trained and stored with them.
    """

    frequencies: Tensor

    def __init__(self, n: int, sigma: float) -> None:
        super().__init__()
        self.register_buffer("frequencies", sigma * torch.randn(n))

    def forward(self, r: Tensor) -> Tensor:
        """Return (n_pairs, 2 n) for distances (n_pairs,)."""
        phase = r[:, None] * self.frequencies
        return torch.cat([torch.sin(phase), torch.cos(phase)], 1)


def _after(width: int, *, normalise: bool) -> list[nn.Module]:
    """Return what follows each linear map of messages and updates."""
    return [nn.LayerNorm(width), nn.SiLU()] if normalise else [nn.SiLU()]


class Layer(nn.Module):
    """h_i + Φ'(h_i, Σ_j Φ(h_i, h_j, φ(r_ij)) f(r_ij)); equations 4 to 6, f is the envelope.

    The first linear map of Φ is a sum of three: two of them act on atoms before they meet in pairs.
    """

    def __init__(self, shape: EgnnSettings) -> None:
        super().__init__()
        n = shape.features
        self.to_centre = nn.Linear(n, n)
        self.to_other = nn.Linear(n, n, bias=False)
        self.to_pair = nn.Linear(2 * shape.frequencies, n, bias=False)
        after = partial(_after, n, normalise=shape.normalise)
        self.message = nn.Sequential(*after(), nn.Linear(n, n), *after())
        self.update = nn.Sequential(nn.Linear(2 * n, n), *after(), nn.Linear(n, n), *after())

    def forward(self, h: Tensor, graph: Graph, waves: Tensor, envelope: Tensor | None) -> Tensor:
        """Return the features (n_atoms, features) after one exchange of messages."""
        pairs = self.to_pair(waves)
        pairs = pairs + self.to_centre(h).index_select(0, graph.centre)
        pairs = pairs + self.to_other(h).index_select(0, graph.other)
        messages = self.message(pairs)
        if envelope is not None:
            messages = messages * envelope
        received = scatter(messages, graph.centre, graph.n_atoms)
        change: Tensor = self.update(torch.cat([h, received], 1))
        return h + change


class Egnn(Network):
    """The network; see ``EgnnSettings``."""

    def __init__(self, shape: EgnnSettings, n_elements: int) -> None:
        super().__init__(n_elements)
        self._shape, n = shape, shape.features
        self.embedding = nn.Linear(n_elements, n)
        self.waves = FourierFeatures(shape.frequencies, shape.sigma)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.readout = mlp((n, n, 1), nn.ReLU if shape.activation == "relu" else nn.SiLU)

    def forward(self, graph: Graph) -> Output:
        """Return the energies of a batch."""
        r = distances(graph)
        waves, envelope = self.waves(r), None
        if self._shape.envelope:
            envelope = polynomial_cutoff(r, self._shape.cutoff, _ENVELOPE_POWER)[:, None]
        h = self.embedding.weight.t()[graph.species] + self.embedding.bias
        for layer in self.layers:
            h = layer(h, graph, waves, envelope)
        return Output(self.total(self._atomic(h, graph), graph))

    def _atomic(self, h: Tensor, graph: Graph) -> Tensor:
        """Return the energies of atoms; their equal share where all atoms have one together."""
        if self._shape.readout == "atomic":
            energies: Tensor = self.readout(h)[:, 0]
            return energies
        together: Tensor = self.readout(scatter(h, graph.structure, graph.n_structures))[:, 0]
        n_atoms = torch.bincount(graph.structure, minlength=graph.n_structures)
        return (together / n_atoms)[graph.structure]


EGNN = GraphArchitecture(
    "egnn",
    {
        "small": EgnnSettings(),
        "smooth": EgnnSettings(features=128, frequencies=256, sigma=4.0, normalise=True),
        "paper": EgnnSettings(
            features=128,
            frequencies=256,
            sigma=4.0,
            normalise=True,
            readout="sum_of_features",
            activation="relu",
            envelope=False,
        ),
    },
    Egnn,
    learning_rate=3e-3,
    frozen=(r"^embedding", r"^layers\.[01]\."),
)
