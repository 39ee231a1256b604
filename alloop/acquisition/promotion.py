"""Which frames go on to the next level of theory: most expected error reduction per core-second.

The error that is left of the difference between the levels is taken for a Gaussian process with
covariance s(x) s(y) k(x, y): s is the spread of the difference over the committee, k the likeness
of fingerprints (:mod:`alloop.acquisition.kernel`), 0 between systems. Each choice is the frame
whose label lowers the squared error, summed over representative frames, most for its price
(:mod:`alloop.acquisition.reduction`); the next choice reckons with it. Frames that have upper
labels count from the start. The outcome depends on the frames, not on their order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from alloop import seeds
from alloop.acquisition.fingerprint import nearest
from alloop.acquisition.kernel import Scales, likely_scales, normalised
from alloop.acquisition.reduction import Posterior
from alloop.acquisition.tier_pool import TierPool
from alloop.errors import AcquisitionError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Policy = Literal["value", "random"]
StoppedBy = Literal["count", "budget", "candidates"]

MOST_REPRESENTATIVES = 2000
"""Frames over which the error is summed; more are thinned at random."""
_TIE = 1e-9
"""Values that differ by less, relatively, are equal: the rounding of sums in any order."""


@dataclass(frozen=True, slots=True)
class Pick:
    """One frame to be labelled at the upper level, and why.

    Attributes
    ----------
    system, key : the frame.
    rank : place in the order of choice, from 0.
    spread : of the difference between the levels, as given.
    reduction : by how much its label is expected to lower the mean squared error of the
        representatives, spread squared, once all earlier choices have theirs.
    fraction : the same as a share of the mean squared error before the round.
    price : as given, core-seconds.
    value : reduction per price.
    nearest : distance to the nearest frame with an upper label or chosen before, Å; inf if none.

    """

    system: str
    key: str
    rank: int
    spread: float
    reduction: float
    fraction: float
    price: float
    value: float
    nearest: float

    @property
    def numbers(self) -> dict[str, float]:
        """The finite numbers by name, for the ledger."""
        named = asdict(self)
        return {k: v for k, v in named.items() if not isinstance(v, str) and math.isfinite(v)}


@dataclass(frozen=True, slots=True)
class Promotion:
    """A round of promotions.

    Attributes
    ----------
    picks : in the order of choice.
    policy : that chose.
    seconds : sum of their prices, core-seconds.
    error_before, error_after : expected root mean square error of the representatives, in units
        of the spread, without and with the labels of this round.
    n_candidates, n_broken : frames to choose from, and those left out for a spread or fingerprint
        that is not finite.
    n_known, n_representatives : frames that had upper labels, and that the error is summed over.
    scales : by system, length and noise of the kernel.
    stopped_by : "count", "budget" (nothing that is left fits in it) or "candidates".

    """

    picks: tuple[Pick, ...]
    policy: Policy
    seconds: float
    error_before: float
    error_after: float
    n_candidates: int
    n_broken: int
    n_known: int
    n_representatives: int
    scales: dict[str, Scales]
    stopped_by: StoppedBy

    @property
    def rmse_ratio(self) -> float:
        """Expected error after the round over that before it; 1 where there is no error."""
        return self.error_after / self.error_before if self.error_before > 0.0 else 1.0

    @property
    def numbers(self) -> dict[str, float]:
        """The numbers of the round by name, for the ledger."""
        names = ("seconds", "error_before", "error_after", "rmse_ratio")
        counts = ("n_candidates", "n_broken", "n_known", "n_representatives")
        return {name: getattr(self, name) for name in (*names, *counts)}


def choose(
    pools: Sequence[TierPool],
    count: int,
    *,
    seed: int,
    policy: Policy = "value",
    budget_s: float | None = None,
) -> Promotion:
    """Choose up to ``count`` candidates of all pools together, one pool for each system.

    budget_s: core-seconds that their prices may add up to; candidates that no longer fit are passed
    over. Policy ``random`` draws candidates uniformly: the control. Spreads that are all 0 count
    as all equal.

    Raises
    ------
    AcquisitionError
        No pools, two of one system, or nothing can be chosen with such a count or budget.

    """
    left = math.inf if budget_s is None else budget_s
    _check(pools, count, left, policy)
    field = _Field(pools, seed)
    before, picks = field.error, list[Pick]()
    drawn = seeds.generator(seed, "promotion", "random").random(len(field.keys))
    stopped_by: StoppedBy = "count"
    while len(picks) < count:
        values = field.reductions / field.prices
        scores = values if policy == "value" else drawn
        fits = field.open & (field.prices <= left) & (scores > 0.0)
        if not fits.any():
            stopped_by = "budget" if (field.open & (field.prices > left)).any() else "candidates"
            break
        pick = field.take(_best(scores, fits, field.keys), len(picks), before)
        picks.append(pick)
        left -= pick.price
    return Promotion(
        picks=tuple(picks),
        policy=policy,
        seconds=math.fsum(pick.price for pick in picks),
        error_before=math.sqrt(before),
        error_after=math.sqrt(field.error),
        n_candidates=field.n_candidates,
        n_broken=sum(int((p.candidate & ~p.known & ~p.sound).sum()) for p in pools),
        n_known=sum(int((p.known & p.sound).sum()) for p in pools),
        n_representatives=field.n_representatives,
        scales=field.scales,
        stopped_by=stopped_by,
    )


def draw_audit(keys: Iterable[str], count: int, seed: int) -> tuple[str, ...]:
    """Draw up to ``count`` frames uniformly; they alone measure the error at the upper level.

    A larger count draws the same frames and more; the order of the keys does not matter.
    """
    ordered = sorted(set(keys))
    drawn = seeds.generator(seed, "promotion", "audit").permutation(len(ordered))
    return tuple(ordered[i] for i in drawn[:count])


class _Field:
    """The sound frames of all pools, system after system and by key, and their expected error."""

    def __init__(self, pools: Sequence[TierPool], seed: int) -> None:
        self._pools = sorted(pools, key=lambda pool: pool.system)
        self._rows = [_sound_rows(pool) for pool in self._pools]
        self.keys = tuple(
            p.keys[i] for p, rows in zip(self._pools, self._rows, strict=True) for i in rows
        )
        representative = _thinned(self._column("representative"), seed)
        self.n_representatives = int(representative.sum())
        self.prices = self._column("prices")
        self._have_spreads = bool(self._column("spreads").any())
        self.open = self._column("candidate") & ~self._column("known")
        self.n_candidates = int(self.open.sum())
        self.scales: dict[str, Scales] = {}
        ends = np.cumsum([0, *(len(rows) for rows in self._rows)])
        self._starts = ends[:-1]
        self._posteriors = [
            self._posterior(pool, rows, representative[start : start + len(rows)])
            for pool, rows, start in zip(self._pools, self._rows, self._starts, strict=True)
        ]
        self._distances = [
            nearest(pool.fingerprints[rows], pool.fingerprints[rows][pool.known[rows]])[0]
            for pool, rows in zip(self._pools, self._rows, strict=True)
        ]

    @property
    def reductions(self) -> NDArray[np.float64]:
        """By how much a label of each frame lowers ``error``, (n,)."""
        each = [posterior.reductions for posterior in self._posteriors]
        return np.concatenate(each) / max(self.n_representatives, 1)

    @property
    def error(self) -> float:
        """Expected mean squared error of the representatives."""
        total = math.fsum(posterior.error for posterior in self._posteriors)
        return total / max(self.n_representatives, 1)

    def take(self, frame: int, rank: int, before: float) -> Pick:
        """Choose a frame; ``before`` is the error before the round."""
        self.open[frame] = False
        # A system without sound frames has the start of the next one, which is found.
        place = int(np.searchsorted(self._starts, frame, side="right")) - 1
        row = frame - int(self._starts[place])
        pool, index = self._pools[place], int(self._rows[place][row])
        reduction = float(self.reductions[frame])
        distance = float(self._distances[place][row])
        self._posteriors[place].condition(row)
        fingerprints = pool.fingerprints[self._rows[place]]
        apart = np.linalg.norm(fingerprints - fingerprints[row], axis=1)
        self._distances[place] = np.minimum(self._distances[place], apart)
        price = float(pool.prices[index])
        return Pick(
            system=pool.system,
            key=pool.keys[index],
            rank=rank,
            spread=float(pool.spreads[index]),
            reduction=reduction,
            fraction=reduction / before if before > 0.0 else 0.0,
            price=price,
            value=reduction / price,
            nearest=distance,
        )

    def _column(self, name: str) -> NDArray[Any]:
        """Return a column of all pools, (n,)."""
        parts = [getattr(p, name)[rows] for p, rows in zip(self._pools, self._rows, strict=True)]
        return np.concatenate(parts)

    def _posterior(
        self, pool: TierPool, rows: NDArray[np.int64], representative: NDArray[np.bool_]
    ) -> Posterior:
        normal = normalised(pool.fingerprints[rows])
        scales = likely_scales(normal, np.where(pool.known, pool.differences, np.nan)[rows])
        self.scales[pool.system] = scales
        spreads = pool.spreads[rows] if self._have_spreads else np.ones(len(rows))
        return Posterior(
            normal,
            spreads,
            np.flatnonzero(representative),
            np.flatnonzero(pool.known[rows]),
            length=scales.length,
            noise=scales.noise * float(spreads @ spreads) / max(len(rows), 1),
        )


def _check(pools: Sequence[TierPool], count: int, budget_s: float, policy: str) -> None:
    if len({pool.system for pool in pools}) != len(pools) or not pools:
        raise AcquisitionError("promotion: want one pool for each system, and one at least")
    if count < 1 or not budget_s > 0.0:
        raise AcquisitionError(
            f"promotion: want 1 or more labels and seconds above 0, got {count} and {budget_s}"
        )
    if policy not in get_args(Policy):
        raise AcquisitionError(f"promotion: policy {policy!r} is neither value nor random")


def _sound_rows(pool: TierPool) -> NDArray[np.int64]:
    rows = np.flatnonzero(pool.sound)
    return np.array(sorted(rows, key=lambda row: pool.keys[row]), dtype=np.int64)


def _thinned(representative: NDArray[np.bool_], seed: int) -> NDArray[np.bool_]:
    """Return as many of the representatives as are summed over; without any, of all frames."""
    places = np.flatnonzero(representative if representative.any() else ~representative)
    drawn = seeds.generator(seed, "promotion", "representatives").permutation(places)
    thinned = np.zeros(len(representative), dtype=bool)
    thinned[drawn[:MOST_REPRESENTATIVES]] = True
    return thinned


def _best(scores: NDArray[np.float64], fits: NDArray[np.bool_], keys: Sequence[str]) -> int:
    """Return the frame of the highest score, of equal ones that with the first key."""
    best = scores[fits].max()
    tied = np.flatnonzero(fits & (scores >= best * (1.0 - _TIE)))
    return min(tied.tolist(), key=lambda frame: keys[frame])
