"""A comparison beside its floor: what the reference scores against itself, from as much data.

Means over few trajectories differ by chance, so a score means nothing without that of an equally
small sample of the reference. The reference is split into random halves A and B, again and again.
The floor is the score of A against B; the value is the score of A against C, as many trajectories
of the candidate. If reference and candidate have equally many trajectories, C are those at the
places of B in the list: trajectories that share their start are never compared, which would raise
the value above the floor, and both differ in nothing but who made the trajectories. Otherwise C is
drawn at random, and the two sides must not share starts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from alloop.errors import AnalysisError
from alloop.seeds import generator

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_SPLITS: Final = 200
QUANTILES: Final = (0.05, 0.95)

Score = Callable[["NDArray[np.float64]", "NDArray[np.float64]"], "NDArray[np.float64]"]
"""Maps two arrays of rows, (n_splits, n) each, to one number for each pair, (n_splits,)."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How alike candidate and reference are, and reference and reference.

    Low and high are the 5 % and 95 % quantiles over the splits. The splits share their data, so
    these show what another choice of trajectories would do, not a confidence interval.

    Attributes
    ----------
    value, value_low, value_high : candidate against reference, mean over the splits.
    floor, floor_low, floor_high : one half of the reference against the other.
    n_each : number of trajectories on either side of every score.
    n_splits : number of random splits.

    """

    value: float
    value_low: float
    value_high: float
    floor: float
    floor_low: float
    floor_high: float
    n_each: int
    n_splits: int


def compare_halves(
    reference: NDArray[np.float64],
    candidate: NDArray[np.float64],
    score: Score,
    *,
    seed: int = 0,
    n_splits: int = N_SPLITS,
) -> Comparison:
    """Return the score of means over trajectories, with its floor.

    reference, candidate: (n_trajectories, n), one row for each trajectory.

    Raises AnalysisError: the reference has fewer than two trajectories, the candidate none.
    """
    n_reference, n_candidate = len(reference), len(candidate)
    if n_reference < 2 or n_candidate < 1:
        raise AnalysisError(
            f"comparison: got {n_reference} reference and {n_candidate} candidate trajectories,"
            " want 2 and 1 at least; cut a long reference into pieces"
        )
    n_each = min(n_reference // 2, n_candidate)
    paired = n_reference == n_candidate
    random = generator(seed, "halves")
    first, second, others = [], [], []
    for _ in range(n_splits):
        order = random.permutation(n_reference)
        first.append(order[:n_each])
        second.append(order[n_each : 2 * n_each])
        others.append(second[-1] if paired else random.permutation(n_candidate)[:n_each])
    means = _means(reference, first)
    values = score(means, _means(candidate, others))
    floors = score(means, _means(reference, second))
    return Comparison(*_summary(values), *_summary(floors), n_each, n_splits)


def _means(rows: NDArray[np.float64], choices: list[NDArray[np.int64]]) -> NDArray[np.float64]:
    weights = np.zeros((len(choices), len(rows)))
    np.put_along_axis(weights, np.array(choices), 1.0 / len(choices[0]), axis=1)
    means: NDArray[np.float64] = weights @ rows
    return means


def _summary(scores: NDArray[np.float64]) -> tuple[float, float, float]:
    low, high = np.quantile(scores, QUANTILES)
    return float(scores.mean()), float(low), float(high)
