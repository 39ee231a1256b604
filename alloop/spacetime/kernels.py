"""A trajectory as a function of time alone, by kernel ridge regression: the simplest 4D model.

One trajectory, one start: x(t) = Σ w_i k(t - t_i). A periodic kernel knows all times at once; a
Gaussian one knows the times it has learnt, and reaches others segment by segment, when a segment
ends as it began. After the H2 example in the supporting information of Ge et al., DOI
10.1021/acs.jpclett.3c01592, equation S1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from alloop.errors import SpacetimeError

Array = NDArray[np.float64]

RIDGES = 10.0 ** np.arange(-12.0, -2.9, 0.5)
"""Ridges tried by ``fit_best``, in units of k(0) = 1."""
GAUSSIAN_WIDTHS = 2.0 ** np.arange(-6.0, 1.1, 0.25)
"""Widths of Gaussian kernels tried by ``fit_best``, as fractions of the time learnt."""
PERIODIC_WIDTHS = 2.0 ** np.arange(-3.0, 3.1, 0.25)
"""Widths of periodic kernels tried by ``fit_best``."""


class Kernel(Protocol):
    """A similarity of two times that depends on the lag between them."""

    def value(self, lag: Array) -> Array:
        """Return k at lags in fs; k(0) = 1."""

    def slope(self, lag: Array) -> Array:
        """Return dk/d(lag), 1/fs."""


@dataclass(frozen=True, slots=True)
class GaussianKernel:
    """exp(-lag²/2σ²), ``width`` σ in fs."""

    width: float

    def __post_init__(self) -> None:
        _check_positive("width of a Gaussian kernel / fs", self.width)

    def value(self, lag: Array) -> Array:
        """Return k at lags in fs."""
        result: Array = np.exp(-0.5 * (lag / self.width) ** 2)
        return result

    def slope(self, lag: Array) -> Array:
        """Return dk/d(lag), 1/fs."""
        return -lag / self.width**2 * self.value(lag)


@dataclass(frozen=True, slots=True)
class PeriodicKernel:
    """exp(-2/σ² sin²(π lag/p)), equation S1; ``width`` σ has no unit, ``period`` p is in fs."""

    width: float
    period: float

    def __post_init__(self) -> None:
        _check_positive("width of a periodic kernel", self.width)
        _check_positive("period of a periodic kernel / fs", self.period)

    def value(self, lag: Array) -> Array:
        """Return k at lags in fs."""
        result: Array = np.exp(-2 / self.width**2 * np.sin(np.pi * lag / self.period) ** 2)
        return result

    def slope(self, lag: Array) -> Array:
        """Return dk/d(lag), 1/fs."""
        factor = -2 * np.pi / (self.width**2 * self.period)
        result: Array = factor * np.sin(2 * np.pi * lag / self.period) * self.value(lag)
        return result


@dataclass(frozen=True, slots=True, eq=False)
class KernelTrajectory:
    """A trajectory learnt as a function of time.

    Attributes
    ----------
    times : (n_points,) float64, what was learnt from, fs.
    weights : (n_points, ...) float64, one column for each output.
    kernel : what makes times similar.

    """

    times: Array
    weights: Array
    kernel: Kernel

    @classmethod
    def fit(
        cls, times: ArrayLike, values: ArrayLike, kernel: Kernel, ridge: float
    ) -> KernelTrajectory:
        """Return the ridge regression of values (n_points, ...) at times (n_points,), fs.

        Raises
        ------
        SpacetimeError
            Shapes disagree, a number is not finite, or the ridge is too small for the kernel.

        """
        t, x = _checked(times, values)
        weights, _ = _solve(t, x, kernel, ridge)
        return cls(t, weights, kernel)

    def predict(self, times: ArrayLike) -> tuple[Array, Array]:
        """Return values (n_times, ...) and their exact rates of change per fs at times in fs."""
        lag = np.asarray(times, dtype=np.float64)[:, None] - self.times
        return self.kernel.value(lag) @ self.weights, self.kernel.slope(lag) @ self.weights


def leave_one_out(times: ArrayLike, values: ArrayLike, kernel: Kernel, ridge: float) -> Array:
    """Return what a fit without a point misses there, for each point (n_points, ...).

    In closed form: w_i / [(K + λ)⁻¹]_ii (Rasmussen and Williams, Gaussian Processes for Machine
    Learning, 2006, equation 5.12). Raises what ``KernelTrajectory.fit`` raises.
    """
    t, x = _checked(times, values)
    weights, factor = _solve(t, x, kernel, ridge)
    diagonal = np.diag(cho_solve((factor, True), np.eye(len(t))))
    result: Array = (weights.T / diagonal).T
    return result


def fit_best(
    times: ArrayLike, values: ArrayLike, *, period: float | None = None
) -> KernelTrajectory:
    """Return the fit whose width and ridge have the least leave-one-out error, squares summed.

    The kernel is periodic where a ``period`` is given, fs, and Gaussian otherwise. Widths and
    ridges come from ``GAUSSIAN_WIDTHS`` or ``PERIODIC_WIDTHS``, and ``RIDGES``; nothing but the
    points is used. Raises what ``KernelTrajectory.fit`` raises.
    """
    t, x = _checked(times, values)
    kernels: list[Kernel]
    if period is None:
        kernels = [GaussianKernel(float(width * np.ptp(t))) for width in GAUSSIAN_WIDTHS]
    else:
        kernels = [PeriodicKernel(float(width), period) for width in PERIODIC_WIDTHS]
    best = min(
        ((kernel, float(ridge)) for kernel in kernels for ridge in RIDGES),
        key=lambda choice: _leave_one_out_error(t, x, *choice),
    )
    return KernelTrajectory.fit(t, x, *best)


def estimate_period(times: ArrayLike, values: ArrayLike) -> float:
    """Return the period, fs, of one coordinate (n_times,) that swings between two turning points.

    Turning points are where the derivative of a cubic spline through all samples is zero; two of
    the same kind are a period apart. Raises SpacetimeError where there are fewer than three, and
    where samples are too few or not in order.
    """
    t, x = _checked(times, values)
    if x.ndim != 1 or len(t) < 4 or not (np.diff(t) > 0).all():
        raise SpacetimeError(
            f"a period needs one coordinate at 4 or more rising times, got shape {x.shape}"
        )
    roots = CubicSpline(t, x).derivative().roots(extrapolate=False)
    # A turning point on a sample is a root of the pieces on both sides.
    turns = roots[np.diff(roots, prepend=-np.inf) > np.diff(t).min()]
    if len(turns) < 3:
        raise SpacetimeError(
            f"{np.ptp(t):g} fs show {len(turns)} turning points; a period needs 3: go on longer"
        )
    n_periods = (len(turns) - 1) // 2
    return float((turns[2 * n_periods] - turns[0]) / n_periods)


def add_previous_period(times: ArrayLike, values: ArrayLike, period: float) -> tuple[Array, Array]:
    """Return the points once more, a period earlier, before themselves: data of [-p, p].

    Of a motion that starts at rest this is the mirror image in time. What would fall on times
    that are there already, is not repeated.
    """
    t, x = _checked(times, values)
    earlier = t - period < t.min()
    return np.concatenate([t[earlier] - period, t]), np.concatenate([x[earlier], x])


def propagate_by_segments(
    model: KernelTrajectory, times: ArrayLike, segment: float, *, tolerance: float = 0.05
) -> tuple[Array, Array]:
    """Return values (n_times, ...) and rates at any times from 0 on, fs, segment after segment.

    The model knows one start only. Each segment therefore has to end in the state in which it
    began; it is then the start of the next. Times before 0 need a model of times before 0.

    Raises
    ------
    SpacetimeError
        The segment is not positive, reaches beyond the times learnt, or ends further than
        ``tolerance`` from its start, in units of the ranges that values and rates span.

    """
    _check_positive("segment / fs", segment)
    t = np.asarray(times, dtype=np.float64)
    local = t - np.trunc(t / segment) * segment
    earliest = local.min(initial=0.0)
    first, last = model.times.min(), model.times.max()
    if not (first <= earliest and segment <= last):
        raise SpacetimeError(
            f"segments need times from {earliest:g} to {segment:g} fs, the model knows {first:g} "
            f"to {last:g} fs: learn these or shorten the segment"
        )
    span = np.linspace(0.0, segment, 101)
    for what, course in zip(("values", "rates"), model.predict(span), strict=True):
        gap, reach = np.abs(course[-1] - course[0]), np.ptp(course, axis=0)
        if not np.all(gap <= tolerance * reach):
            raise SpacetimeError(
                f"after {segment:g} fs {what} are {np.max(gap):.3g} away from the start and span "
                f"{np.max(reach):.3g}; want {tolerance:g} of that: the segment must be a period"
            )
    return model.predict(local)


def _solve(times: Array, values: Array, kernel: Kernel, ridge: float) -> tuple[Array, Array]:
    """Return the weights and the lower Cholesky factor of K + λ."""
    _check_positive("ridge", ridge)
    matrix = kernel.value(times[:, None] - times) + ridge * np.eye(len(times))
    try:
        factor, _ = cho_factor(matrix, lower=True)
    except LinAlgError as error:
        raise SpacetimeError(
            f"ridge {ridge:g} is too small for {kernel} at {len(times)} times: raise it"
        ) from error
    return cho_solve((factor, True), values), factor


def _leave_one_out_error(times: Array, values: Array, kernel: Kernel, ridge: float) -> float:
    try:
        return float(np.square(leave_one_out(times, values, kernel, ridge)).sum())
    except SpacetimeError:  # a ridge too small for this width
        return np.inf


def _checked(times: ArrayLike, values: ArrayLike) -> tuple[Array, Array]:
    t = np.asarray(times, dtype=np.float64)
    x = np.asarray(values, dtype=np.float64)
    if t.ndim != 1 or len(t) == 0 or x.shape[:1] != t.shape:
        raise SpacetimeError(
            f"a trajectory needs times (n,) and values (n, ...), got {t.shape} and {x.shape}"
        )
    if not (np.isfinite(t).all() and np.isfinite(x).all()):
        raise SpacetimeError("a trajectory to learn holds numbers that are not finite")
    return t, x


def _check_positive(what: str, value: float) -> None:
    if not (value > 0 and np.isfinite(value)):
        raise SpacetimeError(f"{what} must be positive, got {value}")
