"""Fitting an ANI member: fixed coordinates make the forces linear in the descriptor gradients.

With G = dE/dAEV the forces are F = -Jᵀ G, and J = dAEV/dr never changes. A loss with the slopes
e = dL/dE and f = dL/dF has the parameter gradient of e·E + t·G with t = -J f: one tangent pass
through the networks and one backward pass, and no second derivative of a descriptor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from ase.data import chemical_symbols
from torch import Tensor
from torch.autograd.function import once_differentiable

from alloop.errors import ModelError
from alloop.potentials.activations import Activation, activation
from alloop.potentials.ani.descriptors import ForceMap, RawGroup, describe, find_scaling
from alloop.potentials.ani.settings import AniSettings, layers
from alloop.potentials.fitting import FrameGroup, Prediction
from alloop.potentials.graphs.graph import ranges
from alloop.potentials.member import Member

INITIAL_GAIN = 0.5
"""Standard deviation of the outputs of a fresh hidden layer for standardised inputs."""
INITIAL_OUTPUT = 0.05
"""The same for the output, an atomic energy in eV."""

Network = list[tuple[Tensor, Tensor]]
"""Layers as (weight (n_in, n_out), bias (n_out,))."""


class AniTrainable:
    """One ANI member as a function of a flat parameter vector; implements ``Trainable``.

    The networks see standardised features: each minus its mean, by its standard deviation over
    the training frames. This is folded into the first layer when weights are exported. Features
    that no training frame has keep their first weights, so that members disagree about
    environments they have never seen.

    Raises
    ------
    ModelError
        ``start`` has other elements or another shape.

    """

    def __init__(
        self,
        groups: Sequence[FrameGroup],
        elements: tuple[int, ...],
        settings: AniSettings,
        atom_energies: Mapping[int, float],
        *,
        seed: int,
        start: Member | None,
    ) -> None:
        self._elements = elements
        self._activation = activation(settings.activation)
        raw = [RawGroup.of(group, elements, settings.aev) for group in groups]
        self._scaling = find_scaling(raw)
        self._descriptors = describe(raw, self._scaling)
        if start is None:
            full = _fresh(elements, settings, seed)
        else:
            full = self._continued(start, settings, atom_energies)
        self._first = [network[0][0] for network in full]
        for network, s in zip(full, self._scaling, strict=True):
            network[0] = (network[0][0][s.active], network[0][1])
        self.trained = torch.cat(
            [
                mask.reshape(-1)
                for network, s in zip(full, self._scaling, strict=True)
                for mask in _trained_weights(network, s.trained)
            ]
        )
        self._shapes = [tensor.shape for net in full for layer in net for tensor in layer]
        ends = list(accumulate(shape.numel() for shape in self._shapes))
        names = settings.shapes(elements)
        self.layout = {
            name: slice(end - shape.numel(), end)
            for name, shape, end in zip(names, self._shapes, ends, strict=True)
        }
        n_frames = sum(len(group.index) for group in groups)
        self._group = torch.zeros(n_frames, dtype=torch.int64)
        self._row = torch.zeros(n_frames, dtype=torch.int64)
        for number, group in enumerate(groups):
            self._group[group.index] = number
            self._row[group.index] = torch.arange(len(group.index))
        self._n_atoms = torch.tensor([len(group.numbers) for group in groups])
        self._n_layers = [len(network) for network in full]
        self.start = torch.cat([t.reshape(-1) for net in full for layer in net for t in layer])

    def predict(self, parameters: Tensor, frames: Tensor) -> Prediction:
        """Return energies and forces of frames; see ``Trainable.predict``."""
        groups = self._group[frames]
        energies, forces, places, atoms = [], [], [], []
        lengths = self._n_atoms[groups]
        first = lengths.cumsum(0) - lengths
        for group in groups.unique().tolist():
            place = (groups == group).nonzero()[:, 0]
            energy, force = self.predict_group(parameters, group, self._row[frames[place]])
            energies.append(energy)
            forces.append(force.flatten(0, 1))
            places.append(place)
            atoms.append(ranges(first[place], lengths[place]))
        if len(places) == 1:
            return Prediction(energies[0], forces[0])
        return Prediction(
            torch.cat(energies)[torch.argsort(torch.cat(places))],
            torch.cat(forces)[torch.argsort(torch.cat(atoms))],
        )

    def predict_group(
        self, parameters: Tensor, group: int, frames: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return energies (k,) and forces (k, n_atoms, 3) of k frames of one group."""
        energies: Tensor
        forces: Tensor
        if parameters.requires_grad and torch.is_grad_enabled():
            energies, forces = _Predict.apply(  # type: ignore[no-untyped-call]
                parameters, self, group, frames
            )
        else:
            run = self.forward(parameters, group, frames)
            energies, forces = run.energies, run.forces
        return energies, forces

    def forward(self, parameters: Tensor, group: int, frames: Tensor) -> _Pass:
        """Return energies, forces and what their gradient needs."""
        descriptors = self._descriptors[group]
        return _Pass(
            self._networks(parameters),
            descriptors.inputs(frames),
            descriptors.force_map(frames),
            self._activation,
        )

    def export(self, parameters: Tensor) -> dict[str, Tensor]:
        """Return the weights of a member that takes features as they are."""
        weights = {}
        networks = self._networks(parameters.detach())
        for z, network, whole, s in zip(
            self._elements, networks, self._first, self._scaling, strict=True
        ):
            first, bias = network[0]
            whole = whole.index_copy(0, s.active, first) / s.deviation[:, None]
            network[0] = (whole, bias - s.mean @ whole)
            for k, (weight, bias) in enumerate(network):
                weights[f"{chemical_symbols[z]}.{k}.weight"] = weight.t().contiguous()
                weights[f"{chemical_symbols[z]}.{k}.bias"] = bias.clone()
        return weights

    def _networks(self, parameters: Tensor) -> list[Network]:
        """Cut the flat vector into the layers of each element."""
        parts = iter(parameters.split([shape.numel() for shape in self._shapes]))
        shapes = iter(self._shapes)
        return [
            [
                (next(parts).view(next(shapes)), next(parts).view(next(shapes)))
                for _ in range(n_layers)
            ]
            for n_layers in self._n_layers
        ]

    def _continued(
        self, start: Member, settings: AniSettings, atom_energies: Mapping[int, float]
    ) -> list[Network]:
        """Return the layers of a member as they act on standardised features."""
        if start.elements != self._elements or AniSettings.from_plain(start.settings) != settings:
            raise ModelError(
                "a member can only be continued with the elements and the shape it has:"
                f" it describes the elements {start.elements}, wanted are {self._elements};"
                " train from scratch, or keep its settings"
            )
        networks = []
        for z, s in zip(self._elements, self._scaling, strict=True):
            network = [(w.t().clone(), b.clone()) for w, b in layers(start, z)]
            weight, bias = network[0]
            network[0] = (weight * s.deviation[:, None], bias + s.mean @ weight)
            weight, bias = network[-1]
            network[-1] = (weight, bias + (start.atom_energies[z] - atom_energies[z]))
            networks.append(network)
        return networks


