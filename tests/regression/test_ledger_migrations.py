"""Old ledgers still open, keep every row, and end with the schema that the models describe.

``ledgers/NNNN.sqlite`` is a ledger as revision NNNN left it. A migration adds the next one, made
by ``python -m tests.ledger_sample`` of the release before it, and never touches the older ones.
"""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, inspect
from sqlalchemy.exc import IntegrityError

from alloop.errors import LedgerError
from alloop.report.status import status
from alloop_db import ledger
from alloop_db.ledger import LEDGER, known_revisions, open_ledger, open_readonly
from alloop_db.migrations import statements
from alloop_db.schema import Base

OLD = sorted((Path(__file__).parent / "ledgers").glob("*.sqlite"))
Rows = dict[str, list[dict[str, Any]]]

CHANGES = """
ALTER TABLE frame ADD COLUMN weight DOUBLE;

-- SQLite cannot loosen a constraint: the table is made anew, which drops its triggers too.
CREATE TABLE new_snapshot_member (
    snapshot_id INTEGER NOT NULL REFERENCES snapshot (snapshot_id),
    label_id INTEGER NOT NULL REFERENCES label (label_id),
    split VARCHAR NOT NULL,
    PRIMARY KEY (snapshot_id, label_id)
) WITHOUT ROWID;
INSERT INTO new_snapshot_member SELECT * FROM snapshot_member;
DROP TABLE snapshot_member;
ALTER TABLE new_snapshot_member RENAME TO snapshot_member;

CREATE TRIGGER snapshot_member_sealed_delete BEFORE DELETE ON snapshot_member
WHEN (SELECT sealed_at FROM snapshot WHERE snapshot_id = OLD.snapshot_id) IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'the snapshot is sealed: no label can be removed');
END;
"""
MIGRATION = """
from alloop_db.migrations import execute
revision, down_revision = "0006", "0005"
def upgrade():
    execute("0006_changes.sql")
"""


def rows_of(path: Path) -> Rows:
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    names = [
        name
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name != 'alembic_version'"
        )
    ]
    found = {
        name: [dict(row) for row in connection.execute(f"SELECT * FROM {name}")] for name in names
    }
    connection.close()
    return found


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Return a campaign directory with the oldest ledger."""
    shutil.copy(OLD[0], tmp_path / LEDGER)
    return tmp_path


@pytest.fixture
def next_migration(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Pretend that this alloop knows one more revision; return its SQL file."""
    folder = tmp_path_factory.mktemp("later") / "100% migrations"
    shutil.copytree(ledger.MIGRATIONS, folder)
    (folder / "versions" / "0006_next.py").write_text(MIGRATION)
    script = folder / "versions" / "0006_changes.sql"
    script.write_text(CHANGES)
    monkeypatch.setattr(ledger, "MIGRATIONS", folder)
    monkeypatch.setattr("alloop_db.migrations.VERSIONS", folder / "versions")
    return script


def test_there_is_an_old_ledger_of_each_revision() -> None:
    assert [path.stem for path in OLD] == known_revisions()


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.stem)
def test_old_ledgers_keep_every_row(path: Path, tmp_path: Path) -> None:
    shutil.copy(path, tmp_path / LEDGER)
    before = rows_of(path)
    assert all(before.values())  # a table without rows would prove nothing
    open_ledger(tmp_path, create=False).dispose()
    after = rows_of(tmp_path / LEDGER)
    for table, rows in before.items():
        kept = [{name: row[name] for name in rows[0]} for row in after[table]]
        assert kept == rows, table
    reader = open_readonly(tmp_path)
    with reader.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
        assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []
        version = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
    reader.dispose()
    assert version == known_revisions()[-1]


def described(engine: Engine) -> dict[str, Any]:
    """Return what alembic does not compare: CHECKs, WITHOUT ROWID, keys, conditions of indexes."""
    look = inspect(engine)
    with engine.connect() as connection:
        listed = connection.exec_driver_sql("PRAGMA table_list").mappings().all()
    content: dict[str, Any] = {}
    for table in Base.metadata.tables:
        checks = look.get_check_constraints(table)
        indexes = look.get_indexes(table)
        content[table] = {
            "without rowid": [row["wr"] for row in listed if row["name"] == table],
            "checks": sorted(
                (str(one["name"]), " ".join(one["sqltext"].split())) for one in checks
            ),
            "key": look.get_pk_constraint(table)["constrained_columns"],
            "indexes": sorted(
                (str(one["name"]), str(one.get("dialect_options", {}).get("sqlite_where")))
                for one in indexes
            ),
        }
    return content


