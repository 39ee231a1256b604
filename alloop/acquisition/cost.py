"""What a label costs: seconds against the size of the molecule, learnt from the attempts so far.

log t = a + p log N, where N counts basis functions where attempts tell them, else atoms. The
exponent has a prior, p ~ Normal(p0, 1), with p0 the formal scaling of the theory: it rules while
all attempts are of one size and yields to the data where sizes differ. Huber's weights
(doi:10.1214/aoms/1177703732) keep a job that shared its processor from deciding.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from alloop.errors import AcquisitionError

CONFIDENCE = 0.9
"""Probability with which the time of one label lies inside its interval."""
_EXPONENTS = (
    (r"xtb|gfn", 2.5),
    (r"dlpno|lno|local", 3.0),
    (r"ccsd\(t\)|ccsd_t|mp4|qcisd\(t\)", 7.0),
    (r"ccsd|mp3|qcisd", 6.0),
    (r"mp2|cc2", 5.0),
)
_UNKNOWN_EXPONENT = 3.0
_EXPONENT_SCATTER = 1.0
"""How far a true exponent is from the formal one: small molecules scale below it by one or two."""
_TYPICAL_SCATTER = 0.3
_TYPICAL_WEIGHT = 4.0
"""Scatter of log t expected before there are residuals, and for how many of them it counts."""
_HUBER = 1.345
_HUBER_VARIANCE = 0.7102
"""Where residuals count as outliers, in scatters, and E min(z, that)² of a normal z."""
_MAX_ROUNDS = 50


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a label.

    Attributes
    ----------
    n_atoms : atoms of the frame.
    n_basis : contracted basis functions, None where the program does not tell.
    seconds : core-seconds that it took.
    succeeded : whether it gave a label.

    """

    n_atoms: int
    n_basis: int | None
    seconds: float
    succeeded: bool = True

    def __post_init__(self) -> None:
        sizes = [self.n_atoms] if self.n_basis is None else [self.n_atoms, self.n_basis]
        if not (min(sizes) >= 1 and 0.0 < self.seconds < math.inf):
            raise AcquisitionError(f"an attempt has sizes and seconds above 0, got {self}")


@dataclass(frozen=True, slots=True)
class Price:
    """What one label is expected to cost, failed attempts included.

    Attributes
    ----------
    seconds : core-seconds, the median.
    low, high : core-seconds between which a label lies with probability ``CONFIDENCE``.

    """

    seconds: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class CostModel:
    """Core-seconds of a label at one level of theory.

    Attributes
    ----------
    exponent, exponent_error : p and its standard error; before any attempt the prior's.
    n_attempts, n_labels : attempts behind the model, and those of them that gave a label.
    basis_per_atom : functions that stand for an atom of a frame whose basis is not known; None if
        no attempt told its basis, and N counts atoms.
    log_size, log_seconds : centre of the line; NaN before any attempt.
    scatter : standard deviation of log t about the line.
    weight : attempts behind the line, outliers counted in part.

    """

    exponent: float
    exponent_error: float
    n_attempts: int
    n_labels: int
    basis_per_atom: float | None
    log_size: float
    log_seconds: float
    scatter: float
    weight: float

    @property
    def attempts_per_label(self) -> float:
        """Attempts that one label takes; a success is counted beforehand, so it is finite."""
        return (self.n_attempts + 1) / (self.n_labels + 1)

    def predict(self, n_atoms: int, n_basis: int | None = None) -> Price | None:
        """Return the price of a label; None while there was no attempt at this level."""
        if self.n_attempts == 0:
            return None
        distance = self._log_size(n_atoms, n_basis) - self.log_size
        variance = self.scatter**2 * (1.0 + 1.0 / self.weight)
        spread = math.sqrt(variance + (distance * self.exponent_error) ** 2)
        quantile = float(student.ppf(0.5 + 0.5 * CONFIDENCE, self.weight + _TYPICAL_WEIGHT))
        seconds = self.attempts_per_label * math.exp(self.log_seconds + self.exponent * distance)
        factor = math.exp(quantile * spread)
        return Price(seconds, seconds / factor, seconds * factor)

    def relative(self, n_atoms: int, n_basis: int | None = None) -> float:
        """Return N^p, what a label costs beside others while no attempt says how many seconds."""
        return math.exp(self.exponent * self._log_size(n_atoms, n_basis))

    def _log_size(self, n_atoms: int, n_basis: int | None) -> float:
        return math.log(_size(n_atoms, n_basis, self.basis_per_atom))


