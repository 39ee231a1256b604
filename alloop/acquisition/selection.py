"""The policy: which frames of a pool get a label, as a pure function that decides about each.

The rules in order, with the action they lead to:

==========================  ==========  ==========================================================
unhealthy                   broken      the health check forbids it
spread_not_finite           broken      a member of the committee gave no number
fingerprint_not_finite      broken      a coordinate is no number
above_upper                 broken      spread beyond the band (training trajectories only)
below_threshold:RULE        accurate    certain enough; RULE says how the threshold was found
near_training               duplicate   the training set knows this geometry
thinned                     rejected    a more uncertain frame of the trajectory is close in time
near_selected               duplicate   the batch has this geometry already
maxmin:RULE                 selected    farthest from the training set and the batch so far
trajectory_cap, over_budget rejected    worth a label, but not now
random_draw                 audit, validation, or selected (policy ``random``)
not_drawn                   rejected    of an audit or validation trajectory, or policy ``random``
==========================  ==========  ==========================================================

Frames of audit and validation trajectories are drawn uniformly, whatever their spread, and never
serve training. The outcome depends on the frames, not on the order in which they are given.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from alloop import seeds
from alloop.acquisition.diversity import max_min
from alloop.acquisition.fingerprint import nearest
from alloop.acquisition.pool import Action, Decision, Pool, SelectionSettings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from alloop.acquisition.bands import Band
    from alloop.acquisition.splits import Split


def select(
    pool: Pool, known: NDArray[np.float64], band: Band, settings: SelectionSettings
) -> list[Decision]:
    """Return one decision for each frame of the pool, in the order of the pool.

    known: (n_known, width) fingerprints of the frames already labelled or queued for training, Å.
    Fewer frames than the budget are selected when fewer are in the band.
    """
    verdicts = _Verdicts(pool)
    _draw(verdicts, "audit", "audit", settings.n_audit, settings.seed)
    _draw(verdicts, "validation", "validation", settings.n_validation, settings.seed)
    train = _reject_outside(verdicts, verdicts.sound("train"), band)
    if settings.policy == "random":
        _draw_among(verdicts, train, "selected", settings.n_train, settings.seed)
    else:
        _query_by_committee(verdicts, train, known, band, settings)
    return verdicts.in_order()


def tally(decisions: Iterable[Decision]) -> Counter[tuple[Action, str]]:
    """Count decisions by action and rule."""
    return Counter((decision.action, decision.rule) for decision in decisions)


class _Verdicts:
    """Decisions taken so far about a pool."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self._taken: dict[int, Decision] = {}

    def take(self, index: int, action: Action, rule: str, **numbers: float) -> None:
        numbers = {"spread": float(self.pool.spread[index])} | numbers
        finite = {name: float(n) for name, n in numbers.items() if np.isfinite(n)}
        self._taken[int(index)] = Decision(int(index), action, rule, finite)

    def sound(self, split: Split) -> NDArray[np.int64]:
        """Return the frames of a split that can be labelled; decide that the others are broken."""
        pool, frames = self.pool, self.pool.members(split)
        checks: dict[str, NDArray[np.bool_]] = {
            "unhealthy": pool.healthy,
            "spread_not_finite": np.isfinite(pool.spread),
            "fingerprint_not_finite": np.isfinite(pool.fingerprint.sum(axis=1)),
        }
        for rule, fine in checks.items():
            for index in frames[~fine[frames]]:
                self.take(index, "broken", rule)
            frames = frames[fine[frames]]
        return frames

    def in_order(self) -> list[Decision]:
        return [self._taken[index] for index in range(len(self.pool))]


def _draw(verdicts: _Verdicts, split: Split, action: Action, count: int, seed: int) -> None:
    _draw_among(verdicts, verdicts.sound(split), action, count, seed)


def _draw_among(
    verdicts: _Verdicts, frames: NDArray[np.int64], action: Action, count: int, seed: int
) -> None:
    """Draw uniformly without replacement; a larger count draws the same frames and more."""
    # A stream of its own for each purpose, or equal sets would be drawn from alike.
    shuffled = seeds.generator(seed, "selection", action).permutation(frames)
    numbers = {"drawn": min(count, len(frames)), "pool": len(frames)}
    for rank, index in enumerate(shuffled):
        if rank < count:
            verdicts.take(index, action, "random_draw", **numbers)
        else:
            verdicts.take(index, "rejected", "not_drawn", **numbers)


