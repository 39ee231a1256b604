"""Labelled files of others as a ``Dataset``: units turned, faults found, assumptions said.

The names of the values and their units are given by the caller, never guessed: files with kcal/mol
in a field called ``energy`` exist, and so do files with a model's prediction there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase.geometry import complete_cell

from alloop.datasets import Dataset
from alloop.datasources import Keys, RawFrame, read_raw
from alloop.errors import DataError, FrameError
from alloop.frames import Frame
from alloop.units import ENERGY_UNITS, LENGTH_UNITS

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASH = 0.1
"""Å; atoms closer than this lie on one another."""
SHORTEST_BOND, LONGEST_GAP = 0.6, 5.0
"""Å; nearest neighbours outside this range suggest another unit of length."""
LARGEST_FORCE = 10.0
"""eV/Å, root mean square; larger ones suggest another unit of energy."""
APART, VACUUM = 4.0, 8.0
"""Å; empty space between images that a molecule in a box must have, and
that suggests one."""
_NAMED = 10
"""Frames that an error names."""


@dataclass(frozen=True, slots=True)
class Convention:
    """What a file of numbers does not say by itself.

    Attributes
    ----------
    energy_unit : one of ``ENERGY_UNITS``.
    length_unit : one of ``LENGTH_UNITS``; forces are energy by length.
    level_of_theory : method of the labels.
    charge, multiplicity : of all frames, over what the file says; without either the charge is 0
        and the multiplicity the lowest possible.
    molecules : read periodic frames as molecules: their cell is a mere box.
    drop_bad : leave out frames that cannot be used instead of refusing the file.

    Raises
    ------
    DataError
        A unit is unknown, or the level of theory has no name.

    """

    energy_unit: str
    length_unit: str
    level_of_theory: str
    charge: int | None = None
    multiplicity: int | None = None
    molecules: bool = False
    drop_bad: bool = False

    def __post_init__(self) -> None:
        known: tuple[tuple[str, str, Mapping[str, float]], ...] = (
            ("energy", self.energy_unit, ENERGY_UNITS),
            ("length", self.length_unit, LENGTH_UNITS),
        )
        for what, unit, units in known:
            if unit not in units:
                raise DataError(f"{what} unit is {unit!r}, want one of {', '.join(units)}")
        if not self.level_of_theory.strip():
            raise DataError("the level of theory of the labels has no name")


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """A dataset, and what had to be assumed or left out to get it, one line each."""

    data: Dataset
    notes: tuple[str, ...]


def read_dataset(path: Path, keys: Keys, convention: Convention) -> Reading:
    """Read a labelled file; all frames are for training, see ``acquisition.splits`` for more.

    Frames without a group are groups of their own; systems are named by their formula.

    Raises
    ------
    DataError
        The file cannot be read (see ``read_raw``), or frames cannot be used: a label is missing
        or not finite, atoms lie on one another, the spin is impossible.

    """
    raw = [_in_our_units(without_padding(frame), convention) for frame in read_raw(path, keys)]
    frames: list[Frame] = []
    sound: list[RawFrame] = []
    faults: dict[str, str] = {}
    for one in raw:
        try:
            frames.append(_frame(one, convention))
            sound.append(one)
        except (FrameError, DataError) as error:
            faults[one.place] = str(error)
    if faults and not (convention.drop_bad and sound):
        raise DataError(f"{path}: {describe_faults(faults, len(raw))}")
    if not any(one.energy for one in sound):
        raise DataError(f"{path}: every energy is 0: these are no labels")
    if not any(one.forces is not None and one.forces.any() for one in sound):
        raise DataError(f"{path}: every force is 0: these are no labels")
    notes = [f"left out: {describe_faults(faults, len(raw))}"] if faults else []
    notes += _assumptions(sound, frames, convention)
    groups = [one.group if one.group is not None else f"frame {one.place}" for one in sound]
    data = Dataset(
        frames=tuple(frames),
        energies=np.array([one.energy for one in sound], dtype=np.float64),
        forces=tuple(one.forces for one in sound if one.forces is not None),
        splits=("train",) * len(frames),
        systems=tuple(frame.formula for frame in frames),
        groups=tuple(groups),
        level_of_theory=convention.level_of_theory,
    )
    return Reading(data, tuple(notes))


def without_padding(raw: RawFrame) -> RawFrame:
    """Return a frame without the atoms of number 0, which only fill arrays up."""
    there = raw.numbers != 0
    if there.all():
        return raw
    return replace(
        raw,
        numbers=raw.numbers[there],
        positions=raw.positions[there],
        forces=None if raw.forces is None else raw.forces[there],
    )


def _in_our_units(raw: RawFrame, convention: Convention) -> RawFrame:
    ev, angstrom = ENERGY_UNITS[convention.energy_unit], LENGTH_UNITS[convention.length_unit]
    return replace(
        raw,
        positions=raw.positions * angstrom,
        energy=None if raw.energy is None else raw.energy * ev,
        forces=None if raw.forces is None else raw.forces * (ev / angstrom),
        cell=None if raw.cell is None else raw.cell * angstrom,
    )


def _frame(raw: RawFrame, convention: Convention) -> Frame:
    """Return the geometry of a labelled frame; raise DataError or FrameError with its fault."""
    if raw.energy is None or raw.forces is None:
        raise DataError(f"no {'energy' if raw.energy is None else 'forces'}")
    if not (np.isfinite(raw.energy) and np.isfinite(raw.forces).all()):
        raise DataError("a label is not finite")
    if raw.cell is not None and not raw.cell[list(raw.pbc)].any(axis=1).all():
        raise DataError("periodic along a lattice vector of no length")
    if not ((raw.numbers > 0) & (raw.numbers < 119)).all():
        raise DataError("an atomic number is outside 1 to 118")
    charge = _whole("charge", raw.charge if convention.charge is None else convention.charge, 0)
    lowest = 1 + (int(raw.numbers.sum()) - charge) % 2
    told = raw.multiplicity if convention.multiplicity is None else convention.multiplicity
    frame = Frame(
        numbers=raw.numbers,
        positions=raw.positions,
        charge=charge,
        multiplicity=_whole("multiplicity", told, lowest),
        cell=None if raw.cell is None else complete_cell(raw.cell),
        pbc=raw.pbc,
    )
    if convention.molecules and frame.cell is not None:
        if _vacuum(frame) < APART:
            raise DataError("atoms meet their images: it is no molecule in a box")
        frame = replace(frame, cell=None, pbc=(False, False, False))
    if _nearest(frame.positions).min(initial=np.inf) < CLASH:
        raise DataError("atoms lie on one another")
    return frame


def _whole(what: str, value: float | None, otherwise: int) -> int:
    if value is None:
        return otherwise
    if not float(value).is_integer():
        raise DataError(f"the {what} is {value}, want a whole number")
    return int(value)


def _nearest(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance of each atom to the next; empty for a lone atom."""
    if len(positions) < 2:
        return np.empty(0)
    apart = np.linalg.norm(positions[:, None] - positions, axis=-1)
    np.fill_diagonal(apart, np.inf)
    return np.asarray(apart.min(axis=1))


