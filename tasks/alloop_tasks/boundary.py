"""The one function that executors send: it makes whatever a task does safe for the wire.

Parsl unpickles results in its only result thread. One exception, one ``__cause__`` or one value
that fails to unpickle there leaves that task and every later one waiting for ever. So a task's
result goes into a file, an exception becomes text, and only a short plain dict travels.
"""

from __future__ import annotations

import importlib
import os
import platform
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alloop.errors import AlloopError, OutOfTime, TaskError
from alloop_tasks import deadlines, full_disk
from alloop_tasks.environment import environment
from alloop_tasks.usage import Usage
from alloop_tasks.workspace import Workspace, read_json, write_json

KINDS = (
    "prepare", "explore", "select", "promote", "label", "train", "transfer", "score", "evaluate",
    "fit_spacetime", "probe_spacetime",
)  # fmt: skip
RESUMED = ("label", "explore", "train", "transfer", "fit_spacetime")
"""Kinds that lay themselves down in time; the others are only begun where they can end."""
ON_THE_WIRE = ("key", "status", "seconds", "error_class", "error_text", "advanced", "wait")
JOBS = ("ALLOOP_JOB", "SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID")
"""Environment variables that name the job: alloop's own, in containers too; batch systems'."""
LONGEST_TEXT = 2_000
LONGEST_TRACE = 20_000


def run(
    kind: str, spec: dict[str, Any], directory: str, key: str, expected: float | None = None
) -> dict[str, Any]:
    """Run one task and leave its result in the outbox; safe to repeat.

    ``expected`` is how long its like took, or one label of it, s. Returns ``{"key", "status",
    "seconds"}``: "done"; "failed" with "error_class" and "error_text" when the task itself
    failed; "handed_back" with "error_text", "advanced" and "wait" when it was laid down because
    its block ends, in "wait" seconds; or "full" with "error_text" when a disk was. "host" and
    "block" say where. Raises TaskError when not even that could be written.
    """
    workspace = Workspace(Path(directory), key, expected=expected)
    try:
        finished = read_json(workspace.result_path)
        if finished is not None and finished["status"] == "done":
            return {"key": key, "status": "done", "seconds": finished["seconds"]} | _place()
        with _taken(workspace):
            envelope = _carry_out(kind, spec, workspace)
            if envelope["status"] in ("done", "failed"):
                _deliver(workspace, envelope)
    except OSError as error:
        if full_disk.caused(error):
            return {"key": key} | _full(error) | _place()
        text = f"{type(error).__name__}: {error}"
        raise TaskError(f"{kind} {key[:12]}", text, traceback.format_exc()) from None
    return {name: envelope[name] for name in ON_THE_WIRE if name in envelope} | _place()


def _place() -> dict[str, str]:
    """Return where this worker is; its block is what Parsl calls it."""
    return {"host": platform.node(), "block": os.environ.get("PARSL_WORKER_BLOCK_ID", "")}


@contextmanager
def _taken(workspace: Workspace) -> Iterator[None]:
    workspace.running_path.parent.mkdir(parents=True, exist_ok=True)
    workspace.running_path.write_text(str(os.getpid()))
    try:
        yield
    finally:
        workspace.progress_path.unlink(missing_ok=True)
        workspace.running_path.unlink(missing_ok=True)


def _carry_out(kind: str, spec: dict[str, Any], workspace: Workspace) -> dict[str, Any]:
    started_at, started, usage = _now(), time.perf_counter(), Usage.begin()
    outcome: dict[str, Any]
    try:
        if kind not in RESUMED:
            deadlines.require(workspace.expected, kind)
        outcome = {"status": "done", "result": _function(kind)(spec, workspace)}
    except OutOfTime as end:
        left = max(0.0, deadlines.seconds_left() + deadlines.RESERVE_S)
        outcome = {"status": "handed_back", "error_text": end.reason}
        outcome |= {"advanced": end.advanced, "wait": left}
    except (Exception, SystemExit) as error:
        outcome = _full(error) if full_disk.caused(error) else _failed(error)
    return outcome | {
        "key": workspace.key,
        "kind": kind,
        "started_at": started_at,
        "finished_at": _now(),
        "seconds": time.perf_counter() - started,
        "cpu_seconds": usage.cpu(),
        "peak_memory": usage.peak_memory(),
        "pool": os.environ.get("ALLOOP_POOL"),
        "job": next(filter(None, map(os.environ.get, JOBS)), None),
        "clock": _clock(),
        "environment": environment(),
        "artifacts": workspace.made,
    }


def _function(kind: str) -> Any:
    if kind not in KINDS:
        raise ValueError(f"there is no task of kind {kind!r}, want one of {', '.join(KINDS)}")
    module = importlib.import_module(f"alloop_tasks.{kind}")
    _one_thread()
    return module.run


def _deliver(workspace: Workspace, envelope: dict[str, Any]) -> None:
    try:
        write_json(workspace.result_path, envelope)
    except (TypeError, ValueError) as error:
        # NaN, or what JSON cannot hold: a fault of this task, not of the worker it ran on.
        envelope |= _failed(error)
        write_json(workspace.result_path, envelope)


def _failed(error: BaseException) -> dict[str, Any]:
    name = type(error).__name__
    text = str(error) if isinstance(error, AlloopError) else f"{name}: {error}"
    return {
        "status": "failed",
        "result": None,
        "error_class": name,
        "error_text": _storable(text)[:LONGEST_TEXT],
        "trace": _storable(traceback.format_exc())[-LONGEST_TRACE:],
    }


def _full(error: BaseException) -> dict[str, Any]:
    """Return what to tell of a full disk; whose it is, is for the driver to find out."""
    scratch = os.environ.get("TMPDIR", "/tmp")  # noqa: S108  where it is if nobody says
    words = " ".join(f"{type(error).__name__}: {error}".split())
    text = f"{words} (on {platform.node()}, whose scratch is {scratch})"
    return {"status": "full", "error_text": _storable(text)[:LONGEST_TEXT]}


def _storable(text: str) -> str:
    """Return text that any file and database takes: file names can hold half characters."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _clock() -> float:
    """Return the time by this node's clock, s since 1970."""
    return time.time()


def _now() -> str:
    return datetime.fromtimestamp(_clock(), UTC).isoformat(timespec="milliseconds")


def _one_thread() -> None:
    """One thread a task: a second one gains 1.3x when the machine is idle, loses 16x when not."""
    torch = sys.modules.get("torch")  # a task that does without it need not wait for its import
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    if torch is not None and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
