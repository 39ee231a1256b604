"""What a spread is worth in units of error: scale factors and conformal quantiles.

Two questions are kept apart. How much wider is the truth than the committee? That is alpha for one
scalar that every member predicts, an energy or a force component, and a committee of few members
needs the correction of Imbalzano et al. And what error of a frame's forces goes with a given spread
measure? Such a measure sums up many components, its own chance fluctuation is small and that
correction would make it too small by up to sqrt(3); there the ratio of second moments is used.

Only blind predictions may come in: of frames no member was trained on or stopped early on, drawn at
random, since frames chosen for their spread are not exchangeable with the ones to be judged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from alloop.acquisition.intervals import ratio_interval
from alloop.errors import AcquisitionError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Estimator = Literal["imbalzano", "second_moments", "summary"]


@dataclass(frozen=True, slots=True)
class Calibration:
    """How the errors of a committee's mean go with one measure of its spread.

    Attributes
    ----------
    measure : name of the spread measure.
    estimator : how alpha was found: imbalzano or second_moments for one scalar, summary for a
        measure of many components.
    n_members : size of the committee for one scalar, None for a summary.
    n, n_groups : frames and trajectories behind it.
    alpha, alpha_low, alpha_high : scale factor and its confidence interval; error per spread.
    confidence : of that interval.
    quantile : factor q such that |error| <= q * spread with probability ``level``; inf if the
        sample is too small to say.
    level : probability of that bound.

    """

    measure: str
    estimator: Estimator
    n_members: int | None
    n: int
    n_groups: int
    alpha: float
    alpha_low: float
    alpha_high: float
    confidence: float
    quantile: float
    level: float

    @property
    def error_per_spread(self) -> float:
        """Root-mean-square error of the committee's mean per unit of spread."""
        if self.n_members is None:
            return self.alpha
        return math.sqrt(self.alpha**2 + 1.0 / self.n_members)

    def expected_error(self, spread: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the error to expect at a spread, inf where that is unknown."""
        return _scaled(spread, self.error_per_spread)

    def bound(self, spread: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what the error stays below with probability ``level``, inf if unknown."""
        return _scaled(spread, self.quantile)


def calibrate(
    errors: NDArray[np.float64],
    spreads: NDArray[np.float64],
    groups: NDArray[np.int64],
    *,
    measure: str,
    n_members: int | None = None,
    level: float = 0.9,
    confidence: float = 0.95,
) -> Calibration:
    """Return the calibration of a spread measure from blind predictions.

    errors: (n_frames,), error of the committee's mean in each frame: a force RMSE or an energy
    error; spreads: (n_frames,), the measure; groups: (n_frames,), the trajectory of each frame.
    n_members: give it when error and spread are of one scalar, leave it out for a summary.

    Frames without a finite spread are left out, for there the committee claimed nothing; leave out
    broken ones too, whose squares drown the others. An error that is not finite makes alpha inf.
    """
    if not errors.shape == spreads.shape == np.shape(groups):
        raise AcquisitionError(
            f"calibrating {measure} needs one error, spread and trajectory for each frame,"
            f" got shapes {errors.shape}, {spreads.shape}, {np.shape(groups)}"
        )
    with np.errstate(over="ignore"):
        known = np.isfinite(spreads**2)
        errors, spreads, groups = errors[known], spreads[known], np.asarray(groups)[known]
        squares = np.where(np.isfinite(errors), errors, np.inf) ** 2
    estimator = _estimator(n_members)
    if estimator == "imbalzano":
        ratio = ratio_interval(
            _quotient(squares, spreads**2), np.ones(len(squares)), groups, confidence
        )
    else:
        ratio = ratio_interval(squares, spreads**2, groups, confidence)
    return Calibration(
        measure=measure,
        estimator=estimator,
        n_members=n_members,
        n=ratio.n,
        n_groups=ratio.n_groups,
        alpha=_alpha(ratio.value, estimator, n_members),
        alpha_low=_alpha(ratio.low, estimator, n_members),
        alpha_high=_alpha(ratio.high, estimator, n_members),
        confidence=confidence,
        quantile=conformal_quantile(_quotient(np.sqrt(squares), spreads), level),
        level=level,
    )


def imbalzano_factor(
    errors: NDArray[np.float64], spreads: NDArray[np.float64], n_members: int
) -> float:
    """Return alpha from the mean of squared error over squared spread of one scalar.

    alpha² = -1/M + (M-3)/(M-1) <error²/spread²>, doi:10.1063/5.0036522, which needs M > 3; its
    scatter is bounded only for M > 5, where 1/spread² has a variance.
    """
    if n_members <= 3:
        raise AcquisitionError(
            f"the mean of 1/spread² does not exist for {n_members} members, it takes more than 3:"
            " use second_moment_factor"
        )
    return _alpha(float(_quotient(errors**2, spreads**2).mean()), "imbalzano", n_members)


def second_moment_factor(
    errors: NDArray[np.float64], spreads: NDArray[np.float64], n_members: int
) -> float:
    """Return alpha from the ratio of mean squared error and mean squared spread of one scalar.

    alpha² = -1/M + <error²>/<spread²>. Both means exist for every committee, M = 3 included, and
    <spread²> is unbiased, so this has the expectation of doi:10.1063/5.0036522 without its tail.
    """
    if n_members < 2:
        raise AcquisitionError(f"a spread needs at least 2 members, got {n_members}")
    ratio = _quotient((errors**2).mean(), (spreads**2).mean())
    return _alpha(float(ratio), "second_moments", n_members)


def conformal_quantile(scores: NDArray[np.float64], level: float) -> float:
    """Return the factor that a new score stays below with probability ``level`` or more.

    The ceil((n + 1) level)-th smallest of (n,) scores |error|/spread; inf when n is too small for
    that rank to exist. Split conformal prediction, doi:10.1080/01621459.2017.1307116; holds if the
    new score is exchangeable with these. A NaN counts as the largest score.
    """
    if not 0.0 < level < 1.0:
        raise AcquisitionError(f"the level of a bound lies between 0 and 1, got {level}")
    # 25 * 0.56 is a little above 14 in binary, and must not become rank 15.
    rank = math.ceil((len(scores) + 1) * level - 1e-9)
    if rank > len(scores):
        return math.inf
    return float(np.sort(np.where(np.isnan(scores), np.inf, scores))[rank - 1])


def threshold_for_target(target: float, calibration: Calibration) -> float:
    """Return the spread at which the expected error equals ``target``; 0 if no spread is safe."""
    if not (target > 0.0 and math.isfinite(target)):
        raise AcquisitionError(f"a target error is a positive number, got {target}")
    slope = calibration.error_per_spread
    if math.isnan(slope):
        raise AcquisitionError(f"the calibration of {calibration.measure} is not a number")
    return target / slope if slope > 0.0 else math.inf


def _estimator(n_members: int | None) -> Estimator:
    if n_members is None:
        return "summary"
    if n_members < 2:
        raise AcquisitionError(f"a spread needs at least 2 members, got {n_members}")
    # Below 6 members the sample mean of 1/spread² has no variance: at M = 4 and 100 frames its
    # 90 % range about a true 2.5 is 1.7 to 3.7, that of the second moments 2.2 to 2.8.
    return "imbalzano" if n_members > 5 else "second_moments"


def _alpha(ratio: float, estimator: Estimator, n_members: int | None) -> float:
    """Return the scale factor that belongs to a mean ratio of squares."""
    if n_members is None:
        return math.sqrt(ratio)
    if estimator == "imbalzano":
        ratio *= (n_members - 3) / (n_members - 1)
    return math.sqrt(max(0.0, ratio - 1.0 / n_members))


def _quotient(
    above: NDArray[np.float64] | np.float64, below: NDArray[np.float64] | np.float64
) -> NDArray[np.float64]:
    """Return above / below, and inf for anything over zero: no spread vouches for no error."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        quotient = np.divide(above, below)
    return np.where(np.isnan(quotient), np.inf, quotient)


def _scaled(spread: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.asarray(spread, dtype=np.float64) * factor
    return np.where(np.isfinite(error), error, np.inf)
