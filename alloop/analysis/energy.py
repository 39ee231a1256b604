"""Drift of the total energy, which isolated motion must keep."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alloop.analysis.arrays import checked, checked_masses
from alloop.errors import AnalysisError
from alloop.units import KINETIC

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True)
class EnergyDrift:
    """How well a trajectory keeps its total energy; deviations are from the first frame.

    Attributes
    ----------
    slope : of the straight line of least squares, eV/ps.
    rms : root-mean-square deviation of all later frames, eV.
    largest : largest absolute deviation, eV.
    rms_at_ends, rms_inside : the same for frames where one segment ends and the next begins, and
        for all others, eV; None if no segments were named.

    """

    slope: float
    rms: float
    largest: float
    rms_at_ends: float | None = None
    rms_inside: float | None = None


def total_energy(
    potential: ArrayLike, velocities: ArrayLike, masses: ArrayLike
) -> NDArray[np.float64]:
    """Return potential plus kinetic energy, (n_frames,), eV.

    potential: (n_frames,), eV; velocities: (n_frames, n_atoms, 3), Å/fs; masses: (n_atoms,), amu.

    Raises AnalysisError: shapes disagree or a number is not finite.
    """
    stored = checked("potential energies", potential, (None,))
    moves = checked("velocities", velocities, (len(stored), None, 3))
    weights = checked_masses(masses, moves.shape[1])
    kinetic = 0.5 * KINETIC * np.einsum("fic,fic,i->f", moves, moves, weights)
    total: NDArray[np.float64] = stored + kinetic
    return total


def energy_drift(total: ArrayLike, times: ArrayLike, segment: float | None = None) -> EnergyDrift:
    """Return the drift of total energies, (n_frames,), eV, along times, (n_frames,), fs.

    segment: length of the segments a motion was put together from, fs, all alike from the first
    frame on.

    Raises AnalysisError: fewer than two frames, times do not rise, or there are no frames at the
    segments' ends, or none inside.
    """
    energies = checked("total energies", total, (None,))
    moments = checked("times", times, energies.shape)
    if len(moments) < 2 or not (np.diff(moments) > 0.0).all():
        raise AnalysisError(f"energy drift: got {len(moments)} times, want two or more that rise")
    passed = moments - moments[0]
    deviations = energies - energies[0]
    around_mean = passed - passed.mean()
    slope = float(around_mean @ deviations / (around_mean @ around_mean))
    ends = None if segment is None else _ends(passed, segment)
    return EnergyDrift(
        slope=1000.0 * slope,
        rms=_rms(deviations[1:]),
        largest=float(np.abs(deviations).max()),
        rms_at_ends=None if ends is None else _rms(deviations[1:][ends]),
        rms_inside=None if ends is None else _rms(deviations[1:][~ends]),
    )


def _ends(passed: NDArray[np.float64], segment: float) -> NDArray[np.bool_]:
    """Tell which frames after the first lie where a segment ends."""
    if not (math.isfinite(segment) and segment > 0.0):
        raise AnalysisError(f"energy drift: segments of {segment} fs, want a positive length")
    later = passed[1:]
    # Times are sums of many time steps: an end is met within a small part of one.
    near = 1e-3 * np.diff(passed).min()
    ends: NDArray[np.bool_] = np.abs(later - segment * np.round(later / segment)) < near
    if ends.all() or not ends.any():
        where = "inside" if ends.all() else "at the ends of"
        raise AnalysisError(
            f"energy drift: no frame lies {where} segments of {segment:g} fs; give the length that"
            " the motion was put together from, and frames from inside and ends"
        )
    return ends


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(values**2)))
