"""PySCF that fails: in its own words on record, and never with the worker."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from alloop.errors import LabelError
from alloop.frames import Frame
from alloop.reference.method import MethodSpec, build_reference
from alloop_tasks.label import run
from alloop_tasks.systems import system_record
from alloop_tasks.workspace import Workspace

pytest.importorskip("pyscf", reason="PySCF is not installed: pip install 'alloop[pyscf]'")
pytestmark = pytest.mark.timeout(300)

WATER = Frame(
    np.array([8, 1, 1]), np.array([[0.0, 0.0, 0.11], [0.0, 0.75, -0.47], [0.0, -0.75, -0.47]])
)
ROOT = Path(__file__).parents[2]


def pair(first, second, distance, charge=0, multiplicity=1):
    positions = np.array([[0.0, 0, 0], [0, 0, distance]])
    return Frame(np.array([first, second]), positions, charge, multiplicity)


def task(tmp_path, frame, attempt=0, others=(), short=0, **options):
    """Return the records of a label task."""
    items = [
        {"frame_key": one.key, "positions": one.positions.tolist(), "attempt": attempt}
        for one in (frame, *others)
    ]
    if short:
        items[0]["short_of_memory"] = short
    method = MethodSpec("pyscf", options=options).to_json()
    spec = {"method": method, "system": system_record("x", frame), "frames": items}
    (tmp_path / "outbox" / "t.parts").mkdir(parents=True, exist_ok=True)
    return json.loads(json.dumps(run(spec, Workspace(tmp_path, "t"))))["labels"]


def reference(frame, **options):
    spec = MethodSpec("pyscf", options=options)
    return build_reference(spec, frame.numbers, frame.charge, frame.multiplicity)


def child_of(made) -> psutil.Process:
    return psutil.Process(made.single_point.child.pid)


def scratch_of(child: psutil.Process) -> Path:
    return Path(child.environ()["PYSCF_TMPDIR"])


def wait_until(condition, limit=60.0):
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_a_label_is_recorded_with_its_diagnostics(tmp_path):
    stretched = Frame(WATER.numbers, WATER.positions * 1.1)
    options = {"theory": "CCSD", "basis": "STO-3G"}

    one, two = task(tmp_path, WATER, others=[stretched], **options)

    assert [one["status"], two["status"]] == ["done", "done"]
    assert (one["frame_key"], two["frame_key"]) == (WATER.key, stretched.key)
    assert one["energy"] == pytest.approx(-2040.5, abs=1.0)
    assert np.shape(one["forces"]) == (3, 3)
    assert one["diagnostics"]["n_basis"] == 7.0
    assert {"t1", "gap", "spin_squared", "scf_cycles", "stable"} <= set(one["diagnostics"])
    assert one["program"].startswith("PySCF 2.")


def test_a_label_without_forces_says_so(tmp_path):
    options = {"theory": "MP2", "basis": "STO-3G", "density_fit": True}
    made = reference(WATER, **options)

    (record,) = task(tmp_path, WATER, **options)

    assert record["status"] == "done"
    assert record["forces"] is None
    assert not made.gives_forces
    assert made.label(WATER).forces is None


def test_a_field_that_does_not_converge(tmp_path):
    # Singlet oxygen torn apart has no gap in PBE: the first two rungs oscillate.
    torn = pair(8, 8, 2.5)
    options = {"theory": "PBE", "basis": "STO-3G", "grid": 0, "forces": "none"}

    (first,) = task(tmp_path, torn, **options)
    (third,) = task(tmp_path / "again", torn, attempt=2, **options)

    assert (first["status"], first["error_class"]) == ("failed", "scf_not_converged")
    assert "SCF not converged after 60 cycles: last energies -14" in first["error_text"]
    assert first["retryable"]
    assert third["status"] == "done"


def test_amplitudes_that_do_not_converge(tmp_path):
    torn = pair(7, 7, 2.5)
    options = {"theory": "CCSD", "basis": "STO-3G", "forces": "none"}

    records = [task(tmp_path / str(n), torn, attempt=n, **options)[0] for n in (0, 2)]

    assert [record["error_class"] for record in records] == ["cc_not_converged"] * 2
    assert "CCSD did not converge in 60 cycles" in records[0]["error_text"]
    assert "CCSD did not converge in 300 cycles" in records[1]["error_text"]
    assert [record["retryable"] for record in records] == [True, False]


def test_a_field_of_another_spin_state(tmp_path):
    (record,) = task(tmp_path, pair(7, 8, 2.0, 0, 2), theory="HF", basis="6-31G")

    assert (record["status"], record["error_class"]) == ("failed", "wrong_spin")
    assert "above a pure state of multiplicity 2; the limit is 0.5" in record["error_text"]
    assert record["retryable"]


def test_more_memory_than_allowed_costs_one_frame(tmp_path):
    options = {"theory": "CCSD(T)", "basis": "cc-pVTZ", "forces": "none"}

    (record,) = task(tmp_path, WATER, memory=150, **options)

    assert (record["status"], record["error_class"]) == ("failed", "out_of_memory")
    assert "MB, 150 MB are allowed" in record["error_text"]
    assert record["retryable"]


def test_with_more_memory_the_same_label_is_made(tmp_path, monkeypatch):
    """Up to what its pool says that a worker has: 0.9 of 200 MB are not enough either."""
    options = {"theory": "CCSD(T)", "basis": "cc-pVTZ", "forces": "none"}
    (failed,) = task(tmp_path / "first", WATER, memory=150, **options)
    assert (failed["error_class"], failed["retryable"]) == ("out_of_memory", True)
    monkeypatch.setenv("ALLOOP_WORKER_MEMORY_MB", "200")
    (again,) = task(tmp_path / "poor", WATER, attempt=1, short=3, memory=150, **options)
    assert "MB, 180 MB are allowed" in again["error_text"]

    monkeypatch.setenv("ALLOOP_WORKER_MEMORY_MB", "4000")
    (done,) = task(tmp_path / "rich", WATER, attempt=1, short=2, memory=150, **options)

    assert done["status"] == "done", done
    assert done["energy"] == pytest.approx(-2077.1, abs=0.1)


def test_one_allocation_that_cannot_fit_is_refused_by_the_system():
    code = (
        "import numpy\n"
        "from alloop.reference.pyscf import child\n"
        "child.UNTOUCHED = 0\n"
        "child.limit_memory(300)\n"
        "numpy.ones(20_000_000)\n"
        "try: numpy.ones(60_000_000)\n"
        "except MemoryError as error: print('refused', error)\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("refused Unable to allocate"), done.stderr


def test_more_time_than_allowed_costs_one_frame():
    made = reference(WATER, theory="wB97X-V", basis="6-31G*", max_seconds=2.5)  # takes minutes
    started = time.monotonic()

    with pytest.raises(LabelError) as caught:
        made.label(WATER)

    assert time.monotonic() - started < 10.0
    assert caught.value.code == "timeout"
    assert "killed after 2.5 s, the most allowed (max_seconds)" in caught.value.reason
    assert made.single_point.child.pid is None


def test_a_child_that_is_killed_costs_one_frame_and_the_next_gets_another():
    made = reference(WATER, theory="HF", basis="STO-3G")
    before = made.label(WATER)
    first = child_of(made)
    made.label(WATER)
    assert child_of(made) == first, "it lives on between frames"

    first.send_signal(signal.SIGSTOP)  # busy, as far as the parent can tell
    killer = f"import os, time; time.sleep(1); os.kill({first.pid}, 9)"
    with (
        subprocess.Popen([sys.executable, "-c", killer]),
        pytest.raises(LabelError, match="killed by SIGKILL") as caught,
    ):
        made.label(WATER)

    assert caught.value.code == "out_of_memory"  # who else would kill it?
    assert made.label(WATER).energy == before.energy
    assert child_of(made) != first


def test_a_child_that_died_between_frames_is_not_even_noticed():
    made = reference(WATER, theory="HF", basis="STO-3G")
    before = made.label(WATER)
    child_of(made).kill()
    # Not psutil's word for it: the first thread is a zombie while others are still ending.
    wait_until(lambda: made.single_point.child.pid is None)

    assert made.label(WATER).energy == before.energy


def test_a_crash_is_told_in_the_systems_words():
    made = reference(WATER, theory="HF", basis="STO-3G")
    made.label(WATER)
    child = child_of(made)
    child.send_signal(signal.SIGSTOP)
    killer = f"import os, time; time.sleep(1); os.kill({child.pid}, 11); os.kill({child.pid}, 18)"

    with (
        subprocess.Popen([sys.executable, "-c", killer]),
        pytest.raises(LabelError, match="killed by SIGSEGV") as caught,
    ):
        made.label(WATER)

    assert caught.value.code == "engine_error"


def test_nothing_is_left_when_a_reference_is_no_longer_needed():
    made = reference(WATER, theory="HF", basis="STO-3G")
    made.label(WATER)
    child = child_of(made)
    scratch = scratch_of(child)
    assert scratch.is_dir()

    del made

    wait_until(lambda: not child.is_running(), 10.0)
    assert not scratch.exists()


PARENT = """
import numpy as np
from alloop.frames import Frame
from alloop.reference.method import MethodSpec, build_reference
water = Frame(np.array([8, 1, 1]), np.array([[0, 0, .11], [0, .75, -.47], [0, -.75, -.47]]))
spec = MethodSpec("pyscf", options={options})
made = build_reference(spec, water.numbers, 0, 1)
if {first}:
    made.label(water)
    print("ready", flush=True)
    import time; time.sleep(600)
made.label(water)
"""


def programs_of(parent):
    """Return the children that run PySCF; imports start others that end at once."""
    found = []
    for process in psutil.Process(parent).children():
        with contextlib.suppress(psutil.Error):
            if "alloop.reference.pyscf.child" in process.cmdline():
                found.append(process)
    return found


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_nothing_is_left_when_the_parent_is_killed(busy):
    slow = {"theory": "wB97X-V", "basis": "6-31G*"}
    options = slow if busy else {"theory": "HF", "basis": "STO-3G"}
    code = PARENT.format(options=options, first=not busy)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as parent:
        try:
            assert busy or parent.stdout.readline() == b"ready\n"
            wait_until(lambda: programs_of(parent.pid))
            (child,) = programs_of(parent.pid)
            wait_until(lambda: not busy or child.cpu_times().user > 2.0)
            scratch = scratch_of(child)
            assert scratch.is_dir()
            child.terminate()  # as a queue does to all processes of a job
            assert child.is_running()
        finally:
            parent.kill()

    wait_until(lambda: not child.is_running(), 15.0)
    wait_until(lambda: not scratch.exists(), 5.0)
