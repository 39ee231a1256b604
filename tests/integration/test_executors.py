"""Real tasks through a real Parsl: what crosses the wire, who listens, what is left behind."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from alloop.executors import local
from alloop.executors.inprocess import InProcessExecutor
from alloop.executors.local import LocalExecutor
from alloop.executors.processes import of_campaign
from alloop.frames import Frame
from alloop_tasks.systems import system_record
from alloop_tasks.workspace import Workspace, read_json

pytestmark = pytest.mark.timeout(300)

WATER = Frame(
    np.array([8, 1, 1]),
    np.array([[0.0, 0.0, 0.1173], [0.0, 0.7572, -0.4692], [0.0, -0.7572, -0.4692]]),
)
TBLITE = {"engine": "tblite", "model": "GFN2-xTB", "options": {}}
HERE = Path(__file__).parent


def odd(**kwargs) -> dict:
    options = {"calculator": "odd_calculators:Odd", "kwargs": kwargs}
    return {"engine": "ase", "model": "odd", "options": options}


def label_spec(method: dict) -> dict:
    frame = {"frame_key": WATER.key, "positions": WATER.positions.tolist(), "attempt": 0}
    return {"method": method, "system": system_record("water", WATER), "frames": [frame]}


def wait_for(executor, keys, limit=200.0):
    """Return the outcomes of tasks by key, and how they ended."""
    outcomes = {}
    deadline = time.monotonic() + limit
    while keys - outcomes.keys():
        assert time.monotonic() < deadline, f"no outcome for {keys - outcomes.keys()}"
        assert executor.failure() is None
        outcomes |= {outcome.key: outcome for outcome in executor.wait(0.2)}
    return outcomes


def run(executor, key, method):
    executor.submit("label", label_spec(method), key)
    return wait_for(executor, {key})[key]


def wait_until(condition, limit=60.0):
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    # Parsl passes paths through shells and format strings: this one has all they trip over.
    return tmp_path_factory.mktemp("it's a {campaign} $HOME")


@pytest.fixture(scope="module")
def executor(directory):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(HERE)
        patch.setattr(local, "PATIENCE_S", 20.0)
        patch.setattr(local, "START_PATIENCE_S", 60.0)
        executor = LocalExecutor(directory, 2)
        try:
            yield executor
        finally:
            executor.close()


def test_the_worker_s_label_is_the_driver_s_own(executor, directory, tmp_path):
    outcome = run(executor, "healthy", TBLITE)
    here = InProcessExecutor(tmp_path)
    assert run(here, "healthy", TBLITE).status == outcome.status == "done"

    there = read_json(Workspace(directory, "healthy").result_path)
    own = read_json(Workspace(tmp_path, "healthy").result_path)
    (label,), (expected,) = there["result"]["labels"], own["result"]["labels"]
    assert label["energy"] == expected["energy"]
    assert label["forces"] == expected["forces"]
    assert there["environment"]["threads"] == 1


def test_foreign_trouble_stays_on_the_worker(executor, directory):
    """An exception with an unpicklable cause, an exit, a result that cannot be written."""
    (directory / "outbox" / "unwritable.json").mkdir(parents=True)
    executor.submit("label", label_spec(odd(mood="unmakeable")), "unmakeable")
    executor.submit("label", label_spec(odd(mood="exit")), "exit")
    executor.submit("label", label_spec(TBLITE), "unwritable")

    outcomes = wait_for(executor, {"unmakeable", "exit", "unwritable"})

    assert outcomes["unmakeable"].status == "failed"
    assert "could not be made" in outcomes["unmakeable"].reason
    assert "UnpicklableError" in read_json(Workspace(directory, "unmakeable").result_path)["trace"]
    assert outcomes["exit"].status == "failed"
    assert outcomes["unwritable"].status == "lost"
    assert "IsADirectoryError" in outcomes["unwritable"].reason
    assert "IsADirectoryError" in (directory / "parsl" / "driver.log").read_text()
    assert run(executor, "healthy after trouble", TBLITE).status == "done"


def test_everything_listens_on_the_loopback_interface_only(executor, directory):
    run(executor, "warm", odd())
    processes = [psutil.Process(), *of_campaign(directory)]
    listening = [
        connection
        for process in processes
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]

    assert len(processes) >= 5  # we, the interchange, the pool, two workers
    assert len(listening) >= 4  # three sockets of ours, one of the interchange
    addresses = {ipaddress.ip_address(connection.laddr.ip) for connection in listening}
    assert all((getattr(ip, "ipv4_mapped", None) or ip).is_loopback for ip in addresses)


def test_certificates_are_private(executor, directory):
    (certificates,) = (directory / "parsl").rglob("certificates")

    assert certificates.stat().st_mode & 0o077 == 0


def test_a_worker_killed_at_work_costs_its_task_only(executor, directory):
    killed, spared = Workspace(directory, "killed"), Workspace(directory, "spared")
    executor.submit("label", label_spec(odd(seconds=60.0)), killed.key)
    executor.submit("label", label_spec(odd(seconds=8.0)), spared.key)
    wait_until(lambda: killed.running_on and spared.running_on)
    assert psutil.Process(killed.running_on) in of_campaign(directory)

    os.kill(killed.running_on, signal.SIGKILL)

    outcomes = wait_for(executor, {killed.key, spared.key})
    assert outcomes[killed.key].status == "lost"
    assert outcomes[spared.key].status == "done"
    assert read_json(killed.result_path) is None
    assert run(executor, "after the kill", odd()).status == "done"


def test_a_task_that_crashes_its_worker_is_lost_and_nothing_else(executor):
    assert run(executor, "crash", odd(mood="crash")).status == "lost"
    assert run(executor, "after the crash", odd()).status == "done"


def workers(directory):
    pool = [p for p in of_campaign(directory) if "process_worker_pool" in " ".join(p.cmdline())]
    return [child for process in pool for child in process.children()]


def test_workers_killed_while_idle_are_replaced(executor, directory):
    """One of them holds the lock of the queue at which all wait, and takes it to the grave."""
    before = {"before 0", "before 1"}
    for key in before:
        executor.submit("label", label_spec(odd(seconds=3.0)), key)
    wait_for(executor, before)  # all workers have started
    for process in workers(directory):
        process.kill()

    outcomes = wait_for_without_loss(executor, {f"after {n}" for n in range(4)})

    assert {outcome.status for outcome in outcomes.values()} == {"done"}


def wait_for_without_loss(executor, keys):
    """Submit calm tasks; submit again what was lost, as the driver does."""
    waiting, outcomes = set(keys), {}
    for _ in range(5):
        for key in waiting:
            executor.submit("label", label_spec(odd()), key)
        outcomes |= wait_for(executor, waiting)
        waiting = {key for key in waiting if outcomes[key].status == "lost"}
        if not waiting:
            return outcomes
    raise AssertionError(f"lost again and again: {waiting}")


def test_a_killed_interchange_is_replaced_and_waiting_tasks_go_on(executor, directory):
    taken = [Workspace(directory, f"taken {n}") for n in range(2)]
    for workspace in taken:
        executor.submit("label", label_spec(odd(seconds=60.0)), workspace.key)
    executor.submit("label", label_spec(odd()), "waiting")
    wait_until(lambda: all(workspace.running_on for workspace in taken))

    interchange_of(directory).kill()

    outcomes = wait_for(executor, {"taken 0", "taken 1", "waiting"})
    statuses = {key: outcome.status for key, outcome in outcomes.items()}
    assert statuses == {"taken 0": "lost", "taken 1": "lost", "waiting": "done"}
    assert "interchange" in outcomes["taken 0"].reason


def test_parsl_writes_nowhere_else(executor, directory):
    assert {path.name for path in directory.iterdir()} <= {"artifacts", "outbox", "parsl"}
    assert not (Path.cwd() / "runinfo").exists()


@pytest.mark.parametrize("broken", [False, True])
def test_after_close_nothing_is_left(directory, executor, tmp_path, broken):
    own = LocalExecutor(tmp_path, 1)
    run_until_taken(own, tmp_path)
    alias = own._pool._alias
    assert alias.exists()
    if broken:
        interchange_of(tmp_path).kill()

    own.close()

    assert of_campaign(tmp_path) == []
    assert of_campaign(directory) != [], "another campaign's processes are not ours to end"
    assert not alias.exists()
    assert all(str(tmp_path) not in " ".join(command_of(p)) for p in psutil.process_iter())


def interchange_of(directory):
    (found,) = [p for p in of_campaign(directory) if "interchange" in " ".join(p.cmdline())]
    return found


def run_until_taken(executor, directory):
    workspace = Workspace(directory, "endless")
    executor.submit("label", label_spec(odd(seconds=600.0)), workspace.key)
    wait_until(lambda: executor.wait(0.1) == [] and workspace.running_on is not None)


def command_of(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


DRIVER = """
    import json, pathlib, sys
    from alloop.executors.local import LocalExecutor

    executor = LocalExecutor(pathlib.Path(sys.argv[1]), 2)
    for n in range(4):
        executor.submit("label", json.loads(sys.argv[2]), f"endless {n}")
    print("submitted", flush=True)
    while True:
        executor.wait(1.0)
