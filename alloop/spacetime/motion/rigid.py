"""Molecules as rigid bodies: momenta, inertia, and how one is laid on another."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SINGULAR = 1e-12
"""A moment of inertia smaller than this part of the others does not exist: a linear molecule."""


def momenta(masses: Tensor, positions: Tensor, velocities: Tensor) -> tuple[Tensor, Tensor]:
    """Return linear momentum and angular momentum about the centre of mass, (..., 3).

    In amu Å/fs and amu Å²/fs.
    """
    weights = masses[:, None]
    momentum = torch.sum(weights * velocities, dim=-2)
    arms, swings = centred(masses, positions), centred(masses, velocities)
    return momentum, torch.sum(weights * torch.linalg.cross(arms, swings), dim=-2)


def rigid_part(masses: Tensor, positions: Tensor, velocities: Tensor) -> Tensor:
    """Return the velocities (..., n_atoms, 3), Å/fs, of rigid bodies with the same momenta."""
    return rigid_motion(masses, positions, *momenta(masses, positions, velocities))


def rigid_motion(masses: Tensor, positions: Tensor, momentum: Tensor, angular: Tensor) -> Tensor:
    """Return the velocities (..., n_atoms, 3), Å/fs, of rigid bodies with given momenta (..., 3).

    Momenta as :func:`momenta` gives them.
    """
    arms = centred(masses, positions)
    inverse = inverse_inertia((masses[:, None] * arms).transpose(-1, -2) @ arms)
    spin: Tensor = (inverse @ angular.unsqueeze(-1)).transpose(-1, -2)
    drift = (momentum / masses.sum()).unsqueeze(-2)
    turning: Tensor = torch.linalg.cross(spin.expand_as(arms), arms)
    return drift + turning


def centred(masses: Tensor, vectors: Tensor) -> Tensor:
    """Return (..., n_atoms, 3) less the mean weighted by mass."""
    return vectors - centre(masses, vectors)


def superpose(weights: Tensor, mobile: Tensor, target: Tensor) -> Tensor:
    """Return the proper rotations (..., 3, 3) that lay centred points best on others.

    Points are (..., n, 3), their weights (n,) (Kabsch 1976, doi:10.1107/S0567739476001873).
    """
    correlation = (weights[:, None] * target).transpose(-1, -2) @ mobile
    # LAPACK would raise for all over one that is not finite.
    sound = torch.isfinite(correlation).all(dim=-1, keepdim=True).all(dim=-2, keepdim=True)
    left, _, right = torch.linalg.svd(torch.where(sound, correlation, 0.0))
    signs = torch.ones_like(left[..., 0])
    signs[..., 2] = torch.linalg.det(left @ right)
    rotations: Tensor = (left * signs.unsqueeze(-2)) @ right
    return torch.where(sound, rotations, math.nan)


def inverse_inertia(products: Tensor) -> Tensor:
    """Return the inverses of inertia tensors from sums of m x x^T, both (..., 3, 3).

    Written out: a batch of eigenvalue problems takes longer than all the rest of a prediction. A
    straight molecule's tensor i (1 - n n^T) has the pseudoinverse of the same form, (1 - n n^T)/i.
    """
    xx, yy, zz = products.diagonal(dim1=-2, dim2=-1).unbind(-1)
    d, e, f = -products[..., 0, 1], -products[..., 0, 2], -products[..., 1, 2]
    a, b, c = yy + zz, xx + zz, xx + yy
    minors = (
        b * c - f * f, e * f - c * d, d * f - b * e,
        e * f - c * d, a * c - e * e, d * e - a * f,
        d * f - b * e, d * e - a * f, a * b - d * d,
    )  # fmt: skip
    determinant = a * minors[0] + d * minors[1] + e * minors[2]
    moment = xx + yy + zz
    straight = determinant <= SINGULAR * moment**3
    safe = torch.where(straight, 1.0, determinant)
    inverse = torch.stack(minors, dim=-1).unflatten(-1, (3, 3)) / safe[..., None, None]
    tensor = torch.stack((a, d, e, d, b, f, e, f, c), dim=-1).unflatten(-1, (3, 3))
    pseudo = tensor / moment.square()[..., None, None]
    return torch.where(straight[..., None, None], pseudo, inverse)


def centre(masses: Tensor, vectors: Tensor) -> Tensor:
    """Return the mean (..., 1, 3), weighted by mass, of (..., n_atoms, 3)."""
    return torch.sum(masses[:, None] * vectors, dim=-2, keepdim=True) / masses.sum()
