"""Shipped queries, and a way to run any SQL that reads and nothing that writes.

Each ``<name>.sql`` beside this file begins with a comment: what it answers, then one line
``-- :name type = default  meaning`` for each parameter (no default: it must be given).
"""

from __future__ import annotations

import difflib
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from alloop.errors import LedgerError
from alloop_db.faults import explain
from alloop_db.functions import register

FOLDER = Path(__file__).parent
_PARAMETER = re.compile(r"^-- :(\w+) (text|integer|number)(?: = (\S+))?  (.+)$")
_TYPES = {"text": str, "integer": int, "number": float}
_READS = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}
_PRAGMAS = {
    *("table_info", "table_xinfo", "table_list", "index_list", "index_info", "foreign_key_list"),
    *("foreign_key_check", "quick_check", "integrity_check"),
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a shipped query; ``default`` is text, None means that it must be given."""

    name: str
    type: str
    default: str | None
    meaning: str

    def convert(self, value: object) -> object:
        """Return a value as the parameter's type; raises LedgerError if it is none."""
        if value is None or value == "NULL":
            return None
        try:
            return _TYPES[self.type](value)
        except (TypeError, ValueError):
            raise LedgerError(
                f"parameter {self.name} is {value!r}, want {self.type} ({self.meaning})"
            ) from None


@dataclass(frozen=True, slots=True)
class Query:
    """A shipped query: what it answers, what it takes, its SQL."""

    name: str
    summary: str
    parameters: tuple[Parameter, ...]
    sql: str


@dataclass(frozen=True, slots=True)
class Result:
    """Rows that a query returned; blobs are bytes, missing values None."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@cache
def names() -> tuple[str, ...]:
    """Return the names of the shipped queries."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.sql")))


@cache
def describe(name: str) -> Query:
    """Return a shipped query; raises LedgerError, with the nearest names, if there is none."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names())}"
        raise LedgerError(f"there is no shipped query {name!r}; {hint}")
    sql = (FOLDER / f"{name}.sql").read_text(encoding="utf-8")
    summary, parameters = [], []
    for line in sql.splitlines():
        if not line.startswith("--"):
            break
        if match := _PARAMETER.match(line):
            parameters.append(Parameter(*match.groups()))
        else:
            summary.append(line.removeprefix("--").strip())
    return Query(name, " ".join(summary).strip(), tuple(parameters), sql)


def run(engine: Engine, sql_or_name: str, parameters: Mapping[str, object] | None = None) -> Result:
    """Run a shipped query by name, or SQL that only reads.

    Besides SQLite's own functions ``rmse(blob, blob)`` gives the error between float64 arrays.
    Raises LedgerError if the query is unknown, wrong, would write, or misses a parameter.
    """
    given = dict(parameters or {})
    if re.fullmatch(r"\s*[\w-]+\s*", sql_or_name):
        query = describe(sql_or_name.strip())
        sql, values = query.sql, _values(query, given)
    else:
        sql, values = sql_or_name, given
        _check_names(given, set(re.findall(r"[:@$](\w+)", sql)), "the SQL")
    pooled = engine.raw_connection()
    connection = pooled.driver_connection
    if not isinstance(connection, sqlite3.Connection):
        raise LedgerError(f"ledger queries need an SQLite connection, got {connection!r}")
    try:
        register(connection)
        connection.set_authorizer(_authorize)
        return _fetch(connection, sql, values)
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise _explain(error, engine) from error
    finally:
        connection.set_authorizer(None)
        pooled.close()


def _fetch(connection: sqlite3.Connection, sql: str, values: Mapping[str, object]) -> Result:
    cursor = connection.execute(sql, values)
    try:
        if cursor.description is None:
            raise LedgerError("the SQL returns no rows; a query begins with SELECT or WITH")
        columns = tuple(column[0] for column in cursor.description)
        return Result(columns, tuple(cursor.fetchall()))
    finally:
        cursor.close()


def _values(query: Query, given: Mapping[str, object]) -> dict[str, object]:
    _check_names(given, {parameter.name for parameter in query.parameters}, f"query {query.name}")
    values = {}
    for parameter in query.parameters:
        value = given.get(parameter.name, parameter.default)
        if value is None and parameter.name not in given:
            raise LedgerError(f"query {query.name} needs {parameter.name}=...: {parameter.meaning}")
        values[parameter.name] = parameter.convert(value)
    return values


def _check_names(given: Mapping[str, object], wanted: set[str], whose: str) -> None:
    for name in given:
        if name not in wanted:
            takes = ", ".join(sorted(wanted)) or "no parameter"
            raise LedgerError(f"{whose} has no parameter {name!r}; it takes {takes}")


def _authorize(action: int, first: str | None, *_: str | None) -> int:
    reads = (
        action in _READS
        or (action == sqlite3.SQLITE_PRAGMA and first in _PRAGMAS)
        # Asked when a table-valued function such as json_each is set up; SQL that really changes
        # sqlite_master is refused by SQLite itself.
        or (action == sqlite3.SQLITE_UPDATE and first == "sqlite_master")
    )
    return sqlite3.SQLITE_OK if reads else sqlite3.SQLITE_DENY


def _explain(error: Exception, engine: Engine) -> LedgerError:
    known = explain(error, Path(engine.url.database or ""))
    if known is not None:
        return known
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_AUTH:
        return LedgerError("queries may only read: SELECT, WITH, EXPLAIN or a PRAGMA about tables")
    return LedgerError(
        f"the SQL is wrong: {error}; the query `tables` lists every table, view and column"
    )