"""


def test_a_killed_driver_takes_its_processes_along(tmp_path):
    spec = json.dumps(label_spec(odd(seconds=600.0)))
    path = os.pathsep.join([str(HERE), *filter(None, sys.path)])
    driver = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(DRIVER), str(tmp_path), spec],
        env=os.environ | {"PYTHONPATH": path},
    )
    try:
        wait_until(lambda: taken(tmp_path) == 2)
        assert len(of_campaign(tmp_path)) >= 4
        assert len(aliases_of(tmp_path)) == 1
    finally:
        driver.kill()
        driver.wait()

    wait_until(lambda: of_campaign(tmp_path) == [], limit=10.0)
    wait_until(lambda: aliases_of(tmp_path) == [])


def aliases_of(directory):
    folders = Path(tempfile.gettempdir()).glob("alloop-*/parsl")
    return [alias for alias in folders if alias.resolve() == directory / "parsl"]


def taken(directory):
    return sum(Workspace(directory, f"endless {n}").running_on is not None for n in range(4))


def test_hopeless_workers_are_given_up(tmp_path, monkeypatch):
    """An interpreter that cannot start workers: a few attempts, then one clear line."""
    monkeypatch.setattr(local, "START_PATIENCE_S", 0.5)
    monkeypatch.setattr(local, "REVIVALS", 1)
    monkeypatch.setattr("alloop.executors.pool.DEFAULT_LAUNCH_CMD", "no_such_module.py {debug}")
    executor = LocalExecutor(tmp_path, 1)
    try:
        executor.submit("label", label_spec(odd()), "never")
        outcomes = []
        wait_until(lambda: outcomes.extend(executor.wait(0.2)) or executor.failure())
    finally:
        executor.close()

    assert outcomes == [], "nobody had taken it: it is not lost, and waits for the next start"
    assert "2 times in a row" in executor.failure()
    assert of_campaign(tmp_path) == []
