"""How alike the unknown difference between two levels of theory is on two frames of one system.

k(x, y) = exp(-|x - y|²/2l²) of normalised fingerprints: each column has variance 1, so that a bond,
which moves little and matters much, counts as much as a torsion; and the median distance of two
frames is 1. Differences known so far give the length l and the share of noise by their likelihood
as a Gaussian process (Rasmussen and Williams 2006, eq. 5.8).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.linalg import cho_solve, cholesky

if TYPE_CHECKING:
    from numpy.typing import NDArray

START_LENGTH, START_NOISE = 2.0, 0.01
"""Without known differences: what 100 ethanol frames, GFN2-xTB against PBE, have most likely."""
_LENGTHS = 2.0 ** np.arange(-1.0, 3.01, 0.5)
_NOISES = (1e-3, 1e-2, 1e-1)
_LENGTH_SCATTER = np.log(2.0)
"""Standard deviation of log l before differences are known."""
_ENOUGH = 10
_MOST = 400
"""Differences from which a length is fitted, and as many as are used."""
_MEDIAN_OF = 500


class Scales(NamedTuple):
    """Length of the kernel in median distances of two frames, and noise as a share of variance."""

    length: float
    noise: float


def normalised(fingerprints: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return finite fingerprints (n, width) with columns of variance 1 and median distance 1."""
    if len(fingerprints) == 0:
        return fingerprints
    moved = fingerprints - fingerprints.mean(axis=0)
    deviations = moved.std(axis=0)
    varies = deviations > 1e-6 * max(float(deviations.max(initial=0.0)), 1e-6)
    rows: NDArray[np.float64] = moved[:, varies] / deviations[varies]
    some = rows[np.linspace(0, len(rows) - 1, min(len(rows), _MEDIAN_OF)).astype(int)]
    squares = squared_distances(some, some)[np.triu_indices(len(some), 1)]
    median = float(np.sqrt(np.median(squares))) if len(squares) else 0.0
    return rows / median if median > 0.0 else rows


def squared_distances(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return |a_i - b_j|² of rows (n, width) and (m, width), (n, m)."""
    products = a @ b.T
    squares = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2.0 * products
    result: NDArray[np.float64] = np.maximum(squares, 0.0)
    return result


def similarity(
    a: NDArray[np.float64], b: NDArray[np.float64], length: float
) -> NDArray[np.float64]:
    """Return k of normalised rows (n, width) and (m, width), (n, m)."""
    result: NDArray[np.float64] = np.exp(squared_distances(a, b) / (-2.0 * length**2))
    return result


def likely_scales(rows: NDArray[np.float64], differences: NDArray[np.float64]) -> Scales:
    """Return the most likely scales for energy differences, eV, of normalised rows.

    rows: (n, width); differences: (n,), NaN where not known. Fewer than ten known ones, or all
    alike, change nothing of the start.
    """
    known = np.flatnonzero(np.isfinite(differences))[:_MOST]
    if len(known) < _ENOUGH or np.ptp(differences[known]) == 0.0:
        return Scales(START_LENGTH, START_NOISE)
    values = differences[known] - differences[known].mean()
    scored = [
        (
            _log_likelihood(similarity(rows[known], rows[known], length), noise, values),
            length,
            noise,
        )
        for length in _LENGTHS
        for noise in _NOISES
    ]
    _, length, noise = max(
        (score + _log_prior(length), length, noise) for score, length, noise in scored
    )
    return Scales(float(length), float(noise))


def _log_prior(length: float) -> float:
    return float(-0.5 * (np.log(length / START_LENGTH) / _LENGTH_SCATTER) ** 2)


def _log_likelihood(
    kernel: NDArray[np.float64], noise: float, values: NDArray[np.float64]
) -> float:
    """Return the log likelihood with the variance at its best, less a constant."""
    n = len(values)
    factor = cholesky(kernel + noise * np.eye(n), lower=True)
    variance = float(values @ cho_solve((factor, True), values)) / n
    return float(-0.5 * n * np.log(variance) - np.log(np.diag(factor)).sum())
