"""Frame and Label: a geometry, and what a reference method says of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from alloop.errors import FrameError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

QUANTUM = 1e-8
"""Coordinates are hashed as integer multiples of this, Å: no -0.0, no endianness, no noise."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One geometry: the unit that is screened, labelled and trained on.

    Attributes
    ----------
    numbers : (n_atoms,) int64, atomic numbers.
    positions : (n_atoms, 3) float64, Cartesian coordinates, Å.
    charge : total charge, e.
    multiplicity : spin multiplicity 2S + 1.
    cell : (3, 3) float64, lattice vectors as rows, Å; None for a molecule.
    pbc : (3,) bool, which of them are periodic.

    Raises
    ------
    FrameError
        Shapes disagree, a number is not finite or the multiplicity is impossible.

    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    charge: int = 0
    multiplicity: int = 1
    cell: NDArray[np.float64] | None = None
    pbc: tuple[bool, bool, bool] = (False, False, False)

    def __post_init__(self) -> None:
        numbers = np.array(self.numbers, dtype=np.int64)
        positions = np.array(self.positions, dtype=np.float64)
        if numbers.ndim != 1 or len(numbers) == 0:
            raise FrameError(f"numbers have shape {numbers.shape}, want (n_atoms,) with atoms")
        if positions.shape != (len(numbers), 3):
            raise FrameError(f"positions have shape {positions.shape}, want ({len(numbers)}, 3)")
        finite = np.isfinite(positions).all(axis=1)
        if not finite.all():
            raise FrameError(
                f"positions of atoms {np.flatnonzero(~finite).tolist()} are not finite"
            )
        check_spin(numbers, self.charge, self.multiplicity)
        for name, array in (("numbers", numbers), ("positions", positions)):
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        object.__setattr__(self, "pbc", tuple(bool(flag) for flag in self.pbc))
        if any(self.pbc):
            self._freeze_cell()
        else:
            object.__setattr__(self, "cell", None)

    def _freeze_cell(self) -> None:
        cell = np.array(self.cell, dtype=np.float64)
        if cell.shape != (3, 3) or not np.isfinite(cell).all():
            raise FrameError(f"a periodic frame needs a finite (3, 3) cell, got {self.cell!r}")
        if not abs(np.linalg.det(cell)) > 1e-6:
            raise FrameError("the cell of a periodic frame has no volume")
        cell.flags.writeable = False
        object.__setattr__(self, "cell", cell)

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.numbers)

    @property
    def formula(self) -> str:
        """Chemical formula in Hill order."""
        return str(Atoms(self.numbers).get_chemical_formula())

    @property
    def key(self) -> str:
        """Sha-256 of the content in atom order: equal frames share labels, however found."""
        digest = hashlib.sha256(f"frame-1 {self.charge} {self.multiplicity} {self.pbc}".encode())
        digest.update(self.numbers.astype("<i8").tobytes())
        digest.update(np.rint(self.positions / QUANTUM).astype("<i8").tobytes())
        if self.cell is not None:
            digest.update(np.rint(self.cell / QUANTUM).astype("<i8").tobytes())
        return digest.hexdigest()

    def to_atoms(self) -> Atoms:
        """Return an ASE Atoms object without calculator; charge and multiplicity in ``info``."""
        atoms = Atoms(self.numbers, self.positions, cell=self.cell, pbc=self.pbc)
        atoms.info.update(charge=self.charge, multiplicity=self.multiplicity)
        return atoms


@dataclass(frozen=True, slots=True, eq=False)
class Label:
    """What a level of theory says of one frame.

    Attributes
    ----------
    frame_key : content hash of the frame.
    method : name of the level of theory.
    energy : eV.
    forces : (n_atoms, 3) float64, eV/Å; None where the method gives energies alone.
    diagnostics : what the engine says of its answer, such as ``n_basis`` or ``t1``, by name.

    """

    frame_key: str
    method: str
    energy: float
    forces: NDArray[np.float64] | None
    diagnostics: Mapping[str, float] = field(default_factory=dict)


def check_spin(numbers: NDArray[np.int64], charge: int, multiplicity: int) -> None:
    """Raise FrameError if the electrons cannot have this multiplicity."""
    electrons = int(numbers.sum()) - charge
    if electrons < 0:
        raise FrameError(f"charge {charge} leaves {electrons} electrons")
    if multiplicity < 1 or multiplicity > electrons + 1 or (electrons - multiplicity) % 2 == 0:
        wanted = "odd" if electrons % 2 == 0 else "even"
        raise FrameError(
            f"multiplicity {multiplicity} is impossible with {electrons} electrons"
            f" (charge {charge}): it must be {wanted} and at most {electrons + 1}"
        )


def symbols(numbers: NDArray[np.int64]) -> list[str]:
    """Return the chemical symbols of atomic numbers."""
    return [chemical_symbols[int(z)] for z in numbers]
