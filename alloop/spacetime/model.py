"""A 4D-spacetime model: internal coordinates as an explicit function of a start and of time.

After GICnet (Ge, Zhang, Hou, Chen, Ullah, Dral 2023, doi:10.1021/acs.jpclett.3c01592), with two
changes: the start alone enters the networks, which give coefficients of functions of time, so that
one pass serves all times and derivatives are exact; and the part that is quadratic in the start is
solved for in closed form, which leaves the networks the rest.

    q(t) = q0 + q0' t + sum_k c_k(q0, q0') g_k(t),   g_k(0) = g_k'(0) = 0
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from alloop.spacetime import features
from alloop.spacetime.basis import TimeBasis
from alloop.spacetime.coordinates.protocol import Coordinates
from alloop.spacetime.isomers import Isomers


@dataclass(frozen=True, slots=True, eq=False)
class SpacetimeModel:
    """An ensemble of networks on a common polynomial, evaluated as one batched tensor program.

    Attributes
    ----------
    numbers : atomic numbers.
    masses : (n_atoms,) float64, amu.
    internal : the internal coordinates.
    isomers : the one that the model knows, and how others are brought there.
    basis : the functions of time; its cutoff is the longest time the model predicts, fs.
    feature_mean, feature_scale : (n_features,) float64, by which features are normalised.
    polynomial : (n_terms, n_coordinates * basis.size) float32, common to all members.
    coefficient_scale : (n_coordinates, basis.size) float32, unit of the networks' outputs.
    weights, biases : of each layer (n_members, n_in, n_out) and (n_members, 1, n_out) float32.
    metadata : what its maker wants remembered, plain JSON values.

    """

    numbers: tuple[int, ...]
    masses: Tensor
    internal: Coordinates
    isomers: Isomers
    basis: TimeBasis
    feature_mean: Tensor
    feature_scale: Tensor
    polynomial: Tensor
    coefficient_scale: Tensor
    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    metadata: Mapping[str, object]

    @property
    def cutoff(self) -> float:
        """Longest time after a start that the model predicts, fs."""
        return self.basis.cutoff

    @property
    def n_members(self) -> int:
        """Number of networks."""
        return len(self.weights[0])

    def coefficients(self, coordinates: Tensor, rates: Tensor) -> Tensor:
        """Return (n_members, n_starts, n_coordinates, basis.size) for starts (n_starts, ...)."""
        inputs = self.normalised(coordinates, rates)
        common = features.polynomial(self.internal, inputs) @ self.polynomial
        outputs = stacked_mlp(inputs, self.weights, self.biases)
        shape = (*outputs.shape[:2], *self.coefficient_scale.shape)
        return common.view(shape[1:]) + outputs.view(shape) * self.coefficient_scale

    def normalised(self, coordinates: Tensor, rates: Tensor) -> Tensor:
        """Return the networks' inputs (n_starts, n_features), float32."""
        raw = features.first_order(self.internal, coordinates, rates)
        return ((raw - self.feature_mean) / self.feature_scale).to(torch.float32)

    def motion(
        self, coordinates: Tensor, rates: Tensor, coefficients: Tensor, times: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return coordinates and rates (..., n_times, n_coordinates) at times (n_times,), fs.

        ``coordinates`` and ``rates`` are starts (..., n_coordinates); ``coefficients`` are
        (..., n_coordinates, basis.size), of one member or the mean of all.
        """
        values, slopes = self.basis(times)
        coefficients = coefficients.to(torch.float64)
        uniform = rates.unsqueeze(-2) * times.unsqueeze(-1)
        moved = uniform + torch.einsum("...qk,tk->...tq", coefficients, values)
        later = rates.unsqueeze(-2) + torch.einsum("...qk,tk->...tq", coefficients, slopes)
        return coordinates.unsqueeze(-2) + moved, later


def stacked_mlp(inputs: Tensor, weights: tuple[Tensor, ...], biases: tuple[Tensor, ...]) -> Tensor:
    """Return the outputs (n_members, n_rows, n_out) of all members at once.

    ``inputs`` are (n_rows, n_in), common to all members, or (n_members, n_rows, n_in). A layer as
    wide as the one before it adds to it (He et al. 2016, arXiv:1512.03385).
    """
    hidden = inputs.expand(len(weights[0]), *inputs.shape[-2:])
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        change = torch.nn.functional.silu(torch.baddbmm(bias, hidden, weight))
        hidden = hidden + change if weight.shape[-2] == weight.shape[-1] else change
    return torch.baddbmm(biases[-1], hidden, weights[-1])
