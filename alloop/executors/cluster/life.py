"""One life of a pool: Parsl's kernel and interchange here, its blocks with the scheduler.

Each pool has a kernel of its own, so that one can die, hang or be replaced without the others.
Retries, memoisation, checkpoints, monitoring and usage tracking of Parsl's are off, whatever a
config says: the ledger is the only state.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from parsl import python_app
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.executors.base import ParslExecutor
from parsl.providers import LocalProvider
from parsl.utils import Timer

from alloop.errors import SiteError
from alloop.executors import kernel, processes
from alloop.executors.cluster.blocks import BlockCare, View
from alloop.executors.cluster.providers import Patient
from alloop.executors.cluster.reaper import JOURNAL
from alloop_tasks import boundary

STRATEGIES = ("simple", "none")
POOL_VARIABLE = "ALLOOP_POOL"
"""Environment variable that marks each process on this host with its pool."""
CANCEL_S = 20.0
"""How long a scheduler may take to cancel a pool's jobs before others go on without it."""
CLEANUP_S = 10.0
"""How long Parsl may take to clean up: it waits for ever for an interchange that is dead."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a pool can do nothing more; ``for_good`` if its blocks cannot come up."""

    reason: str
    for_good: bool = False


def slots_of(executor: ParslExecutor) -> int:
    """Return how many tasks a pool runs at the same time when all its blocks are there."""
    if isinstance(executor, HighThroughputExecutor):
        provider: Any = executor.provider
        in_a_block = int(executor.workers_per_node * provider.nodes_per_block)
        return max(1, in_a_block) * max(1, int(provider.max_blocks))
    return max(1, int(getattr(executor, "max_threads", None) or 1))


def check(config: Config) -> None:
    """Refuse what is known to lose work; raises SiteError with what to do instead."""
    if config.strategy not in STRATEGIES:
        raise SiteError(
            f"strategy {config.strategy!r} cancels blocks that wait in the queue; use 'simple'"
        )
    for executor in config.executors:
        if isinstance(executor, HighThroughputExecutor) and not executor.address:
            raise SiteError(
                f"pool {executor.label}: no address; without one Parsl asks a web service and"
                " listens on all interfaces: give an address or the name of an interface"
            )


class Life:
    """A pool from its start to its end; raises SiteError if Parsl cannot be started."""

    def __init__(
        self, directory: Path, config: Config, executor: ParslExecutor, give_up_after: int = 3
    ) -> None:
        self.label = executor.label
        self._directory, self._executor = directory, executor
        self._folder = directory / "parsl" / self.label
        self._folder.mkdir(parents=True, exist_ok=True)
        self._care = BlockCare(give_up_after)
        self._prepare()
        try:
            self._kernel = kernel.start(_only(config, executor, self._folder))
        except Exception as error:
            self._end_processes()
            raise SiteError(
                f"pool {self.label}: Parsl did not start: {type(error).__name__}: {error}; see"
                f" {self._folder}"
            ) from error
        self._run = self._app(boundary.run)

    def submit(
        self, kind: str, spec: dict[str, Any], key: str, expected: float | None = None
    ) -> Future[Any]:
        """Hand one task to Parsl, with how long it is expected to take, s."""
        future: Future[Any] = self._run(kind, spec, str(self._directory), key, expected)
        return future

    def call(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have a worker call a function that it can import, with plain values."""
        future: Future[Any] = self._app(function)(*arguments)
        return future

    def trouble(self) -> Trouble | None:
        """Return why Parsl can do nothing more, or None as far as can be told."""
        executor = self._executor
        if not isinstance(executor, HighThroughputExecutor):
            return None
        if executor.bad_state_is_set:
            return Trouble(" ".join(str(executor.executor_exception).split()), for_good=True)
        interchange = executor.interchange_proc
        if interchange is None or interchange.poll() is not None:
            return Trouble("Parsl's interchange has died")
        return None

    def view(self) -> View:
        """Return how the blocks were when Parsl last looked."""
        if not isinstance(self._executor, HighThroughputExecutor):
            return View(running=1, workers=slots_of(self._executor))
        return self._care.view

    def leave(self, block: str, reason: str) -> None:
        """Send no more tasks to a block, and end its job."""
        executor = self._executor
        if isinstance(executor, HighThroughputExecutor):
            kernel.bounded(lambda: executor._hold_block(block), CANCEL_S)
            self._care.leave(block, reason)

    def empty(self, block: str, reason: str) -> None:
        """Send no more tasks to a block, and end its job when it has done those it has."""
        executor = self._executor
        if isinstance(executor, HighThroughputExecutor):
            kernel.bounded(lambda: executor._hold_block(block), CANCEL_S)
            self._care.empty(block, reason)

    def close(self) -> None:
        """End blocks, workers and interchange; tasks in flight are dropped."""
        # First of all no new blocks; then the jobs, since Parsl's own way there leads through
        # the interchange, which may be dead.
        Timer.close(self._kernel.job_status_poller, CLEANUP_S)
        kernel.bounded(self._cancel_jobs, CANCEL_S)
        kernel.bounded(self._kernel.cleanup, CLEANUP_S if self.trouble() is None else 1.0)
        self._end_processes()

    def _app(self, function: Callable[..., Any]) -> Callable[..., Any]:
        app: Callable[..., Any] = python_app(
            function, data_flow_kernel=self._kernel, executors=[self.label], cache=False
        )
        return app

    def _prepare(self) -> None:
        """Give Parsl's executor what it needs to survive, and to end with us."""
        executor = self._executor
        if not isinstance(executor, HighThroughputExecutor):
            return
        journal = self._folder / JOURNAL
        journal.unlink(missing_ok=True)
        own = [f"{processes.VARIABLE}={self._directory}", f"{POOL_VARIABLE}={self.label}"]
        path = os.pathsep.join(one for one in sys.path if one)
        executor.interchange_launch_cmd = [
            *("env", *own, f"PYTHONPATH={path}", sys.executable, "-P", "-m"),
            *("alloop.executors.cluster.interchange", str(self._directory), str(os.getpid())),
        ]
        executor.block_error_handler = self._care
        if isinstance(executor.provider, LocalProvider):
            executor.launch_cmd = f"env {' '.join(own)} {executor.launch_cmd}"
        elif isinstance(executor.provider, Patient):
            executor.provider.journal = journal

    def _cancel_jobs(self) -> None:
        provider = getattr(self._executor, "provider", None)
        if provider is not None:
            jobs = [job for job, one in provider.resources.items() if not one["status"].terminal]
            provider.cancel(jobs)

    def _end_processes(self) -> None:
        interchange = getattr(self._executor, "interchange_proc", None)
        if interchange is not None and interchange.poll() is None:
            interchange.kill()
            interchange.wait()
        processes.end(
            [one for one in processes.of_campaign(self._directory) if _pool(one) == self.label]
        )


def _only(config: Config, executor: ParslExecutor, folder: Path) -> Config:
    """Return the config of one pool: only how it scales is taken from what was given."""
    return Config(
        executors=[executor],
        run_dir=str(folder),
        strategy=config.strategy,
        strategy_period=config.strategy_period,
        max_idletime=config.max_idletime,
        retries=0,
        usage_tracking=0,
        initialize_logging=False,
    )


def _pool(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(POOL_VARIABLE)
    except psutil.Error:
        return None
