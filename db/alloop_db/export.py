"""Query results as text: an aligned table, CSV, JSON, or extended XYZ for other programs."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from typing import Any, Literal, TextIO

from ase import Atoms
from ase.io import write
from sqlalchemy import Connection, Engine

from alloop.errors import LedgerError
from alloop_db.arrays import blob_to_integers, blob_to_vectors
from alloop_db.queries import Result

WIDEST = 60
"""Longer text is cut in tables, characters; CSV and JSON hold all of it."""
_INFO = (
    *("frame_id", "label_id", "system", "charge", "multiplicity"),
    *("level_of_theory", "split", "trajectory_id"),
)
_FRAMES = """
SELECT
    frame.frame_id, frame.key, frame.positions, frame.cell, frame.split, frame.trajectory_id,
    system.name AS system, system.numbers, system.pbc, system.charge, system.multiplicity,
    label.label_id, label.energy, label.forces, level_of_theory.name AS level_of_theory
FROM frame
JOIN system ON system.system_id = frame.system_id
LEFT JOIN label ON label.frame_id = frame.frame_id AND label.status = 'done'
LEFT JOIN level_of_theory ON level_of_theory.level_of_theory_id = label.level_of_theory_id
WHERE frame.frame_id = ?
ORDER BY label.label_id
"""


def render(result: Result, form: Literal["table", "csv", "json"]) -> str:
    """Return a result as text; blobs are shown by their size."""
    return {"table": _table, "csv": _csv, "json": _json}[form](result)


def write_extxyz(engine: Engine, result: Result, stream: TextIO) -> int:
    """Write the frames of a result as extended XYZ and return how many blocks were written.

    Each frame comes once, or once for each level of theory it is labelled at; a result with a
    column ``label_id`` says which of these. What a label has not, ``REF_energy`` (eV) or
    ``REF_forces`` (eV/Å), is left out; the prefix is needed since ASE's reader hides plain
    ``energy`` and ``forces`` in a calculator. Raises LedgerError if the result has no column
    ``frame_id``.
    """
    if "frame_id" not in result.columns:
        raise LedgerError(
            "extxyz needs a column frame_id, which says what frames to write; the result has "
            + ", ".join(result.columns)
        )
    place = result.columns.index("frame_id")
    wanted = dict.fromkeys(row[place] for row in result.rows if row[place] is not None)
    labels: set[object] | None = None
    if "label_id" in result.columns:
        labels = {row[result.columns.index("label_id")] for row in result.rows}
    n_blocks = 0
    with engine.connect() as connection:
        for frame_id in wanted:
            for atoms in _blocks(connection, frame_id, labels):
                write(stream, atoms, format="extxyz")
                n_blocks += 1
    return n_blocks


def _blocks(
    connection: Connection, frame_id: object, labels: set[object] | None
) -> Iterator[Atoms]:
    rows = connection.exec_driver_sql(_FRAMES, (frame_id,)).mappings().all()
    if not rows:
        raise LedgerError(f"there is no frame {frame_id} in the ledger")
    for row in rows:
        if labels is not None and row["label_id"] not in (None, *labels):
            continue
        atoms = Atoms(
            blob_to_integers(row["numbers"]),
            blob_to_vectors(row["positions"]),
            cell=None if row["cell"] is None else blob_to_vectors(row["cell"]),
            pbc=[flag == "T" for flag in row["pbc"]],
        )
        atoms.info.update({name: row[name] for name in _INFO if row[name] is not None})
        atoms.info["frame_key"] = row["key"]
        if row["label_id"] is not None:
            atoms.info["REF_energy"] = row["energy"]
        if row["forces"] is not None:
            atoms.arrays["REF_forces"] = blob_to_vectors(row["forces"])
        yield atoms


def _table(result: Result) -> str:
    cells = [[_cell(value) for value in row] for row in result.rows]
    widths = [
        max([len(name), *(len(row[place]) for row in cells)])
        for place, name in enumerate(result.columns)
    ]
    right = [
        all(isinstance(row[place], int | float | None) for row in result.rows)
        for place in range(len(result.columns))
    ]

    def line(values: list[str]) -> str:
        aligned = [
            value.rjust(width) if to_right else value.ljust(width)
            for value, width, to_right in zip(values, widths, right, strict=True)
        ]
        return "  ".join(aligned).rstrip()

    lines = [line(list(result.columns)), "  ".join("-" * width for width in widths)]
    lines += [line(row) for row in cells]
    n_rows = len(cells)
    return "\n".join([*lines, f"({n_rows} row{'' if n_rows == 1 else 's'})"])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        # Six digits, but always four decimals: a total energy differs from others in those.
        fixed = f"{value:.4f}".rstrip("0").rstrip(".")
        return fixed if 100.0 <= abs(value) < 1e9 else f"{value:.6g}"
    text = " ".join(str(_plain(value)).split())
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def _csv(result: Result) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(result.columns)
    writer.writerows([_plain(value) for value in row] for row in result.rows)
    return stream.getvalue().rstrip("\n")


def _json(result: Result) -> str:
    rows = [
        {name: _plain(value) for name, value in zip(result.columns, row, strict=True)}
        for row in result.rows
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    """Return a value as every format can write it."""
    if isinstance(value, bytes):
        return f"<blob {len(value)} B>"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no infinity
    return value
