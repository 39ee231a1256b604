"""Conversion factors against published numbers and against ASE's own dynamics."""

from __future__ import annotations

import math

import pytest
from ase import units as ase_units

from alloop import units


@pytest.mark.parametrize(
    ("got", "published", "relative"),
    [
        # CODATA 2018, https://physics.nist.gov/constants; ours is 2014, hence the tolerance.
        (units.EV_PER_HARTREE, 27.211386245988, 1e-8),
        (units.ANGSTROM_PER_BOHR, 0.529177210903, 1e-8),
        (units.KB, 8.617333262e-5, 1e-6),
        (units.HBAR, 0.6582119569, 1e-7),
        (units.EV_PER_KCAL_MOL, 4184 / 96485.33212, 1e-7),
        (units.EV_PER_KJ_MOL, 1000 / 96485.33212, 1e-7),
    ],
)
def test_constants(got, published, relative):
    assert got == pytest.approx(published, rel=relative)


def test_a_force_accelerates_as_newton_says():
    """1 eV/Å on 1 amu: 1.602176634e-9 N / 1.66053907e-27 kg = 9.6485e17 m/s²."""
    metres_per_s2 = 1.602176634e-9 / 1.66053906660e-27
    angstrom_per_fs2 = metres_per_s2 * 1e10 * 1e-30
    assert angstrom_per_fs2 == pytest.approx(units.ACCELERATION, rel=1e-7)


def test_work_becomes_kinetic_energy():
    """Constant force F over a time t: F·x = m v² / 2 in the units used inside."""
    mass, force, time = 12.0, 0.7, 3.0
    acceleration = force / mass * units.ACCELERATION
    velocity, way = acceleration * time, 0.5 * acceleration * time**2

    assert 0.5 * mass * velocity**2 * units.KINETIC == pytest.approx(force * way, rel=1e-12)


def test_velocities_agree_with_ase():
    """ASE measures time in Å sqrt(amu/eV): its kinetic energy is m v²/2 without a factor."""
    velocity = 0.02  # Å/fs
    assert (velocity / units.FS) ** 2 == pytest.approx(velocity**2 * units.KINETIC, rel=1e-12)
    assert ase_units.fs == units.FS


def test_a_vibration_of_hydrogen_has_the_published_wavenumber():
    """H2: force constant 575 N/m (Herzberg), reduced mass 0.504 amu, about 4400 cm⁻¹."""
    force_constant = 575.0 / 16.02176634  # eV/Å²
    omega = math.sqrt(force_constant / 0.50391 * units.ACCELERATION)

    assert omega * units.CM1_PER_RAD_FS == pytest.approx(4401, rel=0.01)


def test_wavenumber_and_energy_of_a_quantum_agree():
    """Hc = 1.239841984e-4 eV cm: a quantum of 1000 cm⁻¹ has 0.1239842 eV."""
    omega = 1000.0 / units.CM1_PER_RAD_FS
    assert units.HBAR * omega == pytest.approx(0.1239841984, rel=1e-7)
