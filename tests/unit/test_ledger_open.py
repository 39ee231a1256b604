"""Opening, locking out, running full: what a ledger does when the world does not cooperate."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert, text
from sqlalchemy.exc import IntegrityError

from alloop.errors import LedgerBusyError, LedgerError
from alloop_db import filesystem, ledger, schema
from alloop_db.filesystem import Filesystem
from alloop_db.ledger import LEDGER, open_ledger, open_readonly
from tests.ledger_rows import instant
from tests.ledger_sample import write_sample

ROOT = Path(__file__).parents[2]
EVENT = {"at": instant(0), "kind": "start", "text": "x" * 400, "details": None}


def pragma(engine: Engine, name: str) -> object:
    with engine.connect() as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()


def n_events(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM event")).scalar_one())


def one_line(error: BaseException) -> str:
    message = str(error)
    assert "\n" not in message
    return message


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    return write_sample(tmp_path / "campaign")


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MB."""
    mount = tmp_path / "small disk"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(mount)], capture_output=True
    )
    if done.returncode != 0:
        pytest.skip(f"mounting is not permitted here: {done.stderr.decode().strip()}")
    yield mount
    subprocess.run(["umount", "--lazy", str(mount)], check=True)


def test_a_new_ledger_is_safe(tmp_path: Path) -> None:
    engine = open_ledger(tmp_path / "runs" / "new", create=True)
    assert pragma(engine, "journal_mode") == "wal"
    assert pragma(engine, "synchronous") == 2  # FULL: a commit survives a power cut
    assert pragma(engine, "foreign_keys") == 1
    with engine.connect() as connection:
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
    assert found == ledger.known_revisions()[-1]
    engine.dispose()


def test_opening_again_keeps_what_is_there(tmp_path: Path) -> None:
    for _ in range(2):
        engine = open_ledger(tmp_path, create=True)
        with engine.begin() as connection:
            connection.execute(insert(schema.Event), EVENT)
        engine.dispose()
    engine = open_ledger(tmp_path, create=False)
    assert n_events(engine) == 2
    engine.dispose()


@pytest.mark.parametrize("name", ["with space", "per%20cent", "question?mode=memory", "hash#", "é"])
def test_any_directory_name_will_do(tmp_path: Path, name: str) -> None:
    open_ledger(tmp_path / name, create=True).dispose()
    assert (tmp_path / name / LEDGER).is_file()
    reader = open_readonly(tmp_path / name)
    assert n_events(reader) == 0
    reader.dispose()


@pytest.mark.parametrize("opener", [open_readonly, lambda path: open_ledger(path, create=False)])
def test_an_absent_ledger_is_not_made(tmp_path: Path, opener: object) -> None:
    with pytest.raises(LedgerError, match=r"there is no ledger in .*alloop start"):
        opener(tmp_path)  # type: ignore[operator]
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_no_ledger_yet(tmp_path: Path) -> None:
    (tmp_path / LEDGER).touch()  # what a kill during the very first start leaves
    with pytest.raises(LedgerError, match="still empty"):
        open_readonly(tmp_path)
    engine = open_ledger(tmp_path, create=True)
    assert n_events(engine) == 0
    engine.dispose()


def test_reading_changes_nothing(campaign: Path) -> None:
    before = (campaign / LEDGER).read_bytes()
    reader = open_readonly(campaign)
    with pytest.raises(LedgerError, match="read-only"), reader.begin() as connection:
        connection.execute(insert(schema.Event), EVENT)
    with reader.connect() as connection:
        with pytest.raises(LedgerError, match="read-only"):
            connection.exec_driver_sql("CREATE TEMP TABLE mine (x)")
        connection.exec_driver_sql("PRAGMA query_only=OFF")
        with pytest.raises(LedgerError, match="read-only"):
            connection.execute(insert(schema.Event), EVENT)
    reader.dispose()
    assert (campaign / LEDGER).read_bytes() == before


