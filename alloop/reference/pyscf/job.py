"""What the child process is asked, and the molecule that PySCF makes of it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alloop.reference.pyscf.options import SHARE, PyscfOptions
from alloop.reference.pyscf.spelling import is_cartesian

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class RefusalError(Exception):
    """PySCF ran and gave no label; holds a reason code and words."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(code, words)
        self.code, self.words = code, words


@dataclass(frozen=True, slots=True)
class Job:
    """One single point.

    Attributes
    ----------
    options : level of theory.
    numbers : atomic numbers.
    positions : (n_atoms, 3), bohr.
    charge, multiplicity : of the system.
    attempt : how often it has failed before.

    """

    options: PyscfOptions
    numbers: Sequence[int]
    positions: Sequence[Sequence[float]]
    charge: int
    multiplicity: int
    attempt: int

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Job:
        """Make a job from plain data."""
        return cls(**{**data, "options": PyscfOptions.from_mapping(data["options"])})

    def molecule(self) -> Any:
        """Return the ``pyscf.gto.Mole``, which keeps PySCF's words in ``stdout``."""
        from pyscf import gto, lib

        molecule = gto.Mole()
        molecule.atom = list(zip(map(int, self.numbers), self.positions, strict=True))
        molecule.unit = "Bohr"
        molecule.basis = self.options.basis
        molecule.ecp = core_potentials(self.options.basis, self.numbers)
        molecule.cart = is_cartesian(self.options.basis)
        molecule.charge, molecule.spin = self.charge, self.multiplicity - 1
        molecule.symmetry = False
        molecule.max_memory = SHARE * self.options.memory
        molecule.verbose = lib.logger.WARN
        molecule.stdout = io.StringIO()
        return molecule.build(dump_input=False, parse_arg=False)


def core_potentials(basis: str, numbers: Sequence[int]) -> dict[str, str]:
    """Return the elements whose core this basis set replaces by a potential of the same name."""
    from pyscf import gto
    from pyscf.data.elements import ELEMENTS

    elements = sorted({ELEMENTS[int(number)] for number in numbers})
    return {element: basis for element in elements if gto.basis.load_ecp(basis, element)}


def said(molecule: Any) -> str:
    """Return what PySCF has said of a molecule so far, on one line."""
    return " ".join(molecule.stdout.getvalue().split())
