"""Trajectories held against reference ones, in pictures and numbers.

What can be scored stands beside its floor, which is what the reference scores against itself. What
few or short trajectories do not allow is said, and the rest is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from alloop.analysis import plots
from alloop.analysis.distributions import compare_distributions
from alloop.analysis.energy import EnergyDrift, energy_drift, total_energy
from alloop.analysis.geometry import rmsd_along, rmsd_map
from alloop.analysis.similarity import compare
from alloop.analysis.spectrum import MAX_LAG, Spectrum, mean_spectrum, power_spectra
from alloop.errors import AnalysisError, SpacetimeError
from alloop.report.motions import Motion, Sides
from alloop.spacetime.coordinates.choice import choose
from alloop.spacetime.judging.attribution import coordinate_names

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alloop.spacetime.surface import Surface

MAX_FRAMES: Final = 500
"""Of a trajectory, where each costs much: RMSD and potential energies."""
SAME_START: Final = 0.01
"""Starts are the same if their RMSD is no larger, Å."""
N_SAMPLES: Final = 100
"""Reference frames that decide about the internal coordinates."""

Values = dict[str, Any]


def compare_motions(sides: Sides, folder: Path, surface: Surface | None = None) -> Values:
    """Return what can be compared, as plain values, and draw it into a folder.

    ``surface`` gives potential energies where files have none. A part that cannot be given is None,
    and the last of the values, ``notes``, say why.
    """
    whole = sides.equally_long()
    work: Mapping[str, Callable[[Path], Values]] = {
        "spectra": lambda path: _spectra(whole, path),
        "distributions": lambda path: _distributions(whole, path),
        "rmsd": lambda path: _rmsd(sides, path),
        "rmsd_map": lambda path: _rmsd_map(sides, path),
        "energy": lambda path: _energy(sides, path, surface),
    }
    values: Values = {
        "n_reference": len(sides.reference),
        "n_candidate": len(sides.candidate),
        "paired": sides.paired,
        "interval": sides.interval,
    }
    notes = [*sides.notes, *(f"spectra, distributions: {note}" for note in whole.notes)]
    if not sides.paired:
        notes.append("not paired: if both sides share starts, scores are higher than their floors")
    for name, part in work.items():
        try:
            values[name] = part(folder / f"{name}.png")
        except (AnalysisError, SpacetimeError) as error:
            values[name] = None
            notes.append(f"{name} cannot be given: {error}")
    if values["rmsd"] and not values["rmsd"]["at_start"] <= SAME_START:
        notes.append("rmsd: the pairs do not begin alike, so that it says nothing of their motion")
    return values | {"notes": notes}


def _spectra(sides: Sides, path: Path) -> Values:
    motions = [*sides.reference, *sides.candidate]
    found = power_spectra([m.velocities for m in motions], sides.masses, sides.interval)
    n_reference = len(sides.reference)
    reference, candidate = found[:n_reference], found[n_reference:]
    similarity = compare(reference, candidate)
    means = {"reference": mean_spectrum(reference), "candidate": mean_spectrum(candidate)}
    drawn = {"candidate": (means["candidate"], similarity)}
    plots.draw_spectra(path, means["reference"], drawn)
    length = motions[0].n_frames * sides.interval
    # The similarity does not know of scale: motion that loses its energy may look alike.
    kinetic = {name: kinetic_energy(spectrum) for name, spectrum in means.items()}
    values = {"length": length, "longest_lag": min(MAX_LAG, length), "kinetic_energy": kinetic}
    return asdict(similarity) | values


def kinetic_energy(spectrum: Spectrum) -> float:
    """Return the mean kinetic energy that a power spectrum holds, eV."""
    return 0.5 * float(np.trapezoid(spectrum.intensities, spectrum.wavenumbers))


def _distributions(sides: Sides, path: Path) -> Values:
    samples = np.concatenate([m.positions for m in sides.reference])
    picked = np.linspace(0, len(samples) - 1, min(N_SAMPLES, len(samples))).round().astype(int)
    internal = choose(sides.numbers, sides.masses, samples[picked])
    names = coordinate_names(internal, tuple(sides.numbers.tolist()))

    def described(motion: Motion) -> NDArray[np.float64]:
        parts = (torch.from_numpy(np.array(x)) for x in (motion.positions, motion.velocities))
        coordinates: NDArray[np.float64] = internal.describe(*parts)[0].numpy()
        return coordinates

    both = [[described(m) for m in side] for side in (sides.reference, sides.candidate)]
    for place in range(len(names))[internal.angular]:
        middle = _middle(np.concatenate([values[:, place] for values in both[0]]))
        for values in (values for side in both for values in side):
            apart = values[:, place] - middle
            values[:, place] = middle + np.remainder(apart + math.pi, 2.0 * math.pi) - math.pi
    named = [
        {name: [values[:, i] for values in side] for i, name in enumerate(names)} for side in both
    ]
    found = compare_distributions(*named)
    plots.draw_distributions(path, found)
    return {name: asdict(one.overlap) | {"outside": one.outside} for name, one in found.items()}


def _middle(angles: NDArray[np.float64]) -> float:
    """Return the direction of the mean of angles as points on a circle."""
    return float(np.angle(np.exp(1j * angles).mean()))


def _rmsd(sides: Sides, path: Path) -> Values:
    if not sides.paired:
        raise AnalysisError(
            f"{len(sides.candidate)} candidate and {len(sides.reference)} reference trajectories"
            " make no pairs; give equally many in the same order"
        )
    pairs = list(zip(sides.reference, sides.candidate, strict=True))
    for mine, yours in pairs:
        if not abs(mine.begin - yours.begin) <= 1e-6 * sides.interval:
            raise AnalysisError(f"{mine.name} and {yours.name} do not begin at the same time")
    longest = max(min(m.n_frames for m in pair) for pair in pairs)
    stride = math.ceil(longest / MAX_FRAMES)
    curves = [_between(*pair, stride) for pair in pairs]
    table = np.full((len(curves), max(len(curve) for curve in curves)), np.nan)
    for row, curve in zip(table, curves, strict=True):
        row[: len(curve)] = curve
    times = stride * sides.interval * np.arange(table.shape[1])
    neighbours = zip(sides.reference, sides.reference[1:], strict=False)
    apart = [_between(*pair, stride).mean() for pair in neighbours]
    unrelated = float(np.mean(apart)) if apart else None
    mean, largest = np.nanmean(table, axis=0), np.nanmax(table, axis=0)
    plots.draw_rmsd(path, times, table, unrelated)
    return {
        "at_start": float(table[:, 0].max()),
        "unrelated": unrelated,
        "times": times.tolist(),
        "mean": mean.tolist(),
        "largest": largest.tolist(),
    }


def _between(mine: Motion, yours: Motion, stride: int) -> NDArray[np.float64]:
    span = slice(None, min(mine.n_frames, yours.n_frames), stride)
    return rmsd_along(mine.positions[span], yours.positions[span])


def _rmsd_map(sides: Sides, path: Path) -> Values:
    pair = [_few(side[0]) for side in (sides.reference, sides.candidate)]
    found = rmsd_map(*(m.positions for m in pair))
    nearest = found.min(axis=0)
    names = ("reference", "candidate")
    plots.draw_rmsd_map(path, found, (pair[0].times, pair[1].times), names)
    return {
        "of": [m.name for m in pair],
        "intervals": [m.interval for m in pair],
        "shape": list(found.shape),
        "nearest_mean": float(nearest.mean()),
        "nearest_largest": float(nearest.max()),
    }


def _few(motion: Motion) -> Motion:
    """Return at most ``MAX_FRAMES`` frames from all over a trajectory."""
    return motion.thinned(math.ceil(motion.n_frames / MAX_FRAMES))


def _energy(sides: Sides, path: Path, surface: Surface | None) -> Values:
    values: Values = {}
    drawn: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
    for name in ("reference", "candidate"):
        motions = [_few(m) for m in getattr(sides, name)]
        known = [(m, _total(m, sides.masses, surface)) for m in motions]
        curves = [(m, total) for m, total in known if total is not None]
        drifts = [(energy_drift(total, m.times), m, total) for m, total in curves]
        values[name] = _drift_values([(m.name, drift) for drift, m, _ in drifts])
        ordered = sorted(drifts, key=lambda one: one[0].rms)
        for word, place in (("median", len(ordered) // 2), ("largest", -1)):
            if ordered:
                _, motion, total = ordered[place]
                drawn[f"{name}, {word}: {motion.name}"] = (motion.times, total)
    if not drawn:
        raise AnalysisError("no file has potential energies for all frames; name a --potential")
    plots.draw_energies(path, drawn)
    return values


def _total(
    motion: Motion, masses: NDArray[np.float64], surface: Surface | None
) -> NDArray[np.float64] | None:
    """Return total energies (n_frames,), eV; None where the potential of a frame is not known."""
    potential = motion.potential
    if potential is None and surface is not None:
        potential = surface.energies(torch.from_numpy(np.array(motion.positions))).numpy()
    if potential is None or not np.isfinite(potential).all():
        return None
    return total_energy(potential, motion.velocities, masses)


def _drift_values(drifts: list[tuple[str, EnergyDrift]]) -> Values | None:
    if not drifts:
        return None
    names = ("slope", "rms", "largest")
    return {
        "slope": float(np.mean([drift.slope for _, drift in drifts])),
        "rms": float(np.sqrt(np.mean([drift.rms**2 for _, drift in drifts]))),
        "largest": max(drift.largest for _, drift in drifts),
        "trajectories": {
            name: {key: getattr(drift, key) for key in names} for name, drift in drifts
        },
    }
