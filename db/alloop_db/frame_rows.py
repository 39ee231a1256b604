"""Frames with all that goes along with them, many at a time: a choice may be of thousands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from alloop.frames import Frame
from alloop_db import schema as t
from alloop_db.arrays import blob_to_integers, blob_to_vectors, floats_to_blob

Columns = dict[str, Any]
_AT_ONCE = 500
"""Keys looked up in one statement: SQLite takes no more than 32,766 values."""


def add_frames(
    session: Session, system: t.System, geometries: Sequence[Any], columns: Sequence[Columns]
) -> list[int | None]:
    """Add geometries (n_atoms, 3), Å, of a system, each with its other columns; return their rows.

    None stands where the very same geometry is already there, be it from the same call.
    """
    frames = _frames(system, geometries)
    keys = [frame.key for frame in frames]
    known = _known(session, keys)
    number = session.scalar(select(func.max(t.FrameRow.frame_id))) or 0
    ids: list[int | None] = []
    rows: list[Columns] = []
    for frame, key, others in zip(frames, keys, columns, strict=True):
        if key in known:
            ids.append(None)
            continue
        known.add(key)
        number += 1
        ids.append(number)
        rows.append(_columns(system, frame, key) | others | {"frame_id": number})
    add_rows(session, t.FrameRow, rows)
    return ids


def request_labels(
    session: Session, frame_ids: Iterable[int], generation_id: int, levels: Sequence[int]
) -> None:
    """Ask for the labels of frames at levels of theory."""
    rows = [
        {
            "frame_id": frame_id,
            "level_of_theory_id": level,
            "generation_id": generation_id,
            "status": "pending",
            "tries": 0,
        }
        for frame_id in frame_ids
        for level in levels
    ]
    add_rows(session, t.LabelRow, rows)


def add_rows(session: Session, table: type[t.Base], rows: Sequence[Columns]) -> None:
    """Add rows with equal columns in one statement; no objects of the session are made of them."""
    if rows:
        session.execute(insert(t.Base.metadata.tables[table.__tablename__]), rows)


def _frames(system: t.System, geometries: Sequence[Any]) -> list[Frame]:
    numbers = blob_to_integers(system.numbers)
    cell = None if system.cell is None else blob_to_vectors(system.cell)
    pbc = (system.pbc[0] == "T", system.pbc[1] == "T", system.pbc[2] == "T")
    return [
        Frame(
            numbers=numbers,
            positions=np.asarray(positions),
            charge=system.charge,
            multiplicity=system.multiplicity,
            cell=cell,
            pbc=pbc,
        )
        for positions in geometries
    ]


def _columns(system: t.System, frame: Frame, key: str) -> Columns:
    return {
        "key": key,
        "system_id": system.system_id,
        "n_atoms": frame.n_atoms,
        "positions": floats_to_blob(frame.positions),
        "cell": None if frame.cell is None else floats_to_blob(frame.cell),
    }


def _known(session: Session, keys: Sequence[str]) -> set[str]:
    """Return those of some keys that the ledger has."""
    known: set[str] = set()
    for some in _pieces(keys):
        known.update(session.scalars(select(t.FrameRow.key).where(t.FrameRow.key.in_(some))))
    return known


def _pieces(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[first : first + _AT_ONCE] for first in range(0, len(keys), _AT_ONCE))
