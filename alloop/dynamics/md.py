"""Molecular dynamics of many replicas of one system on the mean force of a committee."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from alloop.dynamics.health import Health, HealthLimits, Reason
from alloop.dynamics.integrators import (
    Field,
    Integrator,
    LangevinBaoab,
    Response,
    State,
    VelocityVerlet,
)
from alloop.dynamics.recording import Record, force_spread
from alloop.errors import DynamicsError
from alloop.trajectories import About, System, Trajectory

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alloop.potentials.evaluation import Committee


@dataclass(frozen=True, slots=True)
class MdSettings:
    """How replicas of one system are propagated.

    Attributes
    ----------
    ensemble : "nve" (velocity Verlet) or "nvt" (Langevin BAOAB).
    timestep : fs.
    n_steps : time steps to take.
    record_every : steps between two recorded frames; the start is recorded too.
    temperatures : one for each replica, K; at constant energy that of the sampling of the start.
    seeds : one for each replica, of its noise; at constant energy only remembered.
    friction : 1/fs; needed in the "nvt" ensemble.

    Raises
    ------
    DynamicsError
        A number is out of range or there is not one temperature and seed for each replica.

    """

    ensemble: Literal["nve", "nvt"]
    timestep: float
    n_steps: int
    record_every: int
    temperatures: tuple[float, ...]
    seeds: tuple[int, ...]
    friction: float | None = None

    def __post_init__(self) -> None:
        if self.ensemble not in ("nve", "nvt"):
            raise DynamicsError(f"ensemble is {self.ensemble!r}, want 'nve' or 'nvt'")
        if not 0.0 < self.timestep < np.inf:
            raise DynamicsError(f"timestep is {self.timestep} fs, want a positive number")
        if self.n_steps < 0 or self.record_every < 1:
            raise DynamicsError(
                f"n_steps is {self.n_steps} and record_every is {self.record_every},"
                " want at least 0 and 1"
            )
        if not self.seeds or len(self.seeds) != len(self.temperatures):
            raise DynamicsError(
                f"{len(self.temperatures)} temperatures and {len(self.seeds)} seeds,"
                " want one of each for every replica"
            )
        if not all(0.0 <= t < np.inf for t in self.temperatures):
            raise DynamicsError(f"temperatures are {self.temperatures} K, want none below 0")
        if self.ensemble == "nvt" and not (self.friction and 0.0 < self.friction < np.inf):
            raise DynamicsError(f"friction is {self.friction} 1/fs, want a positive number for nvt")


def run_md(
    committee: Committee,
    numbers: NDArray[np.int64],
    positions: Tensor | NDArray[np.float64],
    velocities: Tensor | NDArray[np.float64],
    masses: NDArray[np.float64],
    settings: MdSettings,
    limits: HealthLimits,
    *,
    cell: NDArray[np.float64] | None = None,
    reference: NDArray[np.float64] | None = None,
    deadline: float | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Trajectory]:
    """Propagate replicas side by side and return the trajectory of each, in order.

    A replica that breaks leaves the batch; what was recorded before is kept and its last stretch
    marked, the broken state is not. A replica whose force spread passes its limit is stopped too,
    and that last frame is kept: it is what the committee needs to learn. Numbers, forces and
    energies are judged at every step, contacts, bonds and spread at recorded ones.

    Parameters
    ----------
    committee : potential; its mean force moves the atoms.
    numbers : (n_atoms,) atomic numbers, at least two.
    positions : (n_replicas, n_atoms, 3), Å; a tensor decides the device everything runs on.
    velocities : (n_replicas, n_atoms, 3), Å/fs.
    masses : (n_atoms,), amu.
    settings : ensemble, time step and length.
    limits : what counts as broken.
    cell : (3, 3) lattice vectors as rows, Å, passed to the committee; None for a molecule.
    reference : (n_atoms, 3), Å, the geometry whose bonds must hold, with ``limits.max_stretch``.
    deadline : value of ``time.monotonic()`` after which no further step is begun.
    on_progress : called with (steps taken, replicas running) at every recorded frame.

    Raises
    ------
    DynamicsError
        The start has the wrong shape.

    """
    wanted = (len(settings.seeds), len(numbers), 3)
    x = _as_start("positions", positions, wanted)
    v = _as_start("velocities", velocities, wanted).to(x.device)
    if len(masses) != len(numbers) or not all(0.0 < mass < np.inf for mass in masses):
        raise DynamicsError(f"masses are {masses}, want {len(numbers)} positive numbers")
    run = _Run(committee, System(numbers, masses, cell), x, v, settings, limits, reference)
    run.start(x, v)
    for step in range(1, settings.n_steps + 1):
        if not len(run.alive):
            break
        if deadline is not None and time.monotonic() >= deadline:
            run.end("deadline")
            break
        run.advance(step)
        if on_progress is not None and step % settings.record_every == 0:
            on_progress(step, len(run.alive))
    run.end("completed")
    return run.trajectories()


class _Run:
    """The batch in flight: who is still alive, where they are and what was recorded."""

    def __init__(
        self,
        committee: Committee,
        system: System,
        positions: Tensor,
        velocities: Tensor,
        settings: MdSettings,
        limits: HealthLimits,
        reference: NDArray[np.float64] | None,
    ) -> None:
        self._committee, self._system = committee, system
        self._settings, self._limits = settings, limits
        device = positions.device
        self._cell = None if system.cell is None else torch.tensor(system.cell, device=device)
        self._masses = torch.tensor(system.masses, device=device)
        targets = torch.tensor(settings.temperatures, dtype=torch.float64, device=device)
        self._integrator = _integrator(settings, self._masses, targets)
        self._health = Health(
            limits,
            system.numbers,
            self._masses,
            velocities,
            targets,
            cell=self._cell,
            reference=reference,
        )
        n_replicas = len(settings.seeds)
        self.alive = np.arange(n_replicas)
        self._step = 0
        self._state: State
        self._record = Record(
            settings.n_steps,
            settings.record_every,
            n_replicas,
            len(system.numbers),
            committee.n_members,
        )
        self._ended: dict[int, tuple[str, int]] = {}

    def start(self, positions: Tensor, velocities: Tensor) -> None:
        """Evaluate the starts that are fit for it and record them."""
        sound = self._dismiss(self._health.check_start(positions, velocities))
        if not len(self.alive):
            return
        positions, velocities = positions[sound], velocities[sound]
        self._state = State(positions, velocities, self._field(members=True)(positions))
        if self._settings.ensemble == "nve":
            self._health.conserve(self._state)
        self._judge_and_record()

    def advance(self, step: int) -> None:
        """Take one step, dismiss whoever broke, record if it is time."""
        self._step = step
        record = step % self._settings.record_every == 0
        self._state = self._integrator.step(self._state, self._field(members=record))
        if record:
            self._judge_and_record()
        else:
            self._continue_with(self._dismiss(self._health.check_motion(self._state)))

    def end(self, why: str) -> None:
        """End every replica that still runs."""
        for replica in self.alive.tolist():
            self._ended[replica] = (why, self._step)
        self.alive = self.alive[:0]

    def trajectories(self) -> list[Trajectory]:
        """Return what was recorded, by replica."""
        settings = self._settings
        result = []
        for replica, (temperature, seed) in enumerate(
            zip(settings.temperatures, settings.seeds, strict=True)
        ):
            ended, last_step = self._ended[replica]
            about = About(
                settings.ensemble,
                settings.timestep,
                temperature,
                settings.friction if settings.ensemble == "nvt" else None,
                seed,
                ended,
                last_step,
            )
            suspect_from = np.inf
            if ended not in ("completed", "deadline"):
                suspect_from = last_step - self._limits.pre_failure / settings.timestep
            result.append(self._record.trajectory(replica, self._system, about, suspect_from))
        return result

    def _judge_and_record(self) -> None:
        reasons = self._health.check(self._state)
        kept = np.array([r in (None, Reason.UNCERTAINTY) for r in reasons])
        self._record.add(
            self._step, self.alive[kept], self._state.keep(_mask(kept, self._masses)), self._masses
        )
        self._continue_with(self._dismiss(reasons))

    def _dismiss(self, reasons: list[Reason | None]) -> Tensor:
        """End the replicas that have a reason and return the mask of the others."""
        for replica, reason in zip(self.alive.tolist(), reasons, strict=True):
            if reason is not None:
                self._ended[replica] = (reason.value, self._step)
        staying = np.array([reason is None for reason in reasons])
        mask = _mask(staying, self._masses)
        if not staying.all():
            self.alive = self.alive[staying]
            self._health.keep(mask)
            self._integrator.keep(mask)
        return mask

    def _continue_with(self, staying: Tensor) -> None:
        if len(self.alive) < len(staying):
            self._state = self._state.keep(staying)

    def _field(self, *, members: bool) -> Field:
        def respond(positions: Tensor) -> Response:
            wanted: Literal["mean", "members"] = "members" if members else "mean"
            said = self._committee.evaluate(
                self._system.numbers, positions, forces=wanted, cell=self._cell
            )
            if said.forces is None:
                raise DynamicsError("the committee gave no forces though they were asked for")
            spread = None
            if said.member_forces is not None:
                spread = force_spread(said.member_forces.detach(), said.forces.detach())
            return Response(said.forces.detach(), said.energies.detach(), spread)

        return respond


def _integrator(settings: MdSettings, masses: Tensor, temperatures: Tensor) -> Integrator:
    if settings.friction is None or settings.ensemble == "nve":
        return VelocityVerlet(masses, settings.timestep)
    return LangevinBaoab(masses, settings.timestep, temperatures, settings.friction, settings.seeds)


def _as_start(
    name: str, values: Tensor | NDArray[np.float64], wanted: tuple[int, int, int]
) -> Tensor:
    tensor = values.double() if isinstance(values, Tensor) else torch.tensor(values).double()
    if tensor.shape != wanted or wanted[1] < 2:
        raise DynamicsError(
            f"starting {name} have shape {tuple(tensor.shape)}, want {wanted}"
            " (replicas of the settings, two atoms or more, 3)"
        )
    return tensor


def _mask(chosen: NDArray[np.bool_], like: Tensor) -> Tensor:
    return torch.from_numpy(chosen).to(like.device)
