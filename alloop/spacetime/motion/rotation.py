"""How a molecule turns while its shape changes: the rotation as an explicit function of time.

The attitude A(t) = A(0) R(t) of a shape obeys dR/dt = R [w] with the angular velocity
w = I^-1 (R^T l - L_int) in the body-fixed frame, where l is the angular momentum seen in that frame
at t = 0. As a quaternion, dq/dt = q (0, w) / 2 is linear where l = 0 and never singular. It is
solved by collocation at Gauss-Legendre nodes, all at once, by fixed-point iterations (Hairer,
Norsett, Wanner, *Solving Ordinary Differential Equations I*, 1993, section II.7): the slope of q is
a polynomial, and q at any time its integral.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.polynomial import legendre
from torch import Tensor

PANEL = 10.0
"""Longest stretch of one polynomial, fs; longer ones are cut."""
N_NODES = 20
"""Nodes of a panel. With 20 on 10 fs, attitudes of hot ethanol are right to 1e-8 rad."""
MAX_ITERATIONS = 60
TOLERANCE = 1e-10
"""The iteration ends when no quaternion changes by more."""

Spin = Callable[[Tensor], Tensor]
"""From quaternions (..., n, 4) to angular velocities in the body-fixed frame (..., n, 3)."""


@dataclass(frozen=True, slots=True, eq=False)
class Turning:
    """Unit quaternions of R(t) from 0 to some time.

    Attributes
    ----------
    length : length of a panel, fs.
    starts : (n_panels, ..., 4) float64, quaternions where the panels begin.
    slopes : (n_panels, ..., n_nodes, 4) float64, Legendre coefficients of dq/dt.

    """

    length: float
    starts: Tensor
    slopes: Tensor

    def __call__(self, times: Tensor) -> Tensor:
        """Return quaternions (..., n_times, 4) at times (n_times,), fs, in any order."""
        panels = torch.clamp((times / self.length).long(), 0, len(self.starts) - 1)
        shape = *self.starts.shape[1:-1], len(times), 4
        turned = torch.empty(shape, dtype=torch.float64)
        for k, (start, slopes) in enumerate(zip(self.starts, self.slopes, strict=True)):
            here = torch.nonzero(panels == k).flatten()
            if len(here):
                local = 2.0 * (times[here] / self.length - k) - 1.0
                gained = 0.5 * self.length * (_integrals(local) @ slopes)
                turned[..., here, :] = start.unsqueeze(-2) + gained
        return torch.nn.functional.normalize(turned, dim=-1)

    def only(self, place: tuple[Tensor, ...]) -> Turning:
        """Return the rotations that indices of the leading axes pick."""
        starts, slopes = (part.movedim(0, len(place))[place] for part in (self.starts, self.slopes))
        return Turning(self.length, starts.movedim(1, 0), slopes.movedim(1, 0))


def panels(duration: float) -> tuple[float, Tensor]:
    """Return the length of a panel and the nodes (n_panels, n_nodes) of all, fs."""
    n_panels = max(1, int(np.ceil(duration / PANEL - 1e-9)))
    length = duration / n_panels
    local = 0.5 * (1.0 + _collocation()[0])
    return length, length * (torch.arange(n_panels, dtype=torch.float64)[:, None] + local)


def turn(length: float, spins: list[Spin], shape: torch.Size) -> Turning:
    """Return the rotation that starts as none and has the angular velocities told.

    ``length`` is that of a panel, fs; ``spins`` gives for each panel the angular velocity at its
    nodes (see :func:`panels`), rad/fs; ``shape`` are the leading axes.
    """
    _, to_coefficients, at_nodes, at_end = _collocation()
    start = torch.zeros(*shape, 4, dtype=torch.float64)
    start[..., 0] = 1.0
    starts, slopes = [], []
    for spin in spins:
        here = start.unsqueeze(-2).expand(*shape, N_NODES, 4)
        for _ in range(MAX_ITERATIONS):
            rates = half_product(here, spin(here))
            there = start.unsqueeze(-2) + 0.5 * length * (at_nodes @ rates)
            change = torch.nan_to_num(there - here).abs().max()
            here = there
            if not change > TOLERANCE:
                break
        coefficients = to_coefficients @ half_product(here, spin(here))
        starts.append(start)
        slopes.append(coefficients)
        end = start + 0.5 * length * (at_end @ coefficients).squeeze(-2)
        start = torch.nn.functional.normalize(end, dim=-1)
    return Turning(length, torch.stack(starts), torch.stack(slopes))


def half_product(quaternions: Tensor, vectors: Tensor) -> Tensor:
    """Return q (0, w) / 2 for quaternions (..., 4) and vectors (..., 3)."""
    scalar, axis = quaternions[..., :1], quaternions[..., 1:]
    along = -(axis * vectors).sum(-1, keepdim=True)
    return 0.5 * torch.cat([along, scalar * vectors + torch.linalg.cross(axis, vectors)], dim=-1)


def matrices(quaternions: Tensor) -> Tensor:
    """Return rotation matrices (..., 3, 3) of unit quaternions (..., 4)."""
    products = quaternions.unsqueeze(-1) * quaternions.unsqueeze(-2)
    rotations: Tensor = (products.flatten(-2) @ _from_products()).unflatten(-1, (3, 3))
    return rotations


def turned_back(quaternions: Tensor, vectors: Tensor) -> Tensor:
    """Return vectors (..., 3), still in space, as seen from frames turned by unit quaternions."""
    scalar, axis = quaternions[..., :1], quaternions[..., 1:]
    across: Tensor = torch.linalg.cross(vectors.expand_as(axis), axis)
    twice: Tensor = torch.linalg.cross(across, axis)
    return vectors + 2.0 * (scalar * across + twice)


@functools.cache
def _from_products() -> Tensor:
    """Return the (16, 9) way from products of a quaternion's parts to a rotation matrix."""
    way = torch.zeros(4, 4, 3, 3, dtype=torch.float64)
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        way[0, 0, i, i] = way[i + 1, i + 1, i, i] = 1.0
        way[j + 1, j + 1, i, i] = way[k + 1, k + 1, i, i] = -1.0
        way[i + 1, j + 1, i, j] = way[i + 1, j + 1, j, i] = 2.0
        way[0, k + 1, i, j], way[0, k + 1, j, i] = -2.0, 2.0
    return way.view(16, 9)


@functools.cache
def _collocation() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return nodes on (-1, 1), the way to Legendre coefficients, integrals up to nodes and end."""
    nodes = torch.as_tensor(legendre.leggauss(N_NODES)[0])
    to_coefficients = torch.linalg.inv(torch.as_tensor(legendre.legvander(nodes, N_NODES - 1)))
    end = _integrals(torch.ones(1, dtype=torch.float64))
    return nodes, to_coefficients, _integrals(nodes) @ to_coefficients, end


def _integrals(points: Tensor) -> Tensor:
    """Return the integrals of Legendre polynomials from -1 to each point, (n_points, n_nodes)."""
    values = torch.as_tensor(legendre.legvander(points.numpy(), N_NODES))
    degrees = torch.arange(1, N_NODES, dtype=torch.float64)
    rest = (values[:, 2:] - values[:, :-2]) / (2 * degrees + 1)
    return torch.cat([values[:, :1] + values[:, 1:2], rest], dim=1)
