"""Alembic migrations of the ledger; each has its SQL beside it, with the columns' meanings."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from alembic import op

VERSIONS = Path(__file__).parent / "versions"


def execute(script: str) -> None:
    """Run every statement of a file in ``versions/`` within the migration's transaction."""
    for statement in statements((VERSIONS / script).read_text(encoding="utf-8")):
        op.get_bind().exec_driver_sql(statement)


def statements(script: str) -> Iterator[str]:
    """Split an SQL script; triggers, whose bodies hold semicolons, stay whole."""
    statement = ""
    for line in script.splitlines(keepends=True):
        if not statement and (not line.strip() or line.startswith("--")):
            continue
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement.strip()
            statement = ""
    if statement.strip():
        raise ValueError(f"the last statement of the script has no end: {statement.strip()[:60]}")
