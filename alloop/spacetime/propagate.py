"""Long trajectories from a 4D model: the end of one segment is the start of the next."""

from __future__ import annotations

import math
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
    if not (torch.isfinite(positions).all() and torch.isfinite(velocities).all()):
        raise SpacetimeError("a start has positions or velocities that are not finite")
    if not (len(times) and times[0] >= 0 and bool((times[1:] >= times[:-1]).all())):
        raise SpacetimeError("times of a propagation must ascend from 0 or later")
    n_replicas, n_atoms = positions.shape[:2]
    shape = (n_replicas, len(times), n_atoms, 3)
    seen = torch.full(shape, math.nan, dtype=torch.float64), torch.full(shape, math.nan).double()
    reasons: list[str | None] = [None] * n_replicas
    n_frames = torch.full((n_replicas,), len(times))
    going, state, done = torch.arange(n_replicas), (positions, velocities), 0
    segment = 0
    while done < len(times) and len(going):
        local = times[done:] - segment * model.cutoff
        local = local[local <= model.cutoff]
        asked = torch.cat([local, local.new_tensor([model.cutoff])])
        x, v = predict(model, *state, asked)
        faults = [_fault(model, *motion) for motion in zip(x, v, strict=True)]
        stop = done + len(local)
        for replica, motion_x, motion_v, fault in zip(going.tolist(), x, v, faults, strict=True):
            n_sound = len(local)
            if fault is not None:
                first, reasons[replica] = fault
                n_sound = min(first, n_sound)
                n_frames[replica] = done + n_sound
            seen[0][replica, done : done + n_sound] = motion_x[:n_sound]
            seen[1][replica, done : done + n_sound] = motion_v[:n_sound]
        alive = torch.tensor([fault is None for fault in faults])
        going, state = going[alive], (x[alive, -1], v[alive, -1])
        done, segment = stop, segment + 1
    return Propagation(times, *seen, n_frames, tuple(reasons))


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
