"""The ledger's reference, ``docs/ledger.md``, and its schema as SQL, ``db/schema.sql``.

``python -m alloop_db.documentation`` rewrites both from the models and the migrations; a test
fails while they are out of date.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.orm import Mapper
from sqlalchemy.pool import StaticPool

from alloop.errors import LedgerError
from alloop_db import queries
from alloop_db.ledger import upgrade
from alloop_db.schema import Base

_UNIT = re.compile(r"(?:^|, )(eV/Å|eV|Å|fs|K|s|e)(?=$|;)")
_TYPES = {"VARCHAR": "text", "FLOAT": "real", "DOUBLE": "real"}
_HEAD = """\
# The ledger: every table, view and shipped query

Written by `python -m alloop_db.documentation`; do not edit.

A campaign remembers everything in one SQLite file, `<campaign directory>/ledger.sqlite`. Any SQL
tool may read it while the campaign runs. Keys are integers named `<table>_id`. Energies are in
eV, lengths in Å, times of the simulation in fs, wall times in s, temperatures in K; instants are
UTC as ISO 8601; arrays are little-endian blobs in C order, float64 unless said otherwise:

```python
import sqlite3, numpy as np
ledger = sqlite3.connect("file:ledger.sqlite?mode=ro", uri=True)
(blob,) = ledger.execute("SELECT forces FROM label WHERE status = 'done'").fetchone()
forces = np.frombuffer(blob, "<f8").reshape(-1, 3)  # eV/Å
```

Names are stable: columns and tables are added, none is renamed. An older ledger is upgraded when
`alloop start` opens it; there is no way back, so copy the file first if you may need one.
"""
_RULES = """\
Triggers hold these rules against every program that writes to the file (`INSERT OR REPLACE`
escapes them unless the program sets `PRAGMA recursive_triggers`, as alloop does).
"""


def schema_sql() -> str:
    """Return the SQL that makes an empty ledger: what the migrations leave behind."""
    statements = [sql for kind in ("table", "index", "trigger", "view") for sql in _migrated(kind)]
    head = "-- Written by `python -m alloop_db.documentation` from the migrations; do not edit.\n"
    return head + "\n" + ";\n\n".join(statements) + ";\n"


def ledger_reference() -> str:
    """Return docs/ledger.md."""
    parts = [_HEAD, "## Tables\n"]
    parts += [_table(mapper) for mapper in _mappers()]
    parts += ["## Views\n", *(_view(sql) for sql in _migrated("view"))]
    parts += ["## What cannot be changed\n", _triggers()]
    parts += ["## Shipped queries\n", _queries()]
    return "\n".join(parts)


def main() -> None:
    """Rewrite docs/ledger.md and db/schema.sql of the checkout that this module lies in."""
    root = Path(__file__).parents[2]
    if not (root / "pyproject.toml").is_file():
        raise LedgerError(f"{root} is no checkout of alloop: there is nothing to rewrite")
    for path, text in targets(root).items():
        path.write_text(text, encoding="utf-8")


def targets(root: Path) -> dict[Path, str]:
    """Return what each generated file of a checkout should hold."""
    return {
        root / "docs" / "ledger.md": ledger_reference(),
        root / "db" / "schema.sql": schema_sql(),
    }


@cache
def _migrated(kind: str) -> tuple[str, ...]:
    """Return the statements of one kind that the migrations leave in an empty database."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    try:
        with engine.begin() as connection:
            # As where a file is upgraded: a view may name a table that is just being rebuilt.
            connection.exec_driver_sql("PRAGMA legacy_alter_table=ON")
            upgrade(connection)
            rows = connection.exec_driver_sql(
                "SELECT sql FROM sqlite_master WHERE type = ? AND sql IS NOT NULL ORDER BY rowid",
                (kind,),
            )
            return tuple(str(sql) for (sql,) in rows)
    finally:
        engine.dispose()


def _mappers() -> list[Mapper[Any]]:
    order = [table.name for table in Base.metadata.sorted_tables]
    return sorted(Base.registry.mappers, key=lambda mapper: order.index(str(mapper.local_table)))


def _table(mapper: Mapper[Any]) -> str:
    table = Base.metadata.tables[str(mapper.local_table)]
    lines = [f"### {table.name}\n", f"{(mapper.class_.__doc__ or '').strip()}\n"]
    lines += ["| column | type | unit | meaning |", "|---|---|---|---|"]
    for column in table.columns:
        kind = _TYPES.get(str(column.type), str(column.type).lower())
        kind += ", may be empty" if column.nullable else ""
        meaning = column.comment or ""
        lines.append(f"| `{column.name}` | {kind} | {_unit(meaning)} | {meaning} |")
    return "\n".join([*lines, ""])


def _view(sql: str) -> str:
    """Document a view from the comments in its own definition."""
    lines = [f"### {sql.split()[2]}\n", f"{re.findall('^-- (.+)$', sql, re.MULTILINE)[0]}\n"]
    lines += ["| column | unit | meaning |", "|---|---|---|"]
    for name, meaning in re.findall(r"\bAS (\w+),? -- (.+)$", sql, re.MULTILINE):
        lines.append(f"| `{name}` | {_unit(meaning)} | {meaning} |")
    return "\n".join([*lines, ""])


def _unit(meaning: str) -> str:
    match = _UNIT.search(meaning)
    return match.group(1) if match else ""


def _triggers() -> str:
    lines = [_RULES]
    for sql in _migrated("trigger"):
        name = sql.split()[2]
        message = re.search(r"RAISE\(ABORT, '(.+)'\)", sql)
        if message:
            lines.append(f"- `{name}`: {message.group(1)}")
    return "\n".join([*lines, ""])


def _queries() -> str:
    lines = [
        "`alloop query NAME [parameter=value ...]` runs one; files in `db/alloop_db/queries/`.\n"
    ]
    for name in queries.names():
        query = queries.describe(name)
        takes = "; ".join(
            f"`{one.name}` ({one.type}{'' if one.default is None else f', default {one.default}'})"
            f": {one.meaning}"
            for one in query.parameters
        )
        lines.append(f"- `{name}`: {query.summary}" + (f" Takes {takes}." if takes else ""))
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
