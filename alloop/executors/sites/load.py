"""Read a site file: everything that is wrong with it at once, or a site."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from alloop.config.document import parse
from alloop.config.load import read_text
from alloop.config.problems import Problem, did_you_mean, report
from alloop.config.shipped import shipped
from alloop.config.validation import validate_as
from alloop.errors import ConfigError, SiteError
from alloop.executors.sites.checks import check, spoken
from alloop.executors.sites.model import AnySite, ClusterSite, InProcessSite, LocalSite
from alloop.executors.sites.pools import BatchPool, NodePool, SlurmPool, ThreadsPool
from alloop.executors.sites.roles import REQUIRED, Role, memory_of, pools_of

if TYPE_CHECKING:
    from pathlib import Path

    from alloop.executors.sites.pools import Pool

KINDS: Final[dict[str, type[AnySite]]] = {
    "inprocess": InProcessSite,
    "local": LocalSite,
    "cluster": ClusterSite,
}


def load_site(name: str, folder: Path) -> AnySite:
    """Read a site file: one shipped with alloop by its name, or a path relative to ``folder``.

    Raises SiteError with one line for each fault: ``file:line:column  key: what is wrong``.
    """
    path = _find(name, folder)
    try:
        document = parse(read_text(path))
    except ConfigError as error:
        raise SiteError(str(error).replace("campaign file", "site file")) from error
    problems = document.problems
    site = None
    if isinstance(document.data, dict):
        site, found = _validate(document.data)
        problems += found
    elif not problems:
        problems.append(Problem((), "want 'key: value' lines, the first being 'kind: ...'"))
    if problems or site is None:
        raise SiteError("\n".join(report(str(path), problems, document.marks)))
    return site


def describe(site: AnySite) -> tuple[str, ...]:
    """Return lines for people: which pools there are, and what runs in which."""
    if isinstance(site, InProcessSite):
        return ("one task after the other in the driver's own process",)
    if isinstance(site, LocalSite):
        many = "one for each core" if site.workers == "auto" else str(site.workers)
        return (f"worker processes on this machine: {many}",)
    if site.python:
        return (f"pools from {site.python}", *_roles(site))
    return (*(f"pool {name}: {_pool(pool)}" for name, pool in site.pools.items()), *_roles(site))


def _validate(data: dict[str, Any]) -> tuple[AnySite | None, list[Problem]]:
    kind = data.get("kind")
    root = KINDS.get(kind) if isinstance(kind, str) else None
    if root is None:
        known = ", ".join(KINDS)
        if kind is None:
            return None, [Problem(("kind",), f"this key is required: one of {known}")]
        hint = did_you_mean(str(kind), KINDS)
        return None, [Problem(("kind",), f"{kind!r} is not one of {known}{hint}")]
    site, problems, cuts = validate_as(root, data, {"kind": kind})
    if isinstance(site, ClusterSite):
        problems += [one for one in check(site) if not any(one.concerns(cut) for cut in cuts)]
    return site, problems


def _find(name: str, folder: Path) -> Path:
    known = {path.stem: path for path in sorted(shipped("deploy").glob("*.yaml"))}
    if name in known:
        return known[name]
    path = folder / name
    if not path.is_file():
        raise SiteError(
            f"site {name!r} is neither one that ships with alloop ({', '.join(known)})"
            f" nor a file ({path})"
        )
    return path


def _roles(site: ClusterSite) -> tuple[str, ...]:
    roles = dict.fromkeys((*REQUIRED, Role.FIT4D, *site.roles))
    return tuple(f"{role}: {_in_order(site, pools_of(site, role))}" for role in roles)


def _in_order(site: ClusterSite, names: tuple[str, ...]) -> str:
    """Return the pools of a role; those with more memory are its memory ladder."""
    memory = memory_of(site)
    least = memory.get(names[0], math.inf) if names else math.inf
    more = " (more memory)"
    return ", then ".join(name + more * (memory.get(name, 0.0) > least) for name in names)


def _pool(pool: Pool) -> str:
    words: list[str] = [pool.type]
    if isinstance(pool, SlurmPool):
        words += [f"partition {pool.partition}"] if pool.partition else []
    elif isinstance(pool, BatchPool):
        queue = getattr(pool, "queue", None)
        words += [f"queue {queue}"] if queue else []
    if isinstance(pool, ThreadsPool):
        return f"{_many(pool.workers, 'thread')} of the driver"
    gpu = " and a GPU" if pool.gpus_per_node else ""
    each = f"{_many(pool.cores_per_worker, 'core')}{gpu}"
    if not isinstance(pool, NodePool):
        workers = pool.gpus_per_node or pool.workers
        many = _many(workers, "worker") if isinstance(workers, int) else "as many workers as fit"
        return f"{' '.join(words)}, {many} of {each}"
    each = f"{_many(pool.workers_per_node, 'worker')} of {each}"
    if not isinstance(pool, BatchPool):
        return f"{' '.join(words)}, up to {_many(pool.max_blocks, 'pod')} with {each}"
    blocks = f"{_many(pool.max_blocks, 'block')} of {_many(pool.nodes_per_block, 'node')}"
    return f"{' '.join(words)}, up to {blocks} for {spoken(pool.walltime)}, each node with {each}"


def _many(count: int, name: str) -> str:
    return f"{count} {name}" if count == 1 else f"{count} {name}s"
