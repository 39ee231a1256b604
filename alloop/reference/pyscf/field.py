"""The self-consistent field: sought harder at each attempt, then tested for stability.

No rung changes the level of theory. A field that has converged is a stationary point, not always a
minimum: where the second derivatives by orbital rotations have a negative eigenvalue (Seeger and
Pople, doi:10.1063/1.434318), the field is sought again from there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from alloop.reference.failures import FailureCode
from alloop.reference.pyscf.job import RefusalError, said

if TYPE_CHECKING:
    from alloop.reference.pyscf.job import Job
    from alloop.reference.pyscf.options import PyscfOptions


@dataclass(frozen=True, slots=True)
class Rung:
    """How a field is sought at one attempt.

    Attributes
    ----------
    cycles : most cycles.
    guess : PySCF's name of the first density.
    damping : share of the old Fock matrix that is kept in the first cycles.
    shift : by which virtual orbitals are lifted on the way, Ha.
    second_order : use second derivatives (Sun, arXiv:1610.08423) instead of DIIS.

    """

    cycles: int
    guess: str = "minao"
    damping: float = 0.0
    shift: float = 0.0
    second_order: bool = False


RUNGS: Final = (
    Rung(60),
    Rung(200, damping=0.5, shift=0.3),
    Rung(60, second_order=True),
    Rung(100, guess="huckel", second_order=True),
)
"""DIIS; damping and level shift; second order; second order from another guess."""

SPIN_LIMIT: Final = 0.5
"""<S²> above that of the pure spin state at which an open shell counts as another one."""

SMALL_GAP: Final = 6.0 / 27.211386
"""Gap, Ha, below which also a closed shell of a functional is tested for stability."""

_RESTARTS: Final = 3
_DAMPED: Final = 10
"""Cycles that are damped before DIIS begins, on the rung that damps."""


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """A converged field.

    Attributes
    ----------
    mean_field : PySCF's object.
    cycles : taken in all.
    stable : 1.0 where second derivatives say so, 0.0 where they say no; None where not tested.

    """

    mean_field: Any
    cycles: int
    stable: float | None


def converge(molecule: Any, job: Job) -> Field:
    """Return the field of a molecule.

    Raises
    ------
    RefusalError
        It does not converge, or converges to another spin state.

    """
    rung = RUNGS[min(job.attempt, len(RUNGS) - 1)]
    field, cycles = _seek(make_field(molecule, job.options), rung)
    stable = None
    if job.attempt > 0 or _needs_test(field, job.options):
        field, more, stable = _descend(field)
        cycles += more
    check_spin(field)
    return Field(field.remove_soscf(), cycles, stable)


def make_field(molecule: Any, options: PyscfOptions) -> Any:
    """Return PySCF's field of a level of theory, not yet sought: closed shells are restricted."""
    from pyscf import dft, scf

    closed = molecule.spin == 0
    if options.is_functional:
        field = (dft.RKS if closed else dft.UKS)(molecule, xc=options.theory)
        field.grids.level = options.grid
    else:
        field = (scf.RHF if closed else scf.UHF)(molecule)
    if options.density_fit:
        field = field.density_fit()
    if options.dispersion is not None:
        field.disp = dispersion_keyword(options.theory, options.dispersion)
    field.conv_tol = options.conv_tol
    field.chkfile = None
    field._chkfile.close()  # a temporary file that is made in any case
    return field


def dispersion_keyword(theory: str, dispersion: str) -> str:
    """Return PySCF's keyword; D4 has two sets of parameters for wB97X, one without VV10."""
    return "d4:wb97x-2008" if (theory, dispersion) == ("wB97X", "d4") else dispersion


def spin_of(field: Any) -> tuple[float, float]:
    """Return <S²> of the determinant and its excess over S(S + 1)."""
    spin = field.mol.spin / 2.0
    exact = spin * (spin + 1.0)
    if field.mol.spin == 0:
        return exact, 0.0
    squared = float(field.spin_square()[0])
    return squared, squared - exact


def check_spin(field: Any) -> None:
    """Raise RefusalError if the field is of another spin state than asked for."""
    squared, excess = spin_of(field)
    if not excess <= SPIN_LIMIT:
        words = (
            f"<S^2> = {squared:.3f}, {excess:.3f} above a pure state of multiplicity"
            f" {field.mol.spin + 1}; the limit is {SPIN_LIMIT}"
        )
        raise RefusalError(FailureCode.WRONG_SPIN, words)


def gap_of(field: Any) -> float | None:
    """Return the smallest gap between occupied and virtual orbitals of one spin, Ha, if any."""
    energies, occupations = field.mo_energy, field.mo_occ
    spins = [(energies, occupations)]
    if field.mol.spin != 0:
        spins = list(zip(energies, occupations, strict=True))
    gaps = [e[n == 0].min() - e[n > 0].max() for e, n in spins if (n == 0).any() and (n > 0).any()]
    return float(min(gaps)) if gaps else None


def _seek(field: Any, rung: Rung, density: Any = None) -> tuple[Any, int]:
    """Return a converged field and the cycles taken."""
    if rung.second_order:
        field = field.remove_soscf().newton()
    field.init_guess = rung.guess
    field.max_cycle = rung.cycles
    if rung.damping:
        field.damp, field.diis_start_cycle = rung.damping, _DAMPED
    field.level_shift = rung.shift
    energies: list[float] = []
    field.callback = lambda state: energies.append(float(state["e_tot"]))
    field.kernel(dm0=density)
    if not field.converged or not math.isfinite(field.e_tot):
        words = (
            f"SCF not converged after {len(energies)} cycles: last energies"
            f" {', '.join(f'{energy:.6f}' for energy in energies[-3:])} Ha; {said(field.mol)}"
        )
        raise RefusalError(FailureCode.SCF_NOT_CONVERGED, words.rstrip("; "))
    return field, len(energies)


def _needs_test(field: Any, options: PyscfOptions) -> bool:
    """Return whether the test pays.

    Open shells often have several solutions. Of closed ones with a wide gap that DIIS finds at once
    none was seen to be unstable, and for a functional the test costs more than the field.
    """
    if field.mol.spin != 0 or not options.is_functional:
        return True
    gap = gap_of(field)
    return gap is not None and gap < SMALL_GAP


def _descend(field: Any) -> tuple[Any, int, float | None]:
    """Follow negative curvature within the same class of determinants; return cycles and outcome.

    The outcome is None where there are no orbitals to rotate.
    """
    cycles = 0
    for _ in range(_RESTARTS):
        orbitals, stable = _test(field)
        if stable is None or stable:
            return field, cycles, None if stable is None else 1.0
        field, more = _seek(field, RUNGS[-1], field.make_rdm1(orbitals, field.mo_occ))
        cycles += more
    return field, cycles, float(bool(_test(field)[1]))


def _test(field: Any) -> tuple[Any, bool | None]:
    from pyscf.scf import stability

    if gap_of(field) is None:
        return field.mo_coeff, None
    test = stability.rhf_internal if field.mol.spin == 0 else stability.uhf_internal
    orbitals, stable = test(field, verbose=0, return_status=True, nroots=1)
    return orbitals, bool(stable)
