"""How wrong a 4D model is on unseen trajectories, beside what no model at all would say."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from alloop.spacetime.coordinates.protocol import Dual
from alloop.spacetime.learning.trajectories import (
    InternalTrajectory,
    TrajectorySet,
    Windows,
    consecutive_starts,
)
from alloop.spacetime.model import SpacetimeModel
from alloop.spacetime.motion.orientation import predict
from alloop.spacetime.motion.rigid import centred, superpose

Scores = dict[str, float]
"""Errors by name: ``bond`` over all times, ``bond_end`` at the cutoff, ``bond_rate``, ..."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """Errors over segments that follow each other without overlap.

    Root mean square per coordinate, averaged over the coordinates of a kind, Å and rad, for rates
    per fs; ``rmsd_end`` is the mean Cartesian RMSD after superposition at the cutoff, Å.

    Attributes
    ----------
    n_trajectories, n_segments : what was compared.
    member : one network, mean of the errors of all.
    ensemble : the mean prediction of all networks.
    ballistic : uniform motion of the coordinates, q0 + q0' t, for scale.

    """

    n_trajectories: int
    n_segments: int
    member: Scores
    ensemble: Scores
    ballistic: Scores


def assess(model: SpacetimeModel, data: TrajectorySet, indices: list[int]) -> Assessment:
    """Return the errors of a model on some of the trajectories."""
    n_steps = round(model.cutoff / data.timestep)
    times = data.timestep * torch.arange(1, n_steps + 1, dtype=torch.float64)
    tallies = {name: _Tally(model) for name in ("ensemble", "ballistic")}
    members = [_Tally(model) for _ in range(model.n_members)]
    for i in indices:
        positions, velocities = data.motion(i)
        starts = consecutive_starts(len(positions), n_steps)
        if len(starts) == 0:
            continue
        motion = InternalTrajectory.of(model.internal, positions, velocities)
        windows = motion.cut(starts, n_steps)
        coefficients = model.coefficients(windows.starts, windows.rates)
        for member, own in zip(members, coefficients, strict=True):
            member.add(windows, model.motion(windows.starts, windows.rates, own, times))
        mean = model.motion(windows.starts, windows.rates, coefficients.mean(dim=0), times)
        tallies["ensemble"].add(windows, mean)
        still = torch.zeros_like(coefficients[0])
        free = model.motion(windows.starts, windows.rates, still, times)
        tallies["ballistic"].add(windows, free)
        start, end = (positions[starts], velocities[starts]), positions[starts + n_steps]
        there, _ = predict(model, *start, times[-1:])
        tallies["ensemble"].add_rmsd(there[:, 0], end)
        tallies["ballistic"].add_rmsd(start[0] + times[-1] * start[1], end)
    each = [member.scores() for member in members]
    return Assessment(
        n_trajectories=len(indices),
        n_segments=tallies["ensemble"].n_segments,
        member={name: sum(scores[name] for scores in each) / len(each) for name in each[0]},
        ensemble=tallies["ensemble"].scores(),
        ballistic=tallies["ballistic"].scores(),
    )


class _Tally:
    """Sums of squared errors."""

    def __init__(self, model: SpacetimeModel) -> None:
        self._kinds = model.internal.kinds
        self._masses = model.masses
        zero = torch.zeros(model.internal.n_coordinates, dtype=torch.float64)
        self._squares = {name: zero.clone() for name in ("", "_end", "_rate", "_rate_end")}
        self._rmsds: list[Tensor] = []
        self.n_segments = 0

    def add(self, windows: Windows, predicted: Dual) -> None:
        moved = predicted[0] - windows.starts[:, None]
        errors = {"": moved - windows.displacements, "_rate": predicted[1] - windows.later_rates}
        for name, error in errors.items():
            squares = error.square()
            self._squares[name] += squares.mean(dim=1).sum(dim=0)
            self._squares[f"{name}_end"] += squares[:, -1].sum(dim=0)
        self.n_segments += len(windows)

    def add_rmsd(self, predicted: Tensor, true: Tensor) -> None:
        equal = torch.ones_like(self._masses)
        mobile, target = centred(equal, predicted), centred(equal, true)
        turned = mobile @ superpose(equal, mobile, target).transpose(-1, -2)
        self._rmsds.append((turned - target).square().sum(dim=-1).mean(dim=-1).sqrt())

    def scores(self) -> Scores:
        scores = {}
        for name, squares in self._squares.items():
            errors = (
                torch.sqrt(squares / self.n_segments) if self.n_segments else squares * math.nan
            )
            for kind, span in self._kinds.items():
                scores[kind + name] = float(errors[span].mean())
        if self._rmsds:
            scores["rmsd_end"] = float(torch.cat(self._rmsds).mean())
        return scores
