"""Coordinates of straight molecules: stretches along an axis, and pairs of bends across it.

The Eckart frame of a straight reference (see :mod:`alloop.spacetime.coordinates.eckart`) leaves
3N - 5 coordinates, and open how it stands about its axis. Here it never spins about the axis, so
that the bends carry all angular momentum there (Watson 1970, doi:10.1080/00268977000101491, keeps
the azimuth among the vibrations as well). Of a single frame the longest bend, or velocity of a
bend, lies along x: what a model says turns with the molecule exactly. The frames of a trajectory
are all seen from one view, carried along the motion of the axis in parallel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alloop.spacetime.coordinates.eckart import (
    N_ALIGNMENTS,
    Displacements,
    central_frame,
    check_basis,
    check_shapes,
    mean_square,
    principal_basis,
    weights_of,
)
from alloop.spacetime.coordinates.protocol import Dual
from alloop.spacetime.motion.rigid import centred

BEND_TIME = 10.0
"""Weight of the velocities of bends against bends, fs: about 1 / (frequency of a bend)."""


@dataclass(frozen=True, slots=True, eq=False)
class StraightFrame(Displacements):
    """Displacements from a straight reference, stretches first, then bends in x, then in y.

    Attributes
    ----------
    masses : (n_atoms,) float64, amu.
    reference : (n_atoms,) float64, z of each atom, Å, the centre of mass at the origin.
    stretches : (n_atoms - 1, n_atoms) float64, directions in mass-weighted space, orthonormal.
    bends : (n_atoms - 2, n_atoms) float64, likewise.

    Raises
    ------
    SpacetimeError
        Shapes disagree, or a basis is not orthonormal, translates or turns the reference.

    """

    masses: Tensor
    reference: Tensor
    stretches: Tensor
    bends: Tensor

    def __post_init__(self) -> None:
        n = self.n_atoms
        check_shapes(self.reference, (n,), self.bends, (n - 2, n))
        check_shapes(self.reference, (n,), self.stretches, (n - 1, n))
        rigid = _rigid_motions(self.masses, self.reference)
        check_basis(self.stretches, rigid[:1])
        check_basis(self.bends, rigid)

    @property
    def n_coordinates(self) -> int:
        """Number of coordinates, 3N - 5."""
        return 3 * self.n_atoms - 5

    @property
    def axial(self) -> bool:
        """Bends turn about the axis."""
        return True

    def describe(self, positions: Tensor, velocities: Tensor) -> Dual:
        """Return displacements (..., n_coordinates), Å, and their rates, Å/fs.

        Both arguments are (..., n_atoms, 3), Å and Å/fs.
        """
        motion, _ = self._seen(positions, velocities)
        return self._turned(motion, self._view(motion))

    def place(self, coordinates: Tensor, rates: Tensor) -> Dual:
        """Return positions (..., n_atoms, 3), Å, the axis along z, and velocities, Å/fs."""
        moved, moving = (self._displaced(part) for part in (coordinates, rates))
        along = torch.zeros_like(moved)
        along[..., 2] = self.reference
        return moved + along, moving

    def follow(self, positions: Tensor, velocities: Tensor) -> Dual:
        """Return displacements and rates (n_frames, ...), all from one view."""
        motion, axes = self._seen(positions, velocities)
        return self._turned(motion, _parallel(axes))

    def fold(self, start: Dual, motion: Dual) -> tuple[Dual, Dual]:
        """Return starts (n, ...) and motion (n, n_steps, ...) in the starts' own views."""
        view = self._view(start)
        return self._turned(start, view), self._turned(motion, view[:, None])

    def definition(self) -> Mapping[str, Any]:
        """Return all numbers, plain JSON."""
        return {
            "kind": "straight",
            "masses": self.masses.tolist(),
            "reference": self.reference.tolist(),
            "stretches": self.stretches.tolist(),
            "bends": self.bends.tolist(),
        }

    def overlap(self, frames: Tensor) -> float:
        """Return how well, at worst, frames (n_frames, n_atoms, 3), Å, tell where the axis is.

        1 as the reference does; 0 where it is undetermined.
        """
        x = centred(self.masses, frames)
        weights = self.masses * self.reference
        lengths = torch.linalg.vector_norm(weights @ x, dim=-1)
        return float(lengths.min() / (weights @ self.reference))

    def _seen(self, positions: Tensor, velocities: Tensor) -> tuple[Dual, Tensor]:
        """Return coordinates and rates from arbitrary views, and these (..., 3, 3) as columns."""
        x, v = centred(self.masses, positions), centred(self.masses, velocities)
        axes, swing = _axes(self.masses * self.reference, x, v)
        axis = axes[..., 2:]
        # v - w × x, where the spin w = n × dn/dt has no part along the axis n.
        back = (x @ swing.unsqueeze(-1)) * axis.transpose(-1, -2)
        v = v - (x @ axis) * swing.unsqueeze(-2) + back
        x, v = x @ axes, v @ axes
        along = torch.zeros_like(x)
        along[..., 2] = self.reference
        return (self._coordinates(x - along), self._coordinates(v)), axes

    def _coordinates(self, displacements: Tensor) -> Tensor:
        x, y, z = (weights_of(self.masses) * displacements).unbind(-1)
        return torch.cat([z @ self.stretches.T, x @ self.bends.T, y @ self.bends.T], dim=-1)

    def _displaced(self, coordinates: Tensor) -> Tensor:
        n = self.n_atoms
        along, x, y = coordinates.split([n - 1, n - 2, n - 2], dim=-1)
        columns = [x @ self.bends, y @ self.bends, along @ self.stretches]
        return torch.stack(columns, dim=-1) / weights_of(self.masses)

    def _view(self, motion: Dual) -> Tensor:
        """Return exp(i phi) (...) towards the longest bend or velocity of a bend."""
        bends, speeds = (self._bends(part) for part in motion)
        arrows = torch.cat([bends, BEND_TIME * speeds], dim=-1)
        longest = arrows.gather(-1, arrows.abs().argmax(dim=-1, keepdim=True)).squeeze(-1)
        return torch.where(longest == 0, torch.ones_like(longest), longest.sgn())

    def _turned(self, motion: Dual, view: Tensor) -> Dual:
        """Return coordinates and rates with x now where exp(i phi) (...) was."""
        turned = []
        for part in motion:
            bends = self._bends(part) * view.conj().unsqueeze(-1)
            turned.append(torch.cat([part[..., : self.n_atoms - 1], bends.real, bends.imag], -1))
        return turned[0], turned[1]

    def _bends(self, coordinates: Tensor) -> Tensor:
        """Return bends as complex numbers x + i y (..., n_atoms - 2)."""
        x, y = coordinates[..., self.n_atoms - 1 :].chunk(2, dim=-1)
        return torch.complex(x, y)

    def _misfit(self, frames: Tensor) -> float:
        motion, _ = self._seen(frames, torch.zeros_like(frames))
        return mean_square(weights_of(self.masses) * self._displaced(motion[0]))


