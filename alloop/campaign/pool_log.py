"""What the ledger is told of the executor's pools: which does not work, why, and since when.

Who reads the status of a campaign does not see its executor: what is in the ledger is all there is.
"""

from __future__ import annotations

import time

from alloop.executors.protocol import Condition, Executor
from alloop_db.store import Store

REPEAT_S = 30.0
"""How soon another reason for the same state may be noted."""
OK = Condition("ok")


class PoolLog:
    """Notes changes in the condition of pools as events of the kind ``pool``."""

    def __init__(self, store: Store, executor: Executor) -> None:
        self._store, self._executor = store, executor
        self._noted: dict[str, tuple[Condition, float]] = {}

    def look(self) -> None:
        """Note what has changed since the last look."""
        now = time.monotonic()
        for name, condition in self._executor.conditions().items():
            known, since = self._noted.get(name, (OK, now - REPEAT_S))
            other_state = condition.state != known.state
            if other_state or (condition.reason != known.reason and now - since >= REPEAT_S):
                self._noted[name] = condition, now
                details = {"pool": name, "state": condition.state, "reason": condition.reason}
                words = f"pool {name}: {condition.state}"
                if condition.reason:
                    words += f" ({condition.reason})"
                self._store.event("pool", words, details)
