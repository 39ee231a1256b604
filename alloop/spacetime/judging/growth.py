"""How the errors of a 4D model grow within a segment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alloop.errors import SpacetimeError
from alloop.spacetime.learning.trajectories import (
    InternalTrajectory,
    TrajectorySet,
    consecutive_starts,
)
from alloop.spacetime.model import SpacetimeModel


@dataclass(frozen=True, slots=True, eq=False)
class ErrorGrowth:
    """Errors by time after a start, as :class:`~alloop.spacetime.judging.accuracy.Assessment`.

    Root mean square per coordinate, averaged over the coordinates of a kind, Å and rad.

    Attributes
    ----------
    times : (n_times,) float64, fs, up to the cutoff.
    ensemble, ballistic : by kind, (n_times,) float64, of the mean of the networks and of uniform
        motion.
    n_segments : segments compared, which follow each other without overlap.

    """

    times: Tensor
    ensemble: dict[str, Tensor]
    ballistic: dict[str, Tensor]
    n_segments: int


def error_growth(model: SpacetimeModel, data: TrajectorySet, indices: Sequence[int]) -> ErrorGrowth:
    """Return the errors of a model on some of the trajectories, by time within a segment.

    Raises
    ------
    SpacetimeError
        No trajectory is longer than the cutoff.

    """
    n_steps = round(model.cutoff / data.timestep)
    times = data.timestep * torch.arange(1, n_steps + 1, dtype=torch.float64)
    sums = torch.zeros(2, n_steps, model.internal.n_coordinates, dtype=torch.float64)
    n_segments = 0
    for i in indices:
        positions, velocities = data.motion(i)
        starts = consecutive_starts(len(positions), n_steps)
        if len(starts) == 0:
            continue
        windows = InternalTrajectory.of(model.internal, positions, velocities).cut(starts, n_steps)
        learnt = model.coefficients(windows.starts, windows.rates).mean(dim=0)
        for place, coefficients in enumerate((learnt, torch.zeros_like(learnt))):
            moved, _ = model.motion(windows.starts, windows.rates, coefficients, times)
            errors = moved - windows.starts[:, None] - windows.displacements
            sums[place] += errors.square().sum(dim=0)
        n_segments += len(windows)
    if not n_segments:
        raise SpacetimeError(f"4D model: no trajectory is longer than {model.cutoff:g} fs")
    ensemble, ballistic = (
        {kind: part[:, span].mean(dim=-1) for kind, span in model.internal.kinds.items()}
        for part in torch.sqrt(sums / n_segments)
    )
    return ErrorGrowth(times, ensemble, ballistic, n_segments)
