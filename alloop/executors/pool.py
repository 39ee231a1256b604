"""One life of Parsl on this machine: its kernel here, an interchange, and a pool of workers.

Everything Parsl writes stays under ``<campaign>/parsl``. It listens on the loopback interface
only, encrypted; its retries, memoisation, monitoring and usage tracking are off: the ledger is
the only state. When this process dies, the interchange ends all others
(:mod:`alloop.executors.interchange`).
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import sys
import tempfile
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from parsl import python_app
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD
from parsl.providers import LocalProvider

from alloop.errors import SiteError
from alloop.executors import kernel, processes
from alloop_tasks import boundary

LOOPBACK = "127.0.0.1"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
CLEANUP_S = 10.0
"""How long Parsl may take to clean up: it waits for ever for an interchange that was killed."""


class Pool:
    """Workers of one thread each, from start to close.

    Raises SiteError if Parsl cannot be started.
    """

    def __init__(self, directory: Path, workers: int) -> None:
        self._directory = directory
        processes.end_campaign(directory)
        folder = directory / "parsl"
        # Nothing in it is needed after its driver: a fresh one each time bounds its size.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._log = log_into(folder / "driver.log")
        self._alias = Path(tempfile.mkdtemp(prefix="alloop-"))
        try:
            # Parsl puts paths into shell commands unquoted: it gets one that needs no quotes.
            (self._alias / "parsl").symlink_to(folder)
            self._htex = _executor(self._alias / "parsl", workers, directory)
            self._kernel = kernel.start(_config(self._htex, self._alias / "parsl"))
        except Exception as error:
            self._tidy()
            raise SiteError(
                f"Parsl did not start: {type(error).__name__}: {error}; see {folder}"
            ) from error
        self._run = python_app(
            boundary.run, data_flow_kernel=self._kernel, executors=["local"], cache=False
        )

    def submit(self, kind: str, spec: dict[str, Any], key: str) -> Future[Any]:
        """Hand one task to Parsl."""
        future: Future[Any] = self._run(kind, spec, str(self._directory), key)
        return future

    def trouble(self) -> str | None:
        """Return why Parsl can do nothing more, or None as far as can be told."""
        interchange = self._htex.interchange_proc
        if interchange is None or interchange.poll() is not None:
            return "Parsl's interchange has died"
        if self._htex.bad_state_is_set:
            reason = " ".join(str(self._htex.executor_exception).split())
            return f"Parsl's pool of workers has died ({reason})"
        return None

    def close(self) -> None:
        """End workers and interchange; tasks in flight are dropped."""
        kernel.bounded(self._kernel.cleanup, CLEANUP_S if self.trouble() is None else 1.0)
        self._tidy()

    def _tidy(self) -> None:
        processes.end_campaign(self._directory)
        shutil.rmtree(self._alias, ignore_errors=True)
        logging.getLogger("parsl").removeHandler(self._log)
        self._log.close()


def _executor(folder: Path, workers: int, directory: Path) -> HighThroughputExecutor:
    environment = [f"{processes.VARIABLE}={directory}", *(f"{name}=1" for name in THREADS)]
    environment.append(f"PYTHONPATH={os.pathsep.join(path for path in sys.path if path)}")
    python = ["env", *environment, sys.executable, "-P", "-m"]
    script, _, arguments = DEFAULT_LAUNCH_CMD.partition(" ")
    worker_pool = f"parsl.executors.high_throughput.{Path(script).stem}"
    return HighThroughputExecutor(
        label="local",
        address=LOOPBACK,
        loopback_address=LOOPBACK,
        max_workers_per_node=workers,
        cores_per_worker=1e-6,  # the number of workers is ours to say, not the node's
        launch_cmd=f"{' '.join(map(_literal, [*python, worker_pool]))} {arguments}",
        interchange_launch_cmd=[
            *(*python, "alloop.executors.interchange"),
            *(str(directory), str(folder.parent), str(os.getpid())),
        ],
        heartbeat_period=3,
        heartbeat_threshold=20,
        worker_logdir_root=str(folder),
        provider=LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1),
    )


def _config(executor: HighThroughputExecutor, folder: Path) -> Config:
    return Config(
        executors=[executor],
        run_dir=str(folder),
        retries=0,
        usage_tracking=0,
        initialize_logging=False,
        strategy="none",
    )


def _literal(text: str) -> str:
    """Return a word for a shell command that Parsl passes through ``str.format`` twice."""
    return shlex.quote(text).replace("{", "{{{{").replace("}", "}}}}")


def log_into(path: Path) -> logging.Handler:
    """Send Parsl's warnings to a file; by default they would go to the terminal."""
    handler = logging.FileHandler(path, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("parsl")
    logger.setLevel(logging.WARNING)
    logger.addHandler(handler)
    logger.propagate = False
    return handler
