"""Several pools, on clusters or here, as one executor: each task goes to the pool of its role."""

from __future__ import annotations

import logging
import queue
import shutil
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from parsl.config import Config

from alloop.executors import processes
from alloop.executors.cluster.life import Life, check, slots_of
from alloop.executors.cluster.memory import climb, times_short
from alloop.executors.cluster.pools import ClusterPool, Flight
from alloop.executors.cluster.reaper import Reaped, campaign_of, reap
from alloop.executors.durations import Pace
from alloop.executors.pool import log_into
from alloop.executors.protocol import Condition, Outcome, Work

logger = logging.getLogger("parsl.alloop")
PAUSE_S = 0.02
"""How long to wait between two looks at pools of which none has news."""


class ClusterExecutor:
    """An executor on the pools of a Parsl config.

    Parameters
    ----------
    directory : the campaign's, on a file system that the pools' workers share.
    configure : returns a fresh Parsl config each time; its labels are the pools' names.
    route : returns the names of the pools that a task of a kind and spec may run in; it goes to
        the first that is not broken off.
    give_up_after : blocks in a row that never connect, after which a pool is broken off.
    memory : of one worker of each pool, MB, where that is known.
    paces : by pool, how long its tasks take; blocks of other pools have no end.

    Raises SiteError if the config cannot be used or Parsl does not start.

    """

    def __init__(
        self,
        directory: Path,
        configure: Callable[[], Config],
        route: Callable[[str, dict[str, Any]], Sequence[str]],
        give_up_after: int = 3,
        memory: Mapping[str, float] | None = None,
        paces: Mapping[str, Pace] | None = None,
    ) -> None:
        self._directory, self._route = directory.resolve(), route
        self._memory = memory or {}
        self._configure, self._give_up_after = configure, give_up_after
        self._paces = paces or {}
        self._campaign = campaign_of(directory)
        config = configure()
        check(config)
        self._schedulers = _schedulers(config)
        processes.end_campaign(self._directory)
        folder = self._directory / "parsl"
        # Nothing in it is needed after its driver: a fresh one each time bounds its size.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        self._log = log_into(folder / "driver.log")
        self._reap()
        self._pools: dict[str, ClusterPool] = {}
        try:
            for executor in config.executors:
                self._open(executor.label, slots_of(executor))
        except BaseException:
            self.close()
            raise
        self.slots = sum(pool.slots for pool in self._pools.values())

    def submit(self, kind: str, spec: dict[str, Any], key: str, losses: int = 0) -> None:
        """Take one task; one that seems to need more memory climbs to a pool that has it."""
        self._place(Flight(kind, spec, key, times_short(spec, losses)))

    def room(self, work: Collection[Work]) -> dict[frozenset[Work], int]:
        """Return how many more tasks each pool takes, with the work that goes there now."""
        there: dict[str, list[Work]] = {}
        for kind, tier in work:
            there.setdefault(self._pool_for(kind, {"tier": tier}), []).append((kind, tier))
        return {frozenset(some): self._pools[name].room for name, some in there.items()}

    def wait(self, timeout: float) -> list[Outcome]:
        """Return what has ended; wait up to ``timeout`` seconds for the first."""
        deadline = time.monotonic() + timeout
        outcomes = [outcome for pool in self._pools.values() for outcome in pool.tend()]
        self._move_away()
        while True:
            outcomes += [one for pool in self._pools.values() for one in _collect(pool)]
            if outcomes or time.monotonic() >= deadline:
                return outcomes
            time.sleep(PAUSE_S)

    def failure(self) -> str | None:
        """Return why tasks wait in vain, once nothing else can come; None while something can."""
        stuck = {name: pool.stuck for name, pool in self._pools.items() if pool.stuck}
        if not stuck or any(pool.busy for name, pool in self._pools.items() if name not in stuck):
            return None
        return "; ".join(f"pool {name} is broken off: {reason}" for name, reason in stuck.items())

    def conditions(self) -> dict[str, Condition]:
        """Return how each pool is."""
        return {name: pool.condition() for name, pool in self._pools.items()}

    def close(self) -> None:
        """Stop everything and cancel every job; tasks in flight are dropped."""
        threads = [threading.Thread(target=pool.close) for pool in self._pools.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._reap()  # such as a job that was submitted when the scheduler's answer got lost
        processes.end_campaign(self._directory)
        logging.getLogger("parsl").removeHandler(self._log)
        self._log.close()

    def _place(self, flight: Flight) -> None:
        self._pools[self._pool_for(flight.kind, flight.spec, flight.rung)].take(flight)

    def _pool_for(self, kind: str, spec: dict[str, Any], rung: int = 0) -> str:
        """Return the first of a task's pools that works; the first one if none does."""
        names = climb(self._route(kind, spec), self._memory, rung)
        sound = (name for name in names if self._pools[name].broken is None)
        return next(sound, names[0])

    def _move_away(self) -> None:
        """Take the tasks that wait in pools that are broken off to others, where there are any."""
        for pool in self._pools.values():
            if pool.broken is not None:
                for flight in pool.give_back():
                    self._place(flight)

    def _open(self, name: str, slots: int) -> None:
        self._pools[name] = ClusterPool(
            self._directory, name, slots, lambda: self._begin(name), self._paces.get(name)
        )

    def _begin(self, name: str) -> Life:
        """Begin a life of a pool: Parsl's executors can be used only once."""
        if name in self._paces:
            self._paces[name].begin()
        config = self._configure()
        (executor,) = [one for one in config.executors if one.label == name]
        return Life(self._directory, config, executor, self._give_up_after)

    def _reap(self) -> Reaped:
        reaped = reap(self._campaign, self._schedulers)
        if reaped.jobs:
            logger.warning("cancelled jobs that were left: %s", ", ".join(reaped.jobs))
        for problem in reaped.problems:
            logger.warning("cannot look for jobs that were left: %s", problem)
        return reaped


def _collect(pool: ClusterPool) -> list[Outcome]:
    believed: list[Outcome] = []
    while True:
        try:
            number, outcome = pool.ended.get_nowait()
        except queue.Empty:
            return believed
        if (settled := pool.settle(number, outcome)) is not None:
            believed.append(settled)


def _schedulers(config: Config) -> list[str]:
    providers = [getattr(executor, "provider", None) for executor in config.executors]
    names = [getattr(provider, "submits_to", "") for provider in providers]
    return list(dict.fromkeys(name for name in names if name))
