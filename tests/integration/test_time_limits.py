"""A label that takes too long is stopped in time, whatever it is busy with; nothing is left.

A limit that Parsl sets for a task interrupts neither compiled code nor a program.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from alloop.errors import LabelError, MethodError
from alloop.frames import Frame
from alloop.reference.method import MethodSpec, build_reference

pytestmark = pytest.mark.timeout(120)

HERE = Path(__file__).parent
WATER = Frame(
    np.array([8, 1, 1]),
    np.array([[0.0, 0.0, 0.1173], [0.0, 0.7572, -0.4692], [0.0, -0.7572, -0.4692]]),
)


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(HERE)


def reference(notes: Path, where: str, max_seconds: float):
    kwargs = {"notes": str(notes), "where": where}
    options = {"calculator": "endless_calculators:Endless", "kwargs": kwargs}
    spec = MethodSpec("ase", "endless", options | {"max_seconds": max_seconds})
    return build_reference(spec, WATER.numbers, 0, 1)


def noted(notes: Path) -> list[list[str]]:
    return [line.split() for line in notes.read_text().splitlines()] if notes.exists() else []


def check_nothing_is_left(notes: Path) -> None:
    until = time.monotonic() + 10
    while any(is_alive(int(pid)) for pid, _ in noted(notes)):
        assert time.monotonic() < until, "a process lives on"
        time.sleep(0.1)
    assert noted(notes)
    assert not [scratch for _, scratch in noted(notes) if Path(scratch).exists()]


def is_alive(pid: int) -> bool:
    """Return whether a process does anything; one that nobody has reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("where", ["compiled code", "a program"])
def test_it_is_stopped_in_time(tmp_path, where):
    made = reference(tmp_path / "notes", where, max_seconds=4.0)
    began = time.monotonic()

    with pytest.raises(
        LabelError, match=r"killed after 4 s, the most allowed \(max_time\)"
    ) as told:
        made.label(WATER)

    assert time.monotonic() - began < 15.0
    assert told.value.code == "timeout"
    assert len(noted(tmp_path / "notes")) == (2 if where == "a program" else 1)
    check_nothing_is_left(tmp_path / "notes")


def test_in_time_it_is_the_label_of_the_calculator(tmp_path):
    made = reference(tmp_path / "notes", "nowhere", max_seconds=60.0)

    label = made.label(WATER)

    assert (label.energy, label.forces.tolist()) == (-1.5, [[0.25] * 3] * 3)
    assert int(noted(tmp_path / "notes")[0][0]) != os.getpid()
    check_nothing_is_left(tmp_path / "notes")


def test_what_it_has_left_behind_is_ended(tmp_path):
    made = reference(tmp_path / "notes", "a program left behind", max_seconds=60.0)

    assert made.label(WATER).energy == -1.5

    check_nothing_is_left(tmp_path / "notes")


def test_its_error_is_told_in_its_own_words(tmp_path):
    made = reference(tmp_path / "notes", "an error", max_seconds=60.0)

    with pytest.raises(LabelError, match="SCF did not converge") as told:
        made.label(WATER)

    assert told.value.code == "scf_not_converged"


@pytest.mark.parametrize("limit", [0, -1.0, "1 h", True])
def test_a_limit_that_is_none_is_refused(tmp_path, limit):
    with pytest.raises(MethodError, match="option max_seconds of engine ase is"):
        reference(tmp_path / "notes", "nowhere", max_seconds=limit)


def test_a_worker_that_is_killed_takes_it_along(tmp_path):
    code = """
        import sys
        from pathlib import Path
        from tests.integration.test_time_limits import WATER, reference
        reference(Path(sys.argv[1]), "a program", 600.0).label(WATER)
    """
    path = os.pathsep.join([str(HERE), str(HERE.parents[1]), *filter(None, sys.path)])
    worker = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "notes")],
        env=os.environ | {"PYTHONPATH": path},
    )
    try:
        until = time.monotonic() + 60
        while len(noted(tmp_path / "notes")) < 2:
            assert time.monotonic() < until
            time.sleep(0.1)
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()

    check_nothing_is_left(tmp_path / "notes")
