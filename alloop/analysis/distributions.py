"""Distributions of internal values, such as bond lengths, and how far they overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from alloop.analysis.arrays import checked
from alloop.analysis.halves import N_SPLITS, Comparison, compare_halves
from alloop.errors import AnalysisError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

N_BINS: Final = 100


@dataclass(frozen=True, slots=True, eq=False)
class Distribution:
    """One value in reference and candidate, every trajectory with the same weight.

    Attributes
    ----------
    edges : (n_bins + 1,) float64, of bins that cover what the reference visits.
    reference : (n_bins,) float64, probability density.
    candidate : (n_bins,) float64, probability density; its integral is 1 - ``outside``.
    outside : share of the candidate's values beyond the bins.
    overlap : integral of the lesser of both densities, 1 for equal ones; with its floor.

    """

    edges: NDArray[np.float64]
    reference: NDArray[np.float64]
    candidate: NDArray[np.float64]
    outside: float
    overlap: Comparison


def compare_distributions(
    reference: Mapping[str, Sequence[ArrayLike]],
    candidate: Mapping[str, Sequence[ArrayLike]],
    *,
    seed: int = 0,
    n_bins: int = N_BINS,
    n_splits: int = N_SPLITS,
) -> dict[str, Distribution]:
    """Return the distribution of each named value on both sides.

    reference, candidate: by name, for each trajectory the values of its frames, (n_frames,);
    angles wrapped into one period alike on both sides. The overlap is that of halves of the
    reference with as many candidate trajectories, see :mod:`alloop.analysis.halves`.

    Raises AnalysisError: names differ, values are not finite, trajectories are too few.
    """
    if reference.keys() != candidate.keys():
        raise AnalysisError(
            f"distributions: {sorted(reference.keys() ^ candidate.keys())} are on one side only"
        )
    return {
        name: _distribution(name, reference[name], candidate[name], seed, n_bins, n_splits)
        for name in reference
    }


def _distribution(
    name: str,
    reference: Sequence[ArrayLike],
    candidate: Sequence[ArrayLike],
    seed: int,
    n_bins: int,
    n_splits: int,
) -> Distribution:
    known = [checked(name, values, (None,)) for values in reference]
    edges = _edges(known, n_bins)
    theirs = _shares(known, edges)
    ours = _shares([checked(name, values, (None,)) for values in candidate], edges)
    overlap = compare_halves(theirs, ours, _overlaps, seed=seed, n_splits=n_splits)
    mean = ours.mean(axis=0)
    widths = np.diff(edges)
    return Distribution(
        edges=edges,
        reference=theirs.mean(axis=0)[1:-1] / widths,
        candidate=mean[1:-1] / widths,
        outside=float(mean[0] + mean[-1]),
        overlap=overlap,
    )


def _edges(values: Sequence[NDArray[np.float64]], n_bins: int) -> NDArray[np.float64]:
    """Cover the reference alone: one value of a candidate far out must not widen every bin."""
    low = min((v.min() for v in values), default=0.0)
    high = max((v.max() for v in values), default=0.0)
    edges: NDArray[np.float64] = np.histogram_bin_edges([], n_bins, range=(low, high))
    return edges


def _shares(
    trajectories: Sequence[NDArray[np.float64]], edges: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the share of values in each bin, below the first and above the last, by trajectory."""
    n_bins = len(edges) - 1
    shares = np.empty((len(trajectories), n_bins + 2))
    for row, values in zip(shares, trajectories, strict=True):
        row[0] = np.count_nonzero(values < edges[0])
        row[1:-1] = np.histogram(values, edges)[0]
        row[-1] = np.count_nonzero(values > edges[-1])
        row /= len(values)
    return shares


def _overlaps(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    overlaps: NDArray[np.float64] = np.minimum(first, second).sum(axis=1)
    return overlaps
