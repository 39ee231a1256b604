"""What a user may ask of PySCF, checked without it, and the name of the level of theory."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from alloop.errors import MethodError
from alloop.reference.choice import check_choice
from alloop.reference.pyscf.spelling import CORRELATED, basis_name, theory_name

if TYPE_CHECKING:
    from collections.abc import Mapping

DISPERSIONS: Final = {"d3bj": "D3(BJ)", "d3zero": "D3(0)", "d4": "D4"}
"""Corrections that pyscf-dispersion has, and how names of levels show them."""

SHARE: Final = 0.75
"""Share of the memory that PySCF's algorithms plan with: they count only their large arrays."""

FORCES: Final = ("analytic", "none")
GRID: Final = 3
"""PySCF's own default: 50 radial shells with 302 points for H and He, 75 with 302 for C to F."""
CONV_TOL: Final = 1e-9
"""Change of the energy, Ha, below which a field is self-consistent."""


@dataclass(frozen=True, slots=True)
class PyscfOptions:
    """One level of theory of PySCF, and what it may use.

    Attributes
    ----------
    theory : HF, MP2, CCSD, CCSD(T) or a density functional.
    basis : basis set of all elements; core potentials that belong to it come with it.
    dispersion : a key of :data:`DISPERSIONS`, or None.
    density_fit : fit densities with auxiliary functions.
    grid : 0 to 9, quadrature of the functional; None with other theories.
    frozen_core : leave the core out of the correlation; None with other theories.
    forces : ``analytic`` or ``none``; None: where this PySCF has the right gradient.
    memory : most memory of the process that computes, MB; PySCF is told to keep to
        :data:`SHARE` of it.
    max_seconds : most time for one label, s.
    conv_tol : change of the energy, Ha, at which a field is self-consistent; the energy of coupled
        clusters is converged to ten times as much.

    Raises
    ------
    MethodError
        An option is of the wrong kind or does not go with another.

    """

    theory: str
    basis: str
    dispersion: str | None = None
    density_fit: bool = False
    grid: int | None = None
    frozen_core: bool | None = None
    forces: str | None = None
    memory: float = 2000.0
    max_seconds: float = 3600.0
    conv_tol: float = CONV_TOL

    def __post_init__(self) -> None:
        self._check_kinds()
        object.__setattr__(self, "theory", theory_name(self.theory))
        object.__setattr__(self, "basis", basis_name(self.basis))
        self._check_dispersion()
        if self.forces is not None:
            check_choice("value of forces", self.forces, FORCES)
        if self.forces == "analytic" and not self.gives_forces(multiplicity=1):
            raise MethodError(f"forces: PySCF has no right gradient of {self.name}; want 'none'")
        self._settle("grid", self.is_functional, GRID)
        self._settle("frozen_core", self.is_correlated, True)

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any]) -> PyscfOptions:
        """Make options from plain data; raises MethodError on keys that it does not know."""
        known = tuple(field.name for field in fields(cls))
        for key in options:
            check_choice("option of engine pyscf", key, known)
        missing = [key for key in ("theory", "basis") if key not in options]
        if missing:
            raise MethodError(f"engine pyscf needs the option {missing[0]}")
        return cls(**options)

    def to_json(self) -> dict[str, Any]:
        """Return plain data from which :meth:`from_mapping` makes equal options."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {key: value for key, value in values.items() if value is not None}

    @property
    def is_correlated(self) -> bool:
        """Whether a wave function is put on top of the Hartree-Fock field."""
        return self.theory in CORRELATED

    @property
    def is_functional(self) -> bool:
        """Whether the theory is a density functional."""
        return not self.is_correlated and self.theory != "HF"

    @property
    def name(self) -> str:
        """Level of theory: all that changes numbers is in it, nothing else is."""
        prefix = "DF-" if self.density_fit else ""
        suffix = f"-{DISPERSIONS[self.dispersion]}" if self.dispersion else ""
        notes = []
        if self.frozen_core is False:
            notes.append("all electrons")
        if self.grid not in (None, GRID):
            notes.append(f"grid {self.grid}")
        if self.conv_tol != CONV_TOL:
            notes.append(f"converged to {self.conv_tol!r} Ha")
        tail = f" ({', '.join(notes)})" if notes else ""
        return f"{prefix}{self.theory}{suffix}/{self.basis}{tail}"

    def gives_forces(self, multiplicity: int) -> bool:
        """Return whether labels of systems of this spin multiplicity have forces.

        Measured against finite differences with PySCF 2.14, which has no gradient of
        density-fitted MP2, a wrong one for density-fitted coupled clusters (its issue 3425) and one
        that is wrong by up to 0.02 eV/Å for unrestricted CCSD(T) (its issue 3305).
        """
        if self.forces == "none":
            return False
        if not self.is_correlated:
            return True
        return not self.density_fit and (self.theory != "CCSD(T)" or multiplicity == 1)

    def _check_kinds(self) -> None:
        for key in ("theory", "basis"):
            value = getattr(self, key)
            if not isinstance(value, str) or not value.strip():
                raise MethodError(f"option {key} of engine pyscf is {value!r}, want a name")
        for key in ("density_fit", "frozen_core"):
            value = getattr(self, key)
            if not isinstance(value, bool) and not (key == "frozen_core" and value is None):
                raise MethodError(f"option {key} of engine pyscf is {value!r}, want true or false")
        for key in ("memory", "max_seconds", "conv_tol"):
            value = getattr(self, key)
            if not _is_number(value) or not 0.0 < value < math.inf:
                raise MethodError(f"option {key} of engine pyscf is {value!r}, want more than 0")
            object.__setattr__(self, key, float(value))
        if self.grid is not None and (type(self.grid) is not int or not 0 <= self.grid <= 9):
            raise MethodError(f"option grid of engine pyscf is {self.grid!r}, want 0 to 9")

    def _check_dispersion(self) -> None:
        if self.dispersion is None:
            return
        check_choice("dispersion", self.dispersion, tuple(DISPERSIONS))
        if self.is_correlated:
            raise MethodError(
                f"dispersion: {self.theory} has its own; it is for HF and functionals"
            )

    def _settle(self, key: str, applies: bool, default: Any) -> None:
        """Give an option its default where it applies, and refuse it where it does not."""
        value = getattr(self, key)
        if value is not None and not applies:
            what = "functionals" if key == "grid" else ", ".join(CORRELATED)
            raise MethodError(f"option {key} of engine pyscf is for {what}, not for {self.theory}")
        if applies and value is None:
            object.__setattr__(self, key, default)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
