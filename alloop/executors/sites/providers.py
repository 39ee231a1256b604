"""The providers of a site's pools: what each batch system is asked for."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from parsl.launchers import JsrunLauncher, MpiExecLauncher, SimpleLauncher, SrunLauncher
from parsl.providers import LocalProvider
from parsl.providers.base import ExecutionProvider

from alloop.executors.cluster.providers import (
    CampaignKubernetesProvider,
    CampaignLSFProvider,
    CampaignPBSProProvider,
    CampaignSlurmProvider,
)
from alloop.executors.sites.pools import (
    BatchPool,
    KubernetesPool,
    LocalPool,
    LsfPool,
    PbsProPool,
    SlurmPool,
    WorkerPool,
)

if TYPE_CHECKING:
    from parsl.launchers.base import Launcher

Providers = Mapping[str, Callable[..., ExecutionProvider]]
"""What makes the provider of a pool, by its type; called with Parsl's own keyword arguments."""

PROVIDERS: Final[dict[str, Callable[..., ExecutionProvider]]] = {
    "local": LocalProvider,
    "slurm": CampaignSlurmProvider,
    "pbspro": CampaignPBSProProvider,
    "lsf": CampaignLSFProvider,
    "kubernetes": CampaignKubernetesProvider,
}
COMMAND_TIMEOUT_S: Final = 60
"""How long a command of the batch system may take; Parsl's 10 s are short for a busy one."""
TAG: Final = "alloop:{campaign}"
"""What marks the jobs of a campaign, so that what is left of them can be found."""
GIB: Final = 2**30
MIB: Final = 2**20


def provider_of(
    pool: WorkerPool, worker_init: str, campaign: str, providers: Providers
) -> ExecutionProvider:
    """Return the provider of a pool of worker processes."""
    make = providers[pool.type]
    common: dict[str, Any] = {"worker_init": worker_init}
    if isinstance(pool, LocalPool):
        once = {"init_blocks": 1, "min_blocks": 1, "max_blocks": 1}
        return make(launcher=SimpleLauncher(), **common, **once)
    if isinstance(pool, KubernetesPool):
        return make(**common, **_scaling(pool), **_kubernetes(pool, campaign))
    if isinstance(pool, BatchPool):
        tag = TAG.format(campaign=campaign)
        common |= {"walltime": _hours(pool.walltime), "cmd_timeout": COMMAND_TIMEOUT_S}
        common |= {"nodes_per_block": pool.nodes_per_block, "launcher": _launcher(pool)}
        return make(**common, **_scaling(pool), **_batch(pool, tag))
    raise TypeError(f"no provider for {type(pool).__name__}")


def _scaling(pool: BatchPool | KubernetesPool) -> dict[str, int]:
    blocks = pool.min_blocks
    return {"init_blocks": blocks, "min_blocks": blocks, "max_blocks": pool.max_blocks}


def _batch(pool: BatchPool, tag: str) -> dict[str, Any]:
    match pool:
        case SlurmPool():
            return _slurm(pool, tag)
        case PbsProPool():
            return _pbspro(pool, tag)
        case LsfPool():
            return _lsf(pool, tag)
    raise TypeError(f"no provider for {type(pool).__name__}")


def _slurm(pool: SlurmPool, tag: str) -> dict[str, Any]:
    kind = f"gpu:{pool.gpu_type}" if pool.gpu_type else "gpu"
    # A requeued block would come back under the same number: blocks are disposable instead.
    options = ["--no-requeue", f"--comment={shlex.quote(tag)}", *pool.options]
    return {
        "partition": pool.partition,
        "account": pool.account,
        "qos": pool.qos,
        "constraint": pool.constraint,
        "exclusive": pool.exclusive,
        "cores_per_node": pool.cores_per_node,
        "mem_per_node": _gib(pool),
        "gres": f"{kind}:{pool.gpus_per_node}" if pool.gpus_per_node else None,
        "scheduler_options": _directives("#SBATCH", options),
    }


def _pbspro(pool: PbsProPool, tag: str) -> dict[str, Any]:
    select = [f"mem={_gib(pool)}gb"] if pool.memory_per_node else []
    select += [f"ngpus={pool.gpus_per_node}"] if pool.gpus_per_node else []
    select += [pool.select] if pool.select else []
    options = ["-r n", f"-v ALLOOP_TAG={shlex.quote(tag)}", *pool.options]
    return {
        "account": pool.account,
        "queue": pool.queue,
        "cpus_per_node": pool.cores_per_node,
        "select_options": ":".join(select),
        "scheduler_options": _directives("#PBS", options),
    }


def _lsf(pool: LsfPool, tag: str) -> dict[str, Any]:
    options = ["-rn", f"-Jd {shlex.quote(tag)}"]
    options += [f'-R "rusage[mem={_gib(pool)}GB]"'] if pool.memory_per_node else []
    options += [f'-gpu "num={pool.gpus_per_node}"'] if pool.gpus_per_node else []
    cores = {} if pool.whole_nodes else {"cores_per_node": pool.cores_per_node}
    if not pool.whole_nodes:
        cores["cores_per_block"] = pool.nodes_per_block * pool.cores_per_node
    return {
        "project": pool.account,
        "queue": pool.queue,
        "request_by_nodes": pool.whole_nodes,
        "bsub_redirection": True,  # without it LSF runs the script and ignores its #BSUB lines
        "scheduler_options": _directives("#BSUB", [*options, *pool.options]),
        **cores,
    }


def _kubernetes(pool: KubernetesPool, campaign: str) -> dict[str, Any]:
    memory = f"{math.ceil((pool.memory_per_node or 0) * 1e6 / MIB)}Mi"
    gpus = {pool.gpu_resource: str(pool.gpus_per_node)} if pool.gpus_per_node else None
    return {
        "image": pool.image,
        "namespace": pool.namespace,
        "init_cpu": pool.cores_per_node,
        "max_cpu": pool.cores_per_node,
        "init_mem": memory,
        "max_mem": memory,
        "extra_limits": gpus,
        "persistent_volumes": list(pool.volumes.items()),
        "service_account_name": pool.service_account,
        "secret": pool.image_pull_secret,
        "user_id": None if pool.user_id is None else str(pool.user_id),
        "group_id": None if pool.group_id is None else str(pool.group_id),
        "run_as_non_root": pool.user_id is not None,
        "annotations": {"alloop/tag": TAG.format(campaign=campaign)},
    }


def _launcher(pool: BatchPool) -> Launcher:
    """Return what starts one pool of workers on each node of a block."""
    if pool.nodes_per_block == 1:
        return SimpleLauncher()
    if isinstance(pool, SlurmPool):
        return SrunLauncher(overrides="--kill-on-bad-exit=0")
    return MpiExecLauncher() if isinstance(pool, PbsProPool) else JsrunLauncher()


def _directives(sign: str, options: list[str]) -> str:
    return "\n".join(f"{sign} {option}" for option in options)


def _gib(pool: BatchPool) -> int | None:
    """Return the memory of a node in whole GiB, which batch systems call G, rounded up."""
    memory = pool.memory_per_node
    return None if memory is None else math.ceil(memory * 1e6 / GIB)


def _hours(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours:02d}:{rest // 60:02d}:00"
