"""A cluster without machines: workers on a virtual clock, which break at stated rates.

It is an executor like any other: the real driver, planner and ledger see tasks end, fail and get
lost. Results come from :mod:`benchmarks.made_up`. Equal seeds give equal campaigns.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alloop.executors.protocol import Condition, Outcome, Work
from alloop_tasks.workspace import Workspace
from benchmarks.made_up import Result, envelope, result

Event = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Durations:
    """How long tasks take, s: the median of a log-normal distribution, and its width."""

    median: dict[str, float] = field(
        default_factory=lambda: {
            "prepare": 300.0,
            "explore": 120.0,
            "select": 30.0,
            "label": 60.0,
            "train": 300.0,
            "evaluate": 20.0,
        }
    )
    """For a label task, of each of its labels."""
    width: float = 0.4
    """Standard deviation of the logarithm."""


@dataclass(frozen=True, slots=True)
class Faults:
    """What breaks, and how often."""

    workers_per_hour: float = 0.0
    """How often a worker dies alone."""
    worker_down_s: float = 30.0
    blocks_per_hour: float = 0.0
    """How often a block of workers ends with all tasks on it."""
    block_down_s: float = 300.0
    """How long its successor waits in the queue."""
    notice_s: float = 60.0
    """How long nobody notices that a task is lost."""
    finished_unheard: float = 0.0
    """Share of lost tasks whose result was written before their worker died."""
    labels: float = 0.0
    """Share of tries at a label that fail."""
    tasks: float = 0.0
    """Share of label tasks that fail as a whole."""


FAULTY = Faults(
    workers_per_hour=0.2,
    blocks_per_hour=0.5,
    finished_unheard=0.1,
    labels=0.02,
    tasks=0.002,
)


@dataclass(frozen=True, slots=True)
class Charge:
    """What the driver's own work takes on the virtual clock, s."""

    task: float = 0.006
    label: float = 0.0005
    frame: float = 0.0005

    def of(self, made: Result) -> float:
        """Return the time that the driver needs to commit a result and to go on."""
        labels, frames = len(made.get("labels", ())), len(made.get("decisions", ()))
        return self.task + labels * self.label + frames * self.frame


@dataclass(slots=True)
class Tally:
    """What the workers have done, and what came of it."""

    useful_s: Counter[str] = field(default_factory=Counter)
    wasted_s: float = 0.0
    submitted: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    """Outcomes by status."""
    worker_losses: int = 0
    block_losses: int = 0
    unheard: int = 0
    """Results that lay finished when their task was sent again."""
    label_failures: int = 0
    most_in_flight: int = 0
    """Tasks that ran or waited for a worker at the same time."""
    made: Counter[str] = field(default_factory=Counter)
    """By frame, how often a label was made and handed to the driver."""


@dataclass(slots=True)
class _Task:
    kind: str
    spec: dict[str, Any]
    key: str
    began: float = 0.0


