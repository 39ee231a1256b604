"""How long work takes, learnt from what has ended: nothing is begun that its block would cut off.

A worker gets to know how long the task that it is given is expected to take, or one label of it.
A node gets to know when to take no more tasks: its script reads a small file, once, when its block
begins.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Final

from alloop.artifacts import write_atomically
from alloop.executors.sites.roles import Role, role_of
from alloop_tasks.boundary import RESUMED

LAID_DOWN: Final = frozenset(role_of(kind, {}) for kind in RESUMED) - {Role.LABEL}
"""Roles whose tasks go on elsewhere when their block ends."""
TO_LAY_DOWN_S: Final = 120.0
"""With less time than this none of those is worth beginning."""
SAFETY: Final = 1.5
"""How much longer than all so far the next task may take."""
LEAST_S: Final = 60.0
UNKNOWN_S: Final = 600.0
"""How long a task takes at most of which nothing is known, unless it is one of labels."""
CHANGE: Final = 0.2
"""The file is written anew when it would say something that differs by more than this."""

Ended = tuple[str, str | None, float]
"""Kind, tier (of labels), and seconds: of one label, or of the whole task."""


class Durations:
    """The longest that work of each role has taken.

    Parameters
    ----------
    ended : what the ledger knows.

    """

    def __init__(self, ended: Iterable[Ended] = ()) -> None:
        self._longest: dict[str, float] = {}
        for kind, tier, seconds in ended:
            self._note(role_of(kind, {"tier": tier}), seconds)

    @property
    def roles(self) -> frozenset[str]:
        """The roles of which anything is known."""
        return frozenset(self._longest)

    def of(self, role: str) -> float | None:
        """Return how long work of a role takes, seconds: one label, or a whole task."""
        return self._longest.get(role)

    def note(self, kind: str, spec: dict[str, Any], seconds: float) -> None:
        """Note how long a task took that is done."""
        pieces = len(spec["frames"]) if kind == "label" else 1
        self._note(role_of(kind, spec), seconds / pieces)

    def _note(self, role: str, seconds: float) -> None:
        self._longest[role] = max(self._longest.get(role, 0.0), seconds)


class Pace:
    """The time that tasks of one pool must be left.

    Parameters
    ----------
    durations : of all pools.
    path : of the file for the nodes, see :func:`pace_file`.
    longest_task : what the site says, s; for labels of which nothing is known a block must have
        that much time left to be given any.
    roles : those of which there may be tasks in this pool; others are added when they come.

    """

    def __init__(
        self, durations: Durations, path: Path, longest_task: float, roles: Collection[str] = ()
    ) -> None:
        self._durations, self._path, self._longest_task = durations, path, longest_task
        self._roles, self._written = set(roles), 0.0

    def expect(self, kind: str, spec: dict[str, Any]) -> float | None:
        """Return what a task takes that comes to this pool, s; None if there is nothing to say."""
        role = role_of(kind, spec)
        self._roles.add(role)
        self.tell()
        return None if role in LAID_DOWN else self._durations.of(role)

    def note(self, kind: str, spec: dict[str, Any], seconds: float) -> None:
        """Note how long a task took that is done."""
        self._durations.note(kind, spec, seconds)
        self.tell()

    def begin(self) -> None:
        """Say it all again: the pool begins a new life."""
        self._written = 0.0
        self.tell()

    def tell(self) -> None:
        """Write the file for the nodes if it says something else by now."""
        needed = self.needed()
        if needed is None or abs(needed - self._written) <= CHANGE * self._written:
            return
        # Without it nodes go by what the site says.
        with contextlib.suppress(OSError):
            write_atomically(self._path, lambda path: _write(path, needed))
            self._written = needed

    def needed(self) -> float | None:
        """Return how long before its end a block must take no more tasks, s; None if unknown."""
        if not self._roles:
            return None
        return max(LEAST_S, *(self._time_of(role) for role in self._roles))

    def _time_of(self, role: str) -> float:
        if role in LAID_DOWN:
            return TO_LAY_DOWN_S
        known = self._durations.of(role)
        if known is not None:
            return SAFETY * known
        of_labels = role.partition(".")[0] == Role.LABEL
        return self._longest_task if of_labels else min(UNKNOWN_S, self._longest_task)


def pace_file(directory: Path, pool: str) -> Path:
    """Return where the nodes of a pool read how long its tasks take, whole seconds."""
    return directory / "parsl" / pool / "longest"


def _write(path: Path, seconds: float) -> None:
    path.write_text(f"{seconds:.0f}\n", encoding="ascii")
