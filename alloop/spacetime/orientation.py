"""From internal motion to motion in space: linear and angular momentum decide the rest.

A model says how the shape of a molecule changes. How it moves and turns as a whole follows from
the momenta of the start, which are conserved: the centre of mass moves uniformly, and

    R = c + A x(q),   dA/dt = A [w],   w = I^-1 (A^T L - sum m x × dx/dt)

where x is the shape in a body-fixed frame, I its inertia tensor and L the angular momentum. So P
and L hold exactly, whatever the model predicts, and predictions turn with the start.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from alloop.errors import SpacetimeError
from alloop.spacetime.coordinates.protocol import Dual
from alloop.spacetime.model import SpacetimeModel

STEP = 0.5
"""Longest step in the integration of the rotation, fs; its error is below 1e-5 rad in 10 fs."""
ALIGNMENT_TIME = 10.0
"""Weight of velocities against positions when a shape is laid on a start, fs."""
SINGULAR = 1e-12
"""An inertia tensor smaller than this part of the largest does not exist: a linear molecule."""


def predict(model: SpacetimeModel, positions: Tensor, velocities: Tensor, times: Tensor) -> Dual:
    """Return the motion that the mean of the ensemble predicts within one segment.

    Parameters
    ----------
    model : the 4D model.
    positions, velocities : (n_replicas, n_atoms, 3) float64, the starts, Å and Å/fs.
    times : (n_times,) float64, ascending, from 0 to the model's cutoff, fs.

    Returns
    -------
    Positions and velocities (n_replicas, n_times, n_atoms, 3). At t = 0 they are the start; linear
    and angular momentum are those of the start at all times.

    Raises
    ------
    SpacetimeError
        Wrong shapes, starts that are not finite, or times out of order or beyond the cutoff.

    """
    _check(model, positions, velocities, times)
    coordinates, rates = model.internal.describe(positions, velocities)
    coefficients = model.coefficients(coordinates, rates).mean(dim=0)
    nodes, places = _integration_nodes(times)
    motion = model.motion(coordinates, rates, coefficients, nodes)
    return _lift(model, (positions, velocities), motion, nodes, places)


def momenta(masses: Tensor, positions: Tensor, velocities: Tensor) -> tuple[Tensor, Tensor]:
    """Return linear momentum and angular momentum about the centre of mass, (..., 3).

    In amu Å/fs and amu Å²/fs.
    """
    weights = masses[:, None]
    momentum = torch.sum(weights * velocities, dim=-2)
    arms, swings = centred(masses, positions), centred(masses, velocities)
    return momentum, torch.sum(weights * torch.linalg.cross(arms, swings), dim=-2)


def centred(masses: Tensor, vectors: Tensor) -> Tensor:
    """Return (..., n_atoms, 3) less the mean weighted by mass."""
    return vectors - _centre(masses, vectors)


def superpose(weights: Tensor, mobile: Tensor, target: Tensor) -> Tensor:
    """Return the proper rotations (..., 3, 3) that lay centred points best on others.

    Points are (..., n, 3), their weights (n,) (Kabsch 1976, doi:10.1107/S0567739476001873).
    """
    correlation = (weights[:, None] * target).transpose(-1, -2) @ mobile
    sound = _sound(correlation)
    left, _, right = torch.linalg.svd(torch.where(sound, correlation, 0.0))
    signs = torch.ones_like(left[..., 0])
    signs[..., 2] = torch.linalg.det(left @ right)
    rotations: Tensor = (left * signs.unsqueeze(-2)) @ right
    return torch.where(sound, rotations, math.nan)


def _lift(
    model: SpacetimeModel, start: Dual, motion: Dual, nodes: Tensor, places: list[int]
) -> Dual:
    masses = model.masses
    x, dx = (centred(masses, part) for part in model.internal.place(*motion))
    momentum, total = momenta(masses, *start)
    _, internal = momenta(masses, x, dx)
    inverse = _inverse_inertia(masses, x)
    first = _attitude(masses, (x[:, 0], dx[:, 0]), start)
    turned = _integrate(first, inverse, internal, total, nodes)[:, [p // 2 for p in places]]
    spin = _spin(turned, inverse[:, places], internal[:, places], total.unsqueeze(1))
    shape = x[:, places]
    swirl = dx[:, places] + torch.linalg.cross(spin.unsqueeze(-2).expand_as(shape), shape)
    drift = (momentum / masses.sum())[:, None, None]
    centre = _centre(masses, start[0])[:, None] + drift * nodes[places][:, None, None]
    back = turned.transpose(-1, -2)
    return centre + shape @ back, drift + swirl @ back


def _integrate(
    first: Tensor, inverse: Tensor, internal: Tensor, total: Tensor, nodes: Tensor
) -> Tensor:
    """Return rotations at the even nodes; the odd ones are the midpoints of Runge-Kutta steps."""

    def slope(rotation: Tensor, node: int) -> Tensor:
        return rotation @ _skew(_spin(rotation, inverse[:, node], internal[:, node], total))

    rotations = [first]
    for node in range(0, len(nodes) - 1, 2):
        step = nodes[node + 2] - nodes[node]
        now = rotations[-1]
        k1 = slope(now, node)
        k2 = slope(now + 0.5 * step * k1, node + 1)
        k3 = slope(now + 0.5 * step * k2, node + 1)
        k4 = slope(now + step * k3, node + 2)
        rotations.append(_orthogonal(now + step / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)))
    return torch.stack(rotations, dim=1)


def _integration_nodes(times: Tensor) -> tuple[Tensor, list[int]]:
    """Return nodes (step, midpoint, step, ...) through all times, and where the times are."""
    nodes, places = [0.0], []
    for time in times.tolist():
        start = nodes[-1]
        n_halves = 2 * math.ceil((time - start) / STEP)
        nodes += [start + (time - start) * (i + 1) / n_halves for i in range(n_halves)]
        places.append(len(nodes) - 1)
    return torch.tensor(nodes, dtype=torch.float64), places


def _attitude(masses: Tensor, shape: Dual, start: Dual) -> Tensor:
    """Return the rotations that lay the body-fixed shape on the start.

    Velocities free of rotation are laid on each other too: they alone say in which plane a
    straight molecule is about to bend.
    """
    stacks = []
    for positions, velocities in (shape, start):
        arms, swings = centred(masses, positions), centred(masses, velocities)
        _, angular = momenta(masses, positions, velocities)
        spin = (_inverse_inertia(masses, arms) @ angular.unsqueeze(-1)).squeeze(-1)
        swings = swings - torch.linalg.cross(spin.unsqueeze(-2).expand_as(arms), arms)
        stacks.append(torch.cat([arms, ALIGNMENT_TIME * swings], dim=-2))
    return superpose(torch.cat([masses, masses]), *stacks)


def _spin(rotation: Tensor, inverse: Tensor, internal: Tensor, total: Tensor) -> Tensor:
    """Return the angular velocity in the body-fixed frame that makes up the total."""
    in_body = (rotation.transpose(-1, -2) @ total.unsqueeze(-1)).squeeze(-1)
    return (inverse @ (in_body - internal).unsqueeze(-1)).squeeze(-1)


def _inverse_inertia(masses: Tensor, arms: Tensor) -> Tensor:
    squares = torch.sum(arms * arms, dim=-1)[..., None, None]
    outer = arms.unsqueeze(-1) * arms.unsqueeze(-2)
    identity = torch.eye(3, dtype=arms.dtype)
    inertia = torch.sum(masses[:, None, None] * (squares * identity - outer), dim=-3)
    sound = _sound(inertia)
    safe = torch.where(sound, inertia, identity)
    inverse: Tensor = torch.linalg.pinv(safe, rtol=SINGULAR, hermitian=True)
    return torch.where(sound, inverse, math.nan)


def _sound(matrices: Tensor) -> Tensor:
    """Return (..., 1, 1) which matrices are finite: LAPACK would raise for all over one of them."""
    return torch.isfinite(matrices).all(dim=-1, keepdim=True).all(dim=-2, keepdim=True)


def _skew(vectors: Tensor) -> Tensor:
    """Return the matrices (..., 3, 3) of the cross products with vectors (..., 3)."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    entries = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1)
    return entries.view(*x.shape, 3, 3)


