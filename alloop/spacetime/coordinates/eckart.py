"""Coordinates for what no Z-matrix describes: displacements in an Eckart frame.

The body-fixed frame moves with the molecule so that displacements from a reference neither
translate nor turn it (Eckart 1935, doi:10.1103/PhysRev.47.552; Louck and Galbraith 1976,
doi:10.1103/RevModPhys.48.69). What is left are 3N - 6 linear coordinates in Å,

    q = U (M / m)^(1/2) (A^T (x - c) - x_ref),      m: the mean mass,

where the rows of U are the principal axes of the motion in the data, mass-weighted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alloop.errors import SpacetimeError
from alloop.spacetime.coordinates.protocol import Dual
from alloop.spacetime.motion.rigid import centred, superpose

N_ALIGNMENTS = 20
"""How many times the reference is laid on the frames and replaced by their mean."""
STRAIGHT = 0.01
"""A reference whose least moment is a smaller part of its largest has no third orientation."""
SAME_MISFIT = 2.0
"""Frames that fit the reference worse than others, by this ratio of squares, are an isomer."""


class Displacements(ABC):
    """What displacements from a reference, in a body-fixed frame, have in common."""

    __slots__ = ()
    masses: Tensor

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.masses)

    @property
    @abstractmethod
    def n_coordinates(self) -> int:
        """Number of coordinates."""

    @property
    def kinds(self) -> dict[str, slice]:
        """All coordinates are displacements."""
        return {"displacement": slice(0, self.n_coordinates)}

    @property
    def angular(self) -> slice:
        """No coordinate is an angle."""
        return slice(self.n_coordinates, self.n_coordinates)

    @property
    def oriented(self) -> bool:
        """Displacements in a body-fixed frame describe the shape alone."""
        return False

    def same_isomer(self, positions: Tensor, others: Tensor) -> bool:
        """Tell whether frames (n_frames, n_atoms, 3) fit the reference about as well as others."""
        return self._misfit(positions) <= SAME_MISFIT * self._misfit(others) + 1e-9

    def handedness(self, coordinates: Tensor) -> Tensor:
        """Return (..., 0): displacements know of no centres."""
        return coordinates[..., :0].to(torch.complex128)

    @abstractmethod
    def _misfit(self, frames: Tensor) -> float:
        """Return the mean square displacement of frames from the reference, Å²."""


@dataclass(frozen=True, slots=True, eq=False)
class EckartFrame(Displacements):
    """Displacements from a reference that is not straight.

    Attributes
    ----------
    masses : (n_atoms,) float64, amu.
    reference : (n_atoms, 3) float64, Å, the centre of mass at the origin.
    basis : (3 n_atoms - 6, 3 n_atoms) float64, directions in mass-weighted space, orthonormal.

    Raises
    ------
    SpacetimeError
        Shapes disagree, or the basis is not orthonormal, translates or turns the reference.

    """

    masses: Tensor
    reference: Tensor
    basis: Tensor

    def __post_init__(self) -> None:
        n = self.n_atoms
        check_shapes(self.reference, (n, 3), self.basis, (3 * n - 6, 3 * n))
        check_basis(self.basis, _rigid_motions(self.masses, self.reference))

    @property
    def n_coordinates(self) -> int:
        """Number of coordinates, 3N - 6."""
        return len(self.basis)

    @property
    def axial(self) -> bool:
        """No turn is among the coordinates."""
        return False

    def describe(self, positions: Tensor, velocities: Tensor) -> Dual:
        """Return displacements (..., n_coordinates), Å, and their rates, Å/fs.

        Both arguments are (..., n_atoms, 3), Å and Å/fs. The frame turns with the spin that keeps
        sum m x_ref × dx/dt = 0.
        """
        x, v = centred(self.masses, positions), centred(self.masses, velocities)
        attitude = self._attitude(x)
        x, v = x @ attitude, v @ attitude
        arms = (self.masses[:, None] * self.reference).expand_as(v)
        torque = torch.linalg.cross(arms, v).sum(dim=-2)
        spin = torch.linalg.solve(self._moments(x), torque).unsqueeze(-2)
        v = v - torch.linalg.cross(spin.expand_as(x), x)
        weights = weights_of(self.masses)
        displacements = (weights * (x - self.reference)).flatten(-2)
        return displacements @ self.basis.T, (weights * v).flatten(-2) @ self.basis.T

    def place(self, coordinates: Tensor, rates: Tensor) -> Dual:
        """Return positions (..., n_atoms, 3), Å, in the Eckart frame, and velocities, Å/fs."""
        shape, weights = (self.n_atoms, 3), weights_of(self.masses)
        moved, moving = (
            (part @ self.basis).unflatten(-1, shape) / weights for part in (coordinates, rates)
        )
        return self.reference + moved, moving

    def follow(self, positions: Tensor, velocities: Tensor) -> Dual:
        """Return displacements and rates, which are continuous as they are."""
        return self.describe(positions, velocities)

    def fold(self, start: Dual, motion: Dual) -> tuple[Dual, Dual]:
        """Return starts and motion as they are."""
        return start, motion

    def definition(self) -> Mapping[str, Any]:
        """Return all numbers, plain JSON."""
        parts = {"masses": self.masses, "reference": self.reference, "basis": self.basis}
        return {"kind": "eckart", **{name: part.tolist() for name, part in parts.items()}}

    def overlap(self, frames: Tensor) -> float:
        """Return how well, at worst, frames (n_frames, n_atoms, 3), Å, tell how they stand.

        1 as the reference does; 0 where some turn is undetermined, as of a straight reference.
        """
        whole = torch.linalg.eigvalsh(self._moments(self.reference))
        if not whole[0] > STRAIGHT * whole[2]:
            return 0.0
        x = centred(self.masses, frames)
        reached = torch.linalg.eigvalsh(self._moments(x @ self._attitude(x)))
        return float(reached.min() / whole[0])

    def _attitude(self, x: Tensor) -> Tensor:
        return superpose(self.masses, self.reference.expand_as(x), x)

    def _moments(self, x: Tensor) -> Tensor:
        """Return (..., 3, 3), by which a spin gives sum m x_ref × (spin × x), amu Å².

        In the Eckart frame sum m x_ref x^T is symmetric.
        """
        products = (self.masses[:, None] * self.reference).T @ x
        trace = products.diagonal(dim1=-2, dim2=-1).sum(dim=-1)[..., None, None]
        return trace * torch.eye(3, dtype=x.dtype) - products

    def _misfit(self, frames: Tensor) -> float:
        x = centred(self.masses, frames)
        return mean_square(weights_of(self.masses) * (x @ self._attitude(x) - self.reference))


def build_eckart(masses: Tensor, frames: Tensor) -> EckartFrame:
    """Return displacements from the mean shape of frames (n_frames, n_atoms, 3), Å."""
    x = centred(masses, frames)
    mean = central_frame(x)
    for _ in range(N_ALIGNMENTS):
        aligned = x @ superpose(masses, mean.expand_as(x), x)
        mean = aligned.mean(dim=0)
    displacements = (weights_of(masses) * (aligned - mean)).flatten(1)
    return EckartFrame(masses, mean, principal_basis(_rigid_motions(masses, mean), displacements))


def central_frame(frames: Tensor) -> Tensor:
    """Return the one of frames (n_frames, n_atoms, 3) whose distances are nearest to the mean."""
    distances = torch.cdist(frames, frames)
    return frames[(distances - distances.mean(dim=0)).square().sum(dim=(1, 2)).argmin()]


def principal_basis(rigid: Tensor, samples: Tensor) -> Tensor:
    """Return the principal axes of samples (n, m) within what is orthogonal to rows (k, m)."""
    _, _, right = torch.linalg.svd(rigid, full_matrices=True)
    free = right[len(rigid) :]
    inside = samples @ free.T
    _, axes = torch.linalg.eigh(inside.T @ inside)
    basis: Tensor = axes.flip(1).T @ free
    return basis * basis.gather(1, basis.abs().argmax(dim=1, keepdim=True)).sgn()


def weights_of(masses: Tensor) -> Tensor:
    """Return (n_atoms, 1), the roots of masses in units of their mean."""
    return torch.sqrt(masses / masses.mean())[:, None]


def mean_square(displacements: Tensor) -> float:
    """Return the mean square displacement per atom, Å²."""
    return float(displacements.square().sum(dim=-1).mean())


def check_shapes(
    reference: Tensor, wanted: tuple[int, ...], basis: Tensor, of_basis: tuple[int, ...]
) -> None:
    """Raise SpacetimeError unless reference and basis have the shapes that are wanted."""
    if tuple(reference.shape) != wanted or tuple(basis.shape) != of_basis or len(basis) < 1:
        raise SpacetimeError(
            f"Eckart frame: reference and basis have shapes {tuple(reference.shape)} and"
            f" {tuple(basis.shape)}, want {wanted} and {of_basis}, of three atoms at least"
        )


def check_basis(basis: Tensor, rigid: Tensor) -> None:
    """Raise SpacetimeError unless a basis is orthonormal, and orthogonal to rigid motions."""
    excess = basis @ basis.T - torch.eye(len(basis), dtype=basis.dtype)
    if not (float(excess.abs().max()) <= 1e-9 and float((basis @ rigid.T).abs().max()) <= 1e-9):
        raise SpacetimeError(
            "Eckart frame: its basis is not orthonormal, or translates or turns the reference"
        )


def _rigid_motions(masses: Tensor, reference: Tensor) -> Tensor:
    """Return (6, 3 n_atoms), translations and turns in mass-weighted space."""
    axes = torch.eye(3, dtype=masses.dtype)[:, None].expand(3, len(masses), 3)
    turns = torch.linalg.cross(axes, reference.expand_as(axes))
    return (weights_of(masses) * torch.cat([axes, turns])).flatten(1)
