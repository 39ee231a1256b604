"""The simplest 4D model: H2 on its full-CI curve, learnt from 23 points in time.

    python benchmarks/hydrogen.py [--basis aug-cc-pv5z] [--curve h2_fci.dat]

The trajectory of Ge et al., DOI 10.1021/acs.jpclett.3c01592, supporting information: from 0.5 Å at
rest, 15 fs, with their 23 times, kernels and hyperparameters; and with those that leave-one-out
chooses. Energies are full CI from PySCF (`pip install pyscf`): 32 distances and 4 checks take three
to four minutes with aug-cc-pV5Z, half a minute with aug-cc-pVQZ. ``--curve`` keeps them in a file,
and takes them from there when it exists: text with r / Å and E / Ha in two columns, so that the
authors' own curve, aug-cc-pV6Z of http://mlatom.com/aqctutorial, can be put there, too.

The reference is integrated by DOP853 (tolerance 1e-12) and by velocity Verlet (0.005 fs). Its
period is also the integral 2 ∫ dr/v, with which times 1000 periods ahead are folded back. Errors
of models are in Å and Å/fs, against DOP853.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import OdeSolution, quad, solve_ivp
from scipy.interpolate import BSpline, make_interp_spline
from scipy.optimize import brentq

from alloop.spacetime.kernels import (
    GaussianKernel,
    KernelTrajectory,
    PeriodicKernel,
    add_previous_period,
    estimate_period,
    fit_best,
    propagate_by_segments,
)
from alloop.units import ACCELERATION, EV_PER_HARTREE

Array = NDArray[np.float64]
Predictor = Callable[[Array], tuple[Array, Array]]

DISTANCES = np.geomspace(0.45, 5.0, 32)
PROBES = (0.52, 1.0)
"""Å, where forces of the spline are compared with differences of energies."""
PROBE_STEP = 0.003
REDUCED_MASS = 0.504
START, DURATION, VERLET_STEP = 0.5, 15.0, 0.005
FAR = 1000
"""Periods."""
STEPS = [0, 9, 29, 49, 79, 279, 484, 689, 889, 924, 944, 956, 968, 988, 1023, 1224, 1424, 1629]
STEPS += [1833, 1863, 1883, 1903, 1913]
FRACTIONS = np.array(STEPS) / STEPS[-1]
"""The times of the paper, there steps of 0.005 fs, in periods: that of another curve differs."""


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """The motion as mechanics has it."""

    path: OdeSolution
    period: float

    def __call__(self, times: Array) -> tuple[Array, Array]:
        """Return distances, Å, and their rates, Å/fs."""
        r, v = self.path(times)
        return r, v


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--basis", default="aug-cc-pv5z")
    parser.add_argument("--curve", type=Path, help="file that keeps the curve")
    options = parser.parse_args()
    energy = _curve(options.basis, options.curve)
    reference = _integrate(energy)
    grid = np.arange(0.0, DURATION + VERLET_STEP / 2, VERLET_STEP)
    period = _print_motion(energy, reference, grid)
    _print_models(reference, grid, period)


def _curve(basis: str, file: Path | None) -> BSpline:
    """Return energies in eV as a function of distance, from the file where there is one."""
    if file is not None and file.exists():
        distances, energies = np.loadtxt(file, unpack=True)
        print(f"{len(distances)} energies from {file}\n")
        return make_interp_spline(distances, energies * EV_PER_HARTREE, 5)
    began = time.process_time()
    full_ci = _full_ci(basis)
    energies = np.array([full_ci(r) for r in DISTANCES])
    seconds = time.process_time() - began
    spline = make_interp_spline(DISTANCES, energies * EV_PER_HARTREE, 5)
    print(
        f"Full CI in {basis}: {len(DISTANCES)} energies in {seconds:.0f} s of CPU; lowest on the "
        f"curve {energies.min():.6f} Ha"
    )
    slopes = [(full_ci(r + PROBE_STEP) - full_ci(r - PROBE_STEP)) / 2 for r in PROBES]
    differences = np.array(slopes) * EV_PER_HARTREE / PROBE_STEP
    worst = np.abs(differences - spline(PROBES, 1)).max()
    print(f"Forces of its spline against differences of energies: {worst:.1e} eV/Å at most")
    print(f"Against pyscf.fci in cc-pVDZ: {_difference_to_pyscf():.1e} Ha\n")
    if file is not None:
        header = f"H2, full CI, {basis}: r / Angstrom, E / hartree"
        np.savetxt(file, np.column_stack([DISTANCES, energies]), "%.12f", header=header)
    return spline


def _full_ci(basis: str) -> Callable[[float], float]:
    """Return the function from r, Å, to the energy, Ha."""
    try:
        from pyscf import gto, lib, scf
    except ImportError:
        print("this benchmark needs PySCF: pip install pyscf", file=sys.stderr)
        raise SystemExit(2) from None
    lib.num_threads(1)

    def energy(r: float) -> float:
        """Return the lowest root for a symmetric wave function C(1, 2) in molecular orbitals.

        H C = h C + C h + K[C], where K is the exchange matrix of C taken as a density: no
        integrals have to be transformed.
        """
        mol = gto.M(atom=f"H 0 0 0; H 0 0 {r}", basis=basis, verbose=0)
        mf = scf.RHF(mol).run(max_cycle=3)  # any orbitals span the space
        orbitals, levels = mf.mo_coeff, mf.mo_energy
        h = orbitals.T @ mf.get_hcore() @ orbitals
        n = len(levels)

        def apply(vectors: list[Array]) -> list[Array]:
            trials = [vector.reshape(n, n) for vector in vectors]
            repulsion = mf.get_k(mol, np.array([orbitals @ c @ orbitals.T for c in trials]))
            return [
                (h @ c + c @ h + orbitals.T @ k @ orbitals).ravel()
                for c, k in zip(trials, repulsion, strict=True)
            ]

        start = np.zeros((n, n))
        start[0, 0] = 1.0
        gaps = np.add.outer(levels, levels).ravel() - 2 * levels[0] + 0.3
        converged, roots, _ = lib.davidson1(
            apply, [start.ravel()], lambda rest, *_: rest / gaps, tol=1e-10, max_cycle=100
        )
        if not converged[0]:
            raise SystemExit(f"full CI has not converged at {r} Å in {basis}")
        return float(roots[0] + mol.energy_nuc())

    return energy


def _difference_to_pyscf() -> float:
    """Return by how much our full CI differs from PySCF's own at most, Ha."""
    from pyscf import fci, gto, scf

    ours = _full_ci("cc-pvdz")
    differences = []
    for r in (0.5, 0.741, 3.0):
        mf = scf.RHF(gto.M(atom=f"H 0 0 0; H 0 0 {r}", basis="cc-pvdz", verbose=0))
        theirs, _ = fci.FCI(mf.run(conv_tol=1e-11)).kernel()
        differences.append(abs(ours(r) - theirs))
    return max(differences)


