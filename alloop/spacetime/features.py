"""What a model sees of a start: internal coordinates and their rates, and products of them."""

from __future__ import annotations

import torch
from torch import Tensor

from alloop.spacetime.zmatrix import ZMatrix

HARMONICS = (2, 3)
"""Multiples of a dihedral that are features too: torsional barriers are two- and threefold."""
MAX_PRODUCTS = 2500
"""Larger molecules do without products: their normal matrix would take minutes."""


def first_order(zmatrix: ZMatrix, coordinates: Tensor, rates: Tensor) -> Tensor:
    """Return (..., n_features): bonds, angles, sines and cosines of dihedrals, rates, harmonics."""
    split = zmatrix.n_bonds + zmatrix.n_angles
    stiff, dihedrals = coordinates[..., :split], coordinates[..., split:]
    parts = [stiff, torch.sin(dihedrals), torch.cos(dihedrals), rates]
    for m in HARMONICS:
        parts += [torch.sin(m * dihedrals), torch.cos(m * dihedrals)]
    return torch.cat(parts, dim=-1)


def n_first_order(zmatrix: ZMatrix) -> int:
    """Return the number of features that :func:`first_order` gives."""
    return _n_factors(zmatrix) + 2 * len(HARMONICS) * zmatrix.n_dihedrals


def n_polynomial(zmatrix: ZMatrix) -> int:
    """Return the number of terms that :func:`polynomial` gives."""
    return 1 + n_first_order(zmatrix) + len(_pairs(zmatrix)[0])


def polynomial(zmatrix: ZMatrix, features: Tensor) -> Tensor:
    """Return (..., n_terms): 1, the features, and all products of two of them but harmonics."""
    rows, columns = _pairs(zmatrix)
    one = torch.ones_like(features[..., :1])
    return torch.cat([one, features, features[..., rows] * features[..., columns]], dim=-1)


def _n_factors(zmatrix: ZMatrix) -> int:
    return 2 * zmatrix.n_coordinates + zmatrix.n_dihedrals


def _pairs(zmatrix: ZMatrix) -> Tensor:
    n = _n_factors(zmatrix)
    n_factors = n if n * (n + 1) // 2 <= MAX_PRODUCTS else 0
    return torch.triu_indices(n_factors, n_factors)
