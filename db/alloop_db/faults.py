"""What SQLite's error codes mean for a person: one line, and what to do."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from alloop.errors import LedgerBusyError, LedgerError

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_INTERRUPTED = (sqlite3.SQLITE_READONLY_ROLLBACK, sqlite3.SQLITE_READONLY_RECOVERY)
_WORDS = {
    sqlite3.SQLITE_FULL: (
        "the disk is full; what was committed is safe, the last change was not kept:"
        " free some space and start again"
    ),
    sqlite3.SQLITE_READONLY: (
        "cannot be written: the file or its directory is read-only;"
        " make it writable or choose another campaign directory"
    ),
    sqlite3.SQLITE_IOERR: (
        "the disk refused to read or write; what was committed is safe:"
        " check quota, file size limit and the health of the disk, then start again"
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "cannot be opened: the directory is missing, read-only or not accessible;"
        " check its path and permissions"
    ),
    sqlite3.SQLITE_PROTOCOL: (
        "the filesystem does not lock files properly; move the campaign directory to another one"
    ),
}


def explain(error: BaseException | None, path: Path) -> LedgerError | None:
    """Return the LedgerError for a failure of disk, file or lock; None for any other error."""
    if not isinstance(error, sqlite3.Error):
        return None
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return None
    primary = code & 0xFF
    if primary in _DAMAGED:
        return LedgerError(_damage(path))
    if primary in _BUSY:
        return LedgerBusyError(
            f"ledger {path}: another program has held it locked for too long ({error});"
            " close whatever has the file open and start again"
        )
    if code in _INTERRUPTED:
        return LedgerError(
            f"ledger {path}: a killed driver left an unfinished change;"
            " `alloop start` takes it back, nothing is lost"
        )
    words = _WORDS.get(primary)
    return None if words is None else LedgerError(f"ledger {path}: {words} ({error})")


def damage(connection: sqlite3.Connection) -> str | None:
    """Return the first complaint of SQLite's own check (0.2 s per 100 MB), None if all is well."""
    try:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGED:
            raise
        return str(error)
    return None if verdict == "ok" else " ".join(str(verdict).split())


def _damage(path: Path) -> str:
    complaint = "it is not an SQLite database"
    with contextlib.suppress(sqlite3.Error):
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            complaint = damage(connection) or "a page could not be read"
        finally:
            connection.close()
    return damage_text(path, complaint)


def damage_text(path: Path, complaint: str) -> str:
    """Return what to tell a person whose ledger is damaged."""
    return (
        f"ledger {path} is damaged ({complaint}); restore it from a backup,"
        " or save what can be read with `sqlite3 ledger.sqlite .recover`"
    )
