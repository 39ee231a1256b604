"""Geometries of the systems: from any file ASE reads, or from SMILES through RDKit."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from ase.data import covalent_radii

from alloop.errors import StructureError
from alloop.frames import Frame, symbols

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray

RDKIT_MISSING: Final = "SMILES need RDKit: pip install 'alloop[smiles]'"
OVERLAP: Final = 0.5
"""Atoms closer than this part of the sum of their covalent radii lie on one another."""
_EMBEDDING_SEED: Final = 20260101


@dataclass(frozen=True, slots=True, eq=False)
class Geometry:
    """A structure as its source tells it.

    Attributes
    ----------
    numbers, positions, cell, pbc : as in :class:`~alloop.frames.Frame`.
    charge, multiplicity : what the source says of them; None if it says nothing.
    source : the source, for messages.

    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64] | None
    pbc: tuple[bool, bool, bool]
    charge: int | None
    multiplicity: int | None
    source: str

    def frame(self, charge: int, multiplicity: int) -> Frame:
        """Return the frame; raise FrameError if the electrons do not allow it."""
        return Frame(self.numbers, self.positions, charge, multiplicity, self.cell, self.pbc)


def split_index(reference: str, folder: Path) -> tuple[Path, int | None]:
    """Return file and index of ``file.xyz@2``; a file whose own name ends so goes first."""
    path = folder / reference
    match = re.fullmatch(r"(.+)@(-?\d+)", reference)
    if match is None or path.exists():
        return path, None
    return folder / match[1], int(match[2])


def read_structure(reference: str, folder: Path) -> Geometry:
    """Read a structure file; raise StructureError saying in one line what is wrong with it."""
    path, index = split_index(reference, folder)
    if not path.is_file():
        what = "is a folder, want a file" if path.is_dir() else "does not exist"
        raise StructureError(f"{path} {what}")
    images = _read_images(path, index)
    if not images:
        raise StructureError(f"{path} holds no structure")
    if len(images) > 1:
        raise StructureError(
            f"{path} holds several structures: choose one by its number, such as"
            f" '{reference}@0' for the first or '{reference}@-1' for the last"
        )
    return _geometry(images[0], str(path))


def from_smiles(smiles: str) -> Geometry:
    """Build a geometry with RDKit (ETKDG, then MMFF94); raise StructureError if it cannot.

    The total charge is the formal one, the multiplicity that of parallel radical electrons.
    """
    try:
        from rdkit import Chem, rdBase
        from rdkit.Chem import rdDistGeom, rdForceFieldHelpers
    except ImportError:
        raise StructureError(RDKIT_MISSING) from None
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
        if molecule is None:
            raise StructureError(f"{smiles!r} is not valid SMILES")
        molecule = Chem.AddHs(molecule)
        if rdDistGeom.EmbedMolecule(molecule, randomSeed=_EMBEDDING_SEED) != 0:
            raise StructureError(f"RDKit finds no geometry for {smiles!r}: give a structure file")
        if rdForceFieldHelpers.MMFFHasAllMoleculeParams(molecule):
            rdForceFieldHelpers.MMFFOptimizeMolecule(molecule, maxIters=2000)
    radicals = sum(atom.GetNumRadicalElectrons() for atom in molecule.GetAtoms())
    return _checked(
        Geometry(
            numbers=np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()]),
            positions=np.array(molecule.GetConformer().GetPositions()),
            cell=None,
            pbc=(False, False, False),
            charge=int(Chem.GetFormalCharge(molecule)),
            multiplicity=int(radicals) + 1,
            source=f"SMILES {smiles!r}",
        )
    )


def _read_images(path: Path, index: int | None) -> list[Atoms]:
    # Here, not above: it takes most of a second, and most verbs read no structure.
    import ase.io

    wanted = slice(0, 2) if index is None else index  # two suffice to know that it is not one
    try:
        with warnings.catch_warnings():
            # ASE warns of details of formats (space groups, units of energies) we do not use.
            warnings.simplefilter("ignore")
            images = ase.io.read(path, index=wanted, do_not_split_by_at_sign=True)
    except OSError as error:
        if error.errno is None:  # a parser's own: ASE's XYZError is an OSError
            raise _unreadable(path, error) from None
        raise StructureError(f"{path} cannot be read: {error.strerror}") from None
    except (IndexError, StopIteration) as error:
        if index is not None:
            raise StructureError(f"{path} has no structure number {index}") from None
        raise _unreadable(path, error) from None
    except Exception as error:  # readers of ASE raise whatever their parsing stumbles over
        raise _unreadable(path, error) from None
    return images if isinstance(images, list) else [images]


def _unreadable(path: Path, error: Exception) -> StructureError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return StructureError(
        f"{path} is no readable structure, perhaps it is cut short"
        f" ({type(error).__name__}: {reason[:120]})"
    )


def _geometry(atoms: Atoms, source: str) -> Geometry:
    if any(sum(site.values()) < 1.0 for site in atoms.info.get("occupancy", {}).values()):
        raise StructureError(f"{source} has partly occupied sites: give one ordered structure")
    pbc = tuple(bool(flag) for flag in atoms.pbc)
    return _checked(
        Geometry(
            numbers=np.array(atoms.numbers, dtype=np.int64),
            positions=np.array(atoms.positions, dtype=np.float64),
            cell=np.array(atoms.cell, dtype=np.float64) if any(pbc) else None,
            pbc=(pbc[0], pbc[1], pbc[2]),
            charge=_integer(atoms.info.get("charge")),
            multiplicity=_integer(atoms.info.get("multiplicity")),
            source=source,
        )
    )


def _checked(geometry: Geometry) -> Geometry:
    """Return the geometry; raise StructureError if it is none."""
    source = geometry.source
    if len(geometry.numbers) == 0:
        raise StructureError(f"{source} has no atoms")
    finite = np.isfinite(geometry.positions).all(axis=1)
    if not finite.all():
        broken = np.flatnonzero(~finite).tolist()
        raise StructureError(f"{source}: coordinates of atoms {broken} (from 0) are not finite")
    if (geometry.numbers < 1).any():
        dummies = np.flatnonzero(geometry.numbers < 1).tolist()
        raise StructureError(f"{source}: atoms {dummies} (from 0) are dummies without an element")
    _check_cell(geometry)
    _check_overlap(geometry)
    return geometry


def _check_cell(geometry: Geometry) -> None:
    if geometry.cell is None:
        return
    if not np.isfinite(geometry.cell).all() or not abs(np.linalg.det(geometry.cell)) > 1e-6:
        raise StructureError(f"{geometry.source} is periodic but its cell has no volume")


def _check_overlap(geometry: Geometry) -> None:
    from ase import Atoms
    from ase.neighborlist import neighbor_list

    atoms = Atoms(geometry.numbers, geometry.positions, cell=geometry.cell, pbc=geometry.pbc)
    first, second, distances = neighbor_list(
        "ijd", atoms, OVERLAP * covalent_radii[geometry.numbers]
    )
    if len(distances):
        worst = int(np.argmin(distances))
        i, j = int(first[worst]), int(second[worst])
        a, b = symbols(geometry.numbers[[i, j]])
        raise StructureError(
            f"{geometry.source}: atoms {i} ({a}) and {j} ({b}), counted from 0, are"
            f" {distances[worst]:.3f} Å apart and lie on one another"
        )


def _integer(value: Any) -> int | None:
    """Return a whole number out of the free-form notes of a file; None for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return int(number) if number.is_integer() else None
