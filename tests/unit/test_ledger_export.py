"""Results as table, CSV, JSON and extended XYZ, read back where a reader exists."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import read
from sqlalchemy import Engine

from alloop.errors import LedgerError
from alloop.frames import Frame
from alloop_db.arrays import floats_to_blob
from alloop_db.export import render, write_extxyz
from alloop_db.ledger import open_ledger, open_readonly
from alloop_db.queries import Result, run
from tests.ledger_rows import reference
from tests.ledger_sample import write_sample

RESULT = Result(
    ("id", "energy", "name", "blob", "nothing"),
    (
        (1, -4193.12345678, "ethanol", b"x" * 216, None),
        (20, 0.125, 'a, "b"\nc', b"", None),
        (300, float("inf"), "µ" * 100, None, None),
    ),
)


def read_back(text: str) -> list[Atoms]:
    frames = read(io.StringIO(text), index=":", format="extxyz")
    assert isinstance(frames, list)
    return [atoms for atoms in frames if isinstance(atoms, Atoms)]


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Engine]:
    engine = open_readonly(write_sample(tmp_path))
    yield engine
    engine.dispose()


def test_a_table_lines_up() -> None:
    lines = render(RESULT, "table").splitlines()
    assert lines[0].split() == ["id", "energy", "name", "blob", "nothing"]
    assert lines[2].startswith("  1  -4193.1235  ethanol ")
    assert "<blob 216 B>" in lines[2]
    assert lines[3].startswith(' 20       0.125  a, "b" c ')
    assert lines[4].startswith("300         inf  " + "µ" * 59 + "…")
    assert len({line.index("-", 70) for line in lines[2:4]}) == 1
    assert lines[-1] == "(3 rows)"
    assert "nan" not in "\n".join(lines).lower()
    assert "None" not in "\n".join(lines)


def test_a_table_of_nothing_still_has_its_heads() -> None:
    assert render(Result(("a", "b"), ()), "table").splitlines()[0] == "a  b"


def test_csv_comes_back() -> None:
    rows = list(csv.reader(io.StringIO(render(RESULT, "csv"))))
    assert rows[0] == list(RESULT.columns)
    assert rows[1] == ["1", "-4193.12345678", "ethanol", "<blob 216 B>", ""]
    assert rows[2][2] == 'a, "b"\nc'
    assert rows[3][2] == "µ" * 100


def test_json_comes_back() -> None:
    rows = json.loads(render(RESULT, "json"))
    assert rows[0] == {
        "id": 1,
        "energy": -4193.12345678,
        "name": "ethanol",
        "blob": "<blob 216 B>",
        "nothing": None,
    }
    assert rows[2]["energy"] == "inf"


def test_extxyz_is_read_back_by_ase(reader: Engine) -> None:
    stream = io.StringIO()
    assert write_extxyz(reader, run(reader, "training_set"), stream) == 7
    frames = read_back(stream.getvalue())
    assert [atoms.info["frame_id"] for atoms in frames] == [1, 2, 3, 4, 5, 8, 9]
    for atoms in frames:
        energy, forces = reference(atoms.positions)
        assert atoms.info["REF_energy"] == pytest.approx(energy, abs=1e-6)
        assert atoms.arrays["REF_forces"] == pytest.approx(forces, abs=1e-6)
        assert atoms.info["system"] == "water"
        assert atoms.info["level_of_theory"] == "GFN2-xTB"
        assert (atoms.info["charge"], atoms.info["multiplicity"]) == (0, 1)
        assert Frame(atoms.numbers, atoms.positions).key == atoms.info["frame_key"]
        assert not atoms.pbc.any()
    assert frames[3].info["split"] == "validation"
    assert frames[4].info["trajectory_id"] == 1
    assert "trajectory_id" not in frames[0].info
    ((energy,),) = run(reader, "SELECT energy FROM label WHERE label_id = 1").rows
    assert frames[0].info["REF_energy"] == energy  # to the last digit


def test_extxyz_of_frames_without_labels(reader: Engine) -> None:
    stream = io.StringIO()
    result = run(reader, "SELECT frame_id FROM frame WHERE frame_id IN (6, 12) UNION SELECT NULL")
    assert write_extxyz(reader, result, stream) == 2
    for atoms in read_back(stream.getvalue()):
        assert "REF_energy" not in atoms.info
        assert "REF_forces" not in atoms.arrays


def test_extxyz_of_two_levels_of_theory_and_a_crystal(tmp_path: Path) -> None:
    engine = open_ledger(write_sample(tmp_path), create=False)
    cell = np.diag([5.0, 6.0, 7.0])
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE system SET pbc = 'TTF'")
        connection.exec_driver_sql(
            "INSERT INTO frame SELECT 50, 'other', system_id, generation_id, trajectory_id, step,"
            " time, source, split, n_atoms, positions, ? FROM frame WHERE frame_id = 1",
            (floats_to_blob(cell),),
        )
        for level in (1, 2):
            connection.exec_driver_sql(
                "INSERT INTO label (frame_id, level_of_theory_id, generation_id, status, tries,"
                " energy, forces) SELECT 50, ?, 1, 'done', 0, ?, forces FROM label"
                " WHERE label_id = 1",
                (level, -10.0 * level),
            )
    stream = io.StringIO()
    assert write_extxyz(engine, run(engine, "SELECT 50 AS frame_id, 1"), stream) == 2
    engine.dispose()
    frames = read_back(stream.getvalue())
    assert [atoms.info["REF_energy"] for atoms in frames] == [-10.0, -20.0]
    assert [atoms.info["level_of_theory"] for atoms in frames] == ["GFN2-xTB", "wB97X/6-31G*"]
    assert frames[0].cell.array == pytest.approx(cell)
    assert frames[0].pbc.tolist() == [True, True, False]


def test_extxyz_needs_to_know_the_frames(reader: Engine) -> None:
    with pytest.raises(LedgerError, match=r"needs a column frame_id.*result has n, energy"):
        write_extxyz(reader, run(reader, "SELECT 1 AS n, energy FROM label"), io.StringIO())
    with pytest.raises(LedgerError, match="no frame 4711"):
        write_extxyz(reader, Result(("frame_id",), ((4711,),)), io.StringIO())
