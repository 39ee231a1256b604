"""An ANI member as a network on graphs, which can be differentiated in any way.

Slower than the hand-written slopes of :mod:`alloop.potentials.ani.committee`, made of the same
terms.
"""

from __future__ import annotations

import torch
from ase.data import chemical_symbols
from torch import Tensor, nn

from alloop.potentials.activations import Activation, activation
from alloop.potentials.ani.aev import features
from alloop.potentials.ani.settings import AniSettings, layers
from alloop.potentials.ani.terms import environments
from alloop.potentials.graphs.graph import Graph
from alloop.potentials.graphs.network import Network, Output
from alloop.potentials.member import Member
from alloop.potentials.neighbours import Pairs


class AniNetwork(Network):
    """The network of a member; its parameters have the names of the member's weights.

    What an ANI network gives for an atom is its energy: ``scale`` is 1 and ``shift`` 0, and both
    are constants. The vectors of a graph beyond the radial cutoff count nothing.
    """

    def __init__(self, member: Member, dtype: torch.dtype) -> None:
        n_elements = len(member.elements)
        super().__init__(n_elements)
        del self.scale, self.shift
        self.register_buffer("scale", torch.ones(n_elements, dtype=dtype), persistent=False)
        self.register_buffer("shift", torch.zeros(n_elements, dtype=dtype), persistent=False)
        self._settings = AniSettings.from_plain(member.settings)
        self._activation = activation(self._settings.activation)
        self._symbols = [chemical_symbols[z] for z in member.elements]
        for symbol, z in zip(self._symbols, member.elements, strict=True):
            linear = [
                _Linear(weight.to(dtype), bias.to(dtype)) for weight, bias in layers(member, z)
            ]
            self.add_module(symbol, nn.ModuleList(linear))

    def forward(self, graph: Graph) -> Output:
        """Return the energies of a batch."""
        species = graph.species
        by_element = torch.argsort(species, stable=True)
        rows = torch.empty_like(by_element)
        rows[by_element] = torch.arange(len(species), device=species.device)
        # Triples are sought among pairs that are sorted by centre.
        order = torch.argsort(graph.centre, stable=True)
        env = environments(
            Pairs(graph.centre[order], graph.other[order], graph.vectors[order]),
            species,
            rows,
            len(self._symbols),
            self._settings.aev,
            graph.vectors.dtype,
        )
        counts = torch.bincount(species, minlength=len(self._symbols)).tolist()
        blocks = features(env).split(counts)
        atomic = [
            _perceptron(self.get_submodule(symbol), x, self._activation)
            for symbol, x in zip(self._symbols, blocks, strict=True)
        ]
        return Output(self.total(torch.cat(atomic)[rows], graph))


class _Linear(nn.Module):
    """A layer with the weights it is given: torch's own draws some first."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.weight.t())


def _perceptron(linear: nn.Module, x: Tensor, function: Activation) -> Tensor:
    """Return the output of each row of ``x``, (n_rows,)."""
    *hidden, last = linear.children()
    for layer in hidden:
        x = function.slope(layer(x))[0]
    output: Tensor = last(x)
    return output[:, 0]