class _Pass:
    """One forward pass over k frames, with the gradient of a loss by the weights."""

    def __init__(
        self,
        networks: Sequence[Network],
        inputs: Sequence[Tensor],
        force_map: ForceMap,
        function: Activation,
    ) -> None:
        n_frames = len(inputs[0])
        self._force_map = force_map
        self._tapes = [
            _Tape(network, x.flatten(0, 1), function)
            for network, x in zip(networks, inputs, strict=True)
        ]
        self.energies = sum(
            (
                tape.output.view(x.shape[:2]).sum(1)
                for tape, x in zip(self._tapes, inputs, strict=True)
            ),
            start=inputs[0].new_zeros(n_frames),
        )
        slopes = [
            tape.input_gradient().view(x.shape) for tape, x in zip(self._tapes, inputs, strict=True)
        ]
        self.forces = -force_map.pull(slopes)

    def gradient(self, by_energies: Tensor, by_forces: Tensor) -> Tensor:
        """Return the flat gradient of a loss with slopes dL/dE (k,) and dL/dF (k, n_atoms, 3)."""
        tangents = self._force_map.push(-by_forces)
        parts = []
        for tape, tangent in zip(self._tapes, tangents, strict=True):
            by_output = by_energies.repeat_interleave(tangent.shape[1])[:, None]
            gradients = tape.weight_gradients(by_output, tangent.flatten(0, 1))
            parts += [g.reshape(-1) for g in gradients]
        return torch.cat(parts)


