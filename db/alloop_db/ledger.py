"""Opening the ledger: for the one writer, or for reading.

``<campaign directory>/ledger.sqlite`` is plain SQLite. The writer begins each transaction with
``BEGIN IMMEDIATE`` and syncs it to the disk at its end; readers see the last committed state and
can change nothing. Failures of disk, file or lock come out of either engine as LedgerError.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

from alloop.errors import LedgerError
from alloop_db.faults import damage, damage_text, explain
from alloop_db.filesystem import filesystem_of

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy.engine import ExceptionContext

LEDGER = "ledger.sqlite"
MIGRATIONS = Path(__file__).parent / "migrations"
OLDEST_SQLITE = (3, 35, 0)
"""The first with RETURNING; Python uses that of the system, which old clusters keep for long."""
_WAIT_LOCAL_S = 30.0
_WAIT_NETWORK_S = 120.0
"""How long to wait for a lock: without a write-ahead log each reader stops the writer."""


def open_ledger(directory: Path, *, create: bool) -> Engine:
    """Open a campaign's ledger for its one writer and bring its schema up to date.

    With ``create`` an absent ledger (and directory) is made. Hold a
    :class:`alloop_db.lock.CampaignLock` while the engine is in use. Raises LedgerError if there is
    no ledger, it is damaged, of a newer alloop, or cannot be written.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise LedgerError(
            f"this Python comes with SQLite {'.'.join(map(str, sqlite3.sqlite_version_info))},"
            f" want {'.'.join(map(str, OLDEST_SQLITE))} or newer: use another Python"
        )
    path = directory / LEDGER
    if create:
        _make(directory)
    elif not path.is_file():
        raise LedgerError(f"there is no ledger in {directory}; `alloop start` makes one")
    network = filesystem_of(directory).network
    with _explained(path):
        before = _prepare(path, journal="DELETE" if network else "WAL")
    if before != known_revisions()[-1]:
        _upgrade_file(path)
    return _writer(path, _WAIT_NETWORK_S if network else _WAIT_LOCAL_S)


def open_readonly(directory: Path) -> Engine:
    """Open a campaign's ledger for reading; it is never made or changed.

    SQLite may leave its side files, ``-wal`` and ``-shm``, beside it. Raises LedgerError if there
    is no ledger, it is no ledger, or it is of a newer alloop. Damage elsewhere in the file is
    reported when it is met.
    """
    path = directory / LEDGER
    if not path.is_file():
        raise LedgerError(f"there is no ledger in {directory}; `alloop start` makes one")
    with _explained(path):
        connection = _connect_readonly(path)
        try:
            found = _revision(connection, path)
        finally:
            connection.close()
    if found is None:
        raise LedgerError(f"ledger {path} is still empty; `alloop start` fills it")
    return _engine(path, lambda: _connect_readonly(path), begin="BEGIN")


def open_current(directory: Path) -> Engine:
    """Open for reading a ledger whose schema is the newest; raise LedgerError if it is older."""
    engine = open_readonly(directory)
    if _schema(engine) != known_revisions()[-1]:
        raise LedgerError(
            f"ledger {directory / LEDGER} is of an older alloop: `alloop start` upgrades it"
        )
    return engine


@contextlib.contextmanager
def open_as_newest(directory: Path) -> Iterator[Engine]:
    """Open for reading; of an older ledger a temporary copy, whose schema is brought up to date.

    Raises LedgerError as :func:`open_readonly` does.
    """
    engine = open_readonly(directory)
    with contextlib.ExitStack() as stack:
        stack.callback(engine.dispose)
        if _schema(engine) != known_revisions()[-1]:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            source, copy = _connect_readonly(directory / LEDGER), sqlite3.connect(folder / LEDGER)
            with contextlib.closing(source), contextlib.closing(copy), _explained(folder / LEDGER):
                source.backup(copy)
            open_ledger(folder, create=False).dispose()
            engine = open_readonly(folder)
            stack.callback(engine.dispose)
        yield engine


