"""How much time a task has: workers in jobs of a batch system end with their block.

What can be laid down (dynamics, fits, labels of many frames) is, before the end, with
:class:`alloop.errors.OutOfTime`; what cannot is only begun where it can end.
"""

from __future__ import annotations

import math
import os
import time
from typing import Final

from alloop.errors import OutOfTime, SiteError

BLOCK_DEADLINE: Final = "ALLOOP_BLOCK_DEADLINE"
"""Environment variable: when a block ends, seconds since 1970 by the node's own clock."""
BLOCK_SECONDS: Final = "ALLOOP_BLOCK_SECONDS"
"""Environment variable: how long all blocks of the pool last, seconds."""
POOL: Final = "ALLOOP_POOL"
"""Environment variable: the pool."""
RESERVE_S: Final = 20.0
"""Time kept free at the end of a block: to write a checkpoint, and to bring the message home."""


def seconds_left() -> float:
    """Return how long this worker may go on, seconds; infinite where blocks have no end."""
    ends = os.environ.get(BLOCK_DEADLINE)
    return float(ends) - time.time() - RESERVE_S if ends else math.inf


def deadline() -> float | None:
    """Return the value of ``time.monotonic()`` at which work is to be laid down; None: never."""
    left = seconds_left()
    return None if math.isinf(left) else time.monotonic() + left


def require(seconds: float | None, what: str, *, advanced: bool = False) -> None:
    """Raise OutOfTime unless there is so much time left; None asks for nothing.

    ``advanced`` says whether the task has got anywhere so far. Raises SiteError if no block of
    the pool lasts that long.
    """
    needed = seconds or 0.0
    left = seconds_left()
    if left >= needed:
        return
    takes = f"{what} takes about {_spoken(needed)}" if needed else f"it is too late for {what}"
    length = float(os.environ.get(BLOCK_SECONDS, "inf"))
    if needed > length - RESERVE_S:
        pool = os.environ.get(POOL, "its pool")
        raise SiteError(
            f"{takes}, and blocks of {pool} end after {_spoken(length)}: raise walltime of that"
            " pool in the site file"
        )
    ends = _spoken(max(0.0, left + RESERVE_S))
    raise OutOfTime(f"{takes}, its block ends in {ends}", advanced=advanced)


def _spoken(seconds: float) -> str:
    """Return a time for people: minutes as soon as there are several."""
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"
