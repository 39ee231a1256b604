"""MP2, CCSD and CCSD(T) on a Hartree-Fock field, with their gradients.

Pople et al., doi:10.1002/qua.560100802 (MP2); Purvis and Bartlett, doi:10.1063/1.443164 (CCSD);
Raghavachari et al., doi:10.1016/S0009-2614(89)87395-6 (CCSD(T)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from alloop.reference.failures import FailureCode
from alloop.reference.pyscf.job import RefusalError, said

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alloop.reference.pyscf.job import Job


@dataclass(frozen=True, slots=True)
class Rung:
    """How amplitudes are sought at one attempt: cycles, DIIS vectors, share of the new ones."""

    cycles: int
    space: int
    damping: float


RUNGS: Final = (Rung(60, 6, 1.0), Rung(150, 10, 0.7), Rung(300, 14, 0.4))
"""PySCF's DIIS; then longer memory and smaller steps."""


def correlate(field: Any, job: Job) -> tuple[float, NDArray[np.float64] | None, dict[str, float]]:
    """Return energy (Ha), gradient (Ha/bohr) if there is one, and diagnostics.

    Raises
    ------
    RefusalError
        The amplitudes do not converge.

    """
    frozen = _core(field.mol) if job.options.frozen_core else 0
    wanted = job.options.gives_forces(job.multiplicity)
    if job.options.theory == "MP2":
        return _mp2(field, frozen, wanted)
    return _coupled_cluster(field, frozen, wanted, job)


def _core(molecule: Any) -> int:
    """Return how many core orbitals stay out: PySCF's table, but never all that are occupied."""
    from pyscf.data.elements import chemcore

    core: int = chemcore(molecule)
    return min(core, *map(int, molecule.nelec))


def _mp2(
    field: Any, frozen: int, wanted: bool
) -> tuple[float, NDArray[np.float64] | None, dict[str, float]]:
    from pyscf import mp

    solver = mp.MP2(field, frozen=frozen or None)
    solver.kernel()
    gradient = solver.nuc_grad_method().kernel() if wanted else None
    return float(solver.e_tot), gradient, {}


def _coupled_cluster(
    field: Any, frozen: int, wanted: bool, job: Job
) -> tuple[float, NDArray[np.float64] | None, dict[str, float]]:
    from pyscf import cc

    rung = RUNGS[min(job.attempt, len(RUNGS) - 1)]
    solver = cc.CCSD(field, frozen=frozen or None)
    solver.max_cycle, solver.diis_space = rung.cycles, rung.space
    solver.iterative_damping = rung.damping
    solver.conv_tol = 10.0 * job.options.conv_tol
    solver.conv_tol_normt = 100.0 * solver.conv_tol
    integrals = solver.ao2mo()
    solver.kernel(eris=integrals)
    _check(solver, solver.converged and math.isfinite(solver.e_tot), "CCSD", rung)
    triples = job.options.theory == "CCSD(T)"
    energy = float(solver.e_tot)
    if triples:
        energy += float(solver.ccsd_t(eris=integrals))
    gradient = None
    if wanted:
        gradient = _gradient_with_triples(solver, integrals, rung) if triples else None
        gradient = _gradient(solver, integrals, rung) if gradient is None else gradient
    return energy, gradient, {"t1": _t1(solver)}


def _gradient(solver: Any, integrals: Any, rung: Rung) -> NDArray[np.float64]:
    left = solver.solve_lambda(eris=integrals)
    _check(solver, solver.converged_lambda, "lambda equations of CCSD", rung)
    right = (solver.t1, solver.t2)
    gradient: NDArray[np.float64] = solver.nuc_grad_method().kernel(*right, *left, eris=integrals)
    return gradient


def _gradient_with_triples(solver: Any, integrals: Any, rung: Rung) -> NDArray[np.float64]:
    # PySCF solves the lambda equations of CCSD if not given those of CCSD(T).
    from pyscf.cc import ccsd_t_lambda
    from pyscf.grad import ccsd_t

    right = (solver.t1, solver.t2)
    found, *left = ccsd_t_lambda.kernel(
        solver, integrals, *right, max_cycle=solver.max_cycle, tol=solver.conv_tol_normt, verbose=0
    )
    _check(solver, found, "lambda equations of CCSD(T)", rung)
    gradient: NDArray[np.float64] = ccsd_t.Gradients(solver).kernel(*right, *left, eris=integrals)
    return gradient


def _check(solver: Any, converged: bool, what: str, rung: Rung) -> None:
    if not converged:
        words = (
            f"{what} did not converge in {rung.cycles} cycles:"
            f" last energy {solver.e_tot:.6f} Ha; {said(solver.mol)}"
        )
        raise RefusalError(FailureCode.CC_NOT_CONVERGED, words.rstrip("; "))


def _t1(solver: Any) -> float:
    """Return the T1 diagnostic of Lee and Taylor, doi:10.1002/qua.560360824.

    For open shells the norm over both spins, scaled so that a closed shell has the same either way.
    """
    if isinstance(solver.t1, tuple):
        squared = sum(float(np.sum(np.abs(t1) ** 2)) for t1 in solver.t1)
        correlated = sum(t1.shape[0] for t1 in solver.t1)
        return math.sqrt(squared / (2 * correlated)) if correlated else 0.0
    return float(np.linalg.norm(solver.t1)) / math.sqrt(2 * solver.t1.shape[0])
