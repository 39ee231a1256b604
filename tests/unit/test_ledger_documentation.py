"""The generated reference is complete and up to date."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from alloop_db.documentation import ledger_reference, schema_sql, targets
from alloop_db.ledger import LEDGER
from alloop_db.schema import Base
from tests.ledger_sample import write_sample

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", targets(ROOT), ids=lambda path: path.name)
def test_generated_files_are_up_to_date(path: Path) -> None:
    message = f"{path.name} is out of date: run `python -m alloop_db.documentation`"
    assert path.read_text(encoding="utf-8") == targets(ROOT)[path], message


def test_every_column_says_what_it_means() -> None:
    for table in Base.metadata.sorted_tables:
        for column in table.columns:
            assert column.comment, f"{table.name}.{column.name} has no comment"
            assert "|" not in column.comment  # it would break the tables of the reference


def test_every_column_of_every_view_is_documented(tmp_path: Path) -> None:
    connection = sqlite3.connect(write_sample(tmp_path) / LEDGER)
    views = [
        name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'view'")
    ]
    columns = {
        view: [row[1] for row in connection.execute(f"PRAGMA table_info({view})")] for view in views
    }
    connection.close()
    assert set(views) == {
        "v_lineage",
        "v_learning_curve",
        "v_label_cost",
        "v_frame_history",
        "v_failures",
    }
    sections = re.split(r"^##+ ", ledger_reference(), flags=re.MULTILINE)
    for view, expected in columns.items():
        (section,) = [part for part in sections if part.startswith(f"{view}\n")]
        assert re.findall(r"^\| `(\w+)` \| .* \| .+ \|$", section, re.MULTILINE) == expected


def test_units_are_told_apart() -> None:
    reference = ledger_reference()
    assert "| `temperature` | real | K |" in reference
    assert "| `force_rmse` | real, may be empty | eV/Å |" in reference
    assert "| `energy_rmse` | real | eV |" in reference
    assert "| `positions` | blob | Å |" in reference
    assert "| `n_atoms` | integer |  |" in reference


def test_the_schema_makes_a_ledger(tmp_path: Path) -> None:
    made = sqlite3.connect(":memory:")
    made.executescript(schema_sql())
    migrated = sqlite3.connect(write_sample(tmp_path) / LEDGER)
    everything = "SELECT type, name, sql FROM sqlite_master ORDER BY type, name"
    assert made.execute(everything).fetchall() == migrated.execute(everything).fetchall()
    made.close()
    migrated.close()


def test_meanings_stay_in_the_database(tmp_path: Path) -> None:
    connection = sqlite3.connect(write_sample(tmp_path) / LEDGER)
    ((sql,),) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'label'").fetchall()
    connection.close()
    assert "energy DOUBLE, -- reference energy, eV" in sql
