"""A pool over all its lives: tasks that wait for it, tasks it has, and what to do when it dies."""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from alloop.errors import SiteError
from alloop.executors.cluster.blocks import View
from alloop.executors.cluster.breaker import Breaker
from alloop.executors.cluster.life import Life, Trouble
from alloop.executors.durations import Pace
from alloop.executors.protocol import Condition, Outcome
from alloop_tasks.workspace import Workspace

FLIGHT = 2
"""Tasks given to Parsl for each slot: the second one starts when the first has ended."""
LOSSES = 3
"""So many times its slots, and ten at least, may a pool lose tasks before it is broken off."""
STRIKES = 3
"""So many tasks in a row may find a full disk in a block before it is given back."""
REST_S = 5.0
"""How long a task rests that was handed back, once its block gets no more tasks."""
LOOK_EVERY_S = 2.0
PATIENCE_S = 180.0
"""How long tasks may lie with managers without being begun.

A worker that is killed while it waits for work can take the lock of the queue with it at which
all others of its node wait; and a slow file system shows late that a task was begun.
"""

Ended = tuple[int, Outcome]


@dataclass(frozen=True, slots=True)
class Flight:
    """A task on its way; ``rung`` counts how often it has been short of memory."""

    kind: str
    spec: dict[str, Any]
    key: str
    rung: int = 0


class ClusterPool:
    """One pool: takes tasks, gives outcomes, and is brought back to life when it dies.

    ``pace`` knows how long its tasks take; without one they are not asked whether they can end.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        slots: int,
        begin: Callable[[], Life],
        pace: Pace | None = None,
    ) -> None:
        self.name, self.slots = name, slots
        self._directory, self._begin, self._pace = directory, begin, pace
        self.ended: queue.Queue[Ended] = queue.Queue()
        self._waiting: deque[Flight] = deque()
        self._flying: dict[str, tuple[int, Flight]] = {}
        self._handed_over = 0
        self._breaker = Breaker(max(10, LOSSES * slots))
        self._full: dict[str, int] = {}  # by block, tasks in a row that found a disk full
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

    @property
    def room(self) -> int:
        """How many more tasks it takes now.

        One that is broken off takes a single one: somebody has to wait for it, or nobody would
        learn that nothing else can come.
        """
        if self.broken is not None:
            return 0 if self._waiting or self._flying else 1
        return FLIGHT * self.slots - len(self._waiting) - len(self._flying)

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
        sent, flight = self._flying.get(outcome.key, (None, None))
        if flight is None or sent != number:
            return None
        if outcome.status == "lost" and self._life is not None and self._life.trouble():
            return None
        del self._flying[outcome.key]
        self._standing_still = 0.0
        if outcome.status not in ("lost", "full"):
            self._breaker.worked()
            self._full.pop(outcome.block, None)
            if self._pace and outcome.status == "done":
                self._pace.note(flight.kind, flight.spec, outcome.seconds)
            if outcome.status == "handed_back" and self._life is not None and outcome.block:
                # Another one comes sooner than this one ends by itself.
                self._life.empty(outcome.block, outcome.reason)
                outcome = replace(outcome, wait=min(outcome.wait, REST_S))
            return replace(outcome, pool=self.name)
        reason = f"pool {self.name}: {outcome.reason}"
        self._breaker.lost(outcome.reason)
        if outcome.status == "full":
            self._note_full(outcome)
        return replace(outcome, reason=reason, pool=self.name)

    def _note_full(self, outcome: Outcome) -> None:
        """Leave a block alone whose node can write nothing: tasks fail there as fast as they come.

        What is full may also be the campaign's own disk: then the driver stops.
        """
        self._full[outcome.block] = self._full.get(outcome.block, 0) + 1
        if self._full[outcome.block] == STRIKES and self._life is not None:
            self._life.leave(outcome.block, outcome.reason)
            self._breaker.left(outcome.reason)

    def condition(self) -> Condition:
        """Return how the pool is."""
        if self.broken is not None:
            return Condition("broken off", self.broken)
        view = View() if self._life is None else self._life.view()
        if view.workers or not (self._flying or self._waiting):
            return Condition("ok")
        reason = "no block has come up yet"
        if view.failures:
            row = "last block" if view.failures == 1 else f"last {view.failures} blocks"
            reason = f"the {row} did not come up: {view.last_failure}"
        elif view.waiting:
            reason = "its blocks wait in the queue"
        return Condition("waiting for nodes", reason)

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
            expected = self._pace.expect(flight.kind, flight.spec) if self._pace else None
            future = self._life.submit(flight.kind, flight.spec, flight.key, expected)
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
        self._flying, self._full = {}, {}
        self.close()
        self._waiting.extendleft(reversed(spared))
        self._standing_still = 0.0
        if self._breaker.reason is None:
            self._live_again()
        reason = f"pool {self.name}: {trouble.reason}"
        return [Outcome(key, "lost", reason, pool=self.name) for key in begun]

    def _live_again(self) -> None:
        try:
            self._life = self._begin()
        except SiteError as error:
            self._breaker.died(str(error), for_good=True)


def _begun(directory: Path, key: str) -> bool:
    return Workspace(directory, key).running_path.exists()
