"""What the driver asks of an executor: take work, say what came of it."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one submission.

    Attributes
    ----------
    key : the task's key.
    status : "done" (the result lies in the outbox), "failed" (the task itself failed; its report
        lies in the outbox), "handed_back" (its block ends; another worker takes it up) or "lost"
        (worker, node or wire failed; nothing is known).
    reason : why, in words; empty when done.
    seconds : how long it ran.
    advanced : whether a task that was handed back has got any further.
    wait : seconds after which a task that was handed back may be sent again.

    """

    key: str
    status: str
    reason: str = ""
    seconds: float = 0.0
    advanced: bool = False
    wait: float = 0.0

    @classmethod
    def of(cls, report: dict[str, Any]) -> Outcome:
        """Return the outcome that a worker has reported."""
        return cls(
            report["key"],
            report["status"],
            report.get("error_text", ""),
            report.get("seconds", 0.0),
            report.get("advanced", False),
            report.get("wait", 0.0),
        )

    @classmethod
    def of_future(cls, key: str, future: Future[Any]) -> Outcome:
        """Return the outcome of a task that Parsl has ended, one way or the other."""
        error = future.exception()
        if error is None:
            return cls.of(future.result())
        return cls(key, "lost", f"{type(error).__name__}: {' '.join(str(error).split())}")


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