def _reject_outside(
    verdicts: _Verdicts, frames: NDArray[np.int64], band: Band
) -> NDArray[np.int64]:
    """Return the frames whose spread a sound geometry can have."""
    broken = band.is_broken(verdicts.pool.spread[frames])
    for index in frames[broken]:
        verdicts.take(index, "broken", "above_upper", upper=band.upper)
    return frames[~broken]


def _query_by_committee(
    verdicts: _Verdicts,
    frames: NDArray[np.int64],
    known: NDArray[np.float64],
    band: Band,
    settings: SelectionSettings,
) -> None:
    candidate = band.is_candidate(verdicts.pool.spread[frames])
    for index in frames[~candidate]:
        verdicts.take(index, "accurate", f"below_threshold:{band.rule}", lower=band.lower)
    frames = frames[candidate]
    distances, rows = nearest(verdicts.pool.fingerprint[frames], known)
    new = distances > settings.tolerance
    for index, distance, row in zip(frames[~new], distances[~new], rows[~new], strict=True):
        verdicts.take(
            index,
            "duplicate",
            "near_training",
            distance=distance,
            tolerance=settings.tolerance,
            neighbour=row,
        )
    apart = _thin(verdicts, frames[new], settings.gap)
    _choose(verdicts, apart, distances[np.isin(frames, apart)], band, settings)


def _thin(verdicts: _Verdicts, frames: NDArray[np.int64], gap: float) -> NDArray[np.int64]:
    """Keep the most uncertain frame in each stretch of time of each trajectory."""
    pool = verdicts.pool
    kept: list[int] = []
    for trajectory in np.unique(pool.trajectory[frames]):
        members = frames[pool.trajectory[frames] == trajectory]
        left = members[np.argsort(-pool.spread[members], kind="stable")]
        while len(left):
            best, left = left[0], left[1:]
            kept.append(int(best))
            apart = np.abs(pool.time[left] - pool.time[best])
            far = apart >= gap * (1.0 - 1e-9)  # times are multiples of a step, within rounding
            for index, between in zip(left[~far], apart[~far], strict=True):
                verdicts.take(
                    index, "rejected", "thinned", apart=between, gap=gap, neighbour=int(best)
                )
            left = left[far]
    return frames[np.isin(frames, kept)]


def _choose(
    verdicts: _Verdicts,
    frames: NDArray[np.int64],
    distances: NDArray[np.float64],
    band: Band,
    settings: SelectionSettings,
) -> None:
    """Decide about the candidates by max-min distance."""
    pool, limits = verdicts.pool, {"lower": band.lower, "upper": band.upper}
    outcome = max_min(
        pool.fingerprint[frames],
        distances,
        pool.spread[frames],
        settings.n_train,
        tolerance=settings.tolerance,
        weighted=settings.weighted,
        groups=pool.trajectory[frames],
        group_cap=settings.trajectory_cap,
    )
    ranks = {int(row): rank for rank, row in enumerate(outcome.chosen)}
    taken = Counter(pool.trajectory[frames[outcome.chosen]].tolist())
    for row, index in enumerate(frames):
        if row in ranks:
            rank, gap = ranks[row], outcome.gaps[ranks[row]]
            rule = f"maxmin:{band.rule}"
            verdicts.take(index, "selected", rule, distance=gap, rank=rank, **limits)
            continue
        distance = outcome.distances[row]
        if not distance > settings.tolerance:
            neighbour = frames[outcome.neighbours[row]]
            verdicts.take(
                index,
                "duplicate",
                "near_selected",
                distance=distance,
                tolerance=settings.tolerance,
                neighbour=neighbour,
            )
        elif taken[int(pool.trajectory[index])] == settings.trajectory_cap:
            numbers = {"distance": distance, "cap": settings.trajectory_cap}
            verdicts.take(index, "rejected", "trajectory_cap", **numbers)
        else:
            numbers = {"distance": distance, "budget": settings.n_train}
            verdicts.take(index, "rejected", "over_budget", **numbers)