def test_a_reader_sees_one_moment(tmp_path: Path) -> None:
    writer = open_ledger(tmp_path, create=True)
    reader = open_readonly(tmp_path)
    with reader.connect() as connection:
        count = text("SELECT count(*) FROM event")
        assert connection.execute(count).scalar_one() == 0
        with writer.begin() as change:
            change.execute(insert(schema.Event), EVENT)
        assert connection.execute(count).scalar_one() == 0
        connection.rollback()
        assert connection.execute(count).scalar_one() == 1
    reader.dispose()
    writer.dispose()


def test_two_writers_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "_WAIT_LOCAL_S", 0.1)
    one, other = open_ledger(tmp_path, create=True), open_ledger(tmp_path, create=True)
    with one.connect() as first, other.connect() as second:
        first.execute(text("SELECT 1"))  # reading is enough: the transaction begins IMMEDIATE
        with pytest.raises(LedgerBusyError, match="locked for too long"):
            second.execute(text("SELECT 1"))
        first.rollback()
        second.execute(insert(schema.Event), EVENT)
        second.commit()
    assert n_events(one) == 1
    one.dispose()
    other.dispose()


def test_tables_made_in_a_transaction_go_with_it(tmp_path: Path) -> None:
    engine = open_ledger(tmp_path, create=True)
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE passing (x)")
        connection.rollback()
        names = connection.execute(text("SELECT name FROM sqlite_master")).scalars().all()
    assert "passing" not in names
    engine.dispose()


def test_faults_of_the_data_stay_what_they_are(campaign: Path) -> None:
    engine = open_ledger(campaign, create=False)
    with pytest.raises(IntegrityError, match="FOREIGN KEY"), engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO snapshot_member VALUES (99, 99, 'train')")
    engine.dispose()


@pytest.mark.parametrize("opener", [open_readonly, lambda path: open_ledger(path, create=False)])
@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE alembic_version SET version_num = '9999'", "newer alloop .*9999.*upgrade alloop"),
        ("DELETE FROM alembic_version", "newer alloop"),
        ("DROP TABLE alembic_version", "not a ledger of alloop"),
    ],
)
def test_files_that_are_not_ours(
    campaign: Path, opener: object, statement: str, message: str
) -> None:
    with sqlite3.connect(campaign / LEDGER) as connection:
        connection.execute(statement)
    connection.close()
    with pytest.raises(LedgerError, match=message) as caught:
        opener(campaign)  # type: ignore[operator]
    one_line(caught.value)


@pytest.mark.parametrize("opener", [open_readonly, lambda path: open_ledger(path, create=False)])
def test_garbage_is_called_damage(tmp_path: Path, opener: object) -> None:
    (tmp_path / LEDGER).write_bytes(b"not a database " * 1000)
    with pytest.raises(LedgerError, match=r"damaged .*restore it from a backup") as caught:
        opener(tmp_path)  # type: ignore[operator]
    one_line(caught.value)


def test_a_torn_file_is_called_damage(campaign: Path) -> None:
    content = (campaign / LEDGER).read_bytes()
    (campaign / LEDGER).write_bytes(content[: len(content) // 2])
    with pytest.raises(LedgerError, match="damaged") as caught:
        open_ledger(campaign, create=True)
    one_line(caught.value)


def test_damage_in_the_middle_is_found(campaign: Path) -> None:
    content = bytearray((campaign / LEDGER).read_bytes())
    with sqlite3.connect(campaign / LEDGER) as connection:
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'event'"
        ).fetchone()
    connection.close()
    content[(page - 1) * 512 : page * 512] = os.urandom(512)
    (campaign / LEDGER).write_bytes(bytes(content))
    with pytest.raises(LedgerError, match=r"damaged .*restore"):
        open_ledger(campaign, create=False)  # a driver looks before it starts
    reader = open_readonly(campaign)
    with pytest.raises(LedgerError, match=r"damaged .*recover") as caught:
        n_events(reader)
    one_line(caught.value)
    reader.dispose()


def test_an_old_sqlite_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 26, 0))  # that of RHEL 8
    with pytest.raises(LedgerError, match=r"SQLite 3\.26\.0, want 3\.35\.0 or newer"):
        open_ledger(tmp_path, create=True)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match=r"cannot be created: Not a directory; choose") as caught:
        open_ledger(tmp_path / "file" / "campaign", create=True)
    one_line(caught.value)


