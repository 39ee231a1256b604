"""The executor that a site asks for; what sites may say is in :mod:`alloop.executors.sites`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from alloop.executors.durations import Durations, Pace, pace_file
from alloop.executors.inprocess import InProcessExecutor
from alloop.executors.protocol import Executor
from alloop.executors.sites.load import describe, load_site
from alloop.executors.sites.model import AnySite, ClusterSite, InProcessSite, LocalSite
from alloop.executors.sites.pools import BatchPool
from alloop.executors.sites.roles import longest_task, memory_of, pools_for, pools_of

if TYPE_CHECKING:
    from alloop.executors.cluster.executor import ClusterExecutor

__all__ = ["build_executor", "describe", "load_site"]


def build_executor(site: AnySite, directory: Path, durations: Durations | None = None) -> Executor:
    """Start the executor that a site describes, with its files inside the campaign directory.

    ``durations`` are what is known of how long work takes.
    """
    # Parsl takes a second to import: each branch imports what it needs.
    if isinstance(site, InProcessSite):
        return InProcessExecutor(directory)
    if isinstance(site, ClusterSite):
        return _cluster(site, directory.resolve(), durations or Durations())
    from alloop.executors.local import LocalExecutor

    return LocalExecutor(directory, _workers(site))


def _cluster(site: ClusterSite, directory: Path, durations: Durations) -> ClusterExecutor:
    from alloop.executors.cluster.executor import ClusterExecutor
    from alloop.executors.cluster.reaper import campaign_of
    from alloop.executors.sites.compile import parsl_config

    return ClusterExecutor(
        directory,
        lambda: parsl_config(site, directory, campaign_of(directory)),
        lambda kind, spec: pools_for(site, kind, spec),
        memory=memory_of(site),
        paces={
            name: _pace(site, name, directory, durations)
            for name, pool in site.pools.items()
            if isinstance(pool, BatchPool)
        },
    )


def _pace(site: ClusterSite, pool: str, directory: Path, durations: Durations) -> Pace:
    roles = {role for role in durations.roles if pool in pools_of(site, role)}
    return Pace(durations, pace_file(directory, pool), longest_task(site, pool), roles)


def _workers(site: LocalSite) -> int:
    if isinstance(site.workers, int):
        return site.workers
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return available or 1
