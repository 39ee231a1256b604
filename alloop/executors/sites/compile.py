"""From a site to Parsl's Config, with what was found to keep Parsl alive on clusters.

- No ``htex_auto_scale``: it cancels every block that waits in the queue (Parsl issue 3696).
- No retries, memoisation, checkpoints or usage tracking: the ledger is the only state.
- Nodes take no task that could not end within their wall time (``drain_period``); how long tasks
  take they read from a file that the driver keeps (:mod:`alloop.executors.durations`).
- An address is always given: without one Parsl asks a public web service, and listens everywhere.

The interchange, and what is done about failed blocks, a pool gets when it begins
(:mod:`alloop.executors.cluster.life`): a Config that was made elsewhere gets them, too.
"""

from __future__ import annotations

import importlib
import os
import re
from typing import TYPE_CHECKING, Any, Final

import psutil
from parsl.config import Config
from parsl.errors import ParslError
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor
from parsl.executors.base import ParslExecutor

from alloop.config.problems import did_you_mean
from alloop.errors import SiteError
from alloop.executors.sites.address import LOOPBACK, address_of
from alloop.executors.sites.checks import MARGIN_S
from alloop.executors.sites.pools import BatchPool, LocalPool, NodePool, ThreadsPool, WorkerPool
from alloop.executors.sites.providers import PROVIDERS, Providers, provider_of
from alloop.executors.sites.roles import longest_task
from alloop.executors.sites.script import accelerators, launch_command, worker_init

if TYPE_CHECKING:
    from pathlib import Path

    from alloop.executors.sites.model import ClusterSite

STRATEGY: Final = "simple"
STRATEGY_PERIOD_S: Final = 10
"""Each look at the queue may ask for a block again where the batch system refuses them."""
PLAIN_PATH: Final = re.compile(r"[\w./@+:-]+")


def parsl_config(
    site: ClusterSite,
    directory: Path,
    campaign: str,
    *,
    providers: Providers = PROVIDERS,
) -> Config:
    """Return Parsl's Config for a site.

    ``directory`` is the campaign's, where every node sees it. ``campaign`` marks its jobs and
    must be one word that no other campaign has. ``providers`` make the providers, by the type
    of the pool.

    Raises SiteError if the site cannot be had on this machine.
    """
    directory = directory.resolve()
    if not PLAIN_PATH.fullmatch(str(directory)):
        raise SiteError(
            f"{directory}: Parsl puts this path into shell scripts as it is: want one of letters,"
            " digits and . _ - + @ : only"
        )
    if not PLAIN_PATH.fullmatch(campaign):
        raise SiteError(f"{campaign!r} cannot mark jobs: want one word of letters, digits, . _ -")
    if site.python:
        return _settle(_imported(site, site.python), site, directory)
    executors: list[ParslExecutor] = []
    for name, pool in site.pools.items():
        if isinstance(pool, ThreadsPool):
            executors.append(ThreadPoolExecutor(label=name, max_threads=pool.workers))
            continue
        try:
            init = worker_init(pool, name, directory, longest_task(site, name))
            provider = provider_of(pool, init, campaign, providers)
        except (ParslError, ImportError, OSError) as error:
            raise SiteError(f"pools.{name}: {type(error).__name__}: {error}") from error
        executors.append(
            HighThroughputExecutor(
                label=name,
                provider=provider,
                block_error_handler=False,
                drain_period=drain_period(site, name),
                **_executor(site, name, pool, directory),
            )
        )
    return _settle(Config(executors=executors), site, directory)


def drain_period(site: ClusterSite, pool: str) -> int | None:
    """Return how long a node of a pool takes tasks, seconds; None where nodes have no end.

    That is so until the driver has measured its tasks: the node's own script knows better.
    """
    asked = site.pools[pool]
    if not isinstance(asked, BatchPool):
        return None
    return int(asked.walltime - longest_task(site, pool) - MARGIN_S)


def workers_of(pool: ThreadsPool | WorkerPool) -> int:
    """Return how many workers a node of a pool has, on this machine if it is a local one."""
    if isinstance(pool, ThreadsPool):
        return pool.workers
    if isinstance(pool, NodePool):
        return pool.workers_per_node
    if isinstance(pool.workers, int):
        return pool.workers
    if pool.gpus_per_node:
        return pool.gpus_per_node
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers = (available or 1) // pool.cores_per_worker
    if pool.memory_per_worker:
        workers = min(workers, int(psutil.virtual_memory().total / 1e6 / pool.memory_per_worker))
    return max(1, workers)


def _executor(site: ClusterSite, name: str, pool: WorkerPool, directory: Path) -> dict[str, Any]:
    local = isinstance(pool, LocalPool)
    return {
        "address": LOOPBACK if local else address_of(site.address or "hostname"),
        "loopback_address": LOOPBACK,
        "worker_port_range": (site.ports[0], site.ports[1]),
        "max_workers_per_node": workers_of(pool),
        "cores_per_worker": 1e-6,  # the number of workers is ours to say, not the node's
        "available_accelerators": accelerators(pool),
        "launch_cmd": launch_command(pool, name, directory),
        "heartbeat_period": site.heartbeat_period,
        "heartbeat_threshold": site.heartbeat_threshold,
        "encrypted": site.encrypted,
        "worker_logdir_root": str(directory / "parsl"),
    }


def _settle(config: Config, site: ClusterSite, directory: Path) -> Config:
    """Set what is alloop's to say, whoever made the Config."""
    config.run_dir = str(directory / "parsl")
    config.retries = 0
    config.usage_tracking = 0
    config.initialize_logging = False
    config.strategy = STRATEGY
    config.strategy_period = STRATEGY_PERIOD_S
    config.max_idletime = site.idle_time
    return config


def _imported(site: ClusterSite, path: str) -> Config:
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise SiteError(
            f"python: {path} cannot be imported ({error}): is its folder in PYTHONPATH?"
        ) from error
    config = found() if callable(found) else found
    if not isinstance(config, Config):
        raise SiteError(f"python: {path} is {type(config).__name__}, want a parsl.config.Config")
    labels = [executor.label for executor in config.executors]
    for role, names in site.roles.items():
        for name in names:
            if name not in labels:
                hint = did_you_mean(name, labels) or f"; it has {', '.join(labels)}"
                raise SiteError(f"roles.{role}: {path} has no executor {name!r}{hint}")
    return config
