"""Propagation under the rules ``mean`` and ``shell``: all replicas take each segment together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from alloop.spacetime.coordinates.protocol import Dual
from alloop.spacetime.motion.orientation import forecast
from alloop.spacetime.propagation.courses import DYNAMICS, MEAN, Block, find_faults
from alloop.spacetime.propagation.energy_rules import (
    check_times,
    kinetic_energy,
    onto_shell,
    total_energy,
)
from alloop.spacetime.propagation.rescue import run_dynamics
from alloop.spacetime.propagation.reversible import follow_reversibly
from alloop.spacetime.propagation.venture import Venture


@dataclass(slots=True, eq=False)
class Attempt:
    """One segment of several replicas, done in one way.

    Attributes
    ----------
    positions, velocities : (n, n_times, n_atoms, 3), at the times asked for, Å and Å/fs.
    end : positions and velocities (n, n_atoms, 3) that the next segment starts from.
    errors : (n,) largest change of energy before correction, eV; NaN where none is known.
    members : (n,) int64, who did it.
    faults : of each replica how many frames are sound and what is wrong then, or None.

    """

    positions: Tensor
    velocities: Tensor
    end: Dual
    errors: Tensor
    members: Tensor
    faults: list[tuple[int, str] | None]

    def failed(self) -> Tensor:
        """Return the indices of the replicas that have a fault."""
        return torch.tensor([i for i, f in enumerate(self.faults) if f is not None]).long()

    def replace(self, rows: Tensor, other: Attempt) -> None:
        """Put another attempt in the place of some replicas."""
        self.positions[rows], self.velocities[rows] = other.positions, other.velocities
        for mine, yours in zip(self.end, other.end, strict=True):
            mine[rows] = yours
        self.errors[rows], self.members[rows] = other.errors, other.members
        for row, fault in zip(rows.tolist(), other.faults, strict=True):
            self.faults[row] = fault


def follow_together(venture: Venture) -> Iterator[Block]:
    """Yield what replicas do, segment by segment."""
    going = torch.arange(len(venture.logs))
    positions, velocities = venture.start
    for segment in range(venture.schedule.n_segments):
        if len(going) == 0 or venture.expired(going.tolist()):
            break
        attempt = _try(venture, segment, going, positions, velocities)
        first, times = venture.schedule.first(segment), venture.schedule.within(segment)
        times = times + segment * venture.length
        for row, replica in enumerate(going.tolist()):
            log, fault = venture.logs[replica], attempt.faults[row]
            n_sound = len(times) if fault is None else min(fault[0], len(times))
            log.reason = None if fault is None else fault[1]
            log.n_frames = first + n_sound
            if fault is None:
                log.add(int(attempt.members[row]), float(attempt.errors[row]))
            if n_sound:
                frames = attempt.positions[row, :n_sound], attempt.velocities[row, :n_sound]
                yield Block(replica, first, times[:n_sound], *frames)
        alive = torch.tensor([fault is None for fault in attempt.faults])
        going = going[alive]
        positions, velocities = (part[alive] for part in attempt.end)
        venture.report(segment + 1, len(going))


def _try(
    venture: Venture, segment: int, going: Tensor, positions: Tensor, velocities: Tensor
) -> Attempt:
    """Return a segment of all replicas, those that fail one way done the next way."""
    steps = _Steps(venture, segment)
    ways: list[Callable[[Dual, Tensor], Attempt]] = [steps.by_mean]
    if venture.settings.rule == "shell" and not venture.settings.rescue:
        ways.append(steps.by_best_member)
    start, targets = (positions, velocities), venture.targets[going]
    attempt = ways[0](start, targets)
    for way in ways[1:]:
        failed = attempt.failed()
        if len(failed):
            attempt.replace(failed, way((positions[failed], velocities[failed]), targets[failed]))
    failed = attempt.failed()
    if len(failed) and venture.settings.rescue:
        rescued = steps.by_dynamics((positions[failed], velocities[failed]), going[failed])
        attempt.replace(failed, rescued)
    return attempt


class _Steps:
    """The ways to do one segment."""

    def __init__(self, venture: Venture, segment: int) -> None:
        self._venture, self._segment = venture, segment
        self._asked = venture.schedule.within(segment)
        energy = venture.settings.rule == "shell"
        self._checks = check_times(venture.length, venture.settings.checks_inside * energy)
        self._last = segment + 1 == venture.schedule.n_segments

    def by_mean(self, start: Dual, targets: Tensor) -> Attempt:
        """Return what the mean of the ensemble says."""
        venture, times = self._venture, torch.cat([self._checks, self._asked])
        members = torch.full((len(targets),), MEAN)
        if venture.settings.rule == "shell" and venture.settings.reversible:
            halves = follow_reversibly(
                venture.model, start, venture.length, times, venture.energy_surface, targets
            )
            motion = halves.positions, halves.velocities
            return self._judge(motion, targets, members, halves.taken[:, : len(self._checks)])
        told = forecast(venture.model, *start, until=venture.length)
        return self._judge(told.at(times), targets, members)

    def by_best_member(self, start: Dual, targets: Tensor) -> Attempt:
        """Return for each replica what the network says that changes the energy least."""
        venture = self._venture
        told = forecast(venture.model, *start, members=True, until=venture.length)
        checked = told.at(self._checks)
        energies = total_energy(venture.energy_surface, venture.model.masses, *checked)
        errors = (energies - targets[:, None]).abs().amax(-1).nan_to_num(nan=math.inf)
        best = errors.argmin(dim=0)
        chosen = told.only(torch.arange(len(best)), best)
        return self._judge(chosen.at(torch.cat([self._checks, self._asked])), targets, best)

    def by_dynamics(self, start: Dual, replicas: Tensor) -> Attempt:
        """Return ordinary dynamics on the surface."""
        venture = self._venture
        run = run_dynamics(venture.energy_surface, venture.model.masses, *start, venture.length)
        positions, velocities = run.at(self._asked)
        end = run.positions[:, -1].clone(), run.velocities[:, -1].clone()
        errors, sound = run.errors(venture.model.masses)
        faults = [None if fine else (0, "energy") for fine in sound.tolist()]
        for row, replica in enumerate(replicas.tolist()):
            if sound[row]:
                begin = self._segment * venture.length
                venture.stretches.append(run.stretch(row, replica, begin))
        members = torch.full((len(replicas),), DYNAMICS)
        return Attempt(positions, velocities, end, errors, members, faults)

    def _judge(
        self, motion: Dual, targets: Tensor, members: Tensor, taken: Tensor | float = 0.0
    ) -> Attempt:
        """Return an attempt of motion at the times of the checks and those asked for."""
        n_checks = len(self._checks)
        positions, velocities = motion
        end = positions[:, n_checks - 1].clone(), velocities[:, n_checks - 1].clone()
        errors = torch.full_like(targets, math.nan)
        over = torch.zeros(len(targets), dtype=torch.bool)
        if self._venture.settings.rule == "shell":
            checked = positions[:, :n_checks], velocities[:, :n_checks]
            end, errors = self._correct(end, checked, targets, taken)
            over = ~(errors.abs() <= self._venture.settings.largest_change)
        seen = positions[:, n_checks:].clone(), velocities[:, n_checks:].clone()
        faults = self._faults(seen, end)
        faults = [(0, "energy") if bad and (fault is None or fault[1] != "non-finite") else fault
                  for bad, fault in zip(over.tolist(), faults, strict=True)]  # fmt: skip
        for part, final in zip(seen, end, strict=True):
            part[:, self._asked == self._venture.length] = final.unsqueeze(1)
        return Attempt(*seen, end, errors, members, faults)

    def _correct(
        self, end: Dual, checked: Dual, targets: Tensor, taken: Tensor | float
    ) -> tuple[Dual, Tensor]:
        """Return the ends on the energy shell, and the largest errors without any correction.

        ``taken`` (n, n_checks) are energies that were taken away on the way, eV.
        """
        surface, masses = self._venture.energy_surface, self._venture.model.masses
        potential, forces = surface.with_forces(end[0])
        excess = potential + kinetic_energy(masses, end[1]) - targets
        inside = (part[:, :-1] for part in checked)
        between = total_energy(surface, masses, *inside) - targets[:, None]
        errors = torch.cat([between, excess[:, None]], dim=-1) + taken
        largest = errors.gather(-1, errors.abs().nan_to_num(nan=math.inf).argmax(-1, keepdim=True))
        return onto_shell(masses, *end, forces, excess), largest.squeeze(-1)

    def _faults(self, seen: Dual, end: Dual) -> list[tuple[int, str] | None]:
        """Return faults of the frames asked for and, if more is to come, of the end."""
        times = self._asked
        if not self._last:
            times = torch.cat([times, times.new_tensor([self._venture.length])])
            seen = (
                torch.cat([seen[0], end[0][:, None]], dim=1),
                torch.cat([seen[1], end[1][:, None]], dim=1),
            )
        return find_faults(self._venture.model, times, *seen)