def build_straight(masses: Tensor, frames: Tensor) -> StraightFrame:
    """Return displacements from the mean along the axes of frames (n_frames, n_atoms, 3), Å."""
    x = centred(masses, frames)
    weights = weights_of(masses)
    _, _, right = torch.linalg.svd(weights * central_frame(x))
    along = (x @ right[0]).mean(dim=0)
    for _ in range(N_ALIGNMENTS):
        axes, _ = _axes(masses * along, x, torch.zeros_like(x))
        seen = x @ axes
        along = seen[..., 2].mean(dim=0)
    rigid = _rigid_motions(masses, along)
    across = (weights * seen)[..., :2].transpose(1, 2).flatten(end_dim=1)
    lengthened = (seen[..., 2] - along) * weights[:, 0]
    stretches = principal_basis(rigid[:1], lengthened)
    return StraightFrame(masses, along, stretches, principal_basis(rigid, across))


def _axes(weights: Tensor, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return frames (..., 3, 3) as columns, z along sum weight x, and the velocity of z (..., 3).

    Across z, directions are taken without regard to what lies there.
    """
    arrow, moving = weights @ x, weights @ v
    length = torch.linalg.vector_norm(arrow, dim=-1, keepdim=True)
    z = arrow / length
    swing = (moving - z * torch.sum(z * moving, dim=-1, keepdim=True)) / length
    least = torch.nn.functional.one_hot(z.abs().argmin(dim=-1), 3).to(z.dtype)
    side = least - z * torch.sum(z * least, dim=-1, keepdim=True)
    x_axis = side / torch.linalg.vector_norm(side, dim=-1, keepdim=True)
    return torch.stack([x_axis, torch.linalg.cross(z, x_axis), z], dim=-1), swing


def _parallel(axes: Tensor) -> Tensor:
    """Return exp(i phi) (n_frames,): where in axes (n_frames, 3, 3) the view of the first is.

    From frame to frame it is turned by the least rotation that takes one axis to the next.
    """
    before, after = axes[:-1], axes[1:]
    z, onward = before[..., 2], after[..., 2]
    x = before[..., 0]
    tilt = torch.sum(x * onward, dim=-1) / (1.0 + torch.sum(z * onward, dim=-1))
    carried = (x - tilt.unsqueeze(-1) * (z + onward)).unsqueeze(-2) @ after
    steps = torch.complex(carried[:, 0, 0], carried[:, 0, 1])
    return torch.cat([torch.ones_like(steps[:1]), torch.cumprod(steps, dim=0)]).sgn()


def _rigid_motions(masses: Tensor, reference: Tensor) -> Tensor:
    """Return (2, n_atoms), a translation and a turn in mass-weighted space."""
    weights = weights_of(masses)[:, 0]
    return torch.stack([weights, weights * reference])
