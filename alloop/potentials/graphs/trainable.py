"""Fitting a graph network: one function of a flat parameter vector, pairs found once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import torch
from torch import Tensor
from torch.func import functional_call

from alloop.potentials.fitting import FrameGroup, Prediction
from alloop.potentials.graphs.graph import Graph, GraphStore
from alloop.potentials.graphs.network import Network, Output, Slopes, differentiate


class GraphTrainable:
    """One graph network as a function of a flat parameter vector; implements ``Trainable``.

    Attributes
    ----------
    network : defines the equations; its own parameters are the start.
    store : the graphs of the set.

    """

    def __init__(
        self,
        network: Network,
        groups: Sequence[FrameGroup],
        elements: tuple[int, ...],
        cutoff: float,
    ) -> None:
        self.network = network
        self.store = GraphStore(groups, elements, cutoff)
        named = dict(network.named_parameters())
        ends = list(accumulate(tensor.numel() for tensor in named.values()))
        starts = [0, *ends[:-1]]
        self.layout = {name: slice(a, b) for name, a, b in zip(named, starts, ends, strict=True)}
        self._shapes = {name: tensor.shape for name, tensor in named.items()}
        self.start = torch.cat([tensor.detach().reshape(-1) for tensor in named.values()])

    def predict(self, parameters: Tensor, frames: Tensor) -> Prediction:
        """Return energies and forces of frames; see ``Trainable.predict``."""
        graph = self.store.graph(frames, parameters.dtype)
        output, slopes = self.evaluate(parameters, graph)
        return Prediction(output.energies, slopes.forces, output.latent_forces, output.penalty)

    def evaluate(self, parameters: Tensor, graph: Graph) -> tuple[Output, Slopes]:
        """Return what the network with these parameters says of any batch.

        The vectors of the graph may depend on parameters: gradients flow through them, too.
        """
        keep = parameters.requires_grad and torch.is_grad_enabled()
        with torch.enable_grad():
            if not graph.vectors.requires_grad:
                graph = replace(graph, vectors=graph.vectors.detach().requires_grad_())
            output: Output = functional_call(self.network, self._views(parameters), (graph,))
            slopes = differentiate(output.energies, graph, create_graph=keep)
        return output, slopes

    def export(self, parameters: Tensor) -> dict[str, Tensor]:
        """Return the weights of a member: parameters by name, and the network's buffers."""
        views = self._views(parameters.detach())
        return {name: views.get(name, t).clone() for name, t in self.network.state_dict().items()}

    def _views(self, parameters: Tensor) -> dict[str, Tensor]:
        parts = parameters.split([shape.numel() for shape in self._shapes.values()])
        return {
            name: part.view(shape)
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }
