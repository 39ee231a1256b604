"""What was worked out for the plan before: most of a stage's tasks are the same each time.

A plan stays a function of the ledger's state. Hundreds of specs are written down and hashed once
for each thing that they depend on, not once for each plan.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from alloop_db.queue import TaskIntent


class Same:
    """A value that is compared by identity: it is large, and nobody changes it."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value  # held, so that no other value can get its identity

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self._value is other._value

    def __hash__(self) -> int:
        return id(self._value)


class Remembered:
    """The latest answers to a question, by all that they depend on."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._answers: dict[Hashable, list[TaskIntent]] = {}

    def tasks(self, basis: Hashable, build: Callable[[], list[TaskIntent]]) -> list[TaskIntent]:
        """Return what ``build`` gives, or gave before for an equal basis."""
        found = self._answers.get(basis)
        if found is None:
            found = build()
            while len(self._answers) >= self._most:
                del self._answers[next(iter(self._answers))]
            self._answers[basis] = found
        return found
