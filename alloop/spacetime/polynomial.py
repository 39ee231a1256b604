"""The part of the motion that is quadratic in the start, solved for in closed form.

Molecules at ordinary temperatures are nearly harmonic: the motion of a segment is mostly linear in
the start, most of the rest is quadratic. Ridge regression finds both in seconds and leaves the
networks what is truly beyond.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alloop.spacetime import features
from alloop.spacetime.coordinates.protocol import Coordinates

RIDGE = 1e-5
"""Regularisation of the terms of first order, in units of the mean square of a term."""
PRODUCT_RIDGES = (1e-5, 1e-3, 1e-2, 1e-1, 1e1)
"""Regularisations of products that are tried: the more, the fewer the data."""
CHUNK = 8192
"""Windows whose terms are in memory at a time."""


def solve(
    internal: Coordinates, inputs: Tensor, wanted: Tensor, held_out: tuple[Tensor, Tensor] | None
) -> Tensor:
    """Return the polynomial (n_terms, n_outputs), float32, that gives ``wanted`` best.

    ``inputs`` are normalised features (n_windows, n_features), ``wanted`` are coefficients
    (n_windows, n_outputs), both float32. What is ``held_out`` of both decides how strongly products
    are held back; without it they are not. Sums are kept in float64.
    """
    n_terms = features.n_polynomial(internal)
    normal = torch.zeros(n_terms, n_terms, dtype=torch.float64)
    right = torch.zeros(n_terms, wanted.shape[1], dtype=torch.float64)
    for some, their in zip(inputs.split(CHUNK), wanted.split(CHUNK), strict=True):
        terms = features.polynomial(internal, some)
        normal += (terms.T @ terms).to(torch.float64)
        right += (terms.T @ their).to(torch.float64)
    n_plain = 1 + inputs.shape[1]
    unit = normal.diagonal().mean()
    candidates = []
    for ridge in PRODUCT_RIDGES if held_out is not None else PRODUCT_RIDGES[:1]:
        penalty = torch.full((n_terms,), RIDGE, dtype=torch.float64)
        penalty[n_plain:] = ridge
        solution: Tensor = torch.linalg.solve(normal + torch.diag(penalty * unit), right)
        candidates.append(solution.to(torch.float32))
    if held_out is None:
        return candidates[0]
    return min(
        candidates,
        key=lambda solution: float(subtract(internal, *held_out, solution).square().mean()),
    )


def subtract(internal: Coordinates, inputs: Tensor, wanted: Tensor, solution: Tensor) -> Tensor:
    """Return what the polynomial leaves of the coefficients (n_windows, n_outputs)."""
    return torch.cat(
        [
            their - features.polynomial(internal, some) @ solution
            for some, their in zip(inputs.split(CHUNK), wanted.split(CHUNK), strict=True)
        ]
    )
