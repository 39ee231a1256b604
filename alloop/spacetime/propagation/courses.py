"""What became of the replicas of a propagation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from ase.data import covalent_radii
from torch import Tensor

from alloop.spacetime.model import SpacetimeModel

CONTACT = 0.5
"""Atoms nearer than this times the sum of their covalent radii have collided."""
STRIDE, MARGIN = 0.5, 0.3
"""Frames this far apart, fs, are looked at first, and the others only where two atoms are within
so many Å of a collision: nothing moves farther in that time."""
MEAN, DYNAMICS = -1, -2
"""What stands for a network's number where the mean, or ordinary dynamics, made a segment."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Some frames of one replica, in the order of time.

    Attributes
    ----------
    replica : which.
    first : how many frames of it came before.
    times : (n_frames,) float64, fs.
    positions, velocities : (n_frames, n_atoms, 3) float64, Å and Å/fs.

    """

    replica: int
    first: int
    times: Tensor
    positions: Tensor
    velocities: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """How the propagation of one replica went.

    Attributes
    ----------
    n_frames : how many frames were handed out.
    reason : why it ended early: "non-finite", "contact", "energy" or "deadline"; or None.
    errors : (n_segments,) change of the total energy since the start, before any correction, eV,
        where it was largest in the segment; NaN under the rule "mean".
    members : (n_segments,) int64, the network that made each segment, ``MEAN`` or ``DYNAMICS``.
    rollbacks, doublings : how often segments were taken back and the threshold doubled.

    """

    n_frames: int
    reason: str | None
    errors: Tensor
    members: Tensor
    rollbacks: int
    doublings: int

    @property
    def n_segments(self) -> int:
        """Number of segments."""
        return len(self.members)

    @property
    def n_rescues(self) -> int:
        """Number of segments of ordinary dynamics."""
        return int((self.members == DYNAMICS).sum())

    @property
    def rms_error(self) -> float:
        """Root mean square of the errors of segments the model made, eV."""
        return float(self.errors[self.members != DYNAMICS].square().mean().sqrt())

    @property
    def largest_error(self) -> float:
        """Largest magnitude of the errors of segments the model made, eV; NaN without any."""
        errors = self.errors[self.members != DYNAMICS].abs()
        return float(errors.max()) if len(errors) else math.nan


@dataclass(slots=True)
class Log:
    """A course while it is being written."""

    n_frames: int = 0
    reason: str | None = None
    errors: list[float] = field(default_factory=list)
    members: list[int] = field(default_factory=list)
    rollbacks: int = 0
    doublings: int = 0

    def add(self, member: int, error: float) -> None:
        """Note a segment."""
        self.members.append(member)
        self.errors.append(error)

    def course(self) -> Course:
        """Return what was noted."""
        return Course(
            self.n_frames,
            self.reason,
            torch.tensor(self.errors, dtype=torch.float64),
            torch.tensor(self.members, dtype=torch.int64),
            self.rollbacks,
            self.doublings,
        )


def find_faults(
    model: SpacetimeModel, times: Tensor, positions: Tensor, velocities: Tensor
) -> list[tuple[int, str] | None]:
    """Return of each replica the first unsound frame and what is wrong there, or None.

    ``times`` are (n_times,), fs, positions and velocities (n_replicas, n_times, n_atoms, 3).
    """
    finite = torch.isfinite(positions.sum((-1, -2)) + velocities.sum((-1, -2)))
    coarse = _coarse(times)
    sound = finite.all(-1) & (_clearance(model, positions[:, coarse]) > MARGIN).all(-1)
    faults: list[tuple[int, str] | None] = [None] * len(positions)
    for row in torch.nonzero(~sound).flatten().tolist():
        apart = _clearance(model, positions[row]) > 0.0
        unsound = torch.nonzero(~(finite[row] & apart)).flatten()
        if len(unsound):
            first = int(unsound[0])
            faults[row] = first, "contact" if finite[row, first] else "non-finite"
    return faults


def _coarse(times: Tensor) -> list[int]:
    """Return indices of ascending times, so that each one follows a chosen one by the stride."""
    chosen: list[int] = []
    latest = -math.inf
    for i, time in enumerate(times.tolist()):
        if time - latest > STRIDE:
            chosen.append(i)
            latest = time
    return chosen


def _clearance(model: SpacetimeModel, positions: Tensor) -> Tensor:
    """Return how far (...,), Å, the nearest two atoms are from a collision."""
    radii = torch.as_tensor(covalent_radii[list(model.numbers)])
    rows, columns = torch.triu_indices(len(radii), len(radii), offset=1)
    gaps = (positions[..., rows, :] - positions[..., columns, :]).square().sum(-1).sqrt()
    clearance: Tensor = (gaps - CONTACT * (radii[rows] + radii[columns])).amin(-1)
    return clearance
