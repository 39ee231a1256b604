"""How much of the workers' time goes into other things than science.

    python benchmarks/executor_overhead.py [SITE ...] [--seconds 1 60] [--tasks 20] [--workers 1]

Labels whose calculator computes for a given time (it never sleeps), through the real executor, the
real boundary and real result files, in a pool on this machine or in any site of kind cluster. The
worker time is that of all workers from the first task's begin to the last one's end; the time until
the first task begins is given apart, since a queue may make it anything. What the ledger costs
is measured by driver_overhead.py.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase.calculators.calculator import Calculator

from alloop.executors.cluster.executor import ClusterExecutor
from alloop.executors.site import build_executor
from alloop.executors.sites.load import load_site
from alloop.frames import Frame
from alloop_tasks.systems import system_record
from alloop_tasks.workspace import Workspace, read_json

HERE = "kind: cluster\npools: {{here: {{type: local, workers: {workers}}}}}\n"
WATER = Frame(
    np.array([8, 1, 1]),
    np.array([[0.0, 0.0, 0.1173], [0.0, 0.7572, -0.4692], [0.0, -0.7572, -0.4692]]),
)


class Busy(Calculator):
    """Computes for ``seconds``, and gives zero."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def calculate(self, atoms: Any = None, properties: Any = None, changes: Any = None) -> None:
        """Keep a core busy."""
        super().calculate(atoms, properties, changes)
        ends = time.perf_counter() + self.seconds
        matrix = np.eye(64)
        while time.perf_counter() < ends:
            matrix = matrix @ matrix
        self.results = {"energy": 0.0, "forces": np.zeros((len(self.atoms), 3))}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sites", nargs="*", metavar="SITE", help="default: a pool here")
    parser.add_argument("--seconds", type=float, nargs="+", default=[1.0, 60.0])
    parser.add_argument("--tasks", type=int, default=20, help="for each worker, and each length")
    parser.add_argument("--workers", type=int, default=1, help="of the pool here")
    asked = parser.parse_args()
    print(f"load of this machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print("site                   task / s  tasks  workers  begin / s  not science  per task / ms")
    with tempfile.TemporaryDirectory(prefix="alloop-overhead-", dir=Path.cwd()) as folder:
        own = Path(folder) / "here.yaml"
        own.write_text(HERE.format(workers=asked.workers))
        for site in asked.sites or [str(own)]:
            _measure(site, Path(folder), asked.seconds, asked.tasks)


def _measure(site: str, folder: Path, lengths: list[float], tasks: int) -> None:
    directory = folder / f"run-{Path(site).stem}"
    directory.mkdir()
    began = time.time()
    executor = build_executor(load_site(site, Path.cwd()), directory)
    try:
        _run(executor, directory, 0.0, executor.slots)  # imports are paid once for each worker
        for seconds in lengths:
            spans = _run(executor, directory, seconds, tasks * executor.slots)
            worker_time = executor.slots * (max(end for _, end in spans) - min(spans)[0])
            science = seconds * len(spans)
            print(
                f"{Path(site).stem:22} {seconds:8.1f}  {len(spans):5d}  {executor.slots:7d}"
                f"  {min(spans)[0] - began:9.1f}  {1 - science / worker_time:10.2%}"
                f"  {1e3 * (worker_time - science) / len(spans):13.0f}",
                flush=True,
            )
            began = time.time()
    finally:
        executor.close()


def _run(
    executor: ClusterExecutor | Any, directory: Path, seconds: float, n: int
) -> list[tuple[float, float]]:
    """Run tasks as the driver does, twice as many in flight as run; return their spans."""
    keys = [f"busy-{seconds:g}-{number}" for number in range(n)]
    waiting, ended = iter(keys), 0
    for _, key in zip(range(2 * executor.slots), waiting, strict=False):
        executor.submit("label", _spec(seconds), key)
    while ended < n:
        if failure := executor.failure():
            raise SystemExit(failure)
        for outcome in executor.wait(0.2):
            if outcome.status != "done":
                raise SystemExit(f"{outcome.key}: {outcome.status}: {outcome.reason}")
            ended += 1
            if (key := next(waiting, None)) is not None:
                executor.submit("label", _spec(seconds), key)
    return [_span(read_json(Workspace(directory, key).result_path)) for key in keys]


def _span(envelope: dict[str, Any]) -> tuple[float, float]:
    begin = datetime.fromisoformat(envelope["started_at"]).timestamp()
    return begin, begin + envelope["seconds"]


def _spec(seconds: float) -> dict[str, Any]:
    options = {"calculator": "executor_overhead:Busy", "kwargs": {"seconds": seconds}}
    frame = {"frame_key": WATER.key, "positions": WATER.positions.tolist(), "attempt": 0}
    method = {"engine": "ase", "model": "busy", "options": options}
    return {"method": method, "system": system_record("water", WATER), "frames": [frame]}


if __name__ == "__main__":
    main()
