"""The executor that a site asks for; what sites may say is in :mod:`alloop.executors.sites`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from alloop.executors.inprocess import InProcessExecutor
from alloop.executors.protocol import Executor
from alloop.executors.sites.load import describe, load_site
from alloop.executors.sites.model import AnySite, ClusterSite, InProcessSite, LocalSite
from alloop.executors.sites.roles import pools_for

if TYPE_CHECKING:
    from alloop.executors.cluster.executor import ClusterExecutor

__all__ = ["build_executor", "describe", "load_site"]


def build_executor(site: AnySite, directory: Path) -> Executor:
    """Start the executor that a site describes, with its files inside the campaign directory."""
    # Parsl takes a second to import: each branch imports what it needs.
    if isinstance(site, InProcessSite):
        return InProcessExecutor(directory)
    if isinstance(site, ClusterSite):
        return _cluster(site, directory)
    from alloop.executors.local import LocalExecutor

    return LocalExecutor(directory, _workers(site))


def _cluster(site: ClusterSite, directory: Path) -> ClusterExecutor:
    from alloop.executors.cluster.executor import ClusterExecutor
    from alloop.executors.cluster.reaper import campaign_of
    from alloop.executors.sites.compile import parsl_config

    return ClusterExecutor(
        directory,
        lambda: parsl_config(site, directory, campaign_of(directory)),
        lambda kind, spec: pools_for(site, kind, spec),
    )


def _workers(site: LocalSite) -> int:
    if isinstance(site.workers, int):
        return site.workers
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return available or 1
