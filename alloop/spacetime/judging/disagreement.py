"""Where a 4D model should not be trusted: signals that need no reference, and their limits.

Query by committee on the level of whole segments. The signals are in units of their own; what they
are worth is learnt on trajectories with known ends: limits are quantiles over segments that the
model does well, and the rank correlation with the true error says how much a signal knows of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alloop.acquisition.ranking import rank_correlation
from alloop.errors import SpacetimeError
from alloop.spacetime.coordinates.protocol import Dual
from alloop.spacetime.learning.trajectories import TrajectorySet, consecutive_starts
from alloop.spacetime.model import SpacetimeModel
from alloop.spacetime.motion.orientation import endpoints
from alloop.spacetime.motion.rigid import centred, superpose
from alloop.spacetime.surface import Surface
from alloop.units import KINETIC

QUANTILE = 0.99
"""Of segments like those calibrated on, this many stay below the limit of a signal."""
FACTOR = 1.5
"""Limits are so many times that quantile: trajectories differ more than segments of one do."""
CHUNK = 256
"""Starts in work at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class Signals:
    """What gives away, without a reference, that predictions are bad; NaN where they broke.

    Attributes
    ----------
    spread : (n,) float64, root mean square over atoms of the standard deviation over members of
        positions at the cutoff, Å; 0 with one member.
    round_trip : (n,) float64, RMSD after superposition, Å, to the start of the prediction of the
        mean from its own end with velocities reversed.
    energy_change : (n,) float64, |E(cutoff) - E(0)| of the mean, kinetic and potential, eV; None
        without a surface.

    """

    spread: Tensor
    round_trip: Tensor
    energy_change: Tensor | None = None

    def by_name(self) -> dict[str, Tensor]:
        """Return the signals there are."""
        names = ("spread", "round_trip", "energy_change")
        found = {name: getattr(self, name) for name in names}
        return {name: values for name, values in found.items() if values is not None}


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Limits of signals, and what the signals are worth.

    Plain numbers: ``dataclasses.asdict`` gives JSON, ``Thresholds(**values)`` takes it back.

    Attributes
    ----------
    limits : of each signal, in its unit.
    rank_correlations : of each signal Spearman's coefficient with the true error, None where it
        is not defined.
    median_error : of the true error of the segments behind it: RMSD after superposition at the
        cutoff, Å.
    n_trajectories, n_segments : what was behind it.
    quantile, factor : a limit is this quantile of the signal times the factor.

    Raises
    ------
    SpacetimeError
        A limit is not a finite number.

    """

    limits: dict[str, float]
    rank_correlations: dict[str, float | None]
    median_error: float
    n_trajectories: int
    n_segments: int
    quantile: float = QUANTILE
    factor: float = FACTOR

    def __post_init__(self) -> None:
        for name, limit in self.limits.items():
            if not (0 <= limit < math.inf):
                raise SpacetimeError(
                    f"4D disagreement: the limit of {name} is {limit}, want a finite number"
                    " that is not negative; calibrate on longer or sounder trajectories"
                )


@dataclass(frozen=True, slots=True, eq=False)
class Flags:
    """Which starts a model cannot be trusted with.

    Attributes
    ----------
    flagged : (n,) bool.
    reasons : of each start the signal farthest beyond its limit, None where none is.

    """

    flagged: Tensor
    reasons: tuple[str | None, ...]


def signals(
    model: SpacetimeModel,
    positions: Tensor,
    velocities: Tensor,
    surface: Surface | None = None,
) -> Signals:
    """Return how far a model disagrees with itself over one segment from each start.

    ``positions`` and ``velocities`` are (n, n_atoms, 3) float64, Å and Å/fs; ``surface`` is the
    potential that the motion should follow.

    Raises
    ------
    SpacetimeError
        Wrong shapes or starts that are not finite.

    """
    found, _ = _judge(model, positions, velocities, surface)
    return found


def calibrate_thresholds(
    model: SpacetimeModel,
    data: TrajectorySet,
    indices: list[int],
    surface: Surface | None = None,
    *,
    quantile: float = QUANTILE,
    factor: float = FACTOR,
) -> Thresholds:
    """Return limits by trajectories that the model has not learnt from, cut into segments.

    Segments follow each other without overlap. Those without a signal would be flagged anyway and
    have no part in its limit.

    Raises
    ------
    SpacetimeError
        No trajectory is longer than a segment, or a signal is nowhere a number.

    """
    starts, ends = segments(model, data, indices)
    found, there = _judge(model, *starts, surface)
    errors = shape_rmsd(there, ends[0])
    limits, ranks = {}, {}
    for name, values in found.by_name().items():
        known = torch.isfinite(values) & torch.isfinite(errors)
        if not known.any():
            raise SpacetimeError(
                f"4D disagreement: {name} is a number for none of {len(values)} segments; the"
                " model is broken or the surface has no energies"
            )
        limits[name] = factor * float(np.quantile(values[known].numpy(), quantile))
        ranks[name] = rank_correlation(values[known].numpy(), errors[known].numpy())
    median = float(errors.nanmedian())
    return Thresholds(limits, ranks, median, len(indices), len(errors), quantile, factor)


def flag(found: Signals, thresholds: Thresholds) -> Flags:
    """Return which starts have a signal beyond its limit, or none where there should be one.

    Signals without a limit, and limits without a signal, are passed over.

    Raises
    ------
    SpacetimeError
        No signal has a limit.

    """
    values = found.by_name()
    names = [name for name in values if name in thresholds.limits]
    if not names:
        raise SpacetimeError(
            f"4D disagreement: signals {sorted(values)} and limits {sorted(thresholds.limits)}"
            " have nothing in common; calibrate with the same surface"
        )
    excess = torch.stack([values[name] - thresholds.limits[name] for name in names])
    units = torch.tensor([max(thresholds.limits[name], 1e-300) for name in names])
    ratios = (excess / units[:, None].to(excess.dtype)).nan_to_num(nan=math.inf)
    worst, which = ratios.max(dim=0)
    flagged = worst > 0
    reasons = zip(flagged.tolist(), which.tolist(), strict=True)
    return Flags(flagged, tuple(names[k] if bad else None for bad, k in reasons))


def segments(model: SpacetimeModel, data: TrajectorySet, indices: list[int]) -> tuple[Dual, Dual]:
    """Return starts and ends of consecutive segments, positions and velocities (n, n_atoms, 3).

    Raises
    ------
    SpacetimeError
        No trajectory is longer than a segment.

    """
    n_steps = round(model.cutoff / data.timestep)
    pieces: list[tuple[Tensor, ...]] = []
    for i in indices:
        x, v = data.motion(i)
        starts = consecutive_starts(len(x), n_steps)
        pieces.append((x[starts], v[starts], x[starts + n_steps], v[starts + n_steps]))
    if not any(len(piece[0]) for piece in pieces):
        raise SpacetimeError(
            f"none of {len(indices)} trajectories is longer than a segment of {model.cutoff} fs;"
            " give longer ones"
        )
    x0, v0, x1, v1 = (torch.cat(part) for part in zip(*pieces, strict=True))
    return (x0, v0), (x1, v1)


def shape_rmsd(positions: Tensor, others: Tensor) -> Tensor:
    """Return the RMSD (n,), Å, of geometries (n, n_atoms, 3) after superposition, NaN-safe."""
    equal = torch.ones(positions.shape[-2], dtype=positions.dtype)
    mobile, target = centred(equal, positions), centred(equal, others)
    turned = mobile @ superpose(equal, mobile, target).transpose(-1, -2)
    return _root_mean_square(turned - target)


def _judge(
    model: SpacetimeModel, positions: Tensor, velocities: Tensor, surface: Surface | None
) -> tuple[Signals, Tensor]:
    """Return the signals, and the predicted positions at the cutoff (n, n_atoms, 3)."""
    batches = zip(positions.split(CHUNK), velocities.split(CHUNK), strict=True)
    rows = [_judge_batch(model, *batch, surface) for batch in batches]
    spread = torch.cat([found.spread for found, _ in rows])
    round_trip = torch.cat([found.round_trip for found, _ in rows])
    changes = [found.energy_change for found, _ in rows if found.energy_change is not None]
    there = torch.cat([end for _, end in rows])
    return Signals(spread, round_trip, torch.cat(changes) if changes else None), there


def _judge_batch(
    model: SpacetimeModel, positions: Tensor, velocities: Tensor, surface: Surface | None
) -> tuple[Signals, Tensor]:
    each, _ = endpoints(model, positions, velocities, members=True)
    spread = _root_mean_square(each.std(dim=0, correction=0))
    there, moving = endpoints(model, positions, velocities)
    # Broken ends cannot be started from; their starts stand in for them, and break again.
    sound = torch.isfinite(there + moving).all(dim=-1, keepdim=True).all(dim=-2, keepdim=True)
    turned_back = torch.where(sound, there, positions), torch.where(sound, -moving, velocities)
    home, _ = endpoints(model, *turned_back)
    round_trip = shape_rmsd(home, positions)
    if surface is None:
        return Signals(spread, round_trip), there
    before = _energy(model, surface, positions, velocities)
    after = _energy(model, surface, *turned_back)
    change = torch.where(sound.flatten(), (after - before).abs(), math.nan)
    return Signals(spread, round_trip, change), there


def _energy(
    model: SpacetimeModel, surface: Surface, positions: Tensor, velocities: Tensor
) -> Tensor:
    kinetic = (model.masses[:, None] * velocities.square()).sum(dim=(-1, -2))
    return surface.energies(positions) + 0.5 * KINETIC * kinetic


def _root_mean_square(vectors: Tensor) -> Tensor:
    """Return (n,) lengths of vectors (n, n_atoms, 3), root mean square over atoms."""
    return vectors.square().sum(dim=-1).mean(dim=-1).sqrt()
