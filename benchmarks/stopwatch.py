"""Processor time by what it was spent on."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Stopwatch:
    """Processor seconds by what they were spent on."""

    spent: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def watch(self, owner: Any, *names: str) -> None:
        """Note the processor time of every call of some functions of an object or a module."""
        for name in names:
            setattr(owner, name, self._timed(name, getattr(owner, name)))

    def _timed(self, name: str, action: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.process_time()
            try:
                return action(*arguments, **named)
            finally:
                self.spent[name].append(time.process_time() - began)

        return timed

    def total(self, *names: str) -> float:
        """Return all time spent on some functions, s."""
        return sum(sum(self.spent[name]) for name in names)
