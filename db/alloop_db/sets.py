"""Training sets: chosen by split, written as one file, sealed for ever."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import insert, literal, select
from sqlalchemy.orm import Session

from alloop.artifacts import ArtifactStore, save_arrays
from alloop.datasets import Dataset
from alloop.errors import LedgerError
from alloop.frames import Frame
from alloop_db import schema as t
from alloop_db.arrays import blob_to_integers, blob_to_vectors
from alloop_db.columns import PIECES, Columns, read_columns
from alloop_db.commits import artifact_id, record_artifacts

Rows = Sequence[Any]
"""Rows of label, frame, system, level of theory and seed, as the query of seal_snapshot gives."""


def seal_snapshots(
    session: Session, number: int, store: ArtifactStore, *, below: bool
) -> dict[str, int]:
    """Seal every label done so far as training sets of a generation; return their sizes.

    One set for each tier, from the first to the one that the generation is a turn of, or with
    ``below`` to the one below that. Raises LedgerError if the last one has no label.
    """
    rows = session.execute(
        select(t.LevelOfTheory.level_of_theory_id, t.LevelOfTheory.tier)
        .join(t.Generation, t.Generation.number == number)
        .where(t.LevelOfTheory.level_of_theory_id <= t.Generation.level_of_theory_id)
        .order_by(t.LevelOfTheory.level_of_theory_id)
    ).all()
    rows = rows[:-1] if below else rows
    sizes = {tier: _seal(session, number, level, store) for level, tier in rows}
    if not sizes[rows[-1].tier]:
        raise LedgerError(f"generation {number} has no label to train on")
    return sizes


def _seal(session: Session, number: int, level: int, store: ArtifactStore) -> int:
    """Seal the labels of one level.

    Frames of the train and validation splits become members. Frames of the audit split go into
    a file of their own, which judges the models and is never trained on. Sealing the same labels
    again changes nothing.
    """
    name = session.get_one(t.LevelOfTheory, level).name
    sha256, n_labels = _digest(session, number, level, name)
    if not n_labels:
        return 0
    if session.scalar(select(t.Snapshot.snapshot_id).where(t.Snapshot.sha256 == sha256)):
        return n_labels
    members, audit = read_columns(session, level, name)
    generation_id = session.scalars(
        select(t.Generation.generation_id).where(t.Generation.number == number)
    ).one()
    snapshot = t.Snapshot(
        sha256=sha256,
        level_of_theory_id=level,
        generation_id=generation_id,
        artifact_id=artifact_id(session, _store(session, "snapshot", members, store)),
        held_out=_store(session, "held_out", audit, store) if len(audit) else None,
        n_labels=n_labels,
    )
    session.add(snapshot)
    session.flush()
    session.execute(
        insert(t.SnapshotMember).from_select(
            ["snapshot_id", "label_id", "split"],
            select(literal(snapshot.snapshot_id), t.LabelRow.label_id, t.FrameRow.split)
            .join(t.FrameRow, t.FrameRow.frame_id == t.LabelRow.frame_id)
            .where(*_done(level), t.FrameRow.split != "audit")
            .order_by(t.LabelRow.label_id),
        )
    )
    snapshot.sealed_at = t.now()
    return n_labels


def _done(level: int) -> tuple[Any, Any]:
    return t.LabelRow.status == "done", t.LabelRow.level_of_theory_id == level


def _digest(session: Session, number: int, level: int, name: str) -> tuple[str, int]:
    """Return the hash of a training set over frames, level and splits, and its size."""
    rows = session.execute(
        select(t.FrameRow.key, t.FrameRow.split)
        .join(t.LabelRow, t.LabelRow.frame_id == t.FrameRow.frame_id)
        .where(*_done(level), t.FrameRow.split != "audit")
        .order_by(t.FrameRow.key),
        execution_options=PIECES,
    )
    digest, n_labels = hashlib.sha256(f"generation {number}\n".encode()), 0
    for piece in rows.partitions():
        digest.update("".join(f"{key} {name} {split}\n" for key, split in piece).encode())
        n_labels += len(piece)
    return digest.hexdigest(), n_labels


def _store(session: Session, kind: str, data: Columns, store: ArtifactStore) -> str:
    sha256 = store.add(".npz", lambda path: save_arrays(path, data.arrays()))
    size = store.path(sha256, ".npz").stat().st_size
    artifact = {"sha256": sha256, "suffix": ".npz", "kind": kind, "bytes": size}
    record_artifacts(session, [artifact], None)
    return sha256


def dataset_of(rows: Rows) -> Dataset:
    """Return labelled frames of one level as a dataset."""
    return Dataset(
        frames=tuple(frame_of_row(row.FrameRow, row.System) for row in rows),
        energies=_energies(rows),
        forces=tuple(_forces(row) for row in rows),
        splits=tuple(row.FrameRow.split for row in rows),
        systems=tuple(row.System.name for row in rows),
        groups=tuple(_group(row) for row in rows),
        level_of_theory=rows[0].name,
    )


def _energies(rows: Rows) -> NDArray[np.float64]:
    return np.array([row.LabelRow.energy for row in rows], dtype=np.float64)


def _forces(row: Any) -> NDArray[np.float64]:
    """Return the forces of a label, NaN where its method has none."""
    if row.LabelRow.forces is None:
        return np.full((row.FrameRow.n_atoms, 3), np.nan)
    return blob_to_vectors(row.LabelRow.forces)


def _group(row: Any) -> str:
    """Name the trajectory by its seed, which a campaign that was killed finds again."""
    if row.seed is None:
        return f"frame {row.FrameRow.key[:16]}"
    return f"trajectory {row.seed}"


def frame_of_row(row: t.FrameRow, system: t.System) -> Frame:
    """Return a frame of the ledger."""
    return Frame(
        numbers=blob_to_integers(system.numbers),
        positions=blob_to_vectors(row.positions),
        charge=system.charge,
        multiplicity=system.multiplicity,
        cell=None if row.cell is None else blob_to_vectors(row.cell),
        pbc=(system.pbc[0] == "T", system.pbc[1] == "T", system.pbc[2] == "T"),
    )
