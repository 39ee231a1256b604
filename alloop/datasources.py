"""What labelled files of others hold, frame by frame, in the units and under the names they use.

Nothing is guessed but the format, from the suffix: ``.npz`` and ``.h5`` hold arrays, all else is
read by ASE. Nothing in a file is ever executed; arrays of Python objects are refused.
"""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import h5py
import numpy as np
from ase.data import atomic_numbers

from alloop.errors import DataError

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")
USUAL = (("REF_energy", "REF_forces"), ("energy", "forces"))
"""Names of labels in what alloop exports, and in what a calculator of ASE leaves behind."""
_SHOWN = 30
"""Names of a file that an error lists."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Under which names a file holds what.

    ``positions`` and ``numbers`` must be named for files of arrays; the formats that ASE reads
    have their own places for them, for the cell and for periodicity. ``charge`` and
    ``multiplicity`` are read from ASE's ``info`` under these words if no name is given.
    ``group`` names the trajectory of each frame.
    """

    energy: str | None = None
    forces: str | None = None
    positions: str | None = None
    numbers: str | None = None
    cell: str | None = None
    charge: str | None = None
    multiplicity: str | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class RawFrame:
    """One frame in the units of its file; what the file does not say is None.

    ``place`` says where it stands, for messages; ``numbers`` may hold 0 for atoms that are not
    there.
    """

    place: str
    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    energy: float | None
    forces: NDArray[np.float64] | None
    cell: NDArray[np.float64] | None
    pbc: tuple[bool, bool, bool]
    charge: float | None
    multiplicity: float | None
    group: str | None
    level_of_theory: str | None = None


def read_raw(path: Path, keys: Keys, *, returned: bool = False) -> list[RawFrame]:
    """Read all frames of a file.

    With ``returned``, for labels that come back from elsewhere, forces may be missing, and in
    files that ASE reads labels without a name given are taken from the one of the ``USUAL`` places
    that is filled.

    Raises
    ------
    DataError
        The file is missing, broken or of no known format, a name is not given or not there, or
        shapes disagree.

    """
    if not path.is_file():
        raise DataError(f"{path} {'is a folder, want a file' if path.is_dir() else 'is missing'}")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty")
    if path.suffix == ".npz":
        return _read_npz(path, keys, returned)
    if path.suffix in HDF5_SUFFIXES:
        return _read_hdf5(path, keys, returned)
    return _read_with_ase(path, keys, returned)


