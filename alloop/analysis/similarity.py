"""Similarity of spectra: Pearson's correlation, always beside that of reference and reference.

The correlation coefficient of intensities on a common grid of wavenumbers is the measure that von
der Esch, Peters, Sauerland and Ochsenfeld (JCTC 2021, 17, 985, doi:10.1021/acs.jctc.0c01279)
recommend. Scale and offset of intensities do not matter to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from alloop.analysis.halves import N_SPLITS, Comparison, compare_halves
from alloop.analysis.spectrum import Spectrum
from alloop.errors import AnalysisError

if TYPE_CHECKING:
    from numpy.typing import NDArray

HIGHEST: Final = 4000.0
"""Spectra are compared from 0 to here, cm⁻¹."""
STEP: Final = 0.5
"""Grid of the comparison, cm⁻¹; intensities between points are interpolated linearly."""


def similarity(first: Spectrum, second: Spectrum) -> float:
    """Return Pearson's correlation of two spectra over 0-4000 cm⁻¹, between -1 and 1.

    It means little without the score that equal sampling gives: see ``compare``.

    Raises AnalysisError: a spectrum ends below 4000 cm⁻¹ or is constant, or resolutions differ.
    """
    rows = _rows([first, second])
    return float(_correlations(rows[:1], rows[1:])[0])


def compare(
    reference: Sequence[Spectrum],
    candidate: Sequence[Spectrum],
    *,
    seed: int = 0,
    n_splits: int = N_SPLITS,
) -> Comparison:
    """Return the similarity of spectra, one for each trajectory, and that within the reference.

    Every score correlates the mean spectrum of one random half of the reference trajectories with
    the mean spectrum of as many others: the other half (floor), or candidate trajectories (value).
    If both lists are equally long, the candidates are those at the places of that other half, so
    that trajectories i of both lists may share their start: see :mod:`alloop.analysis.halves`.

    Raises AnalysisError: see ``similarity``; or fewer than two references or no candidate.
    """
    rows = _rows([*reference, *candidate])
    return compare_halves(
        rows[: len(reference)],
        rows[len(reference) :],
        _correlations,
        seed=seed,
        n_splits=n_splits,
    )


def _rows(spectra: Sequence[Spectrum]) -> NDArray[np.float64]:
    grid = np.arange(0.0, HIGHEST + STEP / 2.0, STEP)
    for spectrum in spectra:
        if spectrum.wavenumbers[-1] < HIGHEST:
            raise AnalysisError(
                f"similarity: a spectrum ends at {spectrum.wavenumbers[-1]:.0f} cm⁻¹, want"
                f" {HIGHEST:.0f}; store velocities more often, every 4 fs at least"
            )
        if not np.isclose(spectrum.spacing, spectra[0].spacing, rtol=0.01, atol=0.0):
            raise AnalysisError(
                f"similarity: spectra of steps {spectra[0].spacing:g} and {spectrum.spacing:g}"
                " cm⁻¹ differ in resolution; make them with the same max_lag"
            )
    rows = [np.interp(grid, s.wavenumbers, s.intensities) for s in spectra]
    return np.array(rows).reshape(len(spectra), len(grid))


def _correlations(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    first = first - first.mean(axis=1, keepdims=True)
    second = second - second.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    if not (norms > 0.0).all():
        raise AnalysisError("similarity: a spectrum is constant; did its atoms move at all?")
    correlations: NDArray[np.float64] = (first * second).sum(axis=1) / norms
    return correlations