def _integrate(energy: BSpline) -> Reference:
    """Return the motion from the start at rest, a little over the duration, and its period."""

    def rate(_: float, state: Array) -> list[float]:
        return [state[1], -float(energy(state[0], 1)) * ACCELERATION / REDUCED_MASS]

    solution = solve_ivp(
        rate, (0, DURATION), [START, 0.0], "DOP853", rtol=1e-12, atol=1e-12, dense_output=True
    )
    return Reference(solution.sol, _period(energy))


def _period(energy: BSpline) -> float:
    """Return 2 ∫ dr/v between the turning points, which are ends of an angle."""
    top = float(energy(START))
    far = brentq(lambda r: float(energy(r)) - top, 0.8, 3.0, xtol=1e-14)
    middle, half = (far + START) / 2, (far - START) / 2

    def integrand(angle: float) -> float:
        kinetic = top - float(energy(middle + half * np.sin(angle)))
        speed = np.sqrt(2 * kinetic * ACCELERATION / REDUCED_MASS)
        return half * np.cos(angle) / speed

    value, _ = quad(integrand, -np.pi / 2, np.pi / 2, limit=500, epsabs=1e-9, epsrel=1e-9)
    return 2 * float(value)


def _verlet(energy: BSpline, times: Array) -> Array:
    """Return distances by velocity Verlet at evenly spaced times, as the paper had them."""
    step = times[1] - times[0]
    r, v = START, 0.0
    acceleration = -float(energy(r, 1)) * ACCELERATION / REDUCED_MASS
    path = [r]
    for _ in times[1:]:
        v += 0.5 * step * acceleration
        r += step * v
        acceleration = -float(energy(r, 1)) * ACCELERATION / REDUCED_MASS
        v += 0.5 * step * acceleration
        path.append(r)
    return np.array(path)