class VirtualCluster:
    """An executor of ``workers`` workers in blocks of ``block``."""

    def __init__(
        self,
        directory: Path,
        workers: int,
        *,
        durations: Durations | None = None,
        faults: Faults | None = None,
        charge: Charge | None = None,
        block: int = 50,
        seed: int = 1,
    ) -> None:
        self.slots = workers
        self.now = 0.0
        self.tally = Tally()
        self._directory = directory
        self._durations, self._faults = durations or Durations(), faults or Faults()
        self._charge, self._block = charge or Charge(), block
        self._rng = np.random.default_rng(seed)
        self._events: list[tuple[float, int, Event]] = []
        self._order = 0
        self._queue: deque[_Task] = deque()
        self._idle = deque(range(workers))
        self._running: dict[int, _Task] = {}
        self._down: set[int] = set()
        self._ended: list[Outcome] = []
        self._owed, self._quiet = 0.0, False
        (directory / "outbox").mkdir(parents=True, exist_ok=True)
        for worker in range(workers):
            self._break_later(worker)
        for first in range(0, workers, block):
            self._end_block_later(first)

    # -- as the driver sees it -------------------------------------------------------------------

    def submit(
        self,
        kind: str,
        spec: dict[str, Any],
        key: str,
        losses: int = 0,  # noqa: ARG002  all workers have the same memory
    ) -> None:
        """Take one task."""
        self.tally.submitted[kind] += 1
        self._queue.append(_Task(kind, spec, key))
        in_flight = len(self._queue) + len(self._running)
        self.tally.most_in_flight = max(self.tally.most_in_flight, in_flight)

    def room(self, work: Collection[Work]) -> dict[frozenset[Work], int]:
        """Return that all workers take any work: each has one task waiting behind its own."""
        answered = sum(self.tally.ended.values()) - len(self._ended)
        return {frozenset(work): 2 * self.slots - (sum(self.tally.submitted.values()) - answered)}

    def wait(self, timeout: float) -> list[Outcome]:
        """Let the driver's own time pass, then go on to the first task that ends.

        If that is later than ``timeout`` nothing has ended, as far as the driver is told; when it
        asks again the clock goes on to it at once.
        """
        until, self._owed = self.now + self._owed, 0.0
        self._start()
        while self._events and self._events[0][0] <= until:
            self._step()
        self.now = max(self.now, until)
        while self._events and not self._ended and self._awaited:
            if self._events[0][0] > self.now + timeout and not self._quiet:
                self._quiet = True
                return []
            self._step()
        self._quiet = False
        outcomes, self._ended = self._ended, []
        return outcomes

    def failure(self) -> str | None:
        """Return None: there is always another block."""
        return None

    def conditions(self) -> dict[str, Condition]:
        """Return nothing: its workers are all alike."""
        return {}

    def close(self) -> None:
        """Do nothing: there are no processes."""

    # -- the clock -------------------------------------------------------------------------------

    @property
    def _awaited(self) -> bool:
        """Whether the driver waits for an answer."""
        return sum(self.tally.submitted.values()) > sum(self.tally.ended.values())

    def _at(self, delay: float, event: Event) -> None:
        self._order += 1
        heapq.heappush(self._events, (self.now + delay, self._order, event))

    def _step(self) -> None:
        self.now, _, event = heapq.heappop(self._events)
        event()
        self._start()

    def _start(self) -> None:
        while self._queue and self._idle:
            worker, task = self._idle.popleft(), self._queue.popleft()
            task.began = self.now
            self._running[worker] = task
            self._at(self._seconds(task), lambda w=worker, t=task: self._end(w, t))

    def _seconds(self, task: _Task) -> float:
        if Workspace(self._directory, task.key).result_path.exists():
            return 0.1  # as boundary.run does: what is finished is not done again
        n = len(task.spec["frames"]) if task.kind == "label" else 1
        draws = self._rng.lognormal(0.0, self._durations.width, n)
        return float(self._durations.median[task.kind] * draws.sum())

    # -- tasks -----------------------------------------------------------------------------------

    def _end(self, worker: int, task: _Task) -> None:
        if self._running.get(worker) is not task:
            return  # the worker had died before
        del self._running[worker]
        self._idle.append(worker)
        seconds = self.now - task.began
        made = self._finished(task) or self._work(task, seconds)
        self.tally.useful_s[task.kind] += seconds
        for record in (made["result"] or {}).get("labels", ()):
            self.tally.made[record["frame_key"]] += record["status"] == "done"
            self.tally.label_failures += record["status"] != "done"
        self._owed += self._charge.of(made["result"] or {})
        self._tell(Outcome(task.key, made["status"], made.get("error_text", "")))

    def _finished(self, task: _Task) -> Result | None:
        path = Workspace(self._directory, task.key).result_path
        if not path.exists():
            return None
        self.tally.unheard += 1
        found: Result = json.loads(path.read_text())
        return found

    def _work(self, task: _Task, seconds: float) -> Result:
        """Leave a result in the outbox, as a worker does; no sync, which is not the driver's."""
        workspace = Workspace(self._directory, task.key)
        failed = task.kind == "label" and self._rng.random() < self._faults.tasks
        found = None
        if not failed:
            failing = self._faults.labels
            found = result(
                task.kind, task.spec, workspace, self._rng, seconds=seconds, failing=failing
            )
        made = envelope(task.kind, workspace, found, began=task.began, seconds=seconds)
        workspace.result_path.write_text(json.dumps(made, allow_nan=False))
        return made

    def _tell(self, outcome: Outcome) -> None:
        self.tally.ended[outcome.status] += 1
        self._ended.append(outcome)

    # -- faults ----------------------------------------------------------------------------------

    def _break_later(self, worker: int) -> None:
        if self._faults.workers_per_hour:
            life = self._rng.exponential(3600.0 / self._faults.workers_per_hour)
            self._at(life, lambda: self._break(worker))

    def _break(self, worker: int) -> None:
        if worker not in self._down:
            self.tally.worker_losses += 1
            self._lose([worker], self._faults.worker_down_s, "its worker died")
        self._break_later(worker)

    def _end_block_later(self, first: int) -> None:
        if self._faults.blocks_per_hour:
            life = self._rng.exponential(3600.0 / self._faults.blocks_per_hour)
            self._at(life, lambda: self._end_block(first))

    def _end_block(self, first: int) -> None:
        self.tally.block_losses += 1
        up = [w for w in range(first, min(first + self._block, self.slots)) if w not in self._down]
        self._lose(up, self._faults.block_down_s, "its block ended")
        self._end_block_later(first)

    def _lose(self, workers: list[int], down_s: float, reason: str) -> None:
        gone = set(workers)
        self._down |= gone
        self._idle = deque(worker for worker in self._idle if worker not in gone)
        self._at(down_s, lambda: self._come_back(workers))
        for task in [self._running.pop(worker) for worker in workers if worker in self._running]:
            self.tally.wasted_s += self.now - task.began
            if self._rng.random() < self._faults.finished_unheard:
                self._work(task, self.now - task.began)
            outcome = Outcome(task.key, "lost", reason)
            self._at(self._faults.notice_s, lambda o=outcome: self._tell(o))

    def _come_back(self, workers: list[int]) -> None:
        self._down -= set(workers)
        self._idle.extend(workers)
