"""A potential for the data alone: a network from internal coordinates to the potential energy.

GICnet judges the energies of its geometries by such a network, fitted to the energies of the
trajectories it learns from (doi:10.1021/acs.jpclett.3c01592, SI). Where the potential that ran the
trajectories is at hand, :class:`alloop.spacetime.surface.CommitteeSurface` is exact and better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from alloop.errors import SpacetimeError
from alloop.spacetime.coordinates.protocol import Coordinates

HIDDEN = (512, 256, 128, 64)
"""Widths of the published network."""
WARM_UP_STEPS = 50


@dataclass(frozen=True, slots=True, eq=False)
class AuxiliarySurface:
    """Energies of one molecule from a network; a ``Surface``.

    Attributes
    ----------
    internal : the coordinates it sees, dihedrals by sine and cosine.
    feature_mean, feature_scale : (n_features,) float64.
    energy_mean, energy_scale : eV.
    weights, biases : of each layer, (n_in, n_out) and (n_out,) float32.

    """

    internal: Coordinates
    feature_mean: Tensor
    feature_scale: Tensor
    energy_mean: float
    energy_scale: float
    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]

    def energies(self, positions: Tensor) -> Tensor:
        """Return energies (...,), eV, of positions (..., n_atoms, 3), Å; differentiable."""
        raw = _features(self.internal, positions)
        inputs = ((raw - self.feature_mean) / self.feature_scale).to(torch.float32)
        scaled = _network(inputs, self.weights, self.biases).to(torch.float64)
        return self.energy_mean + self.energy_scale * scaled

    def with_forces(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return energies (...,), eV, and forces (..., n_atoms, 3), eV/Å."""
        variable = positions.detach().requires_grad_()
        with torch.enable_grad():
            energies = self.energies(variable)
            (slopes,) = torch.autograd.grad(energies.sum(), variable)
        return energies.detach(), -slopes


def fit_auxiliary(
    internal: Coordinates,
    positions: Tensor,
    energies: Tensor,
    seed: int,
    *,
    hidden: tuple[int, ...] = HIDDEN,
    steps: int = 4000,
    batch: int = 256,
    learning_rate: float = 2e-3,
) -> AuxiliarySurface:
    """Fit a network to energies (n_frames,), eV, of positions (n_frames, n_atoms, 3), Å.

    Adam on the mean square error, the learning rate falling to zero by a cosine.

    Raises
    ------
    SpacetimeError
        Numbers of frames differ, or a number is not finite.

    """
    if len(positions) != len(energies) or not len(energies):
        raise SpacetimeError(
            f"auxiliary potential: {len(positions)} geometries and {len(energies)} energies, want"
            " as many of both"
        )
    if not (torch.isfinite(positions).all() and torch.isfinite(energies).all()):
        raise SpacetimeError("auxiliary potential: a geometry or an energy is not finite")
    raw = _features(internal, positions.to(torch.float64))
    mean, scale = raw.mean(dim=0), raw.std(dim=0, correction=0).clamp_min(1e-6)
    inputs = ((raw - mean) / scale).to(torch.float32)
    middle, spread = float(energies.mean()), max(float(energies.std(correction=0)), 1e-6)
    targets = ((energies.to(torch.float64) - middle) / spread).to(torch.float32)
    generator = torch.Generator().manual_seed(seed)
    weights, biases = _new_layers([inputs.shape[1], *hidden, 1], generator)
    optimiser = torch.optim.Adam([*weights, *biases], betas=(0.9, 0.99))
    for step in range(1, steps + 1):
        rate = min(1.0, step / WARM_UP_STEPS) * 0.5 * (1 + math.cos(math.pi * (step - 1) / steps))
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * rate
        rows = torch.randint(len(inputs), (batch,), generator=generator)
        loss = (_network(inputs[rows], weights, biases) - targets[rows]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    fitted = (tuple(p.detach() for p in part) for part in (weights, biases))
    return AuxiliarySurface(internal, mean, scale, middle, spread, *fitted)


def _features(internal: Coordinates, positions: Tensor) -> Tensor:
    coordinates, _ = internal.describe(positions, torch.zeros_like(positions))
    span = internal.angular
    stiff = torch.cat([coordinates[..., : span.start], coordinates[..., span.stop :]], dim=-1)
    angles = coordinates[..., span]
    return torch.cat([stiff, torch.sin(angles), torch.cos(angles)], dim=-1)


def _new_layers(sizes: list[int], generator: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
    weights = [
        (math.sqrt(2.0 / n_in) * torch.randn(n_in, n_out, generator=generator)).requires_grad_()
        for n_in, n_out in pairwise(sizes)
    ]
    return weights, [torch.zeros(n_out, requires_grad=True) for n_out in sizes[1:]]


def _network(
    inputs: Tensor,
    weights: tuple[Tensor, ...] | list[Tensor],
    biases: tuple[Tensor, ...] | list[Tensor],
) -> Tensor:
    hidden = inputs
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        hidden = torch.nn.functional.gelu(hidden @ weight + bias)
    return (hidden @ weights[-1] + biases[-1]).squeeze(-1)
