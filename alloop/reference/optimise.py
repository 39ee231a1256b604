"""Minima, Hessians and free atoms from any reference method."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.data import ground_state_magnetic_moments
from ase.optimize import BFGS

from alloop.frames import Frame
from alloop.reference.failures import FailureCode, label_error
from alloop.reference.method import build_reference, demand_forces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from alloop.reference.method import MethodSpec, Reference

HESSIAN_STEP = 0.005
"""Displacement for the central differences, Å."""


class ReferenceCalculator(Calculator):
    """A reference method as an ASE calculator, for systems like a given frame.

    Energy in eV, forces in eV/Å; charge and multiplicity are the frame's, all else the atoms'. A
    geometry without a label raises LabelError through whatever ASE algorithm is running. A method
    that gives no forces is refused with MethodError.
    """

    implemented_properties = ["energy", "forces"]  # noqa: RUF012  as ASE declares it

    def __init__(self, reference: Reference, frame: Frame) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # ASE
        demand_forces(reference, "an ASE calculator")
        self._reference, self._frame = reference, frame

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy", "forces"),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Label the current geometry."""
        geometry = self.atoms if atoms is None else atoms
        if geometry is None:
            raise ValueError("ReferenceCalculator has no atoms: pass some, or attach it to some")
        super().calculate(geometry, list(properties), list(system_changes))  # type: ignore[no-untyped-call]  # ASE
        label = self._reference.label(_moved(self._frame, geometry))
        self.results: dict[str, Any] = {"energy": label.energy, "forces": np.array(label.forces)}


def optimise(reference: Reference, frame: Frame, fmax: float = 0.01, max_steps: int = 500) -> Frame:
    """Return the frame relaxed until no atom feels more than ``fmax`` (eV/Å), in a fixed cell.

    Raises
    ------
    LabelError
        A geometry on the way has no label, or ``max_steps`` were not enough (``not_minimised``).

    """
    atoms = frame.to_atoms()
    atoms.calc = ReferenceCalculator(reference, frame)
    if not BFGS(atoms, logfile=None).run(fmax=fmax, steps=max_steps):
        largest = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
        words = f"largest force {largest:.3g} eV/Å after {max_steps} steps, want {fmax:.3g}"
        raise label_error(frame.key, reference.name, words, FailureCode.NOT_MINIMISED)
    return _moved(frame, atoms)


def hessian(reference: Reference, frame: Frame, step: float = HESSIAN_STEP) -> NDArray[np.float64]:
    """Return the (3 n_atoms, 3 n_atoms) second derivatives of the energy, eV/Å², symmetrised.

    Central differences of the forces, 6 n_atoms labels; raises LabelError if one fails, and
    MethodError if the method gives no forces.
    """
    demand_forces(reference, "a Hessian")
    size = 3 * frame.n_atoms
    rows = np.empty((size, size))
    for index in range(size):
        shift = np.zeros(size)
        shift[index] = step
        moved = shift.reshape(-1, 3)
        ahead = _forces(reference, frame, frame.positions + moved)
        behind = _forces(reference, frame, frame.positions - moved)
        rows[index] = (behind - ahead).ravel() / (2.0 * step)
    return (rows + rows.T) / 2.0


def isolated_atom_energy(method: MethodSpec, number: int) -> float:
    """Return the energy of a free neutral atom in its ground state, eV.

    Raises
    ------
    MethodError
        The method cannot describe the atom, for instance because its shell is open.
    LabelError
        The atom has no label.

    """
    multiplicity = ground_state_multiplicity(number)
    atom = Frame(np.array([number]), np.zeros((1, 3)), 0, multiplicity)
    return build_reference(method, atom.numbers, 0, multiplicity).label(atom).energy


def ground_state_multiplicity(number: int) -> int:
    """Return 2S + 1 of a neutral atom in its ground state (ASE's table of unpaired electrons)."""
    return int(ground_state_magnetic_moments[number]) + 1


def _forces(
    reference: Reference, frame: Frame, positions: NDArray[np.float64]
) -> NDArray[np.float64]:
    label = reference.label(dataclasses.replace(frame, positions=positions))
    return np.asarray(label.forces, dtype=np.float64)


def _moved(frame: Frame, atoms: Atoms) -> Frame:
    periodic = atoms.pbc.any()
    return dataclasses.replace(
        frame,
        numbers=atoms.numbers,
        positions=atoms.positions,
        cell=atoms.cell.array if periodic else None,
        pbc=tuple(atoms.pbc),
    )
