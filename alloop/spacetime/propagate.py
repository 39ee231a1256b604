"""Long trajectories from a 4D model: the end of one segment is the start of the next."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from ase.data import covalent_radii
from torch import Tensor

from alloop.errors import SpacetimeError
from alloop.spacetime.model import SpacetimeModel
from alloop.spacetime.orientation import predict

CONTACT = 0.5
"""Atoms nearer than this times the sum of their covalent radii have collided."""


@dataclass(frozen=True, slots=True, eq=False)
class Propagation:
    """What became of each replica.

    Attributes
    ----------
    times : (n_times,) float64, fs.
    positions, velocities : (n_replicas, n_times, n_atoms, 3) float64, Å and Å/fs; NaN from where a
        replica was stopped.
    n_frames : (n_replicas,) int64, how many frames are sound.
    reasons : of each replica why it was stopped, "non-finite" or "contact", or None.

    """

    times: Tensor
    positions: Tensor
    velocities: Tensor
    n_frames: Tensor
    reasons: tuple[str | None, ...]


def propagate(
    model: SpacetimeModel, positions: Tensor, velocities: Tensor, times: Tensor
) -> Propagation:
    """Follow replicas to any times, segment by segment, by the mean of the ensemble.

    Parameters
    ----------
    model : the 4D model.
    positions, velocities : (n_replicas, n_atoms, 3) float64, the starts, Å and Å/fs.
    times : (n_times,) float64, ascending from 0 or later, fs; any spacing.

    Raises
    ------
    SpacetimeError
        Wrong shapes, starts that are not finite or times out of order.

    """
    if not (len(times) and times[0] >= 0 and bool((times[1:] >= times[:-1]).all())):
        raise SpacetimeError("times of a propagation must ascend from 0 or later")
    n_replicas, n_atoms = positions.shape[:2]
    unseen = torch.full((n_replicas, len(times), n_atoms, 3), math.nan, dtype=torch.float64)
    seen_positions, seen_velocities = unseen, unseen.clone()
    n_frames = torch.zeros(n_replicas, dtype=torch.int64)
    reasons: list[str | None] = [None] * n_replicas
    going = torch.arange(n_replicas)
    for first, n_times, asked in _segments(times, model.cutoff):
        if len(going) == 0:
            break
        x, v = predict(model, positions, velocities, asked)
        faults = [_fault(model, *motion) for motion in zip(x, v, strict=True)]
        for row, (replica, fault) in enumerate(zip(going.tolist(), faults, strict=True)):
            n_sound = n_times if fault is None else min(fault[0], n_times)
            reasons[replica] = None if fault is None else fault[1]
            n_frames[replica] += n_sound
            seen_positions[replica, first : first + n_sound] = x[row, :n_sound]
            seen_velocities[replica, first : first + n_sound] = v[row, :n_sound]
        alive = torch.tensor([fault is None for fault in faults])
        going, positions, velocities = going[alive], x[alive, -1], v[alive, -1]
    return Propagation(times, seen_positions, seen_velocities, n_frames, tuple(reasons))


def _segments(times: Tensor, cutoff: float) -> Iterator[tuple[int, int, Tensor]]:
    """Yield for each segment its first time's index, its number of times, and the times to ask.

    The latter count from the start of the segment and end with the cutoff where another follows.
    """
    first, segment = 0, 0
    while first < len(times):
        later = times[first:] - segment * cutoff
        local = later[later <= cutoff]
        last = first + len(local) == len(times)
        yield first, len(local), local if last else torch.cat([local, local.new_tensor([cutoff])])
        first, segment = first + len(local), segment + 1


def _fault(model: SpacetimeModel, positions: Tensor, velocities: Tensor) -> tuple[int, str] | None:
    """Return the first unsound frame of one replica and what is wrong there."""
    finite = torch.isfinite(positions).all(-1).all(-1) & torch.isfinite(velocities).all(-1).all(-1)
    radii = torch.as_tensor(covalent_radii[list(model.numbers)])
    rows, columns = torch.triu_indices(len(radii), len(radii), offset=1)
    distances = torch.linalg.vector_norm(positions[:, rows] - positions[:, columns], dim=-1)
    apart = (distances > CONTACT * (radii[rows] + radii[columns])).all(-1)
    unsound = torch.nonzero(~(finite & apart)).flatten()
    if len(unsound) == 0:
        return None
    first = int(unsound[0])
    return first, "contact" if finite[first] else "non-finite"
