"""Confidence intervals of errors when the frames of one trajectory are not independent.

The unit of evidence is the trajectory: all that is resampled, left out or counted here is whole
trajectories. Campaigns have few of them, and there the percentile bootstrap is far too narrow
(nominal 95 % intervals of an RMSE over 3 trajectories hold the truth 72 % of the time), so the
interval is Student's on the logarithm, with the jackknife's standard error (Efron and Stein,
doi:10.1214/aos/1176345462), which holds it 95 % of the time for equal trajectories.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit

from alloop.errors import AcquisitionError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence interval.

    Attributes
    ----------
    value, low, high : the estimate and the ends; without evidence inf, 0 and inf.
    n : number of frames.
    n_groups : number of trajectories; with one of them high is inf.

    """

    value: float
    low: float
    high: float
    n: int
    n_groups: int


def rmse_interval(
    squared_errors: NDArray[np.float64], groups: NDArray[np.int64], confidence: float = 0.95
) -> Interval:
    """Return the root of the mean squared error with its interval.

    squared_errors: (n_frames,), each frame's mean squared error; groups: (n_frames,), the
    trajectory of each. No frames, or a squared error that is not finite, give (inf, 0, inf).
    """
    squares = np.asarray(squared_errors, dtype=np.float64)
    mean = ratio_interval(squares, np.ones_like(squares), groups, confidence)
    return Interval(
        value=float(np.sqrt(mean.value)),
        low=float(np.sqrt(mean.low)),
        high=float(np.sqrt(mean.high)),
        n=mean.n,
        n_groups=mean.n_groups,
    )


def ratio_interval(
    numerators: NDArray[np.float64],
    denominators: NDArray[np.float64],
    groups: NDArray[np.int64],
    confidence: float,
) -> Interval:
    """Return sum(numerators) / sum(denominators), both not negative, with its interval.

    All arrays have shape (n_frames,); groups holds the trajectory of each frame.
    """
    if not 0.0 < confidence < 1.0:
        raise AcquisitionError(f"a confidence lies between 0 and 1, got {confidence}")
    if not numerators.shape == denominators.shape == np.shape(groups):
        raise AcquisitionError(
            "errors and trajectories must be (n_frames,) each, got shapes"
            f" {numerators.shape}, {denominators.shape}, {np.shape(groups)}"
        )
    names, place = np.unique(groups, return_inverse=True)
    n, n_groups = len(numerators), len(names)
    if n == 0:
        return Interval(np.inf, 0.0, np.inf, n, n_groups)
    above = np.bincount(place, numerators, n_groups).astype(np.float64)
    below = np.bincount(place, denominators, n_groups).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        value = float(above.sum() / below.sum())
        factor = _log_factor(above, below, confidence) if n_groups > 1 else np.inf
        low, high = value / factor, value * factor
    if not (np.isfinite(value) and np.isfinite(high)):
        return Interval(value if value >= 0.0 else np.inf, 0.0, np.inf, n, n_groups)
    return Interval(value, float(low), float(high), n, n_groups)


def _log_factor(above: NDArray[np.float64], below: NDArray[np.float64], confidence: float) -> float:
    """Return the factor between a ratio and the ends of its interval."""
    n_groups = len(above)
    left_out = np.log((above.sum() - above) / (below.sum() - below))
    variance = (n_groups - 1) / n_groups * np.sum((left_out - left_out.mean()) ** 2)
    student = stdtrit(n_groups - 1, 0.5 + 0.5 * confidence)
    return float(np.exp(student * np.sqrt(variance)))
