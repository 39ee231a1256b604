"""What to make of blocks: which have ended unseen, and when to give up asking for more.

Parsl gives a pool up for good after one bad block, and believes that a block whose job vanished
runs on (its issues 2207, 3992, 1588).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from parsl.jobs.errors import TooManyJobFailuresError
from parsl.jobs.states import JobState, JobStatus

from alloop.executors.cluster.providers import Patient

PASSING = ("unable to contact", "timed out", "timeout", "connection refused", "try again")
"""What schedulers say, in small letters, of troubles that pass: these count against nobody."""
LONGEST_REASON = 600
GRACE_S = 30.0
"""How long a block may be without managers before its job is ended."""


@dataclass(frozen=True, slots=True)
class View:
    """How a pool's blocks were when last looked at."""

    running: int = 0
    waiting: int = 0
    workers: int = 0
    tasks: int = 0
    """How many tasks lie with managers: each of them should be running."""
    failures: int = 0
    """How many blocks in a row have ended before they connected."""
    last_failure: str = ""
    """Why the last of them did."""


class BlockCare:
    """Parsl's ``block_error_handler``: called in its polling thread, with the state of all blocks.

    Attributes
    ----------
    give_up_after : blocks in a row that never connect, after which the pool is given up.
    view : how the blocks were at the last call.

    """

    def __init__(self, give_up_after: int = 3) -> None:
        self.give_up_after = give_up_after
        self.view = View()
        self._gone: dict[str, float] = {}
        self._left: dict[str, str] = {}
        self._emptied: dict[str, str] = {}

    def leave(self, block: str, reason: str) -> None:
        """Have a block ended at the next look, so that another one comes."""
        self._left[block] = reason

    def empty(self, block: str, reason: str) -> None:
        """Have a block that gets no more tasks ended as soon as it has none."""
        self._emptied[block] = reason

    def __call__(self, executor: Any, status: dict[str, JobStatus]) -> None:
        """Look after the blocks of one pool."""
        interchange = executor.interchange_proc
        if interchange is None or interchange.poll() is not None:
            return  # nobody would answer
        while self._left:
            _end(executor, status, *self._left.popitem())
        managers = executor.connected_managers()
        busy = {one["block_id"] for one in managers if one["tasks"]}
        for block in self._emptied.keys() - busy:
            _end(executor, status, block, self._emptied.pop(block))
        came_up = set(executor.connected_blocks())
        self._end_unseen(executor, status, came_up - {one["block_id"] for one in managers})
        failed = failures_in_a_row(status, came_up)
        if isinstance(executor.provider, Patient):
            executor.provider.hold_back(len(failed))
        self.view = _view(status, managers, failed)
        lasting = [one for one in failed if not passes(one)]
        if len(lasting) >= self.give_up_after and not managers:
            reason = (
                f"{len(failed)} blocks in a row never came up; the last: {reason_of(failed[0])}"
            )
            executor.set_bad_state_and_fail_all(TooManyJobFailuresError(reason))

    def _end_unseen(self, executor: Any, status: dict[str, JobStatus], silent: set[str]) -> None:
        """End blocks that were connected and whose managers are all gone.

        One that waits has been requeued: it will come back.
        """
        now = time.monotonic()
        for block in silent:
            state, job = status.get(block), executor.blocks_to_job_id.get(block)
            if state is None or job is None or state.terminal or state.state is JobState.PENDING:
                self._gone.pop(block, None)
            elif block not in self._gone:
                self._gone[block] = now
                if isinstance(executor.provider, Patient):
                    executor.provider.hurry()
            elif now - self._gone[block] >= GRACE_S:
                _end(executor, status, block, "its managers were gone")
        self._gone = {block: since for block, since in self._gone.items() if block in silent}


def failures_in_a_row(status: Mapping[str, JobStatus], came_up: set[str]) -> list[JobStatus]:
    """Return the blocks that failed since the last one that came up, the latest first."""
    row = []
    for block in sorted(status, key=int, reverse=True):
        if block in came_up:
            break
        if status[block].state in (JobState.FAILED, JobState.MISSING):
            row.append(status[block])
    return row


def passes(status: JobStatus) -> bool:
    """Return whether a block failed for a trouble of the scheduler that passes."""
    message = (status.message or "").lower()
    return any(word in message for word in PASSING)


def reason_of(status: JobStatus) -> str:
    """Return why a block failed, in one line: its own last words are worth most."""
    words = [(status.stderr_summary or "").strip()[-LONGEST_REASON:], status.message or ""]
    said = next((one for one in words if one), status.status_name)
    return " ".join(said.split())[:LONGEST_REASON]


def _end(executor: Any, status: dict[str, JobStatus], block: str, why: str) -> None:
    """End the job of a block, and have it counted as over."""
    job = executor.blocks_to_job_id.get(block)
    if job is not None:
        executor.provider.cancel([job])
        ended = JobStatus(JobState.COMPLETED, why)
        executor.provider.resources[job]["status"] = status[block] = ended


def _view(
    status: Mapping[str, JobStatus], managers: list[dict[str, Any]], failed: list[JobStatus]
) -> View:
    states = [one.state for one in status.values()]
    return View(
        running=states.count(JobState.RUNNING),
        waiting=states.count(JobState.PENDING),
        workers=sum(one["worker_count"] for one in managers),
        tasks=sum(one["tasks"] for one in managers),
        failures=len(failed),
        last_failure=reason_of(failed[0]) if failed else "",
    )
