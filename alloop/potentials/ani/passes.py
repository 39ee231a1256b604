"""The passes through the networks that give energies, forces and the gradient of a loss of them.

With G = dE/dAEV the forces are F = -Jᵀ G, and J = dAEV/dr never changes. A loss with the slopes
e = dL/dE and f = dL/dF has the parameter gradient of e·E + t·G with t = -J f: one tangent pass
through the networks and one backward pass, and no second derivative of a descriptor.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from alloop.potentials.activations import Activation
from alloop.potentials.ani.descriptors import ForceMap

Network = list[tuple[Tensor, Tensor]]
"""Layers as (weight (n_in, n_out), bias (n_out,))."""


class Pass:
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
            Tape(network, x.flatten(0, 1), function)
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


class Tape:
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