@pytest.mark.parametrize("kind", ["tmpfs", "nfs"])
def test_a_read_only_disk(tmpfs: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem, "mounts", lambda: [Filesystem(str(tmpfs), kind)])
    open_ledger(write_sample(tmpfs), create=False).dispose()  # as a driver leaves it
    assert sorted(path.name for path in tmpfs.iterdir()) == [LEDGER]
    subprocess.run(["mount", "-o", "remount,ro", str(tmpfs)], check=True)
    for create in (True, False):
        with pytest.raises(LedgerError, match="read-only") as caught:
            open_ledger(tmpfs, create=create)
        one_line(caught.value)
    reader = open_readonly(tmpfs)
    assert n_events(reader) == 1
    reader.dispose()


def test_a_new_campaign_on_a_read_only_disk(tmpfs: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(tmpfs)], check=True)
    with pytest.raises(LedgerError, match="Read-only file system"):
        open_ledger(tmpfs / "campaign", create=True)
    with pytest.raises(LedgerError, match="read-only or not accessible"):
        open_ledger(tmpfs, create=True)


def test_a_full_disk_loses_nothing(tmpfs: Path) -> None:
    ballast = tmpfs / "ballast"
    ballast.write_bytes(b"x" * 2_000_000)
    engine = open_ledger(write_sample(tmpfs), create=False)
    committed, message = 1, ""
    while not message:
        try:
            with engine.begin() as connection:
                connection.execute(insert(schema.Event), [EVENT] * 20)
            committed += 20
        except LedgerError as error:
            message = one_line(error)
    assert "the disk is full; what was committed is safe" in message
    engine.dispose()
    ballast.unlink()
    engine = open_ledger(tmpfs, create=False)
    assert n_events(engine) == committed > 20
    assert pragma(engine, "integrity_check") == "ok"
    with engine.begin() as connection:
        connection.execute(insert(schema.Event), EVENT)
    engine.dispose()


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "db")])
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )


WRITER = """
    import os, resource, signal, sys
    from pathlib import Path
    from sqlalchemy import insert
    from alloop.errors import LedgerError
    from alloop_db import schema
    from alloop_db.ledger import open_ledger
    engine = open_ledger(Path(sys.argv[1]), create=False)
    event = {"at": "now", "kind": "start", "text": "x" * 400, "details": None}
"""


def test_a_file_size_limit_loses_nothing(campaign: Path) -> None:
    code = (
        WRITER
        + """
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
    committed = 1
    try:
        while True:
            with engine.begin() as connection:
                connection.execute(insert(schema.Event), [event] * 20)
            committed += 20
    except LedgerError as error:
        print(committed, error)
    """
    )
    done = run_python(code, str(campaign))
    committed, _, message = done.stdout.strip().partition(" ")
    assert "quota, file size limit" in message, done.stderr
    assert "\n" not in message
    engine = open_ledger(campaign, create=False)
    assert n_events(engine) == int(committed) > 20
    assert pragma(engine, "integrity_check") == "ok"
    engine.dispose()


def test_a_kill_in_a_transaction_takes_only_that(campaign: Path) -> None:
    code = (
        WRITER
        + """
    with engine.begin() as connection:
        connection.execute(insert(schema.Event), event)
    with engine.begin() as connection:
        connection.execute(insert(schema.Event), [event] * 5000)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    )
    assert run_python(code, str(campaign)).returncode == -signal.SIGKILL
    reader = open_readonly(campaign)
    assert n_events(reader) == 2
    reader.dispose()
    engine = open_ledger(campaign, create=False)
    assert n_events(engine) == 2
    assert pragma(engine, "integrity_check") == "ok"
    engine.dispose()
