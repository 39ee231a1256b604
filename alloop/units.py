"""The only conversion factors: eV, Å, fs, amu and K inside, everything else at the border.

CODATA 2014, the set of ASE and TorchANI, so that energies agree with theirs to the last digit.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ase import units as _ase

EV_PER_HARTREE: Final[float] = _ase.Hartree
ANGSTROM_PER_BOHR: Final[float] = _ase.Bohr
EV_PER_KCAL_MOL: Final[float] = _ase.kcal / _ase.mol
EV_PER_KJ_MOL: Final[float] = _ase.kJ / _ase.mol
KB: Final[float] = _ase.kB
"""Boltzmann constant, eV/K."""
FS: Final[float] = _ase.fs
"""One femtosecond in ASE's time unit Å·sqrt(amu/eV)."""
ACCELERATION: Final[float] = FS**2
"""(eV/Å)/amu expressed in Å/fs²: a = F / m * ACCELERATION."""
KINETIC: Final[float] = 1.0 / FS**2
"""amu·Å²/fs² expressed in eV: E_kin = ½ m v² * KINETIC."""
HBAR: Final[float] = _ase._hbar * _ase.J * 1e15
"""Reduced Planck constant, eV·fs."""
CM1_PER_RAD_FS: Final[float] = 1e15 / (2.0 * 3.141592653589793 * _ase._c * 100.0)
"""Angular frequency of 1 rad/fs expressed as a wavenumber, cm⁻¹."""
ENERGY_UNITS: Final[Mapping[str, float]] = MappingProxyType(
    {
        "eV": 1.0,
        "meV": 1e-3,
        "kcal/mol": EV_PER_KCAL_MOL,
        "kJ/mol": EV_PER_KJ_MOL,
        "Ha": EV_PER_HARTREE,
    }
)
"""Energies that people may write, in eV."""
LENGTH_UNITS: Final[Mapping[str, float]] = MappingProxyType(
    {"A": 1.0, "Å": 1.0, "bohr": ANGSTROM_PER_BOHR, "nm": 10.0}
)
"""Lengths that people may write, in Å."""
