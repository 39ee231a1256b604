"""The part of the motion that is quadratic in the start, solved for in closed form.

Molecules at ordinary temperatures are nearly harmonic: the motion of a segment is mostly linear in
the start, most of the rest is quadratic. Ridge regression finds both in seconds and leaves the
networks what is truly beyond.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alloop.spacetime import features
from alloop.spacetime.zmatrix import ZMatrix

RIDGE = 1e-5
"""Regularisation, in units of the mean square of a term."""
CHUNK = 8192
"""Windows whose terms are in memory at a time."""


def solve(zmatrix: ZMatrix, inputs: Tensor, wanted: Tensor) -> Tensor:
    """Return the polynomial (n_terms, n_outputs), float32, that gives ``wanted`` best.

    ``inputs`` are normalised features (n_windows, n_features), ``wanted`` are coefficients
    (n_windows, n_outputs), both float32. Sums are kept in float64.
    """
    n_terms = features.n_polynomial(zmatrix)
    normal = torch.zeros(n_terms, n_terms, dtype=torch.float64)
    right = torch.zeros(n_terms, wanted.shape[1], dtype=torch.float64)
    for some, their in zip(inputs.split(CHUNK), wanted.split(CHUNK), strict=True):
        terms = features.polynomial(zmatrix, some)
        normal += (terms.T @ terms).to(torch.float64)
        right += (terms.T @ their).to(torch.float64)
    normal.diagonal().add_(RIDGE * normal.diagonal().mean())
    solution: Tensor = torch.linalg.solve(normal, right)
    return solution.to(torch.float32)


def subtract(zmatrix: ZMatrix, inputs: Tensor, wanted: Tensor, solution: Tensor) -> Tensor:
    """Return what the polynomial leaves of the coefficients (n_windows, n_outputs)."""
    return torch.cat(
        [
            their - features.polynomial(zmatrix, some) @ solution
            for some, their in zip(inputs.split(CHUNK), wanted.split(CHUNK), strict=True)
        ]
    )
