"""One single point, from a job to plain data; runs in the child process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from alloop.reference.failures import FailureCode, classify
from alloop.reference.pyscf.correlation import correlate
from alloop.reference.pyscf.field import converge, gap_of, spin_of
from alloop.reference.pyscf.job import RefusalError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alloop.reference.pyscf.field import Field
    from alloop.reference.pyscf.job import Job

CLASH: Final = 0.2
"""Distance of two nuclei, bohr, below which they are one: basis functions are then the same."""


def answer(job: Job) -> dict[str, Any]:
    """Return ``energy`` (Ha), ``gradient`` (Ha/bohr) or None, and ``diagnostics``; or a failure.

    A failure has ``code`` and ``words``. MemoryError passes, the process is then worth nothing.
    """
    started = time.process_time()
    try:
        energy, gradient, diagnostics = _compute(job)
    except RefusalError as error:
        return {"code": str(error.code), "words": error.words}
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        words = f"{type(error).__name__}: {error}"
        code = classify(words)
        if isinstance(error, np.linalg.LinAlgError):
            code = FailureCode.LINEAR_ALGEBRA
        return {"code": str(code), "words": words}
    diagnostics["cpu_seconds"] = time.process_time() - started
    forces = None if gradient is None else np.asarray(gradient).tolist()
    return {"energy": energy, "gradient": forces, "diagnostics": diagnostics}


def _compute(job: Job) -> tuple[float, NDArray[np.float64] | None, dict[str, float]]:
    _check_distances(np.asarray(job.positions, dtype=np.float64))
    molecule = job.molecule()
    field = converge(molecule, job)
    about = _diagnostics(field)
    if job.options.is_correlated:
        energy, gradient, more = correlate(field.mean_field, job)
        return energy, gradient, about | more
    gradient = _gradient(field.mean_field) if job.options.gives_forces(job.multiplicity) else None
    return float(field.mean_field.e_tot), gradient, about


def _gradient(field: Any) -> NDArray[np.float64]:
    method = field.nuc_grad_method()
    if hasattr(method, "grid_response"):
        # Costs nothing that was measurable, and without it forces are not those of the energy:
        # off by up to 0.008 eV/Å in ethanol at wB97X/6-31G*, grid 3.
        method.grid_response = True
    gradient: NDArray[np.float64] = method.kernel()
    return gradient


def _diagnostics(field: Field) -> dict[str, float]:
    from pyscf.data.nist import HARTREE2EV

    mean_field = field.mean_field
    squared, excess = spin_of(mean_field)
    about = {
        "n_basis": float(mean_field.mol.nao),
        "scf_cycles": float(field.cycles),
        "spin_squared": squared,
        "spin_contamination": excess,
    }
    gap = gap_of(mean_field)
    if gap is not None:
        about["gap"] = gap * HARTREE2EV
    if field.stable is not None:
        about["stable"] = field.stable
    return about


def _check_distances(positions: NDArray[np.float64]) -> None:
    apart = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    np.fill_diagonal(apart, np.inf)
    if not apart.min() > CLASH:
        words = f"two atoms are {apart.min():.3f} bohr apart, want more than {CLASH}"
        raise RefusalError(FailureCode.CLASH, words)
