"""Fitting an ANI member: fixed coordinates make the forces linear in the descriptor gradients."""

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
from alloop.potentials.activations import activation
from alloop.potentials.ani.descriptors import RawGroup, describe, find_scaling
from alloop.potentials.ani.passes import Network, Pass
from alloop.potentials.ani.settings import AniSettings, layers
from alloop.potentials.fitting import FrameGroup, Prediction
from alloop.potentials.graphs.graph import ranges
from alloop.potentials.member import Member

INITIAL_GAIN = 0.5
"""Standard deviation of the outputs of a fresh hidden layer for standardised inputs."""
INITIAL_OUTPUT = 0.05
"""The same for the output, an atomic energy in eV."""


class AniTrainable:
    """One ANI member as a function of a flat parameter vector; implements ``Trainable``.

    The networks see standardised features: each minus its mean, by its standard deviation over
    the training frames. This is folded into the first layer when weights are exported: a first
    layer whose weights and biases both stay as they are comes out as it went in, but for rounding.
    Features that no training frame has keep their first weights, so that members disagree about
    environments they have never seen; so do networks of elements that no training frame has.

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
        self._unseen = {} if start is None else self._weights_unseen(start, raw, atom_energies)
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

    def forward(self, parameters: Tensor, group: int, frames: Tensor) -> Pass:
        """Return energies, forces and what their gradient needs."""
        descriptors = self._descriptors[group]
        return Pass(
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
        return weights | self._unseen

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
            network = [(w.t().float().clone(), b.float().clone()) for w, b in layers(start, z)]
            weight, bias = network[0]
            network[0] = (weight * s.deviation[:, None], bias + s.mean @ weight)
            weight, bias = network[-1]
            network[-1] = (weight, bias + (start.atom_energies[z] - atom_energies[z]))
            networks.append(network)
        return networks

    def _weights_unseen(
        self, start: Member, raw: Sequence[RawGroup], atom_energies: Mapping[int, float]
    ) -> dict[str, Tensor]:
        """Return the weights of elements without a training atom: a fit could only spoil them."""
        seen = {z for r in raw if bool(r.group.training.any()) for z in r.group.numbers}
        weights = {}
        for z in set(self._elements) - seen:
            *hidden, (weight, bias) = layers(start, z)
            network = [*hidden, (weight, bias + (start.atom_energies[z] - atom_energies[z]))]
            for k, layer in enumerate(network):
                weights[f"{chemical_symbols[z]}.{k}.weight"] = layer[0].clone()
                weights[f"{chemical_symbols[z]}.{k}.bias"] = layer[1].clone()
        return weights


def _trained_weights(network: Network, trained_features: Tensor) -> list[Tensor]:
    """Return 1 for every weight that may change and 0 for those of unseen features."""
    masks = [torch.ones_like(tensor) for layer in network for tensor in layer]
    masks[0] *= trained_features[:, None]
    return masks


class _Predict(torch.autograd.Function):
    """Energies and forces with the hand-written gradient of ``Pass``."""

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