def _vacuum(frame: Frame) -> float:
    """Return the width of the empty space between a periodic frame and its images, Å."""
    if frame.cell is None:
        return np.inf
    inverse = np.linalg.inv(frame.cell)
    heights = 1.0 / np.linalg.norm(inverse, axis=0)
    fractional = frame.positions @ inverse
    gaps = (1.0 - np.ptp(fractional, axis=0)) * heights
    return float(gaps[list(frame.pbc)].min())


def _assumptions(
    raw: Sequence[RawFrame], frames: Sequence[Frame], convention: Convention
) -> list[str]:
    silent = {
        what
        for what in ("charge", "multiplicity")
        if getattr(convention, what) is None and any(getattr(one, what) is None for one in raw)
    }
    notes = ["charge 0, as nothing is said of it"] if "charge" in silent else []
    if "multiplicity" in silent:
        found = " or ".join(str(m) for m in sorted({frame.multiplicity for frame in frames}))
        notes.append(f"multiplicity {found}, the lowest possible, as nothing is said of it")
    boxed = sum(frame.cell is not None and _vacuum(frame) > VACUUM for frame in frames)
    if boxed:
        notes.append(
            f"{boxed} periodic frames are molecules in a box, with more than {VACUUM:g} Å between"
            " images; they are kept periodic unless you say that they are molecules"
        )
    return notes + _odd_lengths(frames) + _odd_forces(raw)


def _odd_lengths(frames: Sequence[Frame]) -> list[str]:
    molecules = [_nearest(f.positions) for f in frames if f.cell is None and f.n_atoms > 1]
    if not molecules:
        return []
    typical = float(np.median(np.concatenate(molecules)))
    if SHORTEST_BOND < typical < LONGEST_GAP:
        return []
    return [f"the next atom is {typical:.2f} Å away (median): is that the right unit of length?"]


def _odd_forces(raw: Sequence[RawFrame]) -> list[str]:
    every = np.concatenate([one.forces for one in raw if one.forces is not None])
    typical = float(np.sqrt(np.mean(every**2)))
    if typical < LARGEST_FORCE:
        return []
    text = f"forces of {typical:.1f} eV/Å (root mean square) are rare: is that the right unit"
    return [f"{text} of energy?"]


def describe_faults(faults: Mapping[str, str], n_frames: int) -> str:
    """Return one line: how many frames have which fault, and where the first of them stand."""
    kinds = Counter(faults.values())
    parts = []
    for fault, count in kinds.most_common(3):
        places = [place for place, text in faults.items() if text == fault]
        more = ", ..." if count > _NAMED else ""
        parts.append(f"{count} of {n_frames} frames ({', '.join(places[:_NAMED])}{more}): {fault}")
    rest = len(faults) - sum(count for _, count in kinds.most_common(3))
    return "; ".join(parts) + (f"; {rest} with other faults" if rest else "")
