"""What a campaign hands to other programs: labelled frames, frames to label, a committee."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.io import write
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from alloop.artifacts import ArtifactStore, write_atomically
from alloop.datasets import save_dataset
from alloop.errors import DataError
from alloop_db import schema as t
from alloop_db.arrays import blob_to_vectors
from alloop_db.sets import dataset_of, frame_of_row

XYZ = (".xyz", ".extxyz")


@dataclass(frozen=True, slots=True)
class Level:
    """A level of theory of the campaign, and the tier that it is of."""

    level_of_theory_id: int
    name: str
    tier: str

    def __str__(self) -> str:
        return f"{self.name} (tier {self.tier})"


def choose_level(engine: Engine, *, tier: str | None, level: str | None) -> Level:
    """Return the level of theory that is meant; neither need be named where there is only one.

    Raises DataError, with all levels, if none or several are meant.
    """
    with Session(engine) as session:
        known = [
            Level(row.level_of_theory_id, row.name, row.tier)
            for row in session.scalars(
                select(t.LevelOfTheory).order_by(t.LevelOfTheory.level_of_theory_id)
            )
        ]
    meant = [one for one in known if tier in (None, one.tier) and level in (None, one.name)]
    if len(meant) != 1:
        listed = ", ".join(map(str, known))
        raise DataError(f"which level of theory? there are {listed}; say --tier or --level")
    return meant[0]


def write_labels(engine: Engine, level: Level, path: Path, split: str | None) -> int:
    """Write finished labels of a level and return how many; no file if there are none.

    ``.npz`` is a ``Dataset``; extended XYZ has ``REF_energy`` (eV) and ``REF_forces`` (eV/Å).
    Raises DataError if the file is to be something else.
    """
    if path.suffix not in (".npz", *XYZ):
        raise DataError(f"{path}: want a name that ends in .extxyz, .xyz or .npz")
    with Session(engine) as session:
        rows = _rows(session, level, "done", split)
        if rows and path.suffix == ".npz":
            data = dataset_of(rows)
            write_atomically(path, lambda part: save_dataset(part, data))
        elif rows:
            _write_xyz(path, [_labelled(row) for row in rows])
        return len(rows)


def write_todo(engine: Engine, level: Level, path: Path, *, failed: bool) -> int:
    """Write the frames whose labels at a level are pending, or have failed; return how many.

    Each says in ``info`` its ``frame_key``, charge, multiplicity, system and level of theory.
    Raises DataError if the file is not to be extended XYZ.
    """
    if path.suffix not in XYZ:
        raise DataError(f"{path}: want a name that ends in .extxyz or .xyz")
    with Session(engine) as session:
        rows = _rows(session, level, "failed" if failed else "pending", None)
        if rows:
            _write_xyz(path, [_bare(row) for row in rows])
        return len(rows)


def count_labels(engine: Engine, level: Level) -> dict[str, int]:
    """Return how many labels of a level are in which state."""
    with Session(engine) as session:
        rows = session.execute(
            select(t.LabelRow.status, func.count())
            .where(t.LabelRow.level_of_theory_id == level.level_of_theory_id)
            .group_by(t.LabelRow.status)
        )
        return dict(rows.all())


def copy_committee(engine: Engine, store: ArtifactStore, which: str, folder: Path) -> list[str]:
    """Copy the member files of a committee into a folder, in their order; return their places.

    ``which`` is the number of a committee, ``latest``, or a tier, whose latest counts.

    Raises
    ------
    DataError
        There is no such committee, or the folder holds member files already.
    ArtifactError
        A file of the store is missing or damaged.

    """
    with Session(engine) as session:
        committee_id = _committee(session, which)
        members = session.execute(
            select(t.Model.member, t.Artifact.sha256)
            .join(t.CommitteeMember, t.CommitteeMember.model_id == t.Model.model_id)
            .join(t.Artifact, t.Artifact.artifact_id == t.Model.artifact_id)
            .where(t.CommitteeMember.committee_id == committee_id)
            .order_by(t.CommitteeMember.position)
        ).all()
    if folder.is_dir() and any(folder.glob("*.pt")):
        raise DataError(f"{folder} holds member files (*.pt) already: name another folder")
    files = [store.get(row.sha256, ".pt") for row in members]
    folder.mkdir(parents=True, exist_ok=True)
    for position, file in enumerate(files):
        shutil.copyfile(file, folder / f"member-{position:02d}.pt")
    return [f"committee {committee_id}", *(row.member for row in members)]


def _committee(session: Session, which: str) -> int:
    known = session.execute(
        select(t.Committee.committee_id, t.LevelOfTheory.tier)
        .join(t.LevelOfTheory, t.LevelOfTheory.level_of_theory_id == t.Committee.level_of_theory_id)
        .order_by(t.Committee.committee_id)
    ).all()
    if not known:
        raise DataError("the campaign has no committee yet: let it train one first")
    meant = [row for row in known if which in ("latest", str(row.committee_id), row.tier)]
    if not meant:
        listed = ", ".join(f"{row.committee_id} (tier {row.tier})" for row in known)
        raise DataError(f"no committee {which!r}: say latest, a tier, or one of {listed}")
    return int(meant[-1].committee_id)


def _rows(session: Session, level: Level, status: str, split: str | None) -> Sequence[Any]:
    query = (
        select(t.LabelRow, t.FrameRow, t.System, t.LevelOfTheory.name, t.Trajectory.seed)
        .join(t.FrameRow, t.FrameRow.frame_id == t.LabelRow.frame_id)
        .join(t.System, t.System.system_id == t.FrameRow.system_id)
        .join(t.LevelOfTheory, t.LevelOfTheory.level_of_theory_id == t.LabelRow.level_of_theory_id)
        .join(t.Trajectory, t.Trajectory.trajectory_id == t.FrameRow.trajectory_id, isouter=True)
        .where(
            t.LabelRow.status == status,
            t.LabelRow.level_of_theory_id == level.level_of_theory_id,
        )
        .order_by(t.LabelRow.label_id)
    )
    return session.execute(query if split is None else query.where(t.FrameRow.split == split)).all()


def _bare(row: Any) -> Atoms:
    atoms = frame_of_row(row.FrameRow, row.System).to_atoms()
    atoms.info.update(
        frame_id=row.FrameRow.frame_id,
        frame_key=row.FrameRow.key,
        system=row.System.name,
        level_of_theory=row.name,
        split=row.FrameRow.split,
    )
    return atoms


def _labelled(row: Any) -> Atoms:
    atoms = _bare(row)
    atoms.info["REF_energy"] = row.LabelRow.energy
    if row.LabelRow.forces is not None:
        atoms.arrays["REF_forces"] = blob_to_vectors(row.LabelRow.forces)
    return atoms


def _write_xyz(path: Path, images: list[Atoms]) -> None:
    write_atomically(path, lambda part: write(part, images, format="extxyz"))
