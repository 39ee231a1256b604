"""One driver for each campaign, shown with real processes that are really killed."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from alloop.errors import LedgerBusyError, LedgerError
from alloop_db import filesystem, lock
from alloop_db.filesystem import Filesystem
from alloop_db.lock import CampaignLock, holder

ROOT = Path(__file__).parents[2]
HOLD = """
    import os, sys, time
    from pathlib import Path
    from alloop_db.lock import CampaignLock
    with CampaignLock(Path(sys.argv[1])) as lock:
        lock.announce(7)
        if len(sys.argv) > 2 and os.fork() == 0:
            os.write(1, f"{os.getpid()}\\n".encode())  # in one piece: two processes write
        else:
            os.write(1, b"held\\n")
        time.sleep(60)
"""


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start another process that holds the campaign in ``tmp_path``."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        paths = os.pathsep.join([str(ROOT), str(ROOT / "db")])
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(HOLD), str(tmp_path), *arguments],
            env=os.environ | {"PYTHONPATH": paths},
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pretend that ``tmp_path`` lies on NFS, and do not wait long."""
    monkeypatch.setattr(filesystem, "mounts", lambda: [Filesystem(str(tmp_path), "nfs4")])
    monkeypatch.setattr(lock, "SETTLE_S", 0.01)
    monkeypatch.setattr(lock, "RENEW_EVERY_S", 0.02)
    return tmp_path


def beat_from_elsewhere(directory: Path, age: float) -> None:
    """Write the heartbeat of a driver on another host, ``age`` seconds ago."""
    owner = {
        "host": "login2",
        "pid": 4242,
        "boot": "another boot",
        "process_started": 0.0,
        "started_at": "2026-01-01T10:00:00.000+00:00",
        "epoch": 3,
        "token": "theirs",
    }
    beat = directory / "heartbeat"
    beat.write_text(json.dumps(owner))
    (directory / "lock").write_text(json.dumps(owner))
    os.utime(beat, (time.time() - age, time.time() - age))


def test_a_second_driver_is_told_who_is_first_and_a_kill_frees_the_campaign(
    tmp_path: Path, driver: Callable[..., subprocess.Popen[str]]
) -> None:
    process = driver()
    assert read_line(process) == "held"
    with pytest.raises(LedgerBusyError) as caught, CampaignLock(tmp_path):
        pass
    message = str(caught.value)
    assert f"process {process.pid} on host {socket.gethostname()} since 20" in message
    assert "stop that one first" in message
    assert "\n" not in message
    found = holder(tmp_path)
    assert found is not None
    assert (found.pid, found.host, found.epoch) == (process.pid, socket.gethostname(), 7)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert holder(tmp_path) is None
    with CampaignLock(tmp_path) as mine:
        assert mine.note is None
        found = holder(tmp_path)
        assert found is not None
        assert found.pid == os.getpid()


def test_a_forked_child_does_not_keep_the_campaign(
    tmp_path: Path, driver: Callable[..., subprocess.Popen[str]]
) -> None:
    process = driver("fork")
    words = {read_line(process), read_line(process)}
    (child,) = (int(word) for word in words if word != "held")
    try:
        process.kill()
        process.wait()
        os.kill(child, 0)  # it lives on
        with CampaignLock(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_leaving_frees_the_campaign(tmp_path: Path) -> None:
    for _ in range(2):
        with CampaignLock(tmp_path / "new" / "campaign") as held:
            held.check()
            assert holder(tmp_path / "new" / "campaign") is not None
        assert holder(tmp_path / "new" / "campaign") is None
    with pytest.raises(LedgerError, match="not locked"):
        held.announce(1)


def test_one_process_cannot_hold_it_twice(tmp_path: Path) -> None:
    with CampaignLock(tmp_path), pytest.raises(LedgerBusyError), CampaignLock(tmp_path):
        pass


def test_nobody_holds_what_is_not_there(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "lock").write_text('{"host": "half a fi')
    assert holder(tmp_path) is None


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match="Not a directory"), CampaignLock(tmp_path / "file" / "x"):
        pass


def test_a_pid_that_was_given_away_is_not_the_driver(tmp_path: Path) -> None:
    with CampaignLock(tmp_path):
        content = json.loads((tmp_path / "lock").read_text())
    content["process_started"] -= 3600.0
    (tmp_path / "lock").write_text(json.dumps(content))
    assert holder(tmp_path) is None


def test_a_fresh_heartbeat_elsewhere_is_respected(network: Path) -> None:
    beat_from_elsewhere(network, age=30.0)
    found = holder(network)
    assert found is not None
    assert found.host == "login2"
    with (
        pytest.raises(LedgerBusyError, match=r"process 4242 on host login2 .*in 9.* s"),
        CampaignLock(network),
    ):
        pass
    assert json.loads((network / "heartbeat").read_text())["token"] == "theirs"


def test_a_stale_heartbeat_is_taken_over_and_said_so(network: Path) -> None:
    beat_from_elsewhere(network, age=500.0)
    assert holder(network) is None
    with CampaignLock(network) as held:
        assert held.note is not None
        assert "took over from process 4242 on host login2" in held.note
        assert "500 s ago" in held.note
        held.check()
        first = (network / "heartbeat").stat().st_mtime_ns
        time.sleep(0.15)
        assert (network / "heartbeat").stat().st_mtime_ns > first  # it goes on beating
    assert not (network / "heartbeat").exists()
    assert [path.name for path in network.iterdir()] == ["lock"]


def test_a_driver_that_was_taken_over_learns_of_it(network: Path) -> None:
    with CampaignLock(network) as held:
        held.check()
        beat_from_elsewhere(network, age=0.0)
        time.sleep(0.15)
        with pytest.raises(LedgerBusyError, match="taken over by process 4242 on host login2"):
            held.check()
    assert json.loads((network / "heartbeat").read_text())["token"] == "theirs"


def test_of_two_hosts_that_write_at_once_one_yields(
    network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: beat_from_elsewhere(network, age=0.0))
    with pytest.raises(LedgerBusyError, match="login2"), CampaignLock(network):
        pass


def without_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)


def test_the_lease_alone_serves_where_the_network_has_no_locks(
    network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_flock(monkeypatch)
    with CampaignLock(network):
        with pytest.raises(LedgerBusyError, match=f"process {os.getpid()}"), CampaignLock(network):
            pass
        assert holder(network) is not None


def test_a_local_disk_without_locks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_flock(monkeypatch)
    with pytest.raises(LedgerError, match="cannot be locked"), CampaignLock(tmp_path):
        pass