def test_models_and_migrations_agree(tmp_path: Path) -> None:
    migrated = open_ledger(tmp_path, create=True)
    with migrated.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    from_models = create_engine("sqlite://")
    Base.metadata.create_all(from_models)
    assert described(migrated) == described(from_models)
    label, attempt, member = (
        described(migrated)[name] for name in ("label", "label_attempt", "snapshot_member")
    )
    assert len(label["checks"]) == 2
    assert ("uq_label_attempt_done", "status = 'done'") in attempt["indexes"]
    assert member["without rowid"] == [1]
    migrated.dispose()
    from_models.dispose()


def test_an_upgrade_keeps_rows_and_seals(old: Path, next_migration: Path) -> None:
    before = rows_of(old / LEDGER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "MIGRATIONS", next_migration.parents[1])
        engine = open_ledger(old, create=False)
    after = rows_of(old / LEDGER)
    assert after["snapshot_member"] == before["snapshot_member"]
    assert [{**row, "weight": None} for row in before["frame"]] == after["frame"]
    with pytest.raises(IntegrityError, match="sealed"), engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM snapshot_member")
    with pytest.raises(IntegrityError, match="FOREIGN KEY"), engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO snapshot_member VALUES (9, 9, 'train')")
    engine.dispose()


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        ("INSERT INTO no_such_table VALUES (1);\n", "no such table"),
        ("DELETE FROM system;\n", "the upgrade would lose 1[0-9] rows"),
    ],
)
def test_a_failed_upgrade_leaves_the_old_ledger(
    old: Path, next_migration: Path, ending: str, message: str
) -> None:
    before = rows_of(old / LEDGER)
    next_migration.write_text(CHANGES + ending)
    with pytest.raises(Exception, match=message):
        open_ledger(old, create=False)
    assert rows_of(old / LEDGER) == before
    connection = sqlite3.connect(old / LEDGER)
    (version,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    connection.close()
    assert version == "0001"


def test_an_older_alloop_refuses_a_newer_ledger(
    old: Path, next_migration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_ledger(old, create=False).dispose()
    monkeypatch.undo()
    for opener in (open_readonly, lambda path: open_ledger(path, create=False)):
        with pytest.raises(LedgerError, match=r"newer alloop \(schema 0006, .* up to 0005\)"):
            opener(old)


def test_there_is_no_way_back(old: Path) -> None:
    engine = open_ledger(old, create=False)
    before = rows_of(old / LEDGER)
    config = ledger.alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        with pytest.raises(NotImplementedError, match="cannot go back"):
            command.downgrade(config, "base")
    engine.dispose()
    assert rows_of(old / LEDGER) == before


def test_4d_models_of_before_the_gate_stay_in_use(old: Path) -> None:
    open_ledger(old, create=False).dispose()
    (model,) = rows_of(old / LEDGER)["spacetime_model"]
    assert model["status"] == "promoted"
    assert model["reason"] == "fitted before there was a gate"
    assert model["parent_spacetime_model_id"] is None


@pytest.mark.parametrize("table", ["spacetime_model", "spacetime_probe"])
def test_the_judgement_on_a_4d_model_cannot_be_rewritten(table: str, tmp_path: Path) -> None:
    shutil.copy(OLD[-1], tmp_path / LEDGER)
    engine = open_ledger(tmp_path, create=False)
    with pytest.raises(IntegrityError, match="cannot be changed"), engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {table} SET generation_id = 1")
    engine.dispose()


def test_scripts_are_split_at_statements() -> None:
    script = "-- head; with a semicolon\n\nCREATE TABLE a (\n  x -- one; two\n);\n" + CHANGES
    found = list(statements(script))
    assert [statement.split()[0] for statement in found] == [
        *("CREATE", "ALTER", "CREATE", "INSERT", "DROP", "ALTER", "CREATE")
    ]
    assert found[0] == "CREATE TABLE a (\n  x -- one; two\n);"
    assert found[-1].endswith("END;")
    with pytest.raises(ValueError, match="has no end: SELECT 1"):
        list(statements("SELECT 1\n"))


def test_status_of_a_ledger_before_probes_is_one_line(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parent / "ledgers" / "0001.sqlite", tmp_path / LEDGER)
    with pytest.raises(LedgerError, match="`alloop start` upgrades it"):
        status(open_readonly(tmp_path))
    open_ledger(tmp_path, create=False).dispose()
    assert "spacetime_models" in status(open_readonly(tmp_path))
