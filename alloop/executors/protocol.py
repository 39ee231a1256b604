"""What the driver asks of an executor: take work, say what came of it."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

Work = tuple[str, str | None]
"""A kind of task; of labels also their tier."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one submission.

    Attributes
    ----------
    key : the task's key.
    status : "done" (the result lies in the outbox), "failed" (the task itself failed; its report
        lies in the outbox), "handed_back" (its block ends; another worker takes it up), "full" (a
        disk was full where it ran: the campaign's, or its node's own) or "lost" (worker, node or
        wire failed; nothing is known).
    reason : why, in words; empty when done.
    seconds : how long it ran.
    advanced : whether a task that was handed back has got any further.
    wait : seconds after which a task that was handed back may be sent again.
    host, block, pool : where it ran, as far as that is known; empty where there is no such thing.

    """

    key: str
    status: str
    reason: str = ""
    seconds: float = 0.0
    advanced: bool = False
    wait: float = 0.0
    host: str = ""
    block: str = ""
    pool: str = ""

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
            report.get("host", ""),
            report.get("block", ""),
        )

    @classmethod
    def of_future(cls, key: str, future: Future[Any]) -> Outcome:
        """Return the outcome of a task that Parsl has ended, one way or the other."""
        error = future.exception()
        if error is None:
            return cls.of(future.result())
        words = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return cls(key, "lost", words, host=getattr(error, "hostname", None) or "")


@dataclass(frozen=True, slots=True)
class Condition:
    """How a pool is.

    Attributes
    ----------
    state : "ok", "waiting for nodes" or "broken off".
    reason : why it is not ok.

    """

    state: str
    reason: str = ""


class Executor(Protocol):
    """A place where tasks run."""

    slots: int
    """How many tasks run at the same time."""

    def submit(self, kind: str, spec: dict[str, Any], key: str, losses: int = 0) -> None:
        """Take one task; ``losses`` in a row have got it no further: it may need more memory."""
        ...

    def room(self, work: Collection[Work]) -> dict[frozenset[Work], int]:
        """Return how many more tasks it takes now: for all the work that shares a pool, together.

        What is not in any key has to wait.
        """
        ...

    def wait(self, timeout: float) -> list[Outcome]:
        """Return what has ended; wait up to ``timeout`` seconds for the first."""
        ...

    def failure(self) -> str | None:
        """Return why this executor can do nothing more, or None while it can."""
        ...

    def conditions(self) -> dict[str, Condition]:
        """Return how each pool is; none where there are no pools."""
        ...

    def close(self) -> None:
        """Stop everything; tasks in flight are dropped."""
        ...