def upgrade(connection: Connection) -> None:
    """Bring the schema of an open database to the newest revision, within its transaction."""
    from alembic import command

    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def alembic_config() -> Config:
    """Return Alembic's configuration; it works from a checkout and from an installed wheel."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def known_revisions() -> list[str]:
    """Return the schema revisions this alloop knows, oldest first."""
    return sorted(script.name.split("_")[0] for script in MIGRATIONS.glob("versions/[0-9]*.py"))


def _schema(engine: Engine) -> str:
    with engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT version_num FROM alembic_version")
        return str(found.scalar_one())


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LedgerError(
            f"campaign directory {directory} cannot be created: {error.strerror};"
            " choose another `campaign.directory`"
        ) from error


def _prepare(path: Path, journal: str) -> str | None:
    """Check the file, choose its journal and return its schema revision, None if it is new."""
    connection = _connect(path, "rwc", _WAIT_LOCAL_S)
    try:
        if complaint := damage(connection):
            raise LedgerError(damage_text(path, complaint))
        found = _revision(connection, path)
        (chosen,) = connection.execute(f"PRAGMA journal_mode={journal}").fetchone()
        if journal == "DELETE" and chosen != "delete":
            raise LedgerError(f"ledger {path}: SQLite keeps to journal mode {chosen}, want delete")
        # SQLite opens a read-only file without a word; a driver must learn of it now.
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("PRAGMA user_version=0")
        connection.execute("ROLLBACK")
        return found
    finally:
        connection.close()


def _revision(connection: sqlite3.Connection, path: Path) -> str | None:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if not tables:
        return None
    if "alembic_version" not in tables:
        raise LedgerError(f"{path} is an SQLite database, but not a ledger of alloop")
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    if row is None or row[0] not in known_revisions():
        raise LedgerError(
            f"ledger {path} was written by a newer alloop (schema {row and row[0]}, this one knows"
            f" up to {known_revisions()[-1]}); upgrade alloop"
        )
    return str(row[0])


def _upgrade_file(path: Path) -> None:
    """Upgrade in one transaction; a kill in the middle leaves the old schema."""
    # A table that is rebuilt is dropped first: neither the rows nor the views that refer to it
    # may object before its successor has taken its name.
    engine = _writer(path, _WAIT_LOCAL_S, "foreign_keys=OFF", "legacy_alter_table=ON")
    try:
        with engine.begin() as connection:
            upgrade(connection)
            broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
            if broken:
                raise LedgerError(f"ledger {path}: the upgrade would lose {len(broken)} rows")
    finally:
        engine.dispose()


def _writer(path: Path, wait_s: float, *pragmas: str) -> Engine:
    def connect() -> sqlite3.Connection:
        connection = _connect(path, "rw", wait_s)
        # Without recursive triggers INSERT OR REPLACE would delete sealed rows behind their back.
        for pragma in ("foreign_keys=ON", "synchronous=FULL", "recursive_triggers=ON", *pragmas):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    return _engine(path, connect, begin="BEGIN IMMEDIATE")


def _connect_readonly(path: Path) -> sqlite3.Connection:
    connection = _connect(path, "ro", _WAIT_LOCAL_S)
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        connection.close()
        at_rest = not path.with_name(f"{path.name}-wal").exists()
        if error.sqlite_errorcode != sqlite3.SQLITE_CANTOPEN or not at_rest:
            raise
        # On a read-only disk the log cannot be made; without one the file does not change.
        connection = _connect(path, "ro&immutable=1", _WAIT_LOCAL_S)
    connection.execute("PRAGMA query_only=ON")
    return connection


def _connect(path: Path, mode: str, wait_s: float) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=wait_s,
        isolation_level=None,  # the driver's own BEGIN would come too late and only for changes
        check_same_thread=False,
    )


def _engine(path: Path, connect: Callable[[], sqlite3.Connection], begin: str) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)), creator=connect, poolclass=QueuePool
    )

    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    def on_error(context: ExceptionContext) -> LedgerError | None:
        return explain(context.original_exception, path)

    event.listen(engine, "begin", on_begin)
    event.listen(engine, "handle_error", on_error, retval=True)
    return engine


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        known = explain(error, path)
        if known is None:
            raise
        raise known from error