class _Tape:
    """The passes of one element's network: values up, slopes down, tangents up, slopes down.

    ``values[k]`` enters layer k, ``delta[k]`` is dE/d(what layer k gives) and ``upstream[k]``
    the same after the activation, all (n_rows, width).
    """

    def __init__(self, network: Network, x: Tensor, function: Activation) -> None:
        self._weights = [weight for weight, _ in network]
        self._values, self._slopes, self._curvatures = [x], [], []
        self._delta: list[Tensor] = []
        self._upstream: list[Tensor] = []
        for weight, bias in network[:-1]:
            value, slope, curvature = function.curvature(
                torch.addmm(bias, self._values[-1], weight)
            )
            self._values.append(value)
            self._slopes.append(slope)
            self._curvatures.append(curvature)
        weight, bias = network[-1]
        self.output = torch.addmm(bias, self._values[-1], weight)

    def input_gradient(self) -> Tensor:
        """Return d(output)/dx of every row."""
        upstream = self._weights[-1].t()
        for weight, slope in zip(self._weights[-2::-1], self._slopes[::-1], strict=True):
            self._upstream.insert(0, upstream)
            self._delta.insert(0, upstream * slope)
            upstream = self._delta[0] @ weight.t()
        return upstream

    def weight_gradients(self, by_output: Tensor, tangent: Tensor) -> list[Tensor]:
        """Return the gradients of by_output · output + tangent · input_gradient.

        In the order weight, bias, layer by layer. ``by_output`` is (n_rows, 1).
        """
        tangents, rates = [tangent], []
        for weight, slope in zip(self._weights, self._slopes, strict=False):
            rates.append(tangents[-1] @ weight)
            tangents.append(rates[-1] * slope)
        top = self._values[-1].t() @ by_output + tangents[-1].sum(0)[:, None]
        gradients = [top, by_output.sum(0)]
        upstream = by_output * self._weights[-1].t()
        for k in reversed(range(len(self._slopes))):
            inner = upstream * self._slopes[k]
            inner += rates[k] * self._upstream[k] * self._curvatures[k]
            weight = self._values[k].t() @ inner
            weight.addmm_(tangents[k].t(), self._delta[k])
            gradients[:0] = [weight, inner.sum(0)]
            if k:
                upstream = inner @ self._weights[k].t()
        return gradients


def _trained_weights(network: Network, trained_features: Tensor) -> list[Tensor]:
    """Return 1 for every weight that may change and 0 for those of unseen features."""
    masks = [torch.ones_like(tensor) for layer in network for tensor in layer]
    masks[0] *= trained_features[:, None]
    return masks


class _Predict(torch.autograd.Function):
    """Energies and forces with the hand-written gradient of ``_Pass``."""

    @staticmethod
    def forward(
        ctx: Any,
        parameters: Tensor,
        model: AniTrainable,
        group: int,
        frames: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.run = run = model.forward(parameters, group, frames)
        ctx.trained = model.trained
        energies, forces = run.energies, run.forces
        # Outputs know their context: kept in it, the two would keep each other alive for ever.
        del run.energies, run.forces
        return energies, forces

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,
        by_energies: Tensor,
        by_forces: Tensor,
    ) -> tuple[Tensor, None, None, None]:
        return ctx.run.gradient(by_energies, by_forces) * ctx.trained, None, None, None


def _fresh(elements: tuple[int, ...], settings: AniSettings, seed: int) -> list[Network]:
    """Draw the layers of each element for standardised features."""
    generator = torch.Generator().manual_seed(seed)
    n_features = settings.aev.n_features(len(elements))
    networks = []
    for hidden in settings.hidden:
        network = []
        for n_in, n_out in pairwise((n_features, *hidden, 1)):
            gain = INITIAL_OUTPUT if n_out == 1 else INITIAL_GAIN
            weight = torch.randn(n_in, n_out, generator=generator) * (gain / math.sqrt(n_in))
            network.append((weight, torch.zeros(n_out)))
        networks.append(network)
    return networks
