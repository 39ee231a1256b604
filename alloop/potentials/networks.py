"""The networks of all members for one element, stacked: a few large products instead of many."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alloop.potentials.activations import Activation


@dataclass(frozen=True, slots=True)
class StackedNetworks:
    """Multilayer perceptrons of equal shape, one for each member, with one output.

    Attributes
    ----------
    weights : for each layer (n_members, n_in, n_out).
    biases : for each layer (n_members, 1, n_out).
    averaging : (n_members * n_hidden, n_in), transposed first weights of all members one below
        the other, divided by the number of members.
    activation : applied after every layer but the last.

    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    averaging: Tensor
    activation: Activation

    @classmethod
    def of(
        cls, members: list[list[tuple[Tensor, Tensor]]], activation: Activation
    ) -> StackedNetworks:
        """Stack networks given as layers of (weight (n_out, n_in), bias (n_out,))."""
        layers = list(zip(*members, strict=True))
        weights = tuple(torch.stack([w.t() for w, _ in layer]).contiguous() for layer in layers)
        return cls(
            weights=weights,
            biases=tuple(torch.stack([b[None] for _, b in layer]) for layer in layers),
            averaging=weights[0].transpose(1, 2).flatten(0, 1).contiguous() / len(members),
            activation=activation,
        )

    def values(self, x: Tensor) -> Tensor:
        """Return the outputs for rows ``x`` (n_rows, n_in): (n_members, n_rows)."""
        h = self._first(x)
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            h = torch.baddbmm(bias, self.activation.slope(h)[0], weight)
        return h[:, :, 0]

    def values_and_gradients(self, x: Tensor, *, mean: bool) -> tuple[Tensor, Tensor]:
        """Return the outputs and their gradients by ``x``.

        The gradients are (n_members, n_rows, n_in), or their mean over the members as
        (1, n_rows, n_in), which is cheaper than the mean of the former.
        """
        a = self._first(x)
        slopes = []
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            h, slope = self.activation.slope(a)
            slopes.append(slope)
            a = torch.baddbmm(bias, h, weight)
        delta = self.weights[-1].transpose(1, 2) * slopes[-1]
        for weight, slope in zip(self.weights[-2:0:-1], slopes[-2::-1], strict=True):
            delta = torch.bmm(delta, weight.transpose(1, 2)).mul_(slope)
        if mean:
            return a[:, :, 0], (delta.transpose(0, 1).flatten(1) @ self.averaging)[None]
        return a[:, :, 0], torch.bmm(delta, self.weights[0].transpose(1, 2))

    def _first(self, x: Tensor) -> Tensor:
        weight = self.weights[0]
        return torch.baddbmm(self.biases[0], x.expand(len(weight), *x.shape), weight)
