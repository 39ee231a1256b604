"""Labelled frames as the columns of a training set, without an object for each of a million."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from alloop_db import schema as t
from alloop_db.arrays import blob_to_integers, floats_to_blob

PIECES = {"yield_per": 5000}
"""Option of a query: its rows come so many at a time."""
_NO_CELL = floats_to_blob(np.zeros((3, 3)))


@dataclass(slots=True)
class Columns:
    """Labelled frames of one level; :meth:`arrays` are what ``alloop.datasets`` reads."""

    level_of_theory: str
    systems: dict[int, t.System]
    """By key; those of other frames may be among them."""
    system_ids: array[int] = field(default_factory=lambda: array("q"))
    energies: array[float] = field(default_factory=lambda: array("d"))
    positions: bytearray = field(default_factory=bytearray)
    forces: bytearray = field(default_factory=bytearray)
    cells: bytearray = field(default_factory=bytearray)
    splits: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.energies)

    def add(self, row: Any) -> None:
        """Add a row of the query of :func:`read_columns`."""
        self.system_ids.append(row.system_id)
        self.energies.append(row.energy)
        self.positions += row.positions
        # Where the method has no forces they are NaN.
        self.forces += row.forces or floats_to_blob(np.full((row.n_atoms, 3), np.nan))
        self.cells += row.cell or _NO_CELL
        self.splits.append(row.split)
        # The trajectory by its seed, which a campaign that was killed finds again.
        of_none = f"frame {row.key[:16]}"
        self.groups.append(of_none if row.seed is None else f"trajectory {row.seed}")

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the columns; the same as ``save_dataset`` writes of a ``Dataset``."""
        kinds, places = np.unique(np.array(self.system_ids), return_inverse=True)
        systems = [self.systems[int(kind)] for kind in kinds]
        numbers = [blob_to_integers(system.numbers) for system in systems]
        pbc = np.array([[flag == "T" for flag in system.pbc] for system in systems])
        return {
            "n_atoms": np.array([len(one) for one in numbers], dtype=np.int64)[places],
            "numbers": np.concatenate([numbers[place] for place in places]),
            "positions": _vectors(self.positions),
            "cells": _vectors(self.cells).reshape(-1, 3, 3),
            "pbc": pbc[places],
            "charges": np.array([system.charge for system in systems], dtype=np.int64)[places],
            "multiplicities": np.array([s.multiplicity for s in systems], dtype=np.int64)[places],
            "energies": np.array(self.energies),
            "forces": _vectors(self.forces),
            "splits": np.array(self.splits, dtype=np.str_),
            "systems": np.array([system.name for system in systems], dtype=np.str_)[places],
            "groups": np.array(self.groups, dtype=np.str_),
            "level_of_theory": np.array(self.level_of_theory, dtype=np.str_),
        }


def _vectors(buffer: bytearray) -> NDArray[np.float64]:
    """Return a buffer as an array (n, 3), without a copy."""
    return np.frombuffer(buffer, dtype="<f8").reshape(-1, 3)


def read_columns(session: Session, level: int, name: str) -> tuple[Columns, Columns]:
    """Return the finished labels of a level: those that models learn from, those of the audit.

    In the order of their content, not of their rows: a campaign that was killed may have inserted
    frames in another order, and must still train on the same bytes.
    """
    systems = {system.system_id: system for system in session.scalars(select(t.System))}
    members, audit = Columns(name, systems), Columns(name, systems)
    rows = session.execute(
        select(
            t.FrameRow.key,
            t.FrameRow.system_id,
            t.FrameRow.n_atoms,
            t.FrameRow.positions,
            t.FrameRow.cell,
            t.FrameRow.split,
            t.LabelRow.energy,
            t.LabelRow.forces,
            t.Trajectory.seed,
        )
        .join(t.LabelRow, t.LabelRow.frame_id == t.FrameRow.frame_id)
        .join(t.Trajectory, t.Trajectory.trajectory_id == t.FrameRow.trajectory_id, isouter=True)
        .where(t.LabelRow.status == "done", t.LabelRow.level_of_theory_id == level)
        .order_by(t.FrameRow.key),
        execution_options=PIECES,
    )
    for piece in rows.partitions():
        for row in piece:
            (audit if row.split == "audit" else members).add(row)
    return members, audit
