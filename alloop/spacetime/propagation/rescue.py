"""Ordinary dynamics for segments that a 4D model cannot do."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from alloop.dynamics.integrators import Response, State, VelocityVerlet
from alloop.spacetime.coordinates.protocol import Dual
from alloop.spacetime.propagation.energy_rules import kinetic_energy
from alloop.spacetime.surface import Surface
from alloop.units import ACCELERATION, EV_PER_KCAL_MOL

TIMESTEP = 0.25
"""Longest step, fs."""
EXPLODED = 10.0 * EV_PER_KCAL_MOL
"""Dynamics that changes the total energy by more within a segment has failed too."""


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """A segment of ordinary dynamics: what a fit needs to learn where the model failed.

    Attributes
    ----------
    replica : whose.
    start : when in its propagation it begins, fs.
    timestep : time between its frames, fs.
    positions, velocities : (n_frames, n_atoms, 3) float64, Å and Å/fs.
    energies : (n_frames,) float64, potential energies, eV.
    forces : (n_frames, n_atoms, 3) float64, eV/Å.

    """

    replica: int
    start: float
    timestep: float
    positions: Tensor
    velocities: Tensor
    energies: Tensor
    forces: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Dynamics:
    """Segments of ordinary dynamics of several replicas, as functions of time.

    Attributes
    ----------
    timestep : fs.
    positions, velocities, accelerations : (n_replicas, n_frames, n_atoms, 3), Å, Å/fs, Å/fs².
    energies : (n_replicas, n_frames), potential energies, eV.
    forces : (n_replicas, n_frames, n_atoms, 3), eV/Å.

    """

    timestep: float
    positions: Tensor
    velocities: Tensor
    accelerations: Tensor
    energies: Tensor
    forces: Tensor

    def at(self, times: Tensor) -> Dual:
        """Return positions and velocities (n_replicas, n_times, n_atoms, 3) at times, fs.

        Between steps the quintic that has the positions, velocities and accelerations of both ends;
        those of velocity Verlet being what they are, it takes the change of acceleration only.
        """
        steps = torch.clamp((times / self.timestep).long(), 0, self.positions.shape[1] - 2)
        h, u = self.timestep, (times / self.timestep - steps)[:, None, None]
        x, v = self.positions[:, steps], h * self.velocities[:, steps]
        a = h * h * self.accelerations[:, steps]
        change = h * h * self.accelerations[:, steps + 1] - a
        moved = x + u * (v + u * (0.5 * a - u * change * (1.5 - u * (2.5 - u))))
        moving = v + u * (a - u * change * (4.5 - u * (10.0 - 5.0 * u)))
        return moved, moving / h

    def errors(self, masses: Tensor) -> tuple[Tensor, Tensor]:
        """Return changes of the total energy (n_replicas,), eV, and whether all of it is sound."""
        totals = self.energies + kinetic_energy(masses, self.velocities)
        changes = totals - totals[:, :1]
        return changes[:, -1], (changes.abs() <= EXPLODED).all(dim=-1)

    def stretch(self, row: int, replica: int, start: float) -> Stretch:
        """Return the segment of one replica."""
        parts = (self.positions, self.velocities, self.energies, self.forces)
        return Stretch(replica, start, self.timestep, *(part[row] for part in parts))


def run_dynamics(
    surface: Surface, masses: Tensor, positions: Tensor, velocities: Tensor, length: float
) -> Dynamics:
    """Return velocity-Verlet segments of replicas (n, n_atoms, 3) side by side.

    Steps are the longest below :data:`TIMESTEP` that fill the length, fs.
    """
    n_steps = max(1, math.ceil(length / TIMESTEP - 1e-9))
    integrator = VelocityVerlet(masses, length / n_steps)

    def field(where: Tensor) -> Response:
        energies, forces = surface.with_forces(where)
        return Response(forces, energies[None], None)

    states = [State(positions, velocities, field(positions))]
    for _ in range(n_steps):
        states.append(integrator.step(states[-1], field))
    forces = torch.stack([state.response.forces for state in states], dim=1)
    return Dynamics(
        length / n_steps,
        torch.stack([state.positions for state in states], dim=1),
        torch.stack([state.velocities for state in states], dim=1),
        ACCELERATION * forces / masses[:, None],
        torch.stack([state.response.energies[0] for state in states], dim=1),
        forces,
    )
