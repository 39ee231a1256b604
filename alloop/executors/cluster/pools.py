"""A pool over all its lives: tasks that wait for it, tasks it has, and what to do when it dies."""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from alloop.errors import SiteError
from alloop.executors.cluster.breaker import Breaker
from alloop.executors.cluster.life import Life, Trouble
from alloop.executors.protocol import Outcome
from alloop_tasks.workspace import Workspace

FLIGHT = 2
"""Tasks given to Parsl for each slot: the second one starts when the first has ended."""
LOSSES = 3
"""So many times its slots, and ten at least, may a pool lose tasks before it is broken off."""
LOOK_EVERY_S = 2.0
PATIENCE_S = 180.0
"""How long tasks may lie with managers without being begun.

A worker that is killed while it waits for work can take the lock of the queue with it at which
all others of its node wait; and a slow file system shows late that a task was begun.
"""

Ended = tuple[int, Outcome]


@dataclass(frozen=True, slots=True)
class Flight:
    """A task on its way."""

    kind: str
    spec: dict[str, Any]
    key: str


class ClusterPool:
    """One pool: takes tasks, gives outcomes, and is brought back to life when it dies."""

    def __init__(self, directory: Path, name: str, slots: int, begin: Callable[[], Life]) -> None:
        self.name, self.slots = name, slots
        self._directory, self._begin = directory, begin
        self.ended: queue.Queue[Ended] = queue.Queue()
        self._waiting: deque[Flight] = deque()
        self._flying: dict[str, tuple[int, Flight]] = {}
        self._handed_over = 0
        self._breaker = Breaker(max(10, LOSSES * slots))
        self._looked, self._standing_still = time.monotonic(), 0.0
        self._life: Life | None = begin()

    @property
    def busy(self) -> bool:
        """Whether anything can still come of this pool by itself."""
        return bool(self._flying or (self._waiting and self.broken is None))

    @property
    def broken(self) -> str | None:
        """Why the pool is broken off, or None."""
        return self._breaker.reason

    @property
    def stuck(self) -> str | None:
        """Why tasks wait here in vain; None if there are none, or if they do not."""
        return self._breaker.reason if self._waiting else None

    def take(self, flight: Flight) -> None:
        """Take one task."""
        self._waiting.append(flight)

    def give_back(self) -> list[Flight]:
        """Return the tasks that wait, and forget them."""
        waiting, self._waiting = list(self._waiting), deque()
        return waiting

    def tend(self) -> list[Outcome]:
        """Look after the pool, hand tasks over; return what was lost with a life that ended."""
        if self._life is None:
            if not self._breaker.may_try():
                return []
            self._live_again()
        lost = []
        if trouble := self._trouble():
            lost = self._die(trouble)
        self._hand_over()
        return lost

    def settle(self, number: int, outcome: Outcome) -> Outcome | None:
        """Return an outcome if it is to be believed.

        What a former life says of a task that was sent again means nothing, and a pool that dies
        calls everything lost.
        """
        if self._flying.get(outcome.key, (None,))[0] != number:
            return None
        if outcome.status == "lost" and self._life is not None and self._life.trouble():
            return None
        del self._flying[outcome.key]
        self._standing_still = 0.0
        if outcome.status != "lost":
            self._breaker.worked()
            return outcome
        self._breaker.lost(outcome.reason)
        return Outcome(outcome.key, "lost", f"pool {self.name}: {outcome.reason}")

    def condition(self) -> str:
        """Return how the pool is, in one line."""
        tasks = f"{len(self._flying)} tasks there, {len(self._waiting)} held"
        if self._life is None:
            return f"broken off: {self._breaker.reason}; {tasks}"
        view = self._life.view()
        blocks = f"{view.running} blocks running with {view.workers} workers, {view.waiting} queued"
        if view.failures:
            blocks += f", the last {view.failures} did not come up"
        return f"{blocks}; {tasks}"

    def close(self) -> None:
        """End everything; tasks are dropped."""
        if self._life is not None:
            self._life.close()
            self._life = None

    def _hand_over(self) -> None:
        if self._breaker.reason is not None and self._life is not None and not self._flying:
            self.close()
        while self._waiting and self._life is not None and self._breaker.reason is None:
            if len(self._flying) >= FLIGHT * self.slots:
                return
            flight = self._waiting.popleft()
            self._handed_over += 1
            self._flying[flight.key] = (self._handed_over, flight)
            # A worker that was killed has left this behind; nobody has taken the task now.
            Workspace(self._directory, flight.key).running_path.unlink(missing_ok=True)
            future = self._life.submit(flight.kind, flight.spec, flight.key)
            future.add_done_callback(partial(self._note, self._handed_over, flight.key))

    def _note(self, number: int, key: str, done: Future[Any]) -> None:
        self.ended.put((number, Outcome.of_future(key, done)))

    def _trouble(self) -> Trouble | None:
        if self._life is None:
            return None
        return self._life.trouble() or self._standstill(self._life)

    def _standstill(self, life: Life) -> Trouble | None:
        """Return a complaint if managers have had tasks for too long that nobody begins."""
        since = time.monotonic() - self._looked
        if since < LOOK_EVERY_S:
            return None
        self._looked = time.monotonic()
        given = life.view().tasks
        begun = sum(_begun(self._directory, key) for key in self._flying)
        if begun >= min(given, len(self._flying)):
            self._standing_still = 0.0
            return None
        # A driver that was suspended has not been waiting all that time.
        self._standing_still += min(since, 2 * LOOK_EVERY_S)
        if self._standing_still <= PATIENCE_S:
            return None
        return Trouble(f"its workers have begun no task for {self._standing_still:.0f} s")

    def _die(self, trouble: Trouble) -> list[Outcome]:
        """End this life, begin another unless that is hopeless; return what the old one had.

        Tasks that nobody had begun go back to the front of the queue.
        """
        self._breaker.died(trouble.reason, for_good=trouble.for_good)
        begun = [key for key in self._flying if _begun(self._directory, key)]
        spared = [flight for key, (_, flight) in self._flying.items() if key not in begun]
        self._flying = {}
        self.close()
        self._waiting.extendleft(reversed(spared))
        self._standing_still = 0.0
        if self._breaker.reason is None:
            self._live_again()
        return [Outcome(key, "lost", f"pool {self.name}: {trouble.reason}") for key in begun]

    def _live_again(self) -> None:
        try:
            self._life = self._begin()
        except SiteError as error:
            self._breaker.died(str(error), for_good=True)


def _begun(directory: Path, key: str) -> bool:
    return Workspace(directory, key).running_path.exists()
