"""A circuit breaker for each pool: what fails again and again is left alone for a while."""

from __future__ import annotations

import time

DEATHS = 3
"""How many times in a row a pool is brought back to life without a task having ended."""
BLOCKS = 3
"""How many blocks in a row may be given back, because a disk of theirs was full."""
FIRST_REST_S = 600.0
LONGEST_REST_S = 3600.0


class Breaker:
    """Says whether a pool may be used, and if not, why."""

    def __init__(self, losses: int) -> None:
        self._limit = losses
        self._deaths = self._losses = self._left = self._openings = 0
        self._until = 0.0
        self.reason: str | None = None

    def died(self, reason: str, *, for_good: bool = False) -> None:
        """Note that the pool died; ``for_good`` when there is no use in trying again at once."""
        self._deaths += 1
        if for_good:
            self._open(reason)
        elif self._deaths > DEATHS:
            self._open(f"{reason}, {self._deaths} times in a row")

    def lost(self, reason: str) -> None:
        """Note that a task was lost; many in a row are the pool's fault, not theirs."""
        self._losses += 1
        if self._losses >= self._limit:
            self._open(f"{self._losses} tasks lost in a row; the last: {reason}")

    def left(self, reason: str) -> None:
        """Note that a block was given back since no task could run in it."""
        self._left += 1
        if self._left >= BLOCKS:
            self._open(f"{self._left} blocks in a row were given back; the last: {reason}")

    def worked(self) -> None:
        """Note that a task has ended: all is forgiven."""
        self._deaths = self._losses = self._left = self._openings = 0

    def may_try(self) -> bool:
        """Return whether a pool that was broken off has rested enough; closes the circuit."""
        if self.reason is None or time.monotonic() < self._until:
            return False
        self.reason = None
        return True

    def _open(self, reason: str) -> None:
        rest = min(FIRST_REST_S * 2**self._openings, LONGEST_REST_S)
        self._openings += 1
        self._deaths = self._losses = self._left = 0
        self.reason, self._until = reason, time.monotonic() + rest
