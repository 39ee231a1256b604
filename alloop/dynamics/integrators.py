"""Velocity Verlet and Langevin BAOAB for a batch of replicas of one system, in float64.

One step costs one evaluation of the field. Nothing here mixes replicas: what happens to one of them
depends on its own start, temperature and seed alone, never on who else is in the batch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from alloop.units import ACCELERATION, KB, KINETIC

NOISE_BLOCK = 64
"""Steps of noise drawn at once: one call of a generator per replica and block, not per step."""


class Response(NamedTuple):
    """What the field says of a batch of geometries.

    Attributes
    ----------
    forces : (n_replicas, n_atoms, 3) float64, eV/Å, the forces that move the atoms.
    energies : (n_members, n_replicas) float64, eV.
    spread : (n_replicas, n_atoms) float64, eV/Å, disagreement on the forces, if asked for.

    """

    forces: Tensor
    energies: Tensor
    spread: Tensor | None


Field = Callable[[Tensor], Response]
"""Positions (n_replicas, n_atoms, 3), Å, to a response."""


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Where a batch of replicas is, and what the field says of it there.

    Attributes
    ----------
    positions : (n_replicas, n_atoms, 3) float64, Å, never wrapped into a cell.
    velocities : (n_replicas, n_atoms, 3) float64, Å/fs.
    response : forces, member energies and force spread at these positions.

    """

    positions: Tensor
    velocities: Tensor
    response: Response

    def keep(self, chosen: Tensor) -> State:
        """Return the replicas that a (n_replicas,) bool mask chooses."""
        forces, energies, spread = self.response
        kept = Response(
            forces[chosen], energies[:, chosen], None if spread is None else spread[chosen]
        )
        return State(self.positions[chosen], self.velocities[chosen], kept)


class Integrator(Protocol):
    """Moves a batch of replicas by one time step."""

    def step(self, state: State, field: Field) -> State:
        """Return the state one time step later."""

    def keep(self, chosen: Tensor) -> None:
        """Go on with only the replicas that a (n_replicas,) bool mask chooses."""

    def memory(self) -> dict[str, Any]:
        """Return what the next step depends on besides the state, as tensors and plain values."""

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Go on as the integrator that this memory is of."""


class VelocityVerlet:
    """Newton's equations at constant energy (doi:10.1063/1.442716).

    Symplectic, time-reversible, second order in the time step. Total momentum and angular momentum
    are those of the start.

    Parameters
    ----------
    masses : (n_atoms,) float64, amu.
    timestep : fs.

    """

    def __init__(self, masses: Tensor, timestep: float) -> None:
        self._timestep = timestep
        self._half_kick = 0.5 * timestep * ACCELERATION / masses[:, None]

    def step(self, state: State, field: Field) -> State:
        """Return the state one time step later."""
        halfway = state.velocities + self._half_kick * state.response.forces
        positions = state.positions + self._timestep * halfway
        response = field(positions)
        return State(positions, halfway + self._half_kick * response.forces, response)

    def keep(self, chosen: Tensor) -> None:
        """Go on with fewer replicas: there is nothing to forget."""

    def memory(self) -> dict[str, Any]:
        """Return nothing: it has no memory."""
        return {}

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Go on: there is nothing to remember."""


