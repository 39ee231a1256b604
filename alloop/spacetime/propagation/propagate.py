"""Long trajectories from a 4D model: the end of one segment is the start of the next."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from alloop.spacetime.model import SpacetimeModel
from alloop.spacetime.propagation.courses import Block, Course
from alloop.spacetime.propagation.energy_rules import PropagationSettings
from alloop.spacetime.propagation.lockstep import follow_together
from alloop.spacetime.propagation.rescue import Stretch
from alloop.spacetime.propagation.rollback import follow_each
from alloop.spacetime.propagation.schedule import Listed, Regular, Times
from alloop.spacetime.propagation.venture import Progress, Venture
from alloop.spacetime.surface import Surface

Sink = Callable[[Block], None]
"""Takes frames as they come: those of one replica in the order of time, replicas in turns."""


@dataclass(frozen=True, slots=True, eq=False)
class Propagation:
    """What became of each replica.

    Attributes
    ----------
    times : (n_times,) float64, fs; none where frames went to a sink.
    positions, velocities : (n_replicas, n_times, n_atoms, 3) float64, Å and Å/fs; NaN from where a
        replica ended; :meth:`frames` leaves that out.
    courses : of each replica how it went.
    stretches : segments of ordinary dynamics, in the order they were run.

    """

    times: Tensor
    positions: Tensor
    velocities: Tensor
    courses: tuple[Course, ...]
    stretches: tuple[Stretch, ...]

    @property
    def n_frames(self) -> Tensor:
        """How many frames of each replica are sound, (n_replicas,) int64."""
        return torch.tensor([course.n_frames for course in self.courses], dtype=torch.int64)

    @property
    def reasons(self) -> tuple[str | None, ...]:
        """Why each replica ended early: "non-finite", "contact", "energy", "deadline"; or None."""
        return tuple(course.reason for course in self.courses)

    def frames(self, replica: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return times, positions and velocities of one replica up to its end."""
        n = self.courses[replica].n_frames
        return self.times[:n], self.positions[replica, :n], self.velocities[replica, :n]


class Propagator:
    """Follows replicas segment by segment and hands out their frames as they come.

    Parameters
    ----------
    model : the 4D model.
    positions, velocities : (n_replicas, n_atoms, 3) float64, the starts, Å and Å/fs.
    times : (n_times,) float64, ascending from 0 or later, fs, any spacing; or :class:`Regular`
        ones. Segments are always whole: energies are judged up to the end of the last one.
    surface : potential energies, for the rules "select" and "shell" and for a rescue.
    settings : what is done about the energy.
    deadline : value of ``time.monotonic()`` after which no further segment is begun.
    on_progress : called after each round of segments with (fs done by the replica that is behind,
        fs in all, replicas still going).

    Raises
    ------
    SpacetimeError
        Wrong shapes, starts that are not finite, times out of order, or no surface for a rule that
        needs one.

    """

    def __init__(
        self,
        model: SpacetimeModel,
        positions: Tensor,
        velocities: Tensor,
        times: Tensor | Regular,
        *,
        surface: Surface | None = None,
        settings: PropagationSettings | None = None,
        deadline: float | None = None,
        on_progress: Progress | None = None,
    ) -> None:
        self.times: Times = times if isinstance(times, Regular) else Listed(times)
        self._venture = Venture.of(
            model,
            (positions, velocities),
            self.times,
            settings or PropagationSettings(),
            surface,
            deadline,
            on_progress,
        )

    def blocks(self) -> Iterator[Block]:
        """Yield frames as they come; to be called once."""
        if self._venture.settings.rule == "select":
            return follow_each(self._venture)
        return follow_together(self._venture)

    def courses(self) -> tuple[Course, ...]:
        """Return how each replica has gone so far."""
        return tuple(log.course() for log in self._venture.logs)

    def stretches(self) -> tuple[Stretch, ...]:
        """Return the segments of ordinary dynamics so far."""
        return tuple(self._venture.stretches)


def propagate(
    model: SpacetimeModel,
    positions: Tensor,
    velocities: Tensor,
    times: Tensor | Regular,
    *,
    surface: Surface | None = None,
    settings: PropagationSettings | None = None,
    sink: Sink | None = None,
    deadline: float | None = None,
    on_progress: Progress | None = None,
) -> Propagation:
    """Follow replicas to any times, segment by segment; by the mean of the ensemble if not told.

    With a ``sink`` frames are handed to it and none are kept, so that memory does not grow with
    time. For the other parameters and errors see :class:`Propagator`.
    """
    propagator = Propagator(
        model,
        positions,
        velocities,
        times,
        surface=surface,
        settings=settings,
        deadline=deadline,
        on_progress=on_progress,
    )
    n_kept = 0 if sink is not None else len(propagator.times)
    shape = len(positions), n_kept, *positions.shape[1:]
    kept = tuple(torch.full(shape, math.nan, dtype=torch.float64) for _ in "xv")
    for block in propagator.blocks():
        if sink is not None:
            sink(block)
            continue
        span = slice(block.first, block.first + len(block.times))
        kept[0][block.replica, span] = block.positions
        kept[1][block.replica, span] = block.velocities
    seen = propagator.times.span(0, n_kept)
    return Propagation(seen, kept[0], kept[1], propagator.courses(), propagator.stretches())
