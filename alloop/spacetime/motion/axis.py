"""Angular momentum of straight molecules, whose bends themselves turn about the axis.

Where coordinates are axial the body-fixed frame turns across its z axis alone. What its bends then
have of angular momentum about the axis is right as far as the model is. To leave it to a spin
would not do: the moment of inertia about the axis vanishes whenever the bends do, and a small error
of the model would become a large turn.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alloop.spacetime.coordinates.protocol import Dual

CHANGE_TIME = 10.0
"""Weight of changes of velocities against those of positions, fs: 1 / (frequency of a bend)."""
N_CHANGES = 6
"""Newton steps; each squares the relative error."""
SINGULAR = 1e-12
"""An eigenvalue smaller than this part of the largest does not exist."""


def transverse_inverse(products: Tensor) -> Tensor:
    """Return inverses (..., 3, 3) of inertia tensors for spins across z.

    From sums of m x x^T (..., 3, 3), amu Å²: no spin about z comes of them.
    """
    xx, yy, zz = products.diagonal(dim1=-2, dim2=-1).unbind(-1)
    a, b, d = yy + zz, xx + zz, products[..., 0, 1]
    inverse = torch.zeros_like(products)
    inverse[..., 0, 0], inverse[..., 1, 1] = b, a
    inverse[..., 0, 1] = inverse[..., 1, 0] = d
    return inverse / (a * b - d * d)[..., None, None]


def restored(masses: Tensor, positions: Tensor, velocities: Tensor, total: Tensor) -> Dual:
    """Return the motion changed as little as can be, so that its angular momentum is ``total``.

    Positions and velocities are (..., n_atoms, 3), Å and Å/fs, centred; ``total`` is (..., 3),
    amu Å²/fs. The least sum of m (dx² + T² dv²), T = CHANGE_TIME, has dx = v × l, dv = l × x / T².
    Where all positions and velocities lie on one line no change can help, and none is made.
    """
    weights, x, v = masses[:, None], positions, velocities
    for _ in range(N_CHANGES):
        short = total - torch.sum(weights * torch.linalg.cross(x, v), dim=-2)
        both = torch.cat([x / CHANGE_TIME, v], dim=-2)
        products = (weights.repeat(2, 1) * both).transpose(-1, -2) @ both
        trace = products.diagonal(dim1=-2, dim2=-1).sum(dim=-1)[..., None, None]
        response = trace * torch.eye(3, dtype=x.dtype) - products
        inverse = torch.linalg.pinv(response, rtol=SINGULAR, hermitian=True)
        step = (inverse @ short.unsqueeze(-1)).transpose(-1, -2).expand_as(x)
        x, v = x + torch.linalg.cross(v, step), v + torch.linalg.cross(step, x) / CHANGE_TIME**2
    return x, v
