"""Long work done in short spells, as on a cluster: laid down in time, taken up again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from alloop.errors import OutOfTime

T = TypeVar("T")
MOST = 60
"""Spells after which work counts as getting nowhere."""


def in_spells(work: Callable[[float], T], spell_s: float) -> tuple[T, int]:
    """Return what ``work(lay_down_at)`` gives in the end, and how often it was laid down.

    Spells that are too short for anything, on a machine with much else to do, become longer.
    """
    laid_down = 0
    for _ in range(MOST):
        try:
            return work(time.monotonic() + spell_s), laid_down
        except OutOfTime as end:
            laid_down += end.advanced
            spell_s *= 1 if end.advanced else 2
    raise AssertionError(f"not done after {MOST} spells, of which {laid_down} were of some use")
