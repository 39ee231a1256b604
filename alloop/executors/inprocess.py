"""Run tasks one after the other in the driver's own process: for tests and debugging."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from pathlib import Path
from typing import Any

from alloop.errors import TaskError
from alloop.executors.protocol import Condition, Outcome, Work
from alloop_tasks import boundary


class InProcessExecutor:
    """An executor without processes: ``wait`` runs the oldest task and returns its outcome."""

    slots = 1

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._queue: deque[tuple[str, dict[str, Any], str]] = deque()

    def submit(
        self,
        kind: str,
        spec: dict[str, Any],
        key: str,
        losses: int = 0,  # noqa: ARG002  all workers have the same memory
    ) -> None:
        """Queue one task."""
        self._queue.append((kind, spec, key))

    def room(self, work: Collection[Work]) -> dict[frozenset[Work], int]:
        """Return that all the work shares one queue, which holds two tasks."""
        return {frozenset(work): 2 - len(self._queue)}

    def wait(self, timeout: float) -> list[Outcome]:  # noqa: ARG002  nothing to wait for
        """Run the oldest queued task."""
        if not self._queue:
            return []
        kind, spec, key = self._queue.popleft()
        try:
            report = boundary.run(kind, spec, str(self._directory), key)
        except TaskError as error:
            return [Outcome(key, "lost", str(error))]
        return [Outcome.of(report)]

    def failure(self) -> str | None:
        """Return None: a process can always run its own functions."""
        return None

    def conditions(self) -> dict[str, Condition]:
        """Return nothing: a process is no pool."""
        return {}

    def close(self) -> None:
        """Forget what is queued."""
        self._queue.clear()
