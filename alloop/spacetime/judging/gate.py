"""Whether a new 4D model takes the place of the old one: judged on trajectories neither has seen.

Errors of bonds, angles and dihedrals have different units and sizes, so models are compared by the
geometric mean over the kinds of the ratios of their errors. The unit of evidence is the trajectory:
the interval of the ratio is Student's on its logarithm, with the jackknife's standard error over
trajectories (Efron and Stein 1981, doi:10.1214/aos/1176345462).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from alloop.errors import SpacetimeError
from alloop.spacetime.judging.accuracy import Assessment, Scores, assess
from alloop.spacetime.learning.trajectories import TrajectorySet
from alloop.spacetime.model import SpacetimeModel

TOLERANCE = 0.02
"""A candidate may be so much worse than the incumbent, relative: it has seen newer motion."""
BALLISTIC_FACTOR = 3.0
"""A first model must be so many times better than uniform motion of the coordinates."""
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Gate:
    """The judgement of a candidate.

    Attributes
    ----------
    promoted : whether the candidate is to be used.
    reason : why, one line.
    numbers : ``ratio`` with ``ratio_low`` and ``ratio_high`` (absent with one trajectory), the
        ``limit`` it must stay below, the ratios of each kind (``ratio_bond``), the errors behind
        them (``candidate_bond``, ``other_bond``), ``n_trajectories`` and ``n_segments``. Numbers
        that are not finite are left out.

    """

    promoted: bool
    reason: str
    numbers: dict[str, float]


def judge(
    candidate: SpacetimeModel,
    incumbent: SpacetimeModel | None,
    data: TrajectorySet,
    indices: list[int],
    tolerance: float = TOLERANCE,
) -> Gate:
    """Return whether a candidate is better than an incumbent, or about as good.

    Both are assessed on the trajectories ``indices`` of ``data``, which neither may have learnt
    from. Models with other internal coordinates are compared by the RMSD at the cutoff alone.
    Without an incumbent, or with one whose errors mean something else (another cutoff) or are no
    numbers, the candidate is compared with uniform motion. Its own errors must be numbers.

    Raises
    ------
    SpacetimeError
        The models are of different molecules, or no trajectory is longer than a segment.

    """
    if incumbent is not None and incumbent.numbers != candidate.numbers:
        raise SpacetimeError(
            f"4D gate: the candidate is for atoms {candidate.numbers}, the incumbent for"
            f" {incumbent.numbers}; compare models of one molecule"
        )
    mine = _assess_each(candidate, data, indices)
    scores = [assessment.ensemble for assessment in mine]
    sizes = np.array([assessment.n_segments for assessment in mine], dtype=np.float64)
    if incumbent is not None and incumbent.cutoff == candidate.cutoff:
        theirs = [assessment.ensemble for assessment in _assess_each(incumbent, data, indices)]
        kinds = _kinds(candidate, incumbent)
        others = _squares(theirs, kinds)
        if np.isfinite(others).all():
            squares = np.stack([_squares(scores, kinds), others])
            return _verdict(squares, sizes, kinds, 1.0 + tolerance, "the incumbent")
    free = [assessment.ballistic for assessment in mine]
    kinds = list(candidate.internal.kinds)
    squares = np.stack([_squares(scores, kinds), _squares(free, kinds)])
    return _verdict(squares, sizes, kinds, 1.0 / BALLISTIC_FACTOR, "uniform motion")


def _assess_each(
    model: SpacetimeModel, data: TrajectorySet, indices: list[int]
) -> list[Assessment]:
    """Return the errors of each trajectory that is longer than a segment."""
    each = [assess(model, data, [i]) for i in indices]
    usable = [assessment for assessment in each if assessment.n_segments]
    if not usable:
        raise SpacetimeError(
            f"4D gate: none of {len(indices)} held-out trajectories is longer than a segment of"
            f" {model.cutoff} fs; give longer ones"
        )
    return usable


def _kinds(candidate: SpacetimeModel, incumbent: SpacetimeModel) -> list[str]:
    """Return which errors mean the same for both models."""
    same = incumbent.internal.definition() == candidate.internal.definition()
    return list(candidate.internal.kinds) if same else ["rmsd_end"]


def _squares(scores: list[Scores], kinds: list[str]) -> NDArray[np.float64]:
    """Return squared errors (n_trajectories, n_kinds)."""
    return np.array([[score[kind] for kind in kinds] for score in scores]) ** 2


def _verdict(
    squares: NDArray[np.float64],
    sizes: NDArray[np.float64],
    kinds: list[str],
    limit: float,
    other: str,
) -> Gate:
    """Judge by squared errors (2, n_trajectories, n_kinds) of candidate and other."""
    ratios = _ratios(squares, sizes)
    ratio = float(np.exp(np.log(ratios).mean()))
    factor = _interval_factor(squares, sizes)
    means = np.sqrt(np.einsum("mik,i->mk", squares, sizes) / sizes.sum())
    n = len(sizes)
    numbers = {"ratio": ratio, "limit": limit, "n_trajectories": n, "n_segments": sizes.sum()}
    for k, kind in enumerate(kinds):
        numbers[f"ratio_{kind}"] = float(ratios[k])
        numbers |= {f"candidate_{kind}": float(means[0, k]), f"other_{kind}": float(means[1, k])}
    promoted = ratio < limit
    text = f"{ratio:.3f} of that of {other}"
    if math.isfinite(factor):
        numbers |= {"ratio_low": ratio / factor, "ratio_high": ratio * factor}
        text += f" ({CONFIDENCE:.0%} interval {ratio / factor:.3f} to {ratio * factor:.3f})"
    reason = (
        f"{'promoted' if promoted else 'held back'}: its error is {text} on {n}"
        f" {'trajectory' if n == 1 else 'trajectories'}, the limit is {limit:.3f}"
    )
    kept = {name: float(value) for name, value in numbers.items() if math.isfinite(value)}
    return Gate(promoted, reason, kept)


def _ratios(squares: NDArray[np.float64], sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ratio of root mean square errors of each kind, trajectories by their size."""
    candidate, other = np.einsum("mik,i->mk", squares, sizes)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios: NDArray[np.float64] = np.sqrt(candidate / other)
    return ratios


def _interval_factor(squares: NDArray[np.float64], sizes: NDArray[np.float64]) -> float:
    """Return the factor between the mean ratio and the ends of its interval; inf if unknown."""
    n = len(sizes)
    if n < 2:
        return math.inf
    keep = ~np.eye(n, dtype=bool)
    left_out = np.array([np.log(_ratios(squares[:, k], sizes[k])).mean() for k in keep])
    error = math.sqrt((n - 1) / n * float(((left_out - left_out.mean()) ** 2).sum()))
    with np.errstate(over="ignore"):
        return float(np.exp(stdtrit(n - 1, 0.5 + 0.5 * CONFIDENCE) * error))
