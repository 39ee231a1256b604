"""Tasks on worker processes of this machine, and what to do when these die or stand still."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from alloop.errors import SiteError
from alloop.executors.pool import Pool
from alloop.executors.protocol import Condition, Outcome, Work
from alloop_tasks.workspace import Workspace

LOOK_EVERY_S = 1.0
PATIENCE_S = 30.0
"""How long workers may leave tasks lying before they count as stuck.

A worker that is killed while it waits for work keeps the lock of the queue that all others wait
at (they use multiprocessing.Queue): Parsl starts another one, and none ever gets a task again.
"""
START_PATIENCE_S = 120.0
"""The same for new workers, which first have to import much from a disk that may be slow."""
REVIVALS = 3
"""How many times in a row workers are replaced without any task having ended in between."""


@dataclass(frozen=True, slots=True)
class _Flight:
    """A task that the pool has been given; ``number`` tells one submission from the next."""

    number: int
    kind: str
    spec: dict[str, Any]


class LocalExecutor:
    """An executor on worker processes of one thread each, through Parsl.

    Parsl reports most workers that die. When it does not, or dies itself, all workers are
    replaced: tasks they had taken are lost, the others are handed to the new ones.
    """

    def __init__(self, directory: Path, workers: int) -> None:
        self.slots = workers
        self._directory = directory.resolve()
        self._ended: queue.Queue[tuple[int, Outcome]] = queue.Queue()
        self._flying: dict[str, _Flight] = {}
        self._submissions = 0
        self._revivals = 0
        self._failure: str | None = None
        self._looked = time.monotonic()
        self._standing_still, self._patience = 0.0, START_PATIENCE_S
        self._pool = self._new_pool()

    def submit(
        self,
        kind: str,
        spec: dict[str, Any],
        key: str,
        losses: int = 0,  # noqa: ARG002  all workers have the same memory
    ) -> None:
        """Take one task."""
        if self._failure is not None:
            return  # the driver has it in its books, and will ask why in a moment
        # A worker that was killed has left this behind; nobody has taken the task now.
        Workspace(self._directory, key).running_path.unlink(missing_ok=True)
        self._submissions += 1
        number = self._submissions
        self._flying[key] = _Flight(number, kind, spec)
        future = self._pool.submit(kind, spec, key)
        future.add_done_callback(
            lambda done: self._ended.put((number, Outcome.of_future(key, done)))
        )

    def room(self, work: Collection[Work]) -> dict[frozenset[Work], int]:
        """Return that all workers take any work: each has one task waiting behind its own."""
        return {frozenset(work): 2 * self.slots - len(self._flying)}

    def wait(self, timeout: float) -> list[Outcome]:
        """Return what has ended; wait up to ``timeout`` seconds for the first."""
        trouble = self._pool.trouble() or self._standstill()
        if trouble and self._failure is None:
            return self._revive(trouble)
        outcomes = list(self._collect(timeout))
        if outcomes:
            self._standing_still = 0.0
        if any(outcome.status != "lost" for outcome in outcomes):
            self._revivals = 0
            self._patience = PATIENCE_S  # what one worker has imported, the others soon have
        return outcomes

    def failure(self) -> str | None:
        """Return why the workers could not be brought back to life, or None."""
        return self._failure

    def conditions(self) -> dict[str, Condition]:
        """Return nothing: the workers of this machine are no pool."""
        return {}

    def close(self) -> None:
        """Stop everything; tasks in flight are dropped."""
        self._pool.close()

    def _collect(self, timeout: float) -> Iterator[Outcome]:
        with contextlib.suppress(queue.Empty):
            number, outcome = self._ended.get(timeout=timeout)
            while True:
                if self._counts(number, outcome):
                    del self._flying[outcome.key]
                    yield outcome
                number, outcome = self._ended.get_nowait()

    def _counts(self, number: int, outcome: Outcome) -> bool:
        """Return whether to believe an outcome.

        What a former pool says of a task that has been sent again means nothing, and a pool that
        dies calls everything lost.
        """
        flight = self._flying.get(outcome.key)
        if flight is None or flight.number != number:
            return False
        return outcome.status != "lost" or self._pool.trouble() is None

    def _standstill(self) -> str | None:
        """Return a complaint if tasks have been lying about for too long beside idle workers."""
        since = time.monotonic() - self._looked
        if since < LOOK_EVERY_S:
            return None
        self._looked = time.monotonic()
        running = sum(self._runs(key) for key in self._flying)
        if running >= self.slots:
            self._patience = PATIENCE_S  # all workers have started
        if running >= min(self.slots, len(self._flying)):
            self._standing_still = 0.0
            return None
        # A driver that was suspended has not been waiting all that time.
        self._standing_still += min(since, 2 * LOOK_EVERY_S)
        if self._standing_still <= self._patience:
            return None
        return f"the workers have taken no task for {self._standing_still:.0f} s"

    def _runs(self, key: str) -> bool:
        worker = Workspace(self._directory, key).running_on
        return worker is not None and psutil.pid_exists(worker)

    def _revive(self, trouble: str) -> list[Outcome]:
        """Replace all workers; return as lost what the old ones had taken."""
        self._revivals += 1
        former, self._flying = self._flying, {}
        taken = {key for key in former if Workspace(self._directory, key).running_path.exists()}
        self._pool.close()
        self._standing_still, self._patience = 0.0, START_PATIENCE_S
        if self._revivals > REVIVALS:
            self._failure = f"{trouble}, {self._revivals} times in a row"
        else:
            try:
                self._pool = self._new_pool()
            except SiteError as error:
                self._failure = str(error)
        for key in former.keys() - taken:
            self.submit(former[key].kind, former[key].spec, key)
        return [Outcome(key, "lost", trouble) for key in taken]

    def _new_pool(self) -> Pool:
        """Start workers; what ends processes does not spare those that start."""
        for _ in range(REVIVALS):
            with contextlib.suppress(SiteError):
                return Pool(self._directory, self.slots)
        return Pool(self._directory, self.slots)
