"""Power spectra of motion: the vibrational density of states from velocities.

After Thomas, Brehm, Fligg, Vöhringer and Kirchner (2013, doi:10.1039/C3CP44302G): the Fourier
transform of the autocorrelation of mass-weighted velocities,

    C(t) = sum_i m_i <v_i(s) . v_i(s + t)>
    P(nu) = 4 c integral_0^T C(t) w(t) cos(2 pi c nu t) dt,    w(t) = cos²(pi t / 2 T)

The prefactor makes the integral of P over wavenumbers from 0 to the highest one C(0), twice the
mean kinetic energy, whatever the window, since w(0) = 1. A mode is a peak of width 1 / (c T) at
half height: 33 cm⁻¹ for T = 1024 fs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import fft

from alloop.analysis.arrays import checked, checked_masses, frozen
from alloop.errors import AnalysisError
from alloop.units import CM1_PER_RAD_FS, KINETIC

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

MAX_LAG: Final = 1024.0
"""The longest lag by default, fs."""
LIGHT: Final = 1.0 / (2.0 * math.pi * CM1_PER_RAD_FS)
"""Speed of light, cm/fs."""
FINENESS: Final = 16
"""Zeros are appended up to this many times the window: 32 points over a peak's width at half
height, so that reading between them linearly costs nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """A power spectrum.

    Attributes
    ----------
    wavenumbers : (n_points,) float64, cm⁻¹, evenly spaced from 0.
    intensities : (n_points,) float64, eV per cm⁻¹; their trapezoidal integral is twice the mean
        kinetic energy. Noise can make small ones negative.

    Raises
    ------
    AnalysisError
        Shapes disagree, a number is not finite, or wavenumbers are not even or not from 0.

    """

    wavenumbers: NDArray[np.float64]
    intensities: NDArray[np.float64]

    def __post_init__(self) -> None:
        wavenumbers = checked("wavenumbers", self.wavenumbers, (None,))
        intensities = checked("intensities", self.intensities, wavenumbers.shape)
        steps = np.diff(wavenumbers)
        even = len(steps) > 0 and steps.min() > 0.0 and np.ptp(steps) < 1e-6 * steps.max()
        if not even or wavenumbers[0] != 0.0:
            raise AnalysisError("wavenumbers: want two or more at even steps, upwards from 0")
        object.__setattr__(self, "wavenumbers", frozen(wavenumbers))
        object.__setattr__(self, "intensities", frozen(intensities))

    @property
    def spacing(self) -> float:
        """Step of the wavenumbers, cm⁻¹; equal for spectra of equal resolution."""
        return float(self.wavenumbers[1])


def power_spectra(
    trajectories: Sequence[ArrayLike],
    masses: ArrayLike,
    timestep: float,
    max_lag: float | None = None,
) -> list[Spectrum]:
    """Return the spectrum of each trajectory, all of the same resolution.

    trajectories: each (n_frames, n_atoms, 3), velocities in Å/fs; masses: (n_atoms,), amu;
    timestep: between frames, fs; max_lag: T above, fs, by default 1024 or the length of the
    shortest trajectory. Drift and rotation of the whole are not removed: they show near 0 cm⁻¹.

    Raises AnalysisError: velocities are misshapen, not finite or too few for max_lag.
    """
    moves = [checked("velocities", v, (None, None, 3)) for v in trajectories]
    if not moves:
        raise AnalysisError("power spectrum: got no trajectory, want at least one")
    weights = checked_masses(masses, moves[0].shape[1])
    n_lags = _n_lags(min(len(v) for v in moves), timestep, max_lag)
    return [_spectrum(autocorrelation(v, weights, n_lags), timestep) for v in moves]


def mean_spectrum(spectra: Sequence[Spectrum]) -> Spectrum:
    """Return the mean of spectra of the same wavenumbers, each with the same weight.

    Raises AnalysisError: there are none, or their wavenumbers differ.
    """
    if not spectra:
        raise AnalysisError("mean spectrum: got no spectrum, want at least one")
    grid = spectra[0].wavenumbers
    if not all(np.array_equal(s.wavenumbers, grid) for s in spectra):
        raise AnalysisError(
            "mean spectrum: wavenumbers differ; make all spectra by one call of power_spectra"
        )
    return Spectrum(grid, np.mean([s.intensities for s in spectra], axis=0))


def autocorrelation(
    velocities: NDArray[np.float64], masses: NDArray[np.float64], n_lags: int
) -> NDArray[np.float64]:
    """Return sum_i m_i <v_i(s) . v_i(s + k)>, eV, for lags k = 0 ... n_lags - 1, (n_lags,).

    The mean is over all time origins s, of which lag k has n_frames - k (Wiener-Khinchin).
    velocities: (n_frames, n_atoms, 3), Å/fs; masses: (n_atoms,), amu.
    """
    n_frames = len(velocities)
    # Long enough that lags below n_lags do not wrap around.
    n_padded = fft.next_fast_len(n_frames + n_lags - 1, real=True)
    power = np.zeros(n_padded // 2 + 1)
    for velocity, mass in zip(velocities.swapaxes(0, 1), masses, strict=True):
        transformed = fft.rfft(np.ascontiguousarray(velocity.T), n=n_padded)
        power += mass * (transformed.real**2 + transformed.imag**2).sum(axis=0)
    sums = fft.irfft(power, n=n_padded)[:n_lags]
    means: NDArray[np.float64] = KINETIC * sums / (n_frames - np.arange(n_lags))
    return means


def half_hann(n_lags: int) -> NDArray[np.float64]:
    """Return the one-sided window cos²(pi k / 2 n), 1 at lag 0 and 0 at lag n, (n_lags,)."""
    window: NDArray[np.float64] = np.cos(0.5 * np.pi * np.arange(n_lags) / n_lags) ** 2
    return window


def _n_lags(n_frames: int, timestep: float, max_lag: float | None) -> int:
    if not (math.isfinite(timestep) and timestep > 0.0):
        raise AnalysisError(f"power spectrum: timestep is {timestep} fs, want a positive number")
    length = n_frames * timestep
    wanted = min(MAX_LAG, length) if max_lag is None else max_lag
    if not wanted <= length * (1.0 + 1e-9) or round(wanted / timestep) < 2:
        raise AnalysisError(
            f"power spectrum: lags up to {wanted:g} fs of a trajectory of {n_frames} frames,"
            f" {length:g} fs, at {timestep:g} fs a frame; want max_lag of at least 2 frames and"
            " no longer than the shortest trajectory"
        )
    return round(wanted / timestep)


def _spectrum(correlation: NDArray[np.float64], timestep: float) -> Spectrum:
    n_lags = len(correlation)
    n_points = 2 * n_lags * FINENESS
    even = np.zeros(n_points)
    even[:n_lags] = correlation * half_hann(n_lags)
    even[-n_lags + 1 :] = even[n_lags - 1 : 0 : -1]
    intensities = 2.0 * LIGHT * timestep * fft.rfft(even).real
    wavenumbers = np.arange(len(intensities)) / (LIGHT * timestep * n_points)
    return Spectrum(wavenumbers, intensities)
