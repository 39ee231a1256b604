"""What the driver asks of an executor: take work, say what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one submission.

    Attributes
    ----------
    key : the task's key.
    status : "done" (the result lies in the outbox), "failed" (the task itself failed; its report
        lies in the outbox), or "lost" (worker, node or wire failed; nothing is known).
    reason : why, in words; empty when done.

    """

    key: str
    status: str
    reason: str = ""


class Executor(Protocol):
    """A place where tasks run."""

    slots: int
    """How many tasks run at the same time."""

    def submit(self, kind: str, spec: dict[str, Any], key: str) -> None:
        """Take one task."""
        ...

    def wait(self, timeout: float) -> list[Outcome]:
        """Return what has ended; wait up to ``timeout`` seconds for the first."""
        ...

    def failure(self) -> str | None:
        """Return why this executor can do nothing more, or None while it can."""
        ...

    def close(self) -> None:
        """Stop everything; tasks in flight are dropped."""
        ...
