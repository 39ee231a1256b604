"""Pools as small and as quick as they can be, and tasks for them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD
from parsl.launchers import SimpleLauncher
from parsl.launchers.base import Launcher
from parsl.providers import LocalProvider

from alloop.executors.cluster.providers import CampaignSlurmProvider
from alloop.executors.cluster.reaper import campaign_of, tag_of
from alloop.frames import Frame
from alloop_tasks.systems import system_record

ODD = Path(__file__).parents[1] / "integration"
"""Folder of the odd calculators."""
PATIENCE_S = 150.0
"""How long to wait for what takes seconds: on a machine with other work, ten times as long."""
WATER = Frame(
    np.array([8, 1, 1]),
    np.array([[0.0, 0.0, 0.1173], [0.0, 0.7572, -0.4692], [0.0, -0.7572, -0.4692]]),
)


class Quick(CampaignSlurmProvider):
    """Slurm, asked often."""

    poll_s = 2
    first_pause_s = 1.0


class Lingering(Launcher):
    """Starts workers in a job that goes on when they are dead."""

    def __call__(self, command: str, tasks_per_node: int, nodes_per_block: int, *_: Any) -> str:
        """Return what the job does."""
        return f"{command}\nsleep 600"


def worker_init() -> str:
    path = os.pathsep.join([str(ODD), *filter(None, sys.path)])
    return f"export PYTHONPATH={path} OMP_NUM_THREADS=1"


def slurm_provider(directory: Path, init: str = "true", options: str = "", **more: Any) -> Quick:
    settings: dict[str, Any] = {"partition": "cpu", "walltime": "00:30:00", "max_blocks": 1}
    return Quick(
        init_blocks=0,
        exclusive=False,
        cores_per_node=1,
        launcher=SimpleLauncher(),
        worker_init=f"{worker_init()}\n{init}",
        scheduler_options=f"#SBATCH --comment={tag_of(campaign_of(directory))}\n{options}",
        **settings | more,
    )


def local_provider(init: str = "true", launcher: Launcher | None = None) -> LocalProvider:
    return LocalProvider(
        init_blocks=0,
        max_blocks=1,
        worker_init=f"{worker_init()}\n{init}",
        launcher=launcher or SimpleLauncher(),
    )


def pool(label: str, provider: Any, workers: int = 1) -> HighThroughputExecutor:
    _, _, arguments = DEFAULT_LAUNCH_CMD.partition(" ")
    module = "parsl.executors.high_throughput.process_worker_pool"
    return HighThroughputExecutor(
        label=label,
        address="127.0.0.1",
        provider=provider,
        max_workers_per_node=workers,
        cores_per_worker=1e-6,
        launch_cmd=f"{sys.executable} -P -m {module} {arguments}",
        heartbeat_period=1,
        heartbeat_threshold=4,
    )


def config(*executors: Any, **more: Any) -> Config:
    return Config(executors=list(executors), strategy_period=1, **more)


def odd(**kwargs: Any) -> dict[str, Any]:
    options = {"calculator": "odd_calculators:Odd", "kwargs": kwargs}
    frame = {"frame_key": WATER.key, "positions": WATER.positions.tolist(), "attempt": 0}
    method = {"engine": "ase", "model": "odd", "options": options}
    return {"method": method, "system": system_record("water", WATER), "frames": [frame]}


def wait_for(executor: Any, keys: set[str], limit: float = PATIENCE_S) -> dict[str, Any]:
    """Return the outcomes of tasks by key."""
    outcomes: dict[str, Any] = {}
    deadline = time.monotonic() + limit
    while keys - outcomes.keys():
        assert time.monotonic() < deadline, (keys - outcomes.keys(), executor.conditions())
        assert executor.failure() is None
        outcomes |= {outcome.key: outcome for outcome in executor.wait(0.2)}
    return outcomes


def wait_until(condition: Callable[[], Any], limit: float = PATIENCE_S) -> Any:
    deadline = time.monotonic() + limit
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
    return found


def jobs(*options: str) -> list[str]:
    """Return the jobs that Slurm has."""
    command = ["squeue", "--noheader", "--format=%i", *options]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