def _print_motion(energy: BSpline, reference: Reference, grid: Array) -> float:
    """Print what mechanics gives; return the period that the trajectory shows."""
    r, v = reference(grid)
    verlet = _verlet(energy, grid)
    total = energy(r) + 0.5 * REDUCED_MASS / ACCELERATION * v**2
    period = estimate_period(grid, r)
    rows = [
        ("period from the trajectory / fs", f"{period:.6f}", "9.563", "9.565"),
        ("period 2 ∫ dr/v / fs", f"{reference.period:.6f}", "", ""),
        ("period from velocity Verlet / fs", f"{estimate_period(grid, verlet):.6f}", "", ""),
        ("longest distance / Å", f"{r.max():.4f}", "1.2591", ""),
        ("velocity Verlet against DOP853, max / Å", f"{np.abs(verlet - r).max():.1e}", "", ""),
        ("drift of the energy, DOP853 / eV", f"{np.ptp(total):.1e}", "", ""),
    ]
    print("| motion | here | authors' curve, aug-cc-pV6Z | paper |\n|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    return period


def _print_models(reference: Reference, grid: Array, period: float) -> None:
    """Print a row for each model, hyperparameters and way to use it."""
    times = FRACTIONS * period
    r, _ = reference(times)
    both = add_previous_period(times, r, period)
    in_steps = round(period / VERLET_STEP) * VERLET_STEP
    fit = KernelTrajectory.fit
    periodic = fit(times, r, PeriodicKernel(0.741, period), 5.30e-7)
    rounded = fit(times, r, PeriodicKernel(0.741, in_steps), 5.30e-7)
    gaussian = fit(times, r, GaussianKernel(2.15), 1.06e-9)
    reversible = fit(*both, GaussianKernel(1.23), 8.87e-11)
    chosen, chosen_both = fit_best(times, r), fit_best(*both)

    def chain(model: KernelTrajectory) -> Predictor:
        return partial(propagate_by_segments, model, segment=period)

    models: list[tuple[str, str, Predictor, str]] = [
        ("periodic", "paper", periodic.predict, "6.0e-04, 2.0e-03"),
        (f"periodic, period {in_steps:.3f} fs", "paper", rounded.predict, ""),
        ("periodic", "leave-one-out", fit_best(times, r, period=period).predict, ""),
        ("Gaussian, direct", "paper", gaussian.predict, "fails after the period"),
        ("Gaussian, by segments", "paper", chain(gaussian), "works"),
        ("Gaussian, by segments", "leave-one-out", chain(chosen), ""),
        ("time-reversible, by segments", "paper", chain(reversible), "works"),
        ("time-reversible, by segments", "leave-one-out", chain(chosen_both), ""),
    ]
    print(
        f"\n| model, {len(times)} points | hyperparameters | R, 0 to {DURATION:g} fs: RMSE, max"
        f" | after the first period: max | v: RMSE | R, {FAR} periods later: RMSE"
        " | known: figure S1, or RMSE, max on the authors' curve |"
        "\n|---|---|---|---|---|---|---|"
    )
    for name, source, predict, known in models:
        near, late, rates, far = _errors(predict, reference, grid)
        print(f"| {name} | {source} | {near} | {late} | {rates} | {far} | {known} |")


def _errors(predict: Predictor, reference: Reference, grid: Array) -> tuple[str, str, str, str]:
    """Return errors as text: distances, those after the first period, rates, far ahead."""
    r, v = reference(grid)
    found, rate = predict(grid)
    ahead, _ = predict(grid + FAR * reference.period)
    miss = found - r
    late = np.abs(miss[grid > reference.period]).max()
    return (
        f"{_rms(miss):.1e}, {np.abs(miss).max():.1e}",
        f"{late:.1e}",
        f"{_rms(rate - v):.1e}",
        f"{_rms(ahead - r):.1e}",
    )


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2)))


if __name__ == "__main__":
    main()
