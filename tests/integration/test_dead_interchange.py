"""Parsl's interchange dies at moments for which Parsl is not made: nobody waits for it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from alloop.errors import SiteError
from alloop.executors.local import REVIVALS, LocalExecutor
from alloop.executors.processes import of_campaign

pytestmark = pytest.mark.timeout(300)

BEFORE_S = 0.2
"""Parsl has told it what it needs by then; it has not answered yet: its imports take a second."""
PARSL_WAITS_S = 120.0
"""For an interchange that does not answer when it starts."""


@contextmanager
def killing_interchanges(directory: Path, n: int) -> Iterator[list[int]]:
    """Kill the first ``n`` interchanges of a campaign just after their start; yield whom."""
    killed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        while len(killed) < n and not over.wait(0.01):
            for process in of_campaign(directory):
                if is_interchange(process) and process.pid not in killed:
                    time.sleep(BEFORE_S)
                    process.kill()
                    killed.append(process.pid)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield killed
    finally:
        over.set()
        killer.join()


def is_interchange(process: psutil.Process) -> bool:
    try:
        return "alloop.executors.interchange" in process.cmdline()
    except psutil.Error:
        return False


def test_one_that_dies_while_it_starts_is_replaced(tmp_path):
    began = time.monotonic()
    with killing_interchanges(tmp_path, 1) as killed:
        executor = LocalExecutor(tmp_path, 1)
    try:
        assert len(killed) == 1
        assert time.monotonic() - began < PARSL_WAITS_S / 2
        executor.submit("nonsense", {}, "unheard of")
        outcomes = []
        while not outcomes:
            assert time.monotonic() - began < PARSL_WAITS_S
            outcomes = executor.wait(0.2)
        assert [(one.key, one.status) for one in outcomes] == [("unheard of", "failed")]
    finally:
        executor.close()


def test_when_all_die_while_they_start_that_is_said(tmp_path):
    began = time.monotonic()
    with (
        killing_interchanges(tmp_path, 100) as killed,
        pytest.raises(SiteError, match="its interchange died while it started"),
    ):
        LocalExecutor(tmp_path, 1)

    assert len(killed) == REVIVALS + 1
    assert time.monotonic() - began < PARSL_WAITS_S
    assert of_campaign(tmp_path) == []


DRIVER = """
    import sys
    import time
    from pathlib import Path

    from alloop.executors.local import LocalExecutor

    executor = LocalExecutor(Path(sys.argv[1]), 1)
    interchange = executor._pool._htex.interchange_proc
    interchange.kill()
    interchange.wait()
    executor.submit("nonsense", {}, "into nowhere")
    time.sleep(1.0)  # a thread of Parsl's has it, and waits for somebody to take it
    executor.close()
    print("closed", flush=True)
"""


def test_the_driver_ends_although_a_task_is_still_to_be_handed_over(tmp_path):
    """It would be there for ever, its exit code with it: nobody would start it again."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(DRIVER), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        text=True,
        timeout=100,
        check=True,
    )

    assert done.stdout == "closed\n"
    assert of_campaign(tmp_path) == []