def _orthogonal(matrices: Tensor) -> Tensor:
    """Return nearly orthogonal matrices made orthogonal, by one Newton step."""
    return 1.5 * matrices - 0.5 * matrices @ matrices.transpose(-1, -2) @ matrices


def _centre(masses: Tensor, vectors: Tensor) -> Tensor:
    return torch.sum(masses[:, None] * vectors, dim=-2, keepdim=True) / masses.sum()


def _check(model: SpacetimeModel, positions: Tensor, velocities: Tensor, times: Tensor) -> None:
    wanted = (len(model.masses), 3)
    if positions.ndim != 3 or positions.shape[1:] != wanted or positions.shape != velocities.shape:
        raise SpacetimeError(
            f"starts have positions {tuple(positions.shape)} and velocities"
            f" {tuple(velocities.shape)}, want both (n_replicas, {wanted[0]}, 3)"
        )
    if not (torch.isfinite(positions).all() and torch.isfinite(velocities).all()):
        raise SpacetimeError("a start has positions or velocities that are not finite")
    if len(times) and not (
        times[0] >= 0 and times[-1] <= model.cutoff and bool((times[1:] >= times[:-1]).all())
    ):
        raise SpacetimeError(
            f"times from {float(times.min())} to {float(times.max())} fs are asked for,"
            f" want ascending ones from 0 to the cutoff {model.cutoff} fs"
        )
