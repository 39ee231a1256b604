"""Max-min selection: each next frame is the one farthest from all that is known or chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Farthest:
    """Outcome of a max-min selection over n rows.

    Attributes
    ----------
    chosen : (k,) rows in the order of their choice.
    gaps : (k,) distance of each to everything known and chosen before it, Å.
    distances : (n,) distance of each row to everything known and chosen, Å; 0 for the chosen.
    neighbours : (n,) the chosen row that is nearest, -1 where something known is nearer.

    """

    chosen: NDArray[np.int64]
    gaps: NDArray[np.float64]
    distances: NDArray[np.float64]
    neighbours: NDArray[np.int64]


def max_min(
    rows: NDArray[np.float64],
    known_distances: NDArray[np.float64],
    weights: NDArray[np.float64],
    count: int,
    *,
    tolerance: float,
    weighted: bool = False,
    groups: NDArray[np.int64] | None = None,
    group_cap: int | None = None,
) -> Farthest:
    """Choose up to ``count`` rows greedily, each farthest from the known and the chosen.

    rows: (n, width) finite fingerprints; known_distances: (n,) distance of each to the training
    set, inf if that is empty; weights: (n,) spreads, which decide the first choice when nothing is
    known and, if ``weighted``, multiply every distance. Rows within ``tolerance`` (Å) of something
    known or chosen are never chosen, nor is more than ``group_cap`` of one group.
    """
    distances = known_distances.copy()
    neighbours = np.full(len(rows), -1, dtype=np.int64)
    allowed = np.ones(len(rows), dtype=bool)
    chosen: list[int] = []
    gaps: list[float] = []
    while len(chosen) < count:
        eligible = allowed & (distances > tolerance)
        if not eligible.any():
            break
        scores = _scores(distances, weights, weighted)
        row = int(np.where(eligible, scores, -np.inf).argmax())
        chosen.append(row)
        gaps.append(float(distances[row]))
        to_row = np.linalg.norm(rows - rows[row], axis=1)
        nearer = to_row < distances
        distances[nearer] = to_row[nearer]
        neighbours[nearer] = row
        if groups is not None and group_cap is not None:
            taken = np.count_nonzero(groups[chosen] == groups[row])
            allowed[groups == groups[row]] = taken < group_cap
    return Farthest(np.array(chosen, dtype=np.int64), np.array(gaps), distances, neighbours)


def _scores(
    distances: NDArray[np.float64], weights: NDArray[np.float64], weighted: bool
) -> NDArray[np.float64]:
    if np.isinf(distances).all():
        return weights
    return distances * weights if weighted else distances
