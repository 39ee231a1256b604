"""What all rules of propagation share: the task, and what is noted on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from alloop.errors import SpacetimeError
from alloop.spacetime.coordinates.protocol import Dual
from alloop.spacetime.model import SpacetimeModel
from alloop.spacetime.motion.orientation import check_starts
from alloop.spacetime.propagation.courses import Log
from alloop.spacetime.propagation.energy_rules import PropagationSettings, total_energy
from alloop.spacetime.propagation.rescue import Stretch
from alloop.spacetime.propagation.schedule import Schedule, Times
from alloop.spacetime.surface import Surface

Progress = Callable[[float, float, int], None]
"""Called with (fs done by the replica that is behind, fs in all, replicas still going)."""


@dataclass(frozen=True, slots=True, eq=False)
class Venture:
    """A propagation that is under way.

    Attributes
    ----------
    model : the 4D model.
    start : positions and velocities (n_replicas, n_atoms, 3), Å and Å/fs.
    schedule : the times asked for, by segment.
    settings : the rules.
    surface : energies, for the rules that need them.
    targets : (n_replicas,) total energies of the starts, eV; NaN without a surface.
    logs : of each replica what was noted.
    stretches : segments of ordinary dynamics so far.
    deadline : of ``time.monotonic()``.
    on_progress : who is told.

    """

    model: SpacetimeModel
    start: Dual
    schedule: Schedule
    settings: PropagationSettings
    surface: Surface | None
    targets: Tensor
    logs: list[Log]
    deadline: float | None
    on_progress: Progress | None
    stretches: list[Stretch] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        model: SpacetimeModel,
        start: Dual,
        times: Times,
        settings: PropagationSettings,
        surface: Surface | None,
        deadline: float | None,
        on_progress: Progress | None,
    ) -> Venture:
        """Return a propagation that has not begun; SpacetimeError if it makes no sense."""
        check_starts(model, *start)
        length = model.cutoff if settings.segment is None else settings.segment
        if length > model.cutoff:
            raise SpacetimeError(
                f"segments of {length} fs are longer than the model's cutoff, {model.cutoff} fs"
            )
        targets = torch.full((len(start[0]),), math.nan, dtype=torch.float64)
        if settings.rule != "mean" or settings.rescue:
            if surface is None:
                what = "rescue" if settings.rule == "mean" else f"rule {settings.rule!r}"
                raise SpacetimeError(f"propagation: {what} needs a surface of potential energy")
            targets = total_energy(surface, model.masses, *start)
        logs = [Log() for _ in start[0]]
        schedule = Schedule(times, length)
        return cls(model, start, schedule, settings, surface, targets, logs, deadline, on_progress)

    @property
    def length(self) -> float:
        """Length of a segment, fs."""
        return self.schedule.length

    @property
    def energy_surface(self) -> Surface:
        """The surface, where the rules need one."""
        if self.surface is None:
            raise SpacetimeError("propagation: this needs a surface of potential energy")
        return self.surface

    def expired(self, going: list[int]) -> bool:
        """Tell whether time is up, and if so end the replicas that are still going."""
        if self.deadline is None or time.monotonic() < self.deadline:
            return False
        for replica in going:
            self.logs[replica].reason = "deadline"
        return True

    def report(self, segments: int, n_going: int) -> None:
        """Tell how far the replica has come that is behind."""
        if self.on_progress is not None:
            total = self.schedule.n_segments
            self.on_progress(min(segments, total) * self.length, total * self.length, n_going)
