"""Pictures of what was analysed, as PNG or SVG files."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from alloop.analysis.arrays import checked
from alloop.analysis.distributions import Distribution
from alloop.analysis.halves import Comparison
from alloop.analysis.similarity import HIGHEST
from alloop.analysis.spectrum import Spectrum
from alloop.artifacts import write_atomically
from alloop.errors import AnalysisError
from alloop.units import EV_PER_KCAL_MOL

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

FORMATS: Final = (".png", ".svg")
DPI: Final = 150
COLUMNS: Final = 3
"""Distributions in a row."""
DASHES: Final = ("--", ":", "-.")
"""Of the first candidate, the second, ...: without colour they can be told apart as well."""


def draw_spectra(
    path: Path, reference: Spectrum, candidates: Mapping[str, tuple[Spectrum, Comparison]]
) -> None:
    """Draw spectra over each other; the legend gives each similarity beside its floor.

    Raises AnalysisError: the suffix of the path is no format we write.
    """
    figure = Figure(figsize=(8.0, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(*_visible(reference), label="reference", color="black", lw=1.5)
    styles = itertools.cycle(DASHES)
    for name, (spectrum, comparison) in candidates.items():
        label = f"{name}: similarity {_with_floor(comparison)}"
        axes.plot(*_visible(spectrum), label=label, ls=next(styles), lw=1.2)
    axes.set(
        xlim=(0.0, HIGHEST), xlabel="wavenumber / cm⁻¹", ylabel="power spectrum / meV per cm⁻¹"
    )
    axes.legend(fontsize="small")
    _save(figure, path)


def draw_rmsd_map(
    path: Path,
    rmsd: ArrayLike,
    times: tuple[ArrayLike, ArrayLike],
    names: tuple[str, str],
) -> None:
    """Draw RMSDs, (n_first, n_second), Å, over the times of both trajectories, fs.

    Raises AnalysisError: shapes disagree, or as ``draw_spectra``.
    """
    down, across = (checked("times", values, (None,)) for values in times)
    values = checked("RMSD map", rmsd, (len(down), len(across)))
    figure = Figure(figsize=(5.5, 4.5), layout="constrained")
    axes = figure.subplots()
    mesh = axes.pcolormesh(across, down, values, shading="nearest", rasterized=True, vmin=0.0)
    axes.set(xlabel=f"{names[1]}: time / fs", ylabel=f"{names[0]}: time / fs", aspect="equal")
    figure.colorbar(mesh, label="RMSD / Å")
    _save(figure, path)


def draw_rmsd(
    path: Path, times: ArrayLike, rmsd: ArrayLike, unrelated: float | None = None
) -> None:
    """Draw how pairs of trajectories part: each pair, and their mean.

    times: (n_times,), fs; rmsd: (n_pairs, n_times), Å, NaN from where a pair has ended; unrelated:
    the RMSD of frames that have nothing to do with each other, Å.

    Raises AnalysisError: shapes disagree, or as ``draw_spectra``.
    """
    moments = checked("times", times, (None,))
    curves = np.asarray(rmsd, dtype=np.float64)
    checked("RMSD of the first frames", curves[..., 0], (None,))
    if curves.ndim != 2 or curves.shape[1] != len(moments):
        raise AnalysisError(
            f"RMSD: got shape {curves.shape}, want (n_pairs, {len(moments)}), one for each time"
        )
    figure = Figure(figsize=(8.0, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(moments, curves.T, color="0.7", lw=0.6)
    axes.plot(moments, np.nanmean(curves, axis=0), color="black", lw=1.5, label="mean of pairs")
    if unrelated is not None:
        axes.axhline(unrelated, color="tab:blue", ls="--", label="reference, unrelated starts")
    axes.set(xlabel="time / fs", ylabel="RMSD / Å")
    axes.legend(fontsize="small")
    _save(figure, path)


def draw_distributions(path: Path, distributions: Mapping[str, Distribution]) -> None:
    """Draw each distribution in a panel whose title gives the overlap beside its floor.

    Raises AnalysisError: there are none, or as ``draw_spectra``.
    """
    if not distributions:
        raise AnalysisError("distributions: got none to draw, want at least one")
    n_columns = min(COLUMNS, len(distributions))
    n_rows = math.ceil(len(distributions) / n_columns)
    figure = Figure(figsize=(3.6 * n_columns, 2.8 * n_rows), layout="constrained")
    panels = list(figure.subplots(n_rows, n_columns, squeeze=False).flat)
    for axes, (name, one) in zip(panels, distributions.items(), strict=False):
        axes.stairs(one.reference, one.edges, color="black", label="reference")
        axes.stairs(one.candidate, one.edges, color="tab:blue", ls="--", label="candidate")
        axes.set_title(f"{name}\noverlap {_with_floor(one.overlap)}", fontsize="small")
        axes.set_yticks([])
    panels[0].legend(fontsize="small")
    for axes in panels[len(distributions) :]:
        axes.set_axis_off()
    _save(figure, path)


def draw_energies(path: Path, energies: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> None:
    """Draw how total energies move away from their first value.

    energies: by name, times in fs and total energies in eV, (n_frames,) each; drawn in kcal/mol.

    Raises AnalysisError: shapes disagree, or as ``draw_spectra``.
    """
    figure = Figure(figsize=(8.0, 3.5), layout="constrained")
    axes = figure.subplots()
    for name, (times, values) in energies.items():
        moments = checked(f"{name}: times", times, (None,))
        total = checked(f"{name}: total energies", values, moments.shape)
        axes.plot(moments / 1000.0, (total - total[0]) / EV_PER_KCAL_MOL, label=name, lw=0.8)
    axes.axhline(0.0, color="black", lw=0.5)
    axes.set(xlabel="time / ps", ylabel="deviation of total energy / (kcal/mol)")
    axes.legend(fontsize="small")
    _save(figure, path)


def draw_attributions(
    path: Path, names: Sequence[str], contributions: ArrayLike, errors: ArrayLike, unit: str
) -> None:
    """Draw what each input contributes to a prediction, the largest first.

    contributions, errors: (n_inputs,), in the unit of the prediction.

    Raises AnalysisError: shapes disagree, or as ``draw_spectra``.
    """
    values = checked("contributions", contributions, (len(names),))
    bars = checked("errors of contributions", errors, values.shape)
    order = np.argsort(-np.abs(values), kind="stable")
    figure = Figure(figsize=(6.0, 1.0 + 0.22 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.barh(
        np.arange(len(names)), values[order], xerr=bars[order], error_kw={"lw": 0.8}, capsize=2
    )
    axes.set_yticks(np.arange(len(names)), [names[i] for i in order], fontsize="small")
    axes.invert_yaxis()
    axes.axvline(0.0, color="black", lw=0.5)
    axes.set(xlabel=f"contribution / {unit}")
    _save(figure, path)


def _visible(spectrum: Spectrum) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    shown = spectrum.wavenumbers <= HIGHEST
    return spectrum.wavenumbers[shown], 1000.0 * spectrum.intensities[shown]


def _with_floor(comparison: Comparison) -> str:
    low, high = comparison.floor_low, comparison.floor_high
    return f"{comparison.value:.3f}, floor {comparison.floor:.3f} [{low:.3f}, {high:.3f}]"


def _save(figure: Figure, path: Path) -> None:
    if path.suffix not in FORMATS:
        raise AnalysisError(f"{path}: no picture format, want one of {', '.join(FORMATS)}")

    def write(temporary: Path) -> None:
        # Equal pictures give equal files: no date, no random identifiers.
        dateless = {"Date": None} if path.suffix == ".svg" else None
        with mpl.rc_context({"svg.hashsalt": "alloop"}):
            figure.savefig(temporary, dpi=DPI, metadata=dateless)

    write_atomically(path, write)
