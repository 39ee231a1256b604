"""GFN-xTB through tblite, the default cheap tier.

Bannwarth, Ehlert, Grimme, doi:10.1021/acs.jctc.8b01176 (GFN2-xTB); Grimme, Bannwarth, Shushkov,
doi:10.1021/acs.jctc.7b00118 (GFN1-xTB); Neugebauer et al., doi:10.1002/jcc.27185 (spin
polarisation).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tblite import library
from tblite.exceptions import TBLiteRuntimeError
from tblite.interface import Calculator

from alloop.reference.engine import Answer, EngineError, EngineReference
from alloop.reference.failures import FailureCode, scf_settings
from alloop.reference.method import SPIN_POLARISED
from alloop.reference.valence import check_electrons
from alloop.units import ANGSTROM_PER_BOHR, EV_PER_HARTREE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alloop.frames import Frame
    from alloop.reference.method import MethodSpec


def build(
    method: MethodSpec, numbers: NDArray[np.int64], charge: int, multiplicity: int
) -> EngineReference:
    """Make tblite ready for one system; raises MethodError where the method cannot hold it."""
    check_electrons(numbers, charge, multiplicity)
    name = method.level_of_theory(multiplicity)
    return EngineReference(
        name=name,
        program="tblite " + ".".join(str(part) for part in library.get_version()),
        numbers=numbers,
        charge=charge,
        multiplicity=multiplicity,
        single_point=_SinglePoint(name),
        failures=(TBLiteRuntimeError,),
    )


@dataclass(frozen=True, slots=True)
class _SinglePoint:
    """One fresh calculator for each frame: a label must not depend on the frames before it."""

    name: str

    def __call__(self, frame: Frame, attempt: int) -> Answer:
        _check_periodicity(frame)
        bohr = frame.positions / ANGSTROM_PER_BOHR
        calculator = Calculator(
            self.name.removeprefix(SPIN_POLARISED),
            frame.numbers,
            bohr,
            frame.charge,
            frame.multiplicity - 1,
            lattice=None if frame.cell is None else frame.cell / ANGSTROM_PER_BOHR,
            periodic=None if frame.cell is None else np.array(frame.pbc),
        )
        self._configure(calculator, attempt)
        result = calculator.singlepoint()
        forces = -result.get("gradient") * (EV_PER_HARTREE / ANGSTROM_PER_BOHR)
        return Answer(float(result.get("energy")) * EV_PER_HARTREE, forces)

    def _configure(self, calculator: Any, attempt: int) -> None:
        if self.name.startswith(SPIN_POLARISED):
            calculator.add("spin-polarization", 1.0)
        settings = scf_settings(attempt)
        calculator.set("verbosity", 0)
        calculator.set("max-iter", settings.max_iterations)
        calculator.set("mixer-damping", settings.damping)
        calculator.set("mixer-memory", settings.memory)


def _check_periodicity(frame: Frame) -> None:
    # Measured with tblite 0.8.0: a slab's energy does not change with the third flag.
    if any(frame.pbc) and not all(frame.pbc):
        words = (
            f"tblite repeats a cell along all three vectors, whatever pbc {frame.pbc} says;"
            " put the slab or chain in a cell with vacuum and make it periodic in all three"
        )
        raise EngineError(FailureCode.UNSUPPORTED, words)
