"""Pieces that several graph networks are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from alloop.potentials.graphs.graph import Graph

_SHORTEST = 1e-6
"""Å; below it a distance is treated as this, so that 1/r stays finite."""


def distances(graph: Graph) -> Tensor:
    """Return the lengths of all pairs, (n_pairs,) Å; their slope is finite at 0."""
    return graph.vectors.square().sum(-1).clamp(min=_SHORTEST**2).sqrt()


def half_pairs(graph: Graph) -> Tensor:
    """Return the places of one of each two opposite pairs, (n_pairs / 2,) int64.

    What is the same in both directions needs to be computed for these only.
    """
    x, y, z = graph.vectors.detach().unbind(1)
    # An atom and its own image: of two opposite vectors one points up.
    up = torch.where(z != 0.0, z, torch.where(y != 0.0, y, x)) > 0.0
    chosen = (graph.centre < graph.other) | ((graph.centre == graph.other) & up)
    return chosen.nonzero()[:, 0]


def scatter(values: Tensor, index: Tensor, n_rows: int) -> Tensor:
    """Sum rows of ``values`` (n, ...) that have the same index (n,) into (n_rows, ...)."""
    return values.new_zeros(n_rows, *values.shape[1:]).index_add(0, index, values)


def cosine_cutoff(distance: Tensor, cutoff: float) -> Tensor:
    """Return (1 + cos(π r / r_c)) / 2 within the cutoff and 0 beyond.

    Behler and Parrinello, DOI 10.1103/PhysRevLett.98.146401, equation 4.
    """
    inside = (distance < cutoff).to(distance)
    return 0.5 * (1.0 + torch.cos(distance * (math.pi / cutoff))) * inside


def polynomial_cutoff(distance: Tensor, cutoff: float, power: int) -> Tensor:
    """Return the polynomial envelope whose first and second derivatives vanish at the cutoff.

    1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2) with x = r / r_c; equation 8 of
    Gasteiger, Groß and Günnemann, arXiv:2003.03123.
    """
    x = distance / cutoff
    p = power
    value = 1.0 - x**p * (
        0.5 * (p + 1) * (p + 2) - p * (p + 2) * x + 0.5 * p * (p + 1) * x.square()
    )
    return value * (x < 1.0).to(distance)


class BesselBasis(nn.Module):
    """Radial functions sin(n π r / r_c) / r, (n_pairs,) to (n_pairs, n_functions).

    Equation 7 of Gasteiger, Groß and Günnemann, arXiv:2003.03123, with the factor √(2 / r_c).
    """

    frequencies: Tensor

    def __init__(self, n_functions: int, cutoff: float) -> None:
        super().__init__()
        orders = torch.arange(1, n_functions + 1, dtype=torch.float32)
        self.register_buffer("frequencies", orders * (math.pi / cutoff))
        self._norm = math.sqrt(2.0 / cutoff)

    def forward(self, distance: Tensor) -> Tensor:
        """Return the functions of each distance."""
        r = distance[:, None]
        return self._norm * torch.sin(self.frequencies * r) / r


class GaussianBasis(nn.Module):
    """Radial functions exp(-γ (r - μ_k)²) on an even grid, (n_pairs,) to (n_pairs, n_functions).

    Their width is the spacing of the grid: γ = 1 / (2 Δ²).
    """

    centres: Tensor

    def __init__(self, n_functions: int, first: float, last: float) -> None:
        super().__init__()
        self.register_buffer("centres", torch.linspace(first, last, n_functions))
        self._gamma = 0.5 * ((n_functions - 1) / (last - first)) ** 2

    def forward(self, distance: Tensor) -> Tensor:
        """Return the functions of each distance."""
        return torch.exp(-self._gamma * (distance[:, None] - self.centres).square())


def mlp(widths: Sequence[int], activation: type[nn.Module] = nn.SiLU) -> nn.Sequential:
    """Return linear layers of these widths with an activation after each but the last."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out), activation()]
    return nn.Sequential(*layers[:-1])