def prior_exponent(method: str) -> float:
    """Return the formal scaling of a method by its name: 7 for CCSD(T) down to 2.5 for xTB."""
    name = method.lower()
    return next((p for pattern, p in _EXPONENTS if re.search(pattern, name)), _UNKNOWN_EXPONENT)


def fit_cost(attempts: Sequence[Attempt], method: str) -> CostModel:
    """Fit the cost model of a method, named as in the tier, to all attempts at it.

    Times are those of the attempts that gave a label, or of all while none did; the others raise
    the price by the number of attempts that one label takes.
    """
    prior = prior_exponent(method)
    timed = [a for a in attempts if a.succeeded] or list(attempts)
    told = [a.n_basis / a.n_atoms for a in attempts if a.n_basis is not None]
    basis_per_atom = float(np.median(told)) if told else None
    counts = len(attempts), sum(a.succeeded for a in attempts)
    if not timed:
        scatter = _TYPICAL_SCATTER
        return CostModel(prior, _EXPONENT_SCATTER, *counts, None, math.nan, math.nan, scatter, 0.0)
    sizes = np.log([_size(a.n_atoms, a.n_basis, basis_per_atom) for a in timed])
    line = _fit_line(sizes, np.log([a.seconds for a in timed]), prior)
    return CostModel(line.slope, line.slope_error, *counts, basis_per_atom, *line.rest)


def _size(n_atoms: int, n_basis: int | None, basis_per_atom: float | None) -> float:
    if basis_per_atom is None:
        return float(n_atoms)
    return float(n_basis) if n_basis is not None else n_atoms * basis_per_atom


@dataclass(frozen=True, slots=True)
class _Line:
    slope: float
    slope_error: float
    x: float
    y: float
    scatter: float
    weight: float

    @property
    def rest(self) -> tuple[float, float, float, float]:
        return self.x, self.y, self.scatter, self.weight


def _fit_line(x: NDArray[np.float64], y: NDArray[np.float64], prior: float) -> _Line:
    """Return the line of least Huber loss plus the prior of its slope."""
    weights, scatter = np.ones(len(x)), _TYPICAL_SCATTER
    last = before = math.inf
    for _ in range(_MAX_ROUNDS):
        x0, y0 = (float(np.average(values, weights=weights)) for values in (x, y))
        precision = (scatter / _EXPONENT_SCATTER) ** 2
        above = weights @ ((x - x0) * (y - y0)) + precision * prior
        slope = float(above / (weights @ (x - x0) ** 2 + precision))
        residuals = y - y0 - slope * (x - x0)
        scatter = _scatter(residuals, scatter)
        weights = 1.0 / np.maximum(np.abs(residuals) / (_HUBER * scatter), 1.0)
        if abs(slope - last) + abs(scatter - before) < 1e-9:
            break
        last, before = slope, scatter
    information = float(weights @ (x - x0) ** 2) / scatter**2 + _EXPONENT_SCATTER**-2
    return _Line(slope, information**-0.5, x0, y0, scatter, float(weights.sum()))


def _scatter(residuals: NDArray[np.float64], scatter: float) -> float:
    """Return the next scatter: Huber's proposal 2, drawn to the typical one by few residuals."""
    free = max(len(residuals) - 2, 0)
    squares = np.minimum(residuals**2, (_HUBER * scatter) ** 2).mean() / _HUBER_VARIANCE
    total = _TYPICAL_WEIGHT * _TYPICAL_SCATTER**2 + free * float(squares)
    return math.sqrt(total / (_TYPICAL_WEIGHT + free))
