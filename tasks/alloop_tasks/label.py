"""Label frames with a reference method."""

from __future__ import annotations

import errno
import os
import time
from datetime import UTC, datetime
from typing import Any

import psutil

from alloop.errors import LabelError
from alloop.frames import Frame
from alloop.reference.failures import may_retry
from alloop.reference.method import MethodSpec, Reference, build_reference
from alloop_tasks import deadlines, full_disk
from alloop_tasks.systems import frame_of
from alloop_tasks.workspace import Workspace, read_json, write_json

WORKER_SHARE = 0.9
"""Share of a worker's memory that a label may have: the rest is for the worker itself."""


def run(spec: dict[str, Any], workspace: Workspace) -> dict[str, Any]:
    """Label the spec's frames one by one; a frame that fails costs that frame only.

    spec: ``tier``, ``method``, ``system``, ``frames`` [{frame_key, positions, attempt,
    short_of_memory: how many attempts failed by that, if any}].
    Returns ``labels``: one record a frame. Each is on disk as soon as it is known, so that a
    task that is killed and sent again goes on where it stopped. None is begun that would not end
    with its block, as far as can be told from those before it.
    """
    system = spec["system"]
    frames = [(item, frame_of(system, item["positions"])) for item in spec["frames"]]
    first = frames[0][1]
    method, times = MethodSpec.from_json(spec["method"]), 0
    reference = build_reference(method, first.numbers, first.charge, first.multiplicity)
    labels, longest, advanced = [], workspace.expected or 0.0, False
    for index, (item, frame) in enumerate(frames):
        path = workspace.parts / f"{item['frame_key']}.json"
        record = read_json(path)
        if record is None:
            deadlines.require(longest, f"a label of {reference.name}", advanced=advanced)
            if item.get("short_of_memory", 0) != times:
                times = item.get("short_of_memory", 0)
                more = method.with_more_memory(times, _memory())
                reference = build_reference(more, first.numbers, first.charge, first.multiplicity)
            record = _label(reference, frame, item["frame_key"], item["attempt"])
            write_json(path, record)
            advanced = True
        longest = max(longest, record["seconds"])
        labels.append(record)
        workspace.progress(index + 1, len(frames), reference.name)
    return {"labels": labels, "level_of_theory": reference.name}


def _memory() -> float:
    """Return how much memory a label may take at most, MB."""
    said = os.environ.get("ALLOOP_WORKER_MEMORY_MB")
    return WORKER_SHARE * float(said) if said else psutil.virtual_memory().total / 2e6


def _label(reference: Reference, frame: Frame, frame_key: str, attempt: int) -> dict[str, Any]:
    started = time.perf_counter()
    record: dict[str, Any] = {"frame_key": frame_key, "program": reference.program}
    try:
        label = reference.label(frame, attempt=attempt)
        forces = None if label.forces is None else label.forces.tolist()
        record |= {"status": "done", "energy": label.energy, "forces": forces}
        record["diagnostics"] = dict(label.diagnostics)
    except LabelError as error:
        if full_disk.tells_of(error.reason):
            raise OSError(errno.ENOSPC, error.reason) from error
        record |= {"status": "failed", "error_class": error.code, "error_text": error.reason}
        record["retryable"] = may_retry(error.code, attempt + 1)
    record["seconds"] = time.perf_counter() - started
    record["attempted_at"] = datetime.now(UTC).isoformat(timespec="milliseconds")
    return record
