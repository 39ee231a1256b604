"""Which rows of the ledger labels made elsewhere are for, and what is wrong with them.

Only labels that somebody asked for are taken: which frames are labelled, and in which split, is
the campaign's choice, and its error estimates rest on that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from alloop.datafiles import describe_faults
from alloop.datasources import RawFrame
from alloop.errors import DataError
from alloop.exchange.checking import Claim, Opinion, Other, judge_units
from alloop.exchange.matching import TOLERANCE, KnownFrames, Match, Matcher, Unmatched
from alloop.exchange.reading import Returned
from alloop_db import schema as t
from alloop_db.arrays import blob_to_integers, blob_to_vectors

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAME_ENERGY, SAME_FORCE = 1e-4, 1e-3
"""eV and eV/Å; labels of one frame that agree to these are the same label."""
CLOSE = 1e-2
"""Å; a frame so near a known one is probably meant to be it."""
_ASKED = 20
"""Unknown frames whose nearest known one is looked for: that takes time."""
_AT_ONCE = 500
"""Keys in one query: SQLite takes no more than some thousand."""


@dataclass(frozen=True, slots=True, eq=False)
class Filling:
    """A label row that is to be filled: its key, energy, eV, and forces, eV/Å, if any."""

    label_id: int
    energy: float
    forces: NDArray[np.float64] | None

    def agrees(self, other: Filling) -> bool:
        """Say whether another label of the frame is the same one; compares what both have."""
        if not abs(other.energy - self.energy) <= SAME_ENERGY:
            return False
        if other.forces is None or self.forces is None:
            return True
        return bool(np.abs(other.forces - self.forces).max() <= SAME_FORCE)


@dataclass(frozen=True, slots=True, eq=False)
class ImportPlan:
    """What an import would do.

    Attributes
    ----------
    level_of_theory : of all labels.
    n_frames : in the file.
    fillings : the rows to fill.
    n_there : labels that are in the ledger already.
    faults : why a frame cannot be taken, by its place in the file.
    opinion : what the units look like.

    """

    level_of_theory: str
    n_frames: int
    fillings: tuple[Filling, ...]
    n_there: int
    faults: Mapping[str, str]
    opinion: Opinion

    def __str__(self) -> str:
        words = f"{len(self.fillings)} labels of {self.level_of_theory}"
        return f"{words}; {self.n_there} were there already" if self.n_there else words

    @property
    def notes(self) -> tuple[str, ...]:
        """What to tell a person, one line each."""
        return (*(f"left out {line}" for line in self._faults()), *self.opinion.notes)

    def _faults(self) -> list[str]:
        """Return one line for each kind of fault: how many frames have it, and which."""
        return [
            describe_faults({p: f for p, f in self.faults.items() if f == kind}, self.n_frames)
            for kind in dict.fromkeys(self.faults.values())
        ]

    def check(self, path: Path, *, drop_bad: bool) -> None:
        """Raise DataError with everything that is wrong; ``drop_bad`` forgives single frames."""
        problems = self.opinion.problems
        if self.faults and not (drop_bad and (self.fillings or self.n_there)):
            problems = self._faults() + problems
        if problems:
            lines = [*problems, *(f"note: {note}" for note in self.opinion.notes)]
            listed = "".join(f"\n  {line}" for line in lines)
            raise DataError(f"{path}: nothing was imported:{listed}")


def plan_import(engine: Engine, returned: Returned, level_of_theory: str) -> ImportPlan:
    """Find the rows that labels are for; nothing is changed.

    Raises DataError if the level of theory is none of the campaign's.
    """
    with Session(engine) as session:
        level_id = _level_id(session, level_of_theory)
        matches, faults, notes = _match(session, returned)
        rows = _labels(session, [match.frame_id for match in matches.values()])
        others = _others(session, rows, level_id)
        typical = _typical_energies(session, level_id)
        asked = {row.frame_id: row for row in rows if row.level_of_theory_id == level_id}
        forces = {raw.place: _turned(raw, matches) for raw in returned.labels}
        fillings, n_there = _fillings(returned, matches, forces, asked, faults)
    claims = [
        Claim(
            match.system,
            match.positions,
            float(raw.energy),
            forces[raw.place],
            others.get(match.frame_id),
        )
        for raw in returned.labels
        if (match := matches.get(raw.place)) and raw.energy is not None
    ]
    opinion = judge_units(claims, returned.units, typical)
    opinion.notes += notes
    every = returned.faults | faults
    return ImportPlan(level_of_theory, returned.n_frames, fillings, n_there, every, opinion)


def _level_id(session: Session, name: str) -> int:
    query = select(t.LevelOfTheory.name, t.LevelOfTheory.level_of_theory_id)
    levels = dict(session.execute(query.order_by(t.LevelOfTheory.level_of_theory_id)).all())
    if name not in levels:
        raise DataError(
            f"--level {name!r}: this campaign has no such level of theory; it has"
            f" {', '.join(levels)}"
        )
    return int(levels[name])


def _match(
    session: Session, returned: Returned
) -> tuple[dict[str, Match], dict[str, str], list[str]]:
    atoms = {raw.numbers.astype("<i8").tobytes() for raw in returned.labels}
    systems = session.scalars(select(t.System).where(t.System.numbers.in_(atoms))).all()
    units = returned.units
    matcher = Matcher(
        [_known(session, system) for system in systems], tuple(dict.fromkeys((1.0, units.angstrom)))
    )
    found = {raw.place: matcher.find(raw) for raw in returned.labels}
    matches = {place: one for place, one in found.items() if isinstance(one, Match)}
    faults = {place: one.reason for place, one in found.items() if isinstance(one, Unmatched)}
    return matches, faults, _notes(returned, matches, matcher)


def _notes(returned: Returned, matches: Mapping[str, Match], matcher: Matcher) -> list[str]:
    notes = []
    moved = sum(match.rotation is not None for match in matches.values())
    if moved:
        notes.append(f"{moved} frames were turned or moved: their forces are turned back")
    if any(match.scale != 1.0 for match in matches.values()):
        notes.append(f"positions are in {returned.units.length}")
    alone = sum(raw.forces is None for raw in returned.labels)
    if alone:
        notes.append(f"{alone} labels are energies alone, without forces")
    lost = [raw for raw in returned.labels if raw.place not in matches]
    apart = [matcher.nearest(raw) for raw in lost[:_ASKED]]
    if apart and min(apart) < CLOSE:
        notes.append(
            f"of frames that are not in the ledger one is {min(apart):.1g} Å off one that is;"
            f" want {TOLERANCE:g} Å: let the other program print more digits"
        )
    return notes


def _known(session: Session, system: t.System) -> KnownFrames:
    rows = session.execute(
        select(t.FrameRow.frame_id, t.FrameRow.positions, t.FrameRow.cell)
        .where(t.FrameRow.system_id == system.system_id)
        .order_by(t.FrameRow.frame_id)
    ).all()
    x, y, z = (flag == "T" for flag in system.pbc)
    cells = [row.cell for row in rows]
    periodic = all(cell is not None for cell in cells) and bool(cells)
    return KnownFrames(
        name=system.name,
        numbers=blob_to_integers(system.numbers),
        charge=system.charge,
        multiplicity=system.multiplicity,
        pbc=(x, y, z),
        frame_ids=tuple(row.frame_id for row in rows),
        positions=_stacked([row.positions for row in rows], system.n_atoms),
        cells=_stacked(cells, 3) if periodic else None,
    )


def _stacked(blobs: Sequence[bytes], n_rows: int) -> NDArray[np.float64]:
    return np.frombuffer(b"".join(blobs), dtype="<f8").reshape(-1, n_rows, 3)


def _turned(raw: RawFrame, matches: Mapping[str, Match]) -> NDArray[np.float64] | None:
    """Return the forces of a foreign frame in the orientation of the known one."""
    match = matches.get(raw.place)
    if raw.forces is None or match is None or match.rotation is None:
        return raw.forces
    return np.asarray(raw.forces @ match.rotation)


def _fillings(
    returned: Returned,
    matches: Mapping[str, Match],
    forces: Mapping[str, NDArray[np.float64] | None],
    asked: Mapping[int, t.LabelRow],
    faults: dict[str, str],
) -> tuple[tuple[Filling, ...], int]:
    """Return the rows to fill and how many are filled already; add what is wrong to ``faults``."""
    fillings: dict[int, tuple[str, Filling]] = {}
    n_there = 0
    for raw in returned.labels:
        place = raw.place
        if place not in matches or raw.energy is None:
            continue
        row = asked.get(matches[place].frame_id)
        if row is None:
            faults[place] = "nobody asked for its label at this level"
            continue
        new = Filling(row.label_id, raw.energy, forces[place])
        if row.status == "done" and row.energy is not None:
            old = Filling(
                row.label_id,
                row.energy,
                None if row.forces is None else blob_to_vectors(row.forces),
            )
            n_there += new.agrees(old)
            if not new.agrees(old):
                faults[place] = "has another label already, which is never overwritten"
            continue
        first, kept = fillings.setdefault(row.label_id, (place, new))
        if not new.agrees(kept):
            faults[place] = f"the same as frame {first}, with another label"
    return tuple(filling for _, filling in fillings.values()), n_there


def _labels(session: Session, frame_ids: Sequence[int]) -> list[t.LabelRow]:
    rows: list[t.LabelRow] = []
    for start in range(0, len(frame_ids), _AT_ONCE):
        some = frame_ids[start : start + _AT_ONCE]
        rows += session.scalars(select(t.LabelRow).where(t.LabelRow.frame_id.in_(some)))
    return rows


def _others(session: Session, rows: Sequence[t.LabelRow], level_id: int) -> dict[int, Other]:
    """Return for each frame its finished label at the highest of the other levels."""
    names = dict(
        session.execute(select(t.LevelOfTheory.level_of_theory_id, t.LevelOfTheory.name)).all()
    )
    others = {}
    for row in sorted(rows, key=lambda row: row.level_of_theory_id):
        if row.level_of_theory_id != level_id and row.status == "done" and row.energy is not None:
            forces = None if row.forces is None else blob_to_vectors(row.forces)
            others[row.frame_id] = Other(names[row.level_of_theory_id], row.energy, forces)
    return others


def _typical_energies(session: Session, level_id: int) -> dict[str, float]:
    """Return the mean energy of each system at a level, eV."""
    rows = session.execute(
        select(t.System.name, func.avg(t.LabelRow.energy))
        .join(t.FrameRow, t.FrameRow.system_id == t.System.system_id)
        .join(t.LabelRow, t.LabelRow.frame_id == t.FrameRow.frame_id)
        .where(t.LabelRow.level_of_theory_id == level_id, t.LabelRow.status == "done")
        .group_by(t.System.name)
    )
    return dict(rows.all())
