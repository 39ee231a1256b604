"""A block that waits in the queue of a real Slurm is left there, however few tasks there are."""

from __future__ import annotations

import time

import pytest

from alloop.executors.cluster.executor import ClusterExecutor
from tests.cluster.slurm_campaigns import own_jobs
from tests.cluster.small_pools import config, odd, pool, slurm_provider, wait_until

pytestmark = pytest.mark.timeout(300)

WATCHED_S = 12.0
"""Parsl's strategies are asked once a second, and act on a block they think idle at once."""


def test_a_block_with_more_workers_than_tasks_keeps_its_place(slurm, tmp_path):
    """Parsl's htex_auto_scale cancels it, asks for another one, cancels that, and so on."""
    provider = slurm_provider(tmp_path, options="#SBATCH --begin=now+3600")
    executor = ClusterExecutor(
        tmp_path,
        lambda: config(pool("nodes", provider, workers=2)),
        lambda kind, spec: ("nodes",),
    )
    try:
        executor.submit("label", odd(), "waits")
        waiting = wait_until(lambda: executor.wait(0.1) == [] and own_jobs(tmp_path))

        until = time.monotonic() + WATCHED_S
        while time.monotonic() < until:
            assert executor.wait(0.1) == []
            assert own_jobs(tmp_path) == waiting
    finally:
        executor.close()
    wait_until(lambda: own_jobs(tmp_path) == [])
