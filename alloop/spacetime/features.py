"""What a model sees of a start: internal coordinates and their rates, and products of them."""

from __future__ import annotations

import torch
from torch import Tensor

from alloop.spacetime.coordinates.protocol import Coordinates

HARMONICS = (2, 3)
"""Multiples of a dihedral that are features too: torsional barriers are two- and threefold."""
MAX_PRODUCTS = 2500
"""Larger molecules do without products: their normal matrix would take minutes."""


def first_order(internal: Coordinates, coordinates: Tensor, rates: Tensor) -> Tensor:
    """Return (..., n_features): bonds, angles, sines and cosines of dihedrals, rates, harmonics."""
    angles = coordinates[..., internal.angular]
    stiff = [coordinates[..., : internal.angular.start], coordinates[..., internal.angular.stop :]]
    parts = [*stiff, torch.sin(angles), torch.cos(angles), rates]
    for m in HARMONICS:
        parts += [torch.sin(m * angles), torch.cos(m * angles)]
    return torch.cat(parts, dim=-1)


def n_first_order(internal: Coordinates) -> int:
    """Return the number of features that :func:`first_order` gives."""
    return _n_factors(internal) + 2 * len(HARMONICS) * _n_angular(internal)


def n_polynomial(internal: Coordinates) -> int:
    """Return the number of terms that :func:`polynomial` gives."""
    return 1 + n_first_order(internal) + len(_pairs(internal)[0])


def polynomial(internal: Coordinates, features: Tensor) -> Tensor:
    """Return (..., n_terms): 1, the features, and all products of two of them but harmonics."""
    rows, columns = _pairs(internal)
    one = torch.ones_like(features[..., :1])
    return torch.cat([one, features, features[..., rows] * features[..., columns]], dim=-1)


def _n_factors(internal: Coordinates) -> int:
    return 2 * internal.n_coordinates + _n_angular(internal)


def _n_angular(internal: Coordinates) -> int:
    return int(internal.angular.stop) - int(internal.angular.start)


def _pairs(internal: Coordinates) -> Tensor:
    n = _n_factors(internal)
    n_factors = n if n * (n + 1) // 2 <= MAX_PRODUCTS else 0
    return torch.triu_indices(n_factors, n_factors)
