"""What is true stays written: the triggers and constraints of the schema, met head on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from alloop_db.ledger import open_ledger
from tests.ledger_sample import write_sample

DONE = "UPDATE label SET {} WHERE label_id = 1"
REPLACE_LABEL = (
    "INSERT OR REPLACE INTO label (label_id, frame_id, level_of_theory_id, generation_id, status,"
    " tries, energy, forces) VALUES (1, 1, 1, 1, 'done', 0, 0.0, x'00')"
)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = open_ledger(write_sample(tmp_path), create=False)
    yield opened
    opened.dispose()


def change(engine: Engine, statement: str, *values: object) -> int:
    with engine.begin() as connection:
        return connection.exec_driver_sql(statement, values).rowcount


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE snapshot SET n_labels = 99 WHERE snapshot_id = 1", "sealed"),
        ("UPDATE snapshot SET sealed_at = NULL WHERE snapshot_id = 1", "sealed"),
        ("DELETE FROM snapshot WHERE snapshot_id = 1", "sealed"),
        ("INSERT INTO snapshot_member VALUES (1, 8, 'train')", "sealed"),
        ("DELETE FROM snapshot_member WHERE snapshot_id = 1 AND label_id = 1", "sealed"),
        ("UPDATE snapshot_member SET split = 'validation' WHERE label_id = 1", "sealed"),
        ("INSERT OR REPLACE INTO snapshot_member VALUES (1, 1, 'validation')", "sealed"),
        (DONE.format("energy = 0.0"), "this label is done"),
        (DONE.format("forces = x'00'"), "this label is done"),
        (DONE.format("status = 'pending'"), "this label is done"),
        (DONE.format("frame_id = 6"), "this label is done"),
        ("DELETE FROM label WHERE label_id = 1", "this label is done"),
        (REPLACE_LABEL, "this label is done"),
        ("UPDATE frame SET positions = x'00' WHERE frame_id = 1", "frame cannot be changed"),
        ("UPDATE frame SET key = 'another' WHERE frame_id = 1", "frame cannot be changed"),
        ("UPDATE frame SET split = 'train' WHERE frame_id = 7", "frame cannot be changed"),
        ("UPDATE prediction SET force_bound = 9.0", "after it was made"),
        ("DELETE FROM prediction", "after it was made"),
        ("UPDATE decision SET action = 'selected'", "cannot be rewritten"),
        ("UPDATE trajectory SET split = 'train' WHERE trajectory_id = 2", "cannot be changed"),
        ("UPDATE trajectory SET committee_id = 2", "cannot be changed"),
        ("UPDATE model SET snapshot_id = 2 WHERE model_id = 1", "made from"),
        ("UPDATE model SET parent_model_id = NULL WHERE model_id = 4", "made from"),
    ],
)
def test_it_is_refused(engine: Engine, statement: str, message: str) -> None:
    with pytest.raises(IntegrityError, match=message):
        change(engine, statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE label SET status = 'pending' WHERE label_id = 12",  # it had failed: try again
        "UPDATE label SET task_id = NULL WHERE label_id = 1",
        "UPDATE trajectory SET n_stable = 10 WHERE trajectory_id = 1",
        "UPDATE model SET metrics = '{}' WHERE model_id = 1",
    ],
)
def test_work_goes_on(engine: Engine, statement: str) -> None:
    assert change(engine, statement) == 1


def test_a_snapshot_can_be_changed_until_it_is_sealed(engine: Engine) -> None:
    change(
        engine,
        "INSERT INTO snapshot (snapshot_id, sha256, level_of_theory_id, generation_id,"
        " artifact_id, n_labels) VALUES (3, 'x', 1, 2, 4, 1)",
    )
    assert change(engine, "INSERT INTO snapshot_member VALUES (3, 1, 'train')") == 1
    assert change(engine, "DELETE FROM snapshot_member WHERE snapshot_id = 3") == 1
    for label, split in ((7, "train"), (1, "audit"), (12, "train")):  # audited, audit, failed
        with pytest.raises(IntegrityError, match="only finished labels of frames outside"):
            change(engine, "INSERT INTO snapshot_member VALUES (3, ?, ?)", label, split)
    with pytest.raises(IntegrityError, match="sealed"):  # nor may a sealed label move out
        change(
            engine,
            "UPDATE snapshot_member SET snapshot_id = 3 WHERE snapshot_id = 1 AND label_id = 1",
        )
    assert change(engine, "UPDATE snapshot SET sealed_at = 'now' WHERE snapshot_id = 3") == 1
    with pytest.raises(IntegrityError, match="sealed"):
        change(engine, "INSERT INTO snapshot_member VALUES (3, 2, 'train')")


@pytest.mark.parametrize(("energy", "forces"), [(math.nan, b"0"), (None, b"0"), (None, None)])
def test_a_label_is_done_only_with_numbers(
    engine: Engine, energy: float | None, forces: bytes | None
) -> None:
    with pytest.raises(IntegrityError, match="ck_label_complete"):
        change(
            engine,
            "UPDATE label SET status = 'done', energy = ?, forces = ? WHERE label_id = 12",
            energy,
            forces,
        )


def test_a_label_comes_once(engine: Engine) -> None:
    with pytest.raises(IntegrityError, match=r"label_attempt\.label_id"):
        change(
            engine,
            "INSERT INTO label_attempt (label_id, level_of_theory_id, number, status, seconds,"
            " host, program, environment_id, task_id, attempted_at)"
            " VALUES (1, 1, 2, 'done', 1, 'h', 'p', 1, 2, 't')",
        )
    with pytest.raises(IntegrityError, match=r"label\.frame_id, label\.level_of"):
        change(
            engine,
            "INSERT INTO label (frame_id, level_of_theory_id, generation_id, status, tries)"
            " VALUES (1, 1, 2, 'pending', 0)",
        )


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE label SET status = 'almost' WHERE label_id = 12",
        "UPDATE task SET status = 'gone' WHERE task_id = 1",
        "INSERT INTO campaign SELECT 2, name, seed, created_at, alloop_version, state, exit_code,"
        " verdict, epoch, seconds FROM campaign",
    ],
)
def test_only_known_states(engine: Engine, statement: str) -> None:
    with pytest.raises(IntegrityError, match="CHECK constraint failed"):
        change(engine, statement)
