"""What a task is said to have used: its own process, and children that live on after it."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time

import pytest

from alloop_tasks import boundary, usage
from alloop_tasks.usage import Usage
from alloop_tasks.workspace import Workspace, read_json

WORKER = """
import sys, time
for line in sys.stdin:
    block = bytearray(int(float(line) * 1e6))
    for place in range(0, len(block), 4096):
        block[place] = 1
    begin = time.process_time()
    while time.process_time() < begin + 0.4:
        pass
    del block
    print("done", flush=True)
"""
PROCESS = """
import json, subprocess, sys
from alloop_tasks.usage import Usage

child = subprocess.Popen(
    [sys.executable, "-c", {worker!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
)

def work(process, megabytes):
    process.stdin.write(f"{{megabytes}}\\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\\n"

def fill(size):
    block = bytearray(size)
    block[::4096] = bytes(len(block[::4096]))
"""
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.fixture
def child():
    """A child that answers one job after the other, as PySCF's does."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.communicate()


def work(process, megabytes: float) -> None:
    process.stdin.write(f"{megabytes}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


def spin(seconds: float) -> None:
    begin = time.process_time()
    while time.process_time() < begin + seconds:
        pass


def test_own_time_counts_from_the_begin():
    spin(0.2)
    used = Usage.begin()

    spin(0.2)

    assert used.cpu() == pytest.approx(0.2, abs=0.1)


def grown(script: str) -> list[float]:
    """Return what a script tells: a process of many tests has memory to reuse, and a past."""
    program = PROCESS.format(worker=WORKER) + textwrap.dedent(script) + "\nprint(json.dumps(told))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@linux
def test_a_child_that_lives_on_counts_with_what_it_did_meanwhile(child):
    work(child, 1.0)
    used = Usage.begin()

    work(child, 1.0)

    assert used.cpu() == pytest.approx(0.4, abs=0.15)
    assert Usage.begin().cpu() < 0.1


@linux
def test_what_a_child_had_others_do_counts():
    """As a program's own script does, which runs one step after the other."""
    spin = "import time\nwhile time.process_time() < 0.4: pass"
    script = f"while read line; do '{sys.executable}' -c '{spin}'; echo done; done"
    with subprocess.Popen(
        ["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as shell:
        used = Usage.begin()
        work(shell, 1.0)
        assert used.cpu() > 0.35  # counted in hundredths
        shell.stdin.close()


def test_a_child_that_has_ended_counts():
    used = Usage.begin()

    subprocess.run([sys.executable, "-c", WORKER], input="1.0\n", text=True, check=True)

    assert used.cpu() >= 0.4


@linux
def test_a_child_that_ends_is_counted_once(child):
    work(child, 1.0)
    used = Usage.begin()
    work(child, 1.0)

    child.communicate()

    assert used.cpu() == pytest.approx(0.4, abs=0.15)


@linux
def test_the_peak_is_that_of_the_task_and_not_of_those_before_it():
    after_a_child, after_own = grown("""
        work(child, 300.0)
        fill(200_000_000)
        used = Usage.begin()
        before = used.peak_memory()
        work(child, 100.0)
        told = [used.peak_memory() - before]
        fill(50_000_000)
        told.append(used.peak_memory() - before)
    """)

    assert after_a_child == pytest.approx(100.0, abs=15.0)
    assert after_own == pytest.approx(150.0, abs=20.0)


def test_the_peak_of_a_child_that_has_ended_counts():
    (growth,) = grown("""
        used = Usage.begin()
        before = used.peak_memory()
        work(child, 400.0)
        child.communicate()
        told = [used.peak_memory() - before]
    """)

    assert growth > 390.0


def test_without_proc_there_is_the_peak_of_the_process_s_life(monkeypatch, tmp_path):
    monkeypatch.setattr(usage, "PROC", tmp_path)
    used = Usage.begin()
    spin(0.1)

    assert used.peak_memory() > 10.0
    assert used.cpu() == pytest.approx(0.1, abs=0.05)


@pytest.mark.parametrize("variable", boundary.JOBS)
def test_a_report_says_where_it_was_made_and_with_what(tmp_path, monkeypatch, variable):
    for name in boundary.JOBS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALLOOP_POOL", "cpu")
    monkeypatch.setenv(variable, "4711.server")

    boundary.run("nonsense", {}, str(tmp_path), "key")

    report = read_json(Workspace(tmp_path, "key").result_path)
    assert (report["pool"], report["job"]) == ("cpu", "4711.server")
    assert report["peak_memory"] > 10.0
