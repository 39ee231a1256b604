"""How much one more label lowers the expected squared error, exactly, for a Gaussian process.

The unknown error has the covariance C(x, y) = s(x) s(y) k(x, y). A label at x with noise v lowers
the variance summed over the representatives y by

    Σ_y C(x, y)² / (C(x, x) + v)

and leaves C(y, z) - u(y) u(z) with u(y) = C(x, y) / sqrt(C(x, x) + v): active learning after Cohn,
Ghahramani and Jordan (arXiv:cs/9603104). Sums over y are updated, never the matrix: a
choice costs one product of the matrix and a vector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from alloop.acquisition.kernel import similarity

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Posterior:
    """Error of one system's frames, given the labels so far.

    rows: (n, width), normalised fingerprints; spreads: (n,), s; representatives: (m,) rows over
    which the error is summed; known: (k,) rows that have labels; length: of the kernel; noise: v.
    """

    def __init__(
        self,
        rows: NDArray[np.float64],
        spreads: NDArray[np.float64],
        representatives: NDArray[np.int64],
        known: NDArray[np.int64],
        *,
        length: float,
        noise: float,
    ) -> None:
        self._rows, self._spreads, self._length = rows, spreads, length
        self._representatives, self._noise = representatives, noise
        self._chosen: list[NDArray[np.float64]] = []
        self._known = self._condition_on(known)
        covariance = self._prior(representatives) - self._known.T @ self._known[:, representatives]
        self._covariance = covariance
        self._sums = np.einsum("ij,ij->i", covariance, covariance)
        self._variance = spreads**2 - np.einsum("ij,ij->j", self._known, self._known)

    @property
    def reductions(self) -> NDArray[np.float64]:
        """By how much a label at each row would lower ``error``, (n,)."""
        result: NDArray[np.float64] = np.maximum(self._sums, 0.0) / (self.variance + self._noise)
        return result

    @property
    def variance(self) -> NDArray[np.float64]:
        """Expected squared error of each row, (n,)."""
        result: NDArray[np.float64] = np.maximum(self._variance, 0.0)
        return result

    @property
    def error(self) -> float:
        """Expected squared error summed over the representatives."""
        return float(self.variance[self._representatives].sum())

    def condition(self, row: int) -> None:
        """Take note of a label at a row."""
        chosen = np.array(self._chosen).reshape(-1, len(self._rows))
        column = self._prior(np.array([row]))[:, 0]
        column -= self._known.T @ self._known[:, row] + chosen.T @ chosen[:, row]
        step = column / np.sqrt(self.variance[row] + self._noise)
        there = step[self._representatives]
        product = self._covariance @ there
        product -= chosen.T @ (chosen[:, self._representatives] @ there)
        self._sums += step * (step * (there @ there) - 2.0 * product)
        self._variance -= step**2
        self._chosen.append(step)

    def _prior(self, columns: NDArray[np.int64]) -> NDArray[np.float64]:
        alike = similarity(self._rows, self._rows[columns], self._length)
        result: NDArray[np.float64] = self._spreads[:, None] * alike * self._spreads[columns]
        return result

    def _condition_on(self, known: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the steps of all known labels at once, (k, n)."""
        if len(known) == 0:
            return np.empty((0, len(self._rows)))
        prior = self._prior(known)
        factor = cholesky(prior[known] + self._noise * np.eye(len(known)), lower=True)
        steps: NDArray[np.float64] = solve_triangular(factor, prior.T, lower=True)
        return steps
