"""GFN-xTB through xtb-python, for closed shells; optional, and tblite's cross-check.

Bannwarth, Ehlert, Grimme, doi:10.1021/acs.jctc.8b01176 (GFN2-xTB); Grimme, Bannwarth, Shushkov,
doi:10.1021/acs.jctc.7b00118 (GFN1-xTB). xtb-python is no longer developed: its last release carries
libxtb 6.5.1, and spin polarisation came with 6.6.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alloop.errors import MethodError
from alloop.reference.engine import Answer, EngineReference, check_molecule, program_version
from alloop.reference.valence import check_electrons
from alloop.units import ANGSTROM_PER_BOHR, EV_PER_HARTREE

if TYPE_CHECKING:
    from types import ModuleType

    import numpy as np
    from numpy.typing import NDArray

    from alloop.frames import Frame
    from alloop.reference.method import MethodSpec

COOLING = (
    (300.0,),
    (3000.0, 1000.0, 300.0),
    (20000.0, 5000.0, 1000.0, 300.0),
    (5000.0, 2000.0, 1000.0, 500.0, 300.0),
)
"""Electronic temperatures, K, of each attempt: each field starts from the one before it, and the
last is always the method's own 300 K. Temperature and iterations are all that xtb-python lets one
set, and more iterations do not pay: NaCl at 6 Å fails in 0.3 s with 250 and in 92 s with 1000. Of
21 stretched geometries that fail at the first attempt, the others label 20.
"""


def build(
    method: MethodSpec, numbers: NDArray[np.int64], charge: int, multiplicity: int
) -> EngineReference:
    """Make xtb-python ready for one system.

    Raises MethodError if it is not installed, for an open shell, and where the method cannot hold
    the system.
    """
    interface = _load_interface()
    check_electrons(numbers, charge, multiplicity)
    name = method.level_of_theory(multiplicity)
    return EngineReference(
        name=name,
        program=f"xtb-python {program_version('xtb')}",
        numbers=numbers,
        charge=charge,
        multiplicity=multiplicity,
        single_point=_SinglePoint(interface, name),
        failures=(interface.XTBException,),
    )


def _load_interface() -> ModuleType:
    try:
        from xtb import interface
    except ImportError as error:
        raise MethodError(
            f"engine xtb needs xtb-python, which cannot be imported ({error});"
            " pip install 'alloop[xtb]', or use engine tblite, which gives the same labels"
        ) from error
    module: ModuleType = interface
    return module


@dataclass(frozen=True, slots=True)
class _SinglePoint:
    """One fresh calculator for each frame: a label must not depend on the frames before it."""

    interface: ModuleType
    name: str

    def __call__(self, frame: Frame, attempt: int) -> Answer:
        check_molecule(frame, "xtb-python")
        calculator = self.interface.Calculator(
            self._parametrisation,
            frame.numbers,
            frame.positions / ANGSTROM_PER_BOHR,
            frame.charge,
            frame.multiplicity - 1,
        )
        calculator.set_verbosity("muted")
        result: Any = None
        for temperature in COOLING[min(attempt, len(COOLING) - 1)]:
            calculator.set_electronic_temperature(temperature)
            result = calculator.singlepoint(result)
        forces = -result.get_gradient() * (EV_PER_HARTREE / ANGSTROM_PER_BOHR)
        return Answer(float(result.get_energy()) * EV_PER_HARTREE, forces)

    @property
    def _parametrisation(self) -> Any:
        return self.interface.Param[self.name.replace("-", "")]
