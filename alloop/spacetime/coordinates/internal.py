"""From Cartesian to internal coordinates and back, positions and velocities in one pass.

Every function carries pairs (value, time derivative): forward-mode differentiation along the
motion, written out, since each step is one product rule. Arrays are batched over all leading axes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alloop.spacetime.coordinates.protocol import Dual

if TYPE_CHECKING:
    from alloop.spacetime.coordinates.zmatrix import ZMatrix


def to_internal(zmatrix: ZMatrix, positions: Tensor, velocities: Tensor) -> Dual:
    """Return internal coordinates (..., n_coordinates), Å and rad, and their rates per fs.

    Positions and velocities are (..., n_atoms, 3), Å and Å/fs. Angles lie in [0, pi], dihedrals in
    (-pi, pi] with the IUPAC sign.
    """
    motion = positions, velocities
    parts = [_bond(motion, zmatrix)]
    if zmatrix.n_angles:
        parts.append(_angle(motion, zmatrix))
    if zmatrix.n_dihedrals:
        parts.append(_dihedral(motion, zmatrix))
    values, rates = zip(*parts, strict=True)
    return torch.cat(values, dim=-1), torch.cat(rates, dim=-1)


def to_cartesian(zmatrix: ZMatrix, coordinates: Tensor, rates: Tensor) -> Dual:
    """Return body-fixed positions (..., n_atoms, 3), Å, and velocities, Å/fs.

    The first atom rests at the origin, the second on the z axis, the third in the xz plane; each
    further one is placed in the frame of its three references (Parsons et al. 2005,
    doi:10.1002/jcc.20237).
    """
    # Components come first in here: operations on long contiguous rows take half the time.
    q, dq = coordinates.movedim(-1, 0).contiguous(), rates.movedim(-1, 0).contiguous()
    n_bonds, n_angles = zmatrix.n_bonds, zmatrix.n_angles
    still, x_axis, z_axis = (q.new_zeros(3, *q.shape[1:]) for _ in "oxz")
    x_axis[0] = z_axis[2] = 1.0
    placed: dict[int, Dual] = {zmatrix.rows[0][0]: (still, still)}
    for i, row in enumerate(zmatrix.rows[1:]):
        bond = q[i], dq[i]
        if i == 0:
            placed[row[0]] = _scale(bond, (z_axis, still))
            continue
        k = n_bonds + i - 1
        b, c = placed[row[1]], placed[row[2]]
        axis = _unit(_minus(c, b))
        sine, cosine = _sine_cosine((q[k], dq[k]))
        if i == 1:
            side: Dual = (x_axis, still)
        else:
            k = n_bonds + n_angles + i - 2
            side = _side(axis, _minus(placed[row[3]], c), _sine_cosine((q[k], dq[k])))
        direction = _plus(_scale(cosine, axis), _scale(sine, side))
        placed[row[0]] = _plus(b, _scale(bond, direction))
    atoms = [placed[a] for a in range(zmatrix.n_atoms)]
    x, v = (torch.stack(part).movedim((0, 1), (-2, -1)) for part in zip(*atoms, strict=True))
    return x.contiguous(), v.contiguous()


def follow(zmatrix: ZMatrix, positions: Tensor, velocities: Tensor) -> Dual:
    """Return what :func:`to_internal` gives for (n_frames, n_atoms, 3), continuous in time.

    Dihedrals gain multiples of 2 pi. The bend of a triatomic goes on beyond pi when the molecule
    swings through the straight line: without angular momentum its plane does not turn, and the
    normal, which flips there, says on which side it is.
    """
    values, rates = to_internal(zmatrix, positions, velocities)
    if zmatrix.n_dihedrals:
        values[:, zmatrix.angular] = unwrap(values[:, zmatrix.angular])
    elif zmatrix.n_angles:
        ((a,), (b,), (c,)) = zmatrix.columns(2)
        normals = torch.linalg.cross(
            positions[:, a] - positions[:, b], positions[:, c] - positions[:, b]
        )
        flips = torch.sum(normals[1:] * normals[:-1], dim=-1) < 0
        side = torch.cumprod(1.0 - 2.0 * flips.to(values.dtype), dim=0)
        bend = zmatrix.kinds["angle"].start
        rates[1:, bend] *= side
        values[1:, bend] = math.pi + side * (values[1:, bend] - math.pi)
    return values, rates


def fold(zmatrix: ZMatrix, start: Dual, motion: Dual) -> tuple[Dual, Dual]:
    """Return starts as :func:`to_internal` gives them, and later motion as seen from there."""
    if zmatrix.n_dihedrals:
        return fold_angles(zmatrix.angular, start), motion
    if not zmatrix.n_angles:
        return start, motion
    bend = zmatrix.kinds["angle"].start
    value = start[0][:, bend]
    side = torch.ones_like(start[0])
    side[:, bend] = torch.where(value > math.pi, -1.0, 1.0)
    folded = start[0].clone()
    folded[:, bend] = math.pi - (value - math.pi).abs()
    moved, later = (part * side.unsqueeze(1) for part in motion)
    return (folded, start[1] * side), (moved, later)


def unwrap(angles: Tensor) -> Tensor:
    """Return angles (n_frames, n), rad, with the multiples of 2 pi that make them continuous."""
    turns = torch.cumsum(torch.round(torch.diff(angles, dim=0) / (2 * math.pi)), dim=0)
    return torch.cat([angles[:1], angles[1:] - 2 * math.pi * turns])


def fold_angles(angular: slice, start: Dual) -> Dual:
    """Return states whose angles have lost their full turns."""
    values = start[0].clone()
    values[..., angular] -= 2 * math.pi * torch.round(values[..., angular] / (2 * math.pi))
    return values, start[1]


def _bond(motion: Dual, zmatrix: ZMatrix) -> Dual:
    a, b = zmatrix.columns(1)
    length, rate = _norm(_between(motion, b, a))
    return length.squeeze(-1), rate.squeeze(-1)


def _angle(motion: Dual, zmatrix: ZMatrix) -> Dual:
    a, b, c = zmatrix.columns(2)
    ba, bc = _between(motion, b, a), _between(motion, b, c)
    return _arctangent(_norm(_cross(ba, bc)), _dot(ba, bc))


def _dihedral(motion: Dual, zmatrix: ZMatrix) -> Dual:
    a, b, c, d = zmatrix.columns(3)
    ab, bc, cd = _between(motion, a, b), _between(motion, b, c), _between(motion, c, d)
    far = _cross(bc, cd)
    return _arctangent(_product(_norm(bc), _dot(ab, far)), _dot(_cross(ab, bc), far))


def _side(axis: Dual, onward: Dual, torsion: tuple[Dual, Dual]) -> Dual:
    """Return the unit vector (3, ...) across ``axis`` at a torsion from the plane of ``onward``."""
    normal = _unit(_cross(axis, onward, dim=0))
    sine, cosine = torsion
    return _minus(_scale(cosine, _cross(normal, axis, dim=0)), _scale(sine, normal))


def _between(motion: Dual, start: list[int], end: list[int]) -> Dual:
    x, v = motion
    return x[..., end, :] - x[..., start, :], v[..., end, :] - v[..., start, :]


def _plus(a: Dual, b: Dual) -> Dual:
    return a[0] + b[0], a[1] + b[1]


def _minus(a: Dual, b: Dual) -> Dual:
    return a[0] - b[0], a[1] - b[1]


def _product(a: Dual, b: Dual) -> Dual:
    return a[0] * b[0], a[1] * b[0] + a[0] * b[1]


_scale = _product


def _dot(a: Dual, b: Dual) -> Dual:
    value = torch.sum(a[0] * b[0], dim=-1, keepdim=True)
    return value, torch.sum(a[1] * b[0] + a[0] * b[1], dim=-1, keepdim=True)


def _cross(a: Dual, b: Dual, dim: int = -1) -> Dual:
    value = torch.linalg.cross(a[0], b[0], dim=dim)
    return value, torch.linalg.cross(a[1], b[0], dim=dim) + torch.linalg.cross(a[0], b[1], dim=dim)


def _norm(a: Dual) -> Dual:
    """Return the length; where it is zero, its one-sided derivative, the length of the rate."""
    value = torch.linalg.vector_norm(a[0], dim=-1, keepdim=True)
    along = torch.sum(a[0] * a[1], dim=-1, keepdim=True) / value.clamp_min(1e-12)
    start = torch.linalg.vector_norm(a[1], dim=-1, keepdim=True)
    return value, torch.where(value > 1e-12, along, start)


def _unit(a: Dual) -> Dual:
    """Return unit vectors (3, ...)."""
    inverse = torch.rsqrt(torch.sum(a[0] * a[0], dim=0))
    unit = a[0] * inverse
    return unit, (a[1] - unit * torch.sum(unit * a[1], dim=0)) * inverse


def _sine_cosine(a: Dual) -> tuple[Dual, Dual]:
    sine, cosine = torch.sin(a[0]), torch.cos(a[0])
    return (sine, cosine * a[1]), (cosine, -sine * a[1])


def _arctangent(sine: Dual, cosine: Dual) -> Dual:
    (y, dy), (x, dx) = sine, cosine
    value, rate = torch.atan2(y, x), (x * dy - y * dx) / (x * x + y * y)
    return value.squeeze(-1), rate.squeeze(-1)
