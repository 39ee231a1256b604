"""PySCF made ready for one system."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alloop.errors import MethodError
from alloop.reference.engine import (
    Answer,
    EngineError,
    EngineReference,
    check_molecule,
    program_version,
)
from alloop.reference.failures import FailureCode
from alloop.reference.pyscf.checks import check_installed, check_known
from alloop.reference.pyscf.options import PyscfOptions
from alloop.reference.pyscf.process import ChildProcess
from alloop.units import ANGSTROM_PER_BOHR, EV_PER_HARTREE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alloop.frames import Frame
    from alloop.reference.method import MethodSpec


def build(
    method: MethodSpec, numbers: NDArray[np.int64], charge: int, multiplicity: int
) -> EngineReference:
    """Make PySCF ready for one system; nothing is computed before the first label.

    Raises
    ------
    MethodError
        PySCF is not installed, or does not know the functional, the basis for an element or the
        dispersion; or gradients are demanded that it has not.

    """
    check_installed()
    options = PyscfOptions.from_mapping(method.options)
    if int(numbers.sum()) == charge:
        raise MethodError(f"charge {charge} leaves no electron: there is nothing to compute")
    check_known(options, numbers.tolist())
    forces = options.gives_forces(multiplicity)
    if options.forces == "analytic" and not forces:
        raise MethodError(
            f"forces: PySCF has no right gradient of {options.name} for multiplicity"
            f" {multiplicity}; leave 'forces' out, or want 'none'"
        )
    return EngineReference(
        name=method.level_of_theory(multiplicity),
        program=_program(options),
        numbers=numbers,
        charge=charge,
        multiplicity=multiplicity,
        single_point=_SinglePoint(options, ChildProcess()),
        failures=(),
        gives_forces=forces,
    )


def _program(options: PyscfOptions) -> str:
    program = f"PySCF {program_version('pyscf')}"
    if options.dispersion is not None:
        program += f", pyscf-dispersion {program_version('pyscf-dispersion')}"
    return program


@dataclass(frozen=True, slots=True)
class _SinglePoint:
    """Every frame is sought from scratch: a label must not depend on the frames before it."""

    options: PyscfOptions
    child: ChildProcess

    def __call__(self, frame: Frame, attempt: int) -> Answer:
        check_molecule(frame, "engine pyscf")
        job = {
            "options": self.options.to_json(),
            "numbers": frame.numbers.tolist(),
            "positions": (frame.positions / ANGSTROM_PER_BOHR).tolist(),
            "charge": frame.charge,
            "multiplicity": frame.multiplicity,
            "attempt": attempt,
        }
        reply = self.child.ask(job, self.options.max_seconds)
        if "code" in reply:
            raise EngineError(FailureCode(reply["code"]), reply["words"])
        forces = None
        if reply["gradient"] is not None:
            forces = -np.array(reply["gradient"]) * (EV_PER_HARTREE / ANGSTROM_PER_BOHR)
        return Answer(reply["energy"] * EV_PER_HARTREE, forces, reply["diagnostics"])
