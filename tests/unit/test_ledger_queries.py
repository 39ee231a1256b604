"""Shipped queries answer what they say, and no query can write."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine

from alloop.errors import LedgerError
from alloop_db import queries
from alloop_db.arrays import blob_to_vectors
from alloop_db.functions import rmse
from alloop_db.ledger import LEDGER, open_ledger, open_readonly
from alloop_db.queries import Result, run
from tests.ledger_rows import STIFFER, WEIGHTS, digest
from tests.ledger_sample import fill, write_sample


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(tmp_path_factory.mktemp("campaign"))


@pytest.fixture(scope="module")
def reader(directory: Path) -> Iterator[Engine]:
    engine = open_readonly(directory)
    yield engine
    engine.dispose()


def column(result: Result, name: str) -> list[object]:
    place = result.columns.index(name)
    return [row[place] for row in result.rows]


def weights_hash(model: int) -> str:
    return hashlib.sha256(WEIGHTS[model - 1]).hexdigest()


@pytest.mark.parametrize("name", queries.names())
def test_each_shipped_query_runs_and_says_what_it_answers(reader: Engine, name: str) -> None:
    query = queries.describe(name)
    assert query.summary.endswith(".")
    needed = {"text": weights_hash(1), "integer": "9", "number": "1.0"}
    given = {one.name: needed[one.type] for one in query.parameters if one.default is None}
    result = run(reader, name, given)
    assert result.columns
    if name != "duplicates":  # the sample has none
        assert result.rows
    assert len(set(result.columns)) == len(result.columns)


def test_tasks_are_told_with_where_they_ran_and_what_they_used(tmp_path: Path) -> None:
    write_sample(tmp_path)
    with sqlite3.connect(tmp_path / LEDGER) as ledger:
        ledger.execute(
            "UPDATE task SET pool = 'cpu', job = '4711', peak_memory = 812.5, hand_backs = 1,"
            " finished_at = '2099-01-01' WHERE task_id = 2"
        )
    result = run(open_readonly(tmp_path), "tasks", {"limit": "3"})
    last = dict(zip(result.columns, result.rows[0], strict=True))
    wanted = {"pool": "cpu", "job": "4711", "host": "node1", "peak_memory": 812.5}
    assert wanted.items() <= last.items()
    assert last["task"] == digest("task", 2)[:12]
    assert last["queued_at"] <= last["started_at"] < last["ended_at"]
    assert column(result, "ended_at") == sorted(column(result, "ended_at"), reverse=True)
    assert len(result.rows) == 3


def test_the_learning_curve_goes_down(reader: Engine) -> None:
    result = run(reader, "learning_curve")
    assert column(result, "n_labels") == [4, 7]
    assert column(result, "audit_force_rmse") == [0.4, 0.2]
    assert column(result, "prospective_force_rmse") == pytest.approx([0.6, 0.3])
    assert column(result, "validation_force_rmse") == pytest.approx([0.28, 0.14])


def test_from_a_weight_file_to_every_label(reader: Engine) -> None:
    result = run(reader, "model_provenance", {"model": weights_hash(4)[:10]})
    own = [row for row in result.rows if row[result.columns.index("depth")] == 0]
    parent = [row for row in result.rows if row[result.columns.index("depth")] == 1]
    place = result.columns.index("label_id")
    assert [row[place] for row in own] == [1, 2, 3, 4, 5, 8, 9]
    assert [row[place] for row in parent] == [1, 2, 3, 4]  # of model 1, whose weights it took
    facts = [dict(zip(result.columns, row, strict=True)) for row in own]
    assert {fact["level_of_theory"] for fact in facts} == {"GFN2-xTB"}
    assert {fact["program"] for fact in facts} == {"tblite 0.8.0"}
    first, found = facts[0], facts[-1]
    assert (first["action"], first["trajectory_id"], first["asked_by_committee_id"]) == (
        "initial",
        None,
        None,
    )
    assert (found["action"], found["trajectory_id"], found["asked_by_committee_id"]) == (
        "selected",
        1,
        1,
    )
    assert found["trajectory_sha256"] == digest("shard")
    assert found["step"] == 90


def test_what_labels_cost(reader: Engine) -> None:
    (row,) = run(reader, "label_cost").rows
    # 9 labels at 0.5 s, one of them after one failure of 2 s, and one label given up after three.
    hours = pytest.approx(12.5 / 3600)
    assert row[4:] == (10, 9, 1, 0, 13, 12.5, 8.0, pytest.approx(12.5 / 9), hours)


def test_what_failed(reader: Engine) -> None:
    rows = {row[:3]: row[3:5] for row in run(reader, "failures").rows}
    assert rows == {
        ("label", "xtb", "scf_not_converged"): (4, 1),
        ("trajectory", "xtb", "contact"): (1, 0),
        ("task", None, "TaskError"): (1, 1),
    }


def test_the_worst_predictions_come_first(reader: Engine) -> None:
    result = run(reader, "worst_predictions", {"limit": "3"})
    errors = column(result, "force_rmse")
    assert errors == sorted(errors, reverse=True)  # type: ignore[type-var]
    assert len(errors) == 3
    (frame, *_) = column(result, "frame_id")
    ((forces,),) = run(reader, "SELECT forces FROM label WHERE frame_id = :f", {"f": frame}).rows
    expected = STIFFER * np.sqrt(np.mean(blob_to_vectors(forces) ** 2))
    assert errors[0] == pytest.approx(expected, rel=1e-12)


def test_only_labelled_predictions_have_errors(reader: Engine) -> None:
    result = run(reader, "spread_and_error")
    assert column(result, "frame_id") == [5, 7, 8, 9, 11]


def test_the_history_of_a_frame_is_in_order(reader: Engine) -> None:
    events = column(run(reader, "why_frame", {"frame": 9}), "event")
    assert events == ["found", "predicted", "decided", "failed", "labelled", "used"]


def test_the_latest_is_the_default(reader: Engine) -> None:
    assert set(column(run(reader, "training_set"), "snapshot_id")) == {2}
    assert len(run(reader, "training_set", {"snapshot": "1"}).rows) == 4
    assert column(run(reader, "audit_set"), "frame_id") == [7, 11]


def test_rmse_of_arrays() -> None:
    one, other = np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 5.0])
    assert rmse(one.tobytes(), other.tobytes()) == pytest.approx(2.0 / np.sqrt(3.0))
    assert rmse(one.tobytes(), None) is None
    assert rmse(one.tobytes(), other[:2].tobytes()) is None
    other[0] = np.nan  # never a small error
    assert rmse(one.tobytes(), other.tobytes()) == float("inf")


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM event",
        "INSERT INTO event VALUES (9, 'now', 'start', 'x', NULL)",
        "UPDATE task SET status = 'pending'",
        "DROP TABLE event",
        "CREATE TABLE mine (x)",
        "CREATE TEMP TABLE mine (x)",
        "PRAGMA query_only=OFF",
        "PRAGMA writable_schema=ON",
        "PRAGMA journal_mode=DELETE",
        "ATTACH DATABASE 'other.sqlite' AS other",
        "VACUUM INTO 'copy.sqlite'",
        "BEGIN IMMEDIATE",
        "SAVEPOINT here",
        "REINDEX event",
        "ANALYZE task",
        "WITH one AS (SELECT 1) DELETE FROM event",
        "UPDATE sqlite_master SET sql = ''",
    ],
)
def test_queries_cannot_write_even_with_a_writer_at_hand(
    tmp_path: Path, sql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    writer = open_ledger(write_sample(tmp_path / "campaign"), create=False)
    before = run(writer, "SELECT count(*), max(text) FROM event").rows
    with pytest.raises(LedgerError) as caught:
        run(writer, sql)
    assert "\n" not in str(caught.value)
    assert run(writer, "SELECT count(*), max(text) FROM event").rows == before
    assert [path.name for path in tmp_path.iterdir()] == ["campaign"]
    with writer.begin() as connection:  # and the connection is free again
        connection.exec_driver_sql("DELETE FROM event")
    writer.dispose()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION SELECT i + 1 FROM n WHERE i < 9) SELECT i FROM n",
        "EXPLAIN QUERY PLAN SELECT * FROM label",
        "PRAGMA table_info(label)",
        "PRAGMA integrity_check",
        "SELECT value FROM decision, json_each(decision.numbers)",
        "SELECT name FROM pragma_table_info('label')",
    ],
)
def test_everything_that_reads_is_allowed(reader: Engine, sql: str) -> None:
    assert run(reader, sql).rows


@pytest.mark.parametrize(
    ("sql", "given", "message"),
    [
        ("SELEC 1", {}, 'the SQL is wrong: near "SELEC"'),
        ("SELECT colour FROM label", {}, "no such column: colour; the query `tables`"),
        ("SELECT 1; SELECT 2", {}, "one statement at a time"),
        ("-- only a comment", {}, "returns no rows"),
        ("SELECT :a", {}, "binding parameter :a"),
        ("SELECT :a", {"a": 1, "b": 2}, "no parameter 'b'; it takes a"),
        ("learning_curv", {}, "did you mean learning_curve"),
        ("qqqq", {}, "there are audit_set, calibration"),
        ("why_frame", {}, "needs frame=...: frame_id"),
        ("why_frame", {"frame": "nine"}, "frame is 'nine', want integer"),
        ("why_frame", {"fram": 9}, "no parameter 'fram'; it takes frame"),
        ("label_cost", {"x": 9}, "takes no parameter"),
    ],
)
def test_mistakes_are_named_in_one_line(
    reader: Engine, sql: str, given: dict[str, object], message: str
) -> None:
    with pytest.raises(LedgerError) as caught:
        run(reader, sql, given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_query_while_the_campaign_runs(tmp_path: Path) -> None:
    writer = open_ledger(tmp_path, create=True)
    reader = open_readonly(tmp_path)
    assert run(reader, "learning_curve").rows == ()
    fill(writer)
    assert len(run(reader, "learning_curve").rows) == 2
    reader.dispose()
    writer.dispose()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM v_lineage WHERE model_sha256 = 'x'",
        "SELECT * FROM v_lineage WHERE label_id = 1",
        "SELECT * FROM v_frame_history WHERE frame_id = 1",
        queries.describe("model_provenance").sql.replace(":model", "'x'"),
        queries.describe("training_set").sql.replace(":snapshot", "1").replace(":tier", "NULL"),
        "SELECT label_id FROM label WHERE generation_id = 2 AND status = 'pending'",
        "SELECT task_id FROM task WHERE status = 'pending' ORDER BY priority LIMIT 9",
        "SELECT 1 FROM snapshot_member WHERE label_id = 1",
    ],
)
def test_big_tables_are_reached_by_index(directory: Path, sql: str) -> None:
    connection = sqlite3.connect(directory / LEDGER)
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")]
    connection.close()
    big = ("frame", "label", "label_attempt", "prediction", "decision", "snapshot_member", "task")
    scanned = [step for step in plan if step.startswith("SCAN") and step.split()[1] in big]
    assert scanned == []
