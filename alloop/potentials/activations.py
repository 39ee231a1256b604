"""Activation functions with the derivatives that forces and force training need."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from alloop.errors import ModelError


@dataclass(frozen=True, slots=True)
class Activation:
    """A function of one variable, as the values of its derivatives up to an order.

    ``slope(a)`` returns (value, first derivative); ``curvature(a)`` the second one as well.
    """

    slope: Callable[[Tensor], tuple[Tensor, Tensor]]
    curvature: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


def _silu_slope(a: Tensor) -> tuple[Tensor, Tensor]:
    gate = torch.sigmoid(a)
    value = a * gate
    return value, torch.rsub(gate, 1.0).mul_(value).add_(gate)


def _silu_curvature(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    gate = torch.sigmoid(a)
    value = a * gate
    shut = 1.0 - gate
    slope = gate + value * shut
    return value, slope, gate * shut * (2.0 + a - 2.0 * value)


def _gelu_slope(a: Tensor) -> tuple[Tensor, Tensor]:
    cumulative = 0.5 + 0.5 * torch.erf(a * math.sqrt(0.5))
    density = torch.exp(-0.5 * a * a) * (1.0 / math.sqrt(2.0 * math.pi))
    return a * cumulative, cumulative + a * density


def _gelu_curvature(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    value, slope = _gelu_slope(a)
    density = torch.exp(-0.5 * a * a) * (1.0 / math.sqrt(2.0 * math.pi))
    return value, slope, density * (2.0 - a * a)


_CELU_ALPHA = 0.1


def _celu_slope(a: Tensor) -> tuple[Tensor, Tensor]:
    below = torch.exp(a.clamp(max=0.0) / _CELU_ALPHA)
    return a.clamp(min=0.0) + _CELU_ALPHA * (below - 1.0), below


def _celu_curvature(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    value, slope = _celu_slope(a)
    return value, slope, torch.where(a < 0.0, slope / _CELU_ALPHA, 0.0)


ACTIVATIONS: Mapping[str, Activation] = {
    "silu": Activation(_silu_slope, _silu_curvature),
    "gelu": Activation(_gelu_slope, _gelu_curvature),
    "celu": Activation(_celu_slope, _celu_curvature),
}
"""``celu`` (alpha 0.1) is that of ANI-1x; the smoother two fit forces better."""


def activation(name: str) -> Activation:
    """Return an activation by name; ModelError if there is none."""
    if name not in ACTIVATIONS:
        raise ModelError(f"activation is {name!r}, want one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
