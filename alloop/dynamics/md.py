"""Molecular dynamics of many replicas of one system on the mean force of a committee."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import torch
from torch import Tensor

from alloop.checkpoint import CheckpointFile, identity
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
    from pathlib import Path

    from numpy.typing import NDArray

    from alloop.potentials.evaluation import Committee

CHECKPOINT_S: Final = 60.0
"""Seconds between two checkpoints: shorter runs write none."""
SAME_PLACE: Final = 1e-6
"""Starts that are nearer than this, Å, are the same as far as processors can tell."""
SAME_ENERGY: Final = 1e-3
"""The same for energies, eV, besides a millionth of them: networks compute in float32."""


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
    on_progress: Callable[[int, int], None] | None = None,
    checkpoint: Path | None = None,
    checkpoint_s: float = CHECKPOINT_S,
    lay_down_at: float | None = None,
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
    on_progress : called with (steps taken, replicas running) at every recorded frame.
    checkpoint : file that keeps the run every ``checkpoint_s``. A run that finds its own state
        there (equal settings, limits and system, the same starts and energies) goes on from it to
        the same trajectories, bit for bit on the same kind of processor; the caller removes it.
    lay_down_at : value of ``time.monotonic()`` by which a run that has not ended keeps its state
        in the checkpoint and raises OutOfTime.

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
    file, kept = None, None
    if checkpoint is not None:
        owner = identity("dynamics", settings, limits, numbers, masses, cell, reference)
        file = CheckpointFile(checkpoint, owner, checkpoint_s, lay_down_at)
        kept = file.load()
    if kept is None or not run.resume(kept, x, v):
        run.start(x, v)
    while run.goes_on:
        run.advance()
        if on_progress is not None and run.step % settings.record_every == 0:
            on_progress(run.step, len(run.alive))
        if file is not None and run.goes_on:
            file.offer(run.memory)
    run.complete()
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
        self.step = 0
        self._starts = positions, velocities
        self._state: State
        self._record = Record(
            settings.n_steps,
            settings.record_every,
            n_replicas,
            len(system.numbers),
            committee.n_members,
        )
        self._ended: dict[int, tuple[str, int]] = {}

    @property
    def goes_on(self) -> bool:
        """Whether there is a replica left, and a step to take."""
        return len(self.alive) > 0 and self.step < self._settings.n_steps

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

    def advance(self) -> None:
        """Take one step, dismiss whoever broke, record if it is time."""
        self.step += 1
        record = self.step % self._settings.record_every == 0
        self._state = self._integrator.step(self._state, self._field(members=record))
        if record:
            self._judge_and_record()
        else:
            self._continue_with(self._dismiss(self._health.check_motion(self._state)))

    def complete(self) -> None:
        """End every replica that still runs."""
        for replica in self.alive.tolist():
            self._ended[replica] = ("completed", self.step)

    def memory(self) -> dict[str, Any]:
        """Return what the rest of the run depends on, as tensors and plain values."""
        forces, energies, _ = self._state.response
        held: dict[str, Any] = {
            "starts": self._starts,
            "positions": self._state.positions,
            "velocities": self._state.velocities,
            "forces": forces,
            "energies": energies,
            "integrator": self._integrator.memory(),
            "health": self._health.memory(),
            "step": self.step,
            "alive": self.alive.tolist(),
            "ended": [[replica, *how] for replica, how in self._ended.items()],
            "record": self._record.memory(),
        }
        return {name: _on_host(value) for name, value in held.items()}

    def resume(self, memory: Mapping[str, Any], positions: Tensor, velocities: Tensor) -> bool:
        """Go on from a memory, unless its starts or its potential were others."""
        device = positions.device
        for kept, start in zip(memory["starts"], (positions, velocities), strict=True):
            if not torch.allclose(
                kept.to(device), start, rtol=0.0, atol=SAME_PLACE, equal_nan=True
            ):
                return False
        names = ("positions", "velocities", "forces", "energies")
        x, v, forces, energies = (memory[name].to(device) for name in names)
        now = self._field(members=False)(x).energies
        if now.shape != energies.shape or not torch.allclose(
            now, energies, rtol=1e-6, atol=SAME_ENERGY
        ):
            return False
        self._state = State(x, v, Response(forces, energies, None))
        self.step, self.alive = memory["step"], np.array(memory["alive"])
        self._ended = {replica: (why, step) for replica, why, step in memory["ended"]}
        self._integrator.restore(memory["integrator"])
        self._health.restore(memory["health"])
        self._record.restore(memory["record"])
        return True

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
            if ended != "completed":
                suspect_from = last_step - self._limits.pre_failure / settings.timestep
            result.append(self._record.trajectory(replica, self._system, about, suspect_from))
        return result

    def _judge_and_record(self) -> None:
        reasons = self._health.check(self._state)
        kept = np.array([r in (None, Reason.UNCERTAINTY) for r in reasons])
        self._record.add(
            self.step, self.alive[kept], self._state.keep(_mask(kept, self._masses)), self._masses
        )
        self._continue_with(self._dismiss(reasons))

    def _dismiss(self, reasons: list[Reason | None]) -> Tensor:
        """End the replicas that have a reason and return the mask of the others."""
        for replica, reason in zip(self.alive.tolist(), reasons, strict=True):
            if reason is not None:
                self._ended[replica] = (reason.value, self.step)
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


def _on_host(held: Any) -> Any:
    """Return tensors in dicts, lists and tuples as the processor holds them: GPUs may differ."""
    if isinstance(held, Tensor):
        return held.detach().cpu()
    if isinstance(held, dict):
        return {name: _on_host(value) for name, value in held.items()}
    if isinstance(held, list | tuple):
        return [_on_host(value) for value in held]
    return held


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