def _read_npz(path: Path, keys: Keys, returned: bool) -> list[RawFrame]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            names = list(archive.files)
            _check_names(path, keys, names, returned)
            arrays = {name: archive[name] for name in _wanted(keys) if name in names}
    except DataError:
        raise
    except ValueError as error:
        if "allow_pickle" in str(error):
            what = "one of the named arrays holds Python objects, which are never loaded"
            raise DataError(f"{path}: {what}; save it as plain numbers") from None
        _refuse(path, error)
    except (OSError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        _refuse(path, error)
    return list(_frames(path, "", keys, arrays))


def _read_hdf5(path: Path, keys: Keys, returned: bool) -> list[RawFrame]:
    try:
        with h5py.File(path, "r") as file:
            groups = list(_groups(file))
            names = dict.fromkeys(name for group in groups for name, _ in _datasets(group))
            _check_names(path, keys, list(names), returned)
            frames: list[RawFrame] = []
            for group in groups:
                arrays = {
                    name: data[()] for name, data in _datasets(group) if name in _wanted(keys)
                }
                if keys.positions in arrays:
                    frames += _frames(path, str(group.name).strip("/"), keys, arrays)
    except (OSError, RuntimeError, KeyError) as error:
        _refuse(path, error)
    return frames


def _groups(group: Any) -> Iterator[Any]:
    yield group
    for child in group.values():
        if isinstance(child, h5py.Group):
            yield from _groups(child)


def _datasets(group: Any) -> Iterator[tuple[str, Any]]:
    return ((name, item) for name, item in group.items() if isinstance(item, h5py.Dataset))


def _wanted(keys: Keys) -> set[str]:
    names = (getattr(keys, field) for field in Keys.__dataclass_fields__)
    return {name for name in names if name is not None}


def _check_names(path: Path, keys: Keys, names: list[str], returned: bool) -> None:
    """Raise DataError unless what a file of arrays must hold is named and there."""
    needed = ("positions", "numbers", "energy") + (() if returned else ("forces",))
    for what in needed:
        if getattr(keys, what) is None:
            raise DataError(f"{path}: no name is given for the {what}; {_listed(names)}")
    for name in sorted(_wanted(keys)):
        if name not in names:
            raise DataError(f"{path} has no {name!r}; {_listed(names)}")


def _frames(
    path: Path, group: str, keys: Keys, arrays: Mapping[str, NDArray[Any]]
) -> Iterator[RawFrame]:
    """Take arrays over frames apart; one label for each frame, or atoms common to all."""
    where = f"{path}, {group}" if group else str(path)
    positions = _numeric(where, "positions", arrays[str(keys.positions)])
    if positions.ndim == 2 and positions.shape[1] == 3:
        positions = positions[None]
    if positions.ndim != 3 or positions.shape[2] != 3:
        raise DataError(
            f"{where}: positions {keys.positions!r} have shape {positions.shape},"
            " want (n_frames, n_atoms, 3)"
        )
    n_frames, n_atoms, _ = positions.shape
    species = _given(arrays, keys.numbers)
    if species is None:
        raise DataError(f"{where} has no {keys.numbers!r}, the atomic numbers of its positions")
    numbers = _atomic_numbers(where, species)
    if numbers.shape not in {(n_atoms,), (n_frames, n_atoms)}:
        raise DataError(
            f"{where}: atomic numbers {keys.numbers!r} have shape {numbers.shape},"
            f" want ({n_atoms},) or ({n_frames}, {n_atoms}) as the positions"
        )
    numbers = np.broadcast_to(numbers, (n_frames, n_atoms))
    energies = _per_frame(where, "energies", _given(arrays, keys.energy), n_frames)
    forces = _given(arrays, keys.forces)
    if forces is not None:
        forces = _numeric(where, "forces", forces)
        if forces.size != positions.size or forces.shape[-1] != 3:
            raise DataError(
                f"{where}: forces {keys.forces!r} have shape {forces.shape}, want {positions.shape}"
            )
        forces = forces.reshape(positions.shape)
    cells = _cells(where, _given(arrays, keys.cell), n_frames)
    charges = _per_frame(where, "charges", _given(arrays, keys.charge), n_frames)
    multiplicities = _per_frame(
        where, "multiplicities", _given(arrays, keys.multiplicity), n_frames
    )
    names = _texts(where, _given(arrays, keys.group), n_frames)
    for i in range(n_frames):
        yield RawFrame(
            place=f"{group}[{i}]" if group else str(i),
            numbers=numbers[i],
            positions=positions[i],
            energy=None if energies is None else float(energies[i]),
            forces=None if forces is None else forces[i],
            cell=None if cells is None else cells[i],
            # A row of zeros is a direction without a period; all zeros are a molecule.
            pbc=(False,) * 3 if cells is None else _flags(cells[i].any(axis=1)),
            charge=None if charges is None else float(charges[i]),
            multiplicity=None if multiplicities is None else float(multiplicities[i]),
            group=None if names is None else names[i],
        )


def _given(arrays: Mapping[str, NDArray[Any]], name: str | None) -> NDArray[Any] | None:
    return None if name is None else arrays.get(name)


def _numeric(where: str, what: str, array: NDArray[Any]) -> NDArray[np.float64]:
    if array.dtype.kind not in "iuf":
        raise DataError(f"{where}: the {what} are no numbers but {array.dtype}")
    return array.astype(np.float64)


def _per_frame(
    where: str, what: str, array: NDArray[Any] | None, n_frames: int
) -> NDArray[np.float64] | None:
    """Return one number for each frame; a single one stands for all."""
    if array is None:
        return None
    values = _numeric(where, what, np.asarray(array)).reshape(-1)
    if len(values) == 1 and what != "energies":
        return np.full(n_frames, values[0])
    if len(values) != n_frames:
        raise DataError(f"{where}: {len(values)} {what} for {n_frames} frames")
    return values


def _texts(where: str, array: NDArray[Any] | None, n_frames: int) -> list[str] | None:
    if array is None:
        return None
    values = np.asarray(array).reshape(-1).tolist()
    if len(values) != n_frames:
        raise DataError(f"{where}: {len(values)} groups for {n_frames} frames")
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _cells(where: str, array: NDArray[Any] | None, n_frames: int) -> NDArray[np.float64] | None:
    if array is None:
        return None
    cells = _numeric(where, "cells", array)
    if cells.shape == (3, 3):
        return np.broadcast_to(cells, (n_frames, 3, 3))
    if cells.shape not in {(n_frames, 3, 3), (n_frames, 9)}:
        raise DataError(
            f"{where}: cells have shape {cells.shape}, want (3, 3) or ({n_frames}, 3, 3)"
        )
    return cells.reshape(n_frames, 3, 3)


def _atomic_numbers(where: str, array: NDArray[Any]) -> NDArray[np.int64]:
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    names = [s.decode() if isinstance(s, bytes) else str(s) for s in array.reshape(-1).tolist()]
    unknown = sorted({name for name in names if name not in atomic_numbers})
    if unknown:
        raise DataError(f"{where}: {unknown[0]!r} is neither an atomic number nor an element")
    return np.array([atomic_numbers[name] for name in names]).reshape(array.shape)


def _read_with_ase(path: Path, keys: Keys, returned: bool) -> list[RawFrame]:
    named = [what for what in ("positions", "numbers", "cell") if getattr(keys, what) is not None]
    if named:
        raise DataError(
            f"{path}: a name is given for the {named[0]}, which have their own place in files that"
            " ASE reads; leave it out"
        )
    import ase.io  # here: it takes most of a second

    try:
        with warnings.catch_warnings():
            # ASE warns of details of formats (space groups, odd stresses) that are not used here.
            warnings.simplefilter("ignore")
            images = ase.io.read(path, index=":", do_not_split_by_at_sign=True)
    except Exception as error:  # readers of ASE raise whatever their parsing stumbles over
        _refuse(path, error)
    if not images:
        raise DataError(f"{path} holds no frames")
    if all(_by_type(atoms) for atoms in images):
        raise DataError(f"{path} has numbers of types, no elements: write it with elements")
    for_frame, for_atoms = _names_of(images)
    if returned:
        keys = _with_usual_names(path, keys, for_frame, for_atoms)
    known = {"energy": for_frame, "forces": for_atoms}
    if returned and keys.forces is None:
        del known["forces"]
    for what, names in known.items():
        name = getattr(keys, what)
        if name is None or name not in names:
            lead = f"no name is given for the {what}" if name is None else f"has no {name!r}"
            listed = f"by frame {_listed(for_frame)}; by atom {_listed(for_atoms)}"
            raise DataError(f"{path}: {lead}; {listed}")
    for what in ("charge", "multiplicity", "group"):
        name = getattr(keys, what)
        if name is not None and name not in for_frame:
            raise DataError(f"{path} has no {name!r} for its frames; {_listed(for_frame)}")
    return [_from_atoms(path, str(i), atoms, keys) for i, atoms in enumerate(images)]


def _with_usual_names(
    path: Path, keys: Keys, for_frame: Sequence[str], for_atoms: Sequence[str]
) -> Keys:
    """Fill in the usual names of labels; raise DataError where two places hold some."""
    found = [pair for pair in USUAL if pair[0] in for_frame]
    if keys.energy is not None or not found:
        return keys
    if len(found) > 1:
        listed = " and ".join(energy for energy, _ in found)
        raise DataError(
            f"{path} has labels in two places, {listed}: say which with --energy-key and"
            " --forces-key"
        )
    energy, forces = found[0]
    return replace(keys, energy=energy, forces=forces if forces in for_atoms else keys.forces)


def _by_type(atoms: Atoms) -> bool:
    """Say whether ASE took LAMMPS's types for elements: its dumps need not hold elements."""
    return "type" in atoms.arrays and bool((atoms.arrays["type"] == atoms.numbers).all())


def _names_of(images: Iterable[Atoms]) -> tuple[list[str], list[str]]:
    """Return the names of all values by frame, and by atom."""
    frame: dict[str, None] = {}
    atom: dict[str, None] = {}
    for atoms in images:
        frame |= dict.fromkeys(str(name) for name in atoms.info)
        atom |= dict.fromkeys(atoms.arrays)
        for name, value in (atoms.calc.results if atoms.calc else {}).items():
            (atom if np.shape(value)[:1] == (len(atoms),) else frame)[name] = None
    for name in ("numbers", "positions"):
        del atom[name]
    return list(frame), list(atom)


def _from_atoms(path: Path, place: str, atoms: Atoms, keys: Keys) -> RawFrame:
    results = atoms.calc.results if atoms.calc else {}
    where = f"{path}, frame {place}"
    energy = _first(keys.energy, results, atoms.info)
    forces = _first(keys.forces, results, atoms.arrays)
    if forces is not None:
        forces = _numeric(where, "forces", np.asarray(forces))
        if forces.shape != (len(atoms), 3):
            raise DataError(
                f"{where}: forces {keys.forces!r} have shape {forces.shape}, want {len(atoms)} x 3"
            )
    group = atoms.info.get(keys.group) if keys.group else None
    level = atoms.info.get("level_of_theory")
    return RawFrame(
        place=place,
        numbers=atoms.numbers.astype(np.int64),
        positions=atoms.positions,
        energy=_number(where, keys.energy, energy),
        forces=forces,
        cell=np.array(atoms.cell) if atoms.pbc.any() else None,
        pbc=_flags(atoms.pbc),
        charge=_number(where, "charge", atoms.info.get(keys.charge or "charge")),
        multiplicity=_number(
            where, "multiplicity", atoms.info.get(keys.multiplicity or "multiplicity")
        ),
        group=None if group is None else str(group),
        level_of_theory=None if level is None else str(level),
    )


def _first(name: str | None, *places: Mapping[str, Any]) -> Any:
    return next((place[name] for place in places if name is not None and name in place), None)


def _number(where: str, name: str | None, value: Any) -> float | None:
    if value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        raise DataError(f"{where}: {name!r} is {value!r}, want a number") from None


def _flags(values: Iterable[Any]) -> tuple[bool, bool, bool]:
    x, y, z = (bool(value) for value in values)
    return x, y, z


def _listed(names: list[str]) -> str:
    if not names:
        return "it holds nothing"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"it holds {', '.join(names[:_SHOWN])}{more}"


def _refuse(path: Path, error: Exception) -> NoReturn:
    reason = " ".join(str(error).split()) or type(error).__name__
    raise DataError(
        f"{path} cannot be read, perhaps it is cut short or of another format than its name says"
        f" ({type(error).__name__}: {reason[:120]})"
    ) from None
