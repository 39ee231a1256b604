"""Parsl's kernel, which neither its start nor its end may keep waiting for a dead interchange.

Parsl waits two minutes for one that dies while it starts. With one that dies later the thread
that hands tasks over waits for ever (its issue 3374), and Python does not end before it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

from parsl.config import Config
from parsl.dataflow.dflow import DataFlowKernel

from alloop.errors import SiteError

LOOK_EVERY_S = 0.1


def start(config: Config) -> DataFlowKernel:
    """Start Parsl; raises SiteError if an interchange dies meanwhile, else what Parsl raises."""
    begun: Future[DataFlowKernel] = Future()
    threading.Thread(target=_begin, args=(config, begun), name="parsl start", daemon=True).start()
    while not begun.done() and not _one_is_dead(config):
        time.sleep(LOOK_EVERY_S)
    if _one_is_dead(config) and not (begun.done() and begun.exception() is None):
        raise SiteError("its interchange died while it started")
    kernel = begun.result()
    kernel._task_launch_pool = _Launcher()  # type: ignore[assignment]  # it has what Parsl uses
    return kernel


def bounded(work: Callable[[], object], limit_s: float) -> None:
    """Do something that may hang, and that fails in many ways when parts of Parsl are dead."""

    def quietly() -> None:
        with contextlib.suppress(Exception):
            work()

    thread = threading.Thread(target=quietly, name="parsl cleanup", daemon=True)
    thread.start()
    thread.join(limit_s)


def _begin(config: Config, begun: Future[DataFlowKernel]) -> None:
    try:
        begun.set_result(DataFlowKernel(config))
    except BaseException as error:
        begun.set_exception(error)


def _one_is_dead(config: Config) -> bool:
    found = (getattr(executor, "interchange_proc", None) for executor in config.executors)
    return any(one is not None and one.poll() is not None for one in found)


class _Launcher:
    """Hands tasks over, in a thread that does not keep the process from ending as Parsl's does."""

    def __init__(self) -> None:
        self._work: SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]] | None]
        self._work = SimpleQueue()
        threading.Thread(target=self._serve, name="parsl launch", daemon=True).start()

    def submit(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function soon."""
        self._work.put((function, arguments))

    def shutdown(self) -> None:
        """End when all is handed over."""
        self._work.put(None)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            function, arguments = work
            with contextlib.suppress(Exception):  # Parsl has logged it
                function(*arguments)
