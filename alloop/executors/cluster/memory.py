"""The memory ladder: what has run out of memory goes to pools whose workers have more of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def times_short(spec: Mapping[str, Any], losses: int) -> int:
    """Return how often a task, or one of its labels, seems to have been short of memory.

    A label says so itself. Of a worker that was killed nobody knows why: the first time it may
    have been anything.
    """
    labels = (int(frame.get("short_of_memory", 0)) for frame in spec.get("frames", ()))
    return max(*labels, losses - 1, 0)


def climb(names: Sequence[str], memory: Mapping[str, float], rung: int) -> tuple[str, ...]:
    """Return the pools of a role in the order in which a task should go there.

    Each rung is the next larger memory among them; beyond the last rung, the last. The others
    follow, for when those are broken off.
    """
    least = memory.get(names[0])
    larger = sorted({memory[name] for name in names if least and memory.get(name, 0.0) > least})
    if not rung or not larger:
        return tuple(names)
    enough = larger[min(rung, len(larger)) - 1]
    large = [name for name in names if memory.get(name, 0.0) >= enough]
    large.sort(key=lambda name: memory[name])
    return (*large, *(name for name in names if name not in large))