class LangevinBaoab:
    """Langevin dynamics at constant temperature by the BAOAB splitting (doi:10.1093/amrx/abs010).

    Half kick, half drift, Ornstein-Uhlenbeck, half drift, half kick. Its configurations are exact
    for a harmonic oscillator at every stable time step; its recorded velocities are colder by
    (ω·timestep)²/4 (doi:10.1063/1.4802990), 3 % for an O-H stretch at 0.5 fs.

    Friction and noise act on all motion but that of the centre of mass, whose velocity they set to
    zero. In mass-weighted coordinates this is an orthogonal projection of isotropic noise, so the
    3 n_atoms - 3 other degrees of freedom are sampled exactly and nothing drifts away. The field
    must not know where the system is (no outer potential). Rotation is thermalised like the rest.

    Parameters
    ----------
    masses : (n_atoms,) float64, amu.
    timestep : fs.
    temperatures : (n_replicas,) float64, K.
    friction : 1/fs.
    seeds : one for each replica; its noise depends on nothing else.

    """

    def __init__(
        self,
        masses: Tensor,
        timestep: float,
        temperatures: Tensor,
        friction: float,
        seeds: Sequence[int],
    ) -> None:
        self._half_step = 0.5 * timestep
        self._half_kick = 0.5 * timestep * ACCELERATION / masses[:, None]
        self._memory = math.exp(-friction * timestep)
        thermal = KB * temperatures[:, None, None] / (KINETIC * masses[None, :, None])
        self._amplitude = torch.sqrt(-math.expm1(-2.0 * friction * timestep) * thermal)
        self._weights = (masses / masses.sum())[:, None]
        self._noise = ReplicaNoise(seeds, len(masses), masses.device)

    def step(self, state: State, field: Field) -> State:
        """Return the state one time step later."""
        velocities = state.velocities + self._half_kick * state.response.forces
        positions = state.positions + self._half_step * velocities
        velocities = self._memory * velocities + self._amplitude * self._noise.draw()
        velocities = velocities - (self._weights * velocities).sum(dim=1, keepdim=True)
        positions = positions + self._half_step * velocities
        response = field(positions)
        return State(positions, velocities + self._half_kick * response.forces, response)

    def keep(self, chosen: Tensor) -> None:
        """Go on with only the chosen replicas; their noise goes on where it was."""
        self._amplitude = self._amplitude[chosen]
        self._noise.keep(chosen)

    def memory(self) -> dict[str, Any]:
        """Return the replicas' share of the noise, and where it is."""
        return {"amplitude": self._amplitude, "noise": self._noise.memory()}

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Go on with the replicas and the noise of this memory."""
        self._amplitude = memory["amplitude"].to(self._amplitude.device)
        self._noise.restore(memory["noise"])


class ReplicaNoise:
    """Standard normal numbers, one stream for each replica, drawn in blocks on the host.

    NumPy's generator rather than torch's: the stream is the same on every device, does not depend
    on how many numbers are drawn at once, and costs 10 ns a number.
    """

    def __init__(self, seeds: Sequence[int], n_atoms: int, device: torch.device) -> None:
        self._streams = [np.random.default_rng(seed) for seed in seeds]
        self._n_atoms = n_atoms
        self._device = device
        self._block = torch.empty(0)
        self._used = 0

    def draw(self) -> Tensor:
        """Return the next (n_replicas, n_atoms, 3) float64 numbers."""
        if self._used == len(self._block):
            shape = (NOISE_BLOCK, self._n_atoms, 3)
            drawn = np.stack([stream.standard_normal(shape) for stream in self._streams], axis=1)
            self._block, self._used = torch.from_numpy(drawn).to(self._device), 0
        self._used += 1
        return self._block[self._used - 1]

    def keep(self, chosen: Tensor) -> None:
        """Drop the streams of the replicas that a (n_replicas,) bool mask does not choose."""
        self._streams = [
            s for s, stays in zip(self._streams, chosen.tolist(), strict=True) if stays
        ]
        if len(self._block) > 0:
            self._block = self._block[:, chosen]

    def memory(self) -> dict[str, Any]:
        """Return where each stream is, and the numbers that were drawn and not used."""
        streams = [json.dumps(stream.bit_generator.state) for stream in self._streams]
        return {"streams": streams, "drawn": self._block[self._used :].clone()}

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Go on where these streams were."""
        self._streams = [np.random.default_rng() for _ in memory["streams"]]
        for stream, kept in zip(self._streams, memory["streams"], strict=True):
            stream.bit_generator.state = json.loads(kept)
        self._block, self._used = memory["drawn"].to(self._device), 0


def kinetic_energy(velocities: Tensor, masses: Tensor) -> Tensor:
    """Return the kinetic energy (n_replicas,), eV, of velocities (n_replicas, n_atoms, 3), Å/fs."""
    return 0.5 * KINETIC * (masses[:, None] * velocities**2).sum(dim=(1, 2))


def degrees_of_freedom(n_atoms: int) -> int:
    """Return how many motions carry temperature: all but that of the centre of mass."""
    return 3 * n_atoms - 3


def temperature(kinetic: Tensor, n_atoms: int) -> Tensor:
    """Return the temperature, K, of kinetic energies, eV, with the centre of mass at rest."""
    return 2.0 * kinetic / (KB * degrees_of_freedom(n_atoms))
