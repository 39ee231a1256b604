"""How much time a task has: workers in jobs of a batch system end with their block.

What can be laid down (dynamics, fits, labels of many frames) is, before the end, with
:class:`alloop.errors.OutOfTime`; what cannot is only begun where it can end.
"""

from __future__ import annotations

import math
import os
import time
from typing import Final

from alloop.errors import OutOfTime

BLOCK_DEADLINE: Final = "ALLOOP_BLOCK_DEADLINE"
"""Environment variable: when a block ends, seconds since 1970 by the node's own clock."""
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

    ``advanced`` says whether the task has got anywhere so far.
    """
    left = seconds_left()
    if left < (seconds or 0.0):
        raise OutOfTime(
            f"{what} takes about {seconds or 0.0:.0f} s, its block ends in"
            f" {max(0.0, left + RESERVE_S):.0f} s",
            advanced=advanced,
        )
