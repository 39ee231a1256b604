"""What must go together in a site file, beyond what each key may hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from alloop.config.problems import Path, Problem, did_you_mean
from alloop.executors.sites.pools import (
    BatchPool,
    Environment,
    LsfPool,
    NodePool,
    PbsProPool,
    SlurmPool,
    WorkerPool,
)
from alloop.executors.sites.roles import REQUIRED, Role, known_roles, longest_task, pools_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alloop.executors.sites.model import ClusterSite

MARGIN_S: Final = 120.0
"""Time of a block that no task gets: for its environment to load, and to end in good order."""
LOWEST_PORT: Final = 1024
OPTIONS_TAKEN: Final[dict[type[BatchPool], dict[str, str]]] = {
    SlurmPool: {
        **dict.fromkeys(("--partition", "-p"), "partition"),
        **dict.fromkeys(("--account", "-A"), "account"),
        **dict.fromkeys(("--qos", "-q"), "qos"),
        **dict.fromkeys(("--constraint", "-C"), "constraint"),
        **dict.fromkeys(("--time", "-t"), "walltime"),
        **dict.fromkeys(("--nodes", "-N"), "nodes_per_block"),
        **dict.fromkeys(("--cpus-per-task", "-c", "--ntasks", "-n"), "workers, cores_per_worker"),
        **dict.fromkeys(("--mem", "--mem-per-cpu"), "memory_per_worker"),
        **dict.fromkeys(("--gres", "--gpus", "-G", "--gpus-per-node"), "gpus_per_node"),
        "--exclusive": "exclusive",
        **dict.fromkeys(
            ("--requeue", "--no-requeue", "--comment", "--job-name", "-J", "--output", "-o",
             "--error", "-e"), ""),
    },
    PbsProPool: {
        "-q": "queue", "-A": "account", "-r": "", "-v": "env.vars",
        **dict.fromkeys(("-N", "-o", "-e", "-S"), ""),
        "-l walltime": "walltime", "-l select": "select",
    },
    LsfPool: {
        "-q": "queue", "-P": "account", "-W": "walltime", "-nnodes": "whole_nodes",
        "-n": "workers, cores_per_worker", "-gpu": "gpus_per_node",
        **dict.fromkeys(("-J", "-Jd", "-o", "-e", "-rn", "-r"), ""),
    },
}  # fmt: skip
"""Options that alloop sets, by the key that they are set with; some have none."""


def check(site: ClusterSite) -> Iterator[Problem]:
    """Yield what is wrong with a site whose keys are all well formed."""
    if bool(site.pools) == bool(site.python):
        what = "a site has 'pools' or 'python', one of both"
        yield Problem(("pools",), what, needs=(("python",),))
    yield from _check_wire(site)
    yield from _check_roles(site)
    for name, pool in site.pools.items():
        where = ("pools", name)
        if isinstance(pool, WorkerPool):
            yield from _check_workers(pool, where)
            yield from _check_environment(pool.env, where)
        if isinstance(pool, NodePool) and pool.min_blocks > pool.max_blocks:
            what = f"{pool.min_blocks} is more than max_blocks, {pool.max_blocks}"
            yield Problem((*where, "min_blocks"), what)
        if isinstance(pool, BatchPool):
            yield from _check_options(pool, where)
            yield from _check_walltime(pool, where, longest_task(site, name))


def _check_wire(site: ClusterSite) -> Iterator[Problem]:
    remote = [name for name, pool in site.pools.items() if isinstance(pool, NodePool)]
    if remote and site.address is None:
        what = (
            f"this key is required: where the nodes of {remote[0]} reach the driver; an IP address,"
            " a network interface such as ib0, hostname, or $NAME of an environment variable"
        )
        yield Problem(("address",), what)
    if site.heartbeat_threshold < 2 * site.heartbeat_period:
        what = (
            f"{site.heartbeat_threshold} s is too short: want at least two heartbeat periods,"
            f" {2 * site.heartbeat_period} s, or one late heartbeat loses a node"
        )
        yield Problem(("heartbeat_threshold",), what, needs=(("heartbeat_period",),))
    if len(site.ports) != 2 or not LOWEST_PORT <= site.ports[0] < site.ports[1] < 2**16:
        yield Problem(("ports",), f"want two ports between {LOWEST_PORT} and 65535, first < last")


def _check_roles(site: ClusterSite) -> Iterator[Problem]:
    for role, names in site.roles.items():
        if role not in known_roles() and not _labels_of_a_tier(role):
            hint = did_you_mean(role, known_roles()) or f"; known: {', '.join(known_roles())}"
            what = f"unknown role; label.<tier> for the labels of one tier{hint}"
            yield Problem(("roles", role), what)
        for name in names if site.pools else ():
            if name not in site.pools:
                hint = did_you_mean(name, site.pools) or f"; known here: {', '.join(site.pools)}"
                what = f"no pool is called {name!r}{hint}"
                yield Problem(("roles", role), what, needs=(("pools", name),))
        if len(set(names)) < len(names):
            yield Problem(("roles", role), "a pool is here twice")
    yield from _check_that_all_have_work(site)


def _labels_of_a_tier(role: str) -> bool:
    kind, _, tier = role.partition(".")
    return kind == Role.LABEL and bool(tier)


def _check_that_all_have_work(site: ClusterSite) -> Iterator[Problem]:
    misspelt = any(role not in known_roles() and "." not in role for role in site.roles)
    for role in REQUIRED if len(site.pools) != 1 and not misspelt else ():
        if not pools_of(site, role):
            what = f"the role {role!r} has no pool: say which in roles.{role}"
            yield Problem(("roles",), what)
    used = {name for names in site.roles.values() for name in names}
    for name in site.pools if len(site.pools) > 1 else ():
        if name not in used:
            what = "no role names this pool: nothing would ever run in it"
            yield Problem(("pools", name), what, needs=(("roles",),))


def _check_workers(pool: WorkerPool, where: tuple[str, ...]) -> Iterator[Problem]:
    gpus = pool.gpus_per_node
    if gpus and pool.workers not in (None, gpus):
        what = f"{pool.workers} workers for {gpus} GPUs: there is one for each, leave this key out"
        yield Problem((*where, "workers"), what, needs=((*where, "gpus_per_node"),))
    if isinstance(pool, NodePool) and not gpus and pool.workers is None:
        what = "this key is required without GPUs: worker processes on each node"
        yield Problem((*where, "workers"), what, needs=((*where, "gpus_per_node"),))
    if isinstance(pool, SlurmPool) and pool.gpu_type and not gpus:
        what = "this key has no effect without gpus_per_node"
        yield Problem((*where, "gpu_type"), what, needs=((*where, "gpus_per_node"),))


def _check_environment(env: Environment, where: tuple[str, ...]) -> Iterator[Problem]:
    for name in env.vars:
        if name.startswith("ALLOOP_"):
            yield Problem((*where, "env", "vars", name), "ALLOOP_ variables are alloop's to set")


def _check_options(pool: BatchPool, where: tuple[str, ...]) -> Iterator[Problem]:
    taken = OPTIONS_TAKEN[type(pool)]
    for number, option in enumerate(pool.options):
        place: Path = (*where, "options", number)
        if not option.startswith("-") or "\n" in option:
            yield Problem(place, f"{option!r}: want one option on one line, as in '--nice=100'")
            continue
        found = [name for name in taken if _is(option, name)]
        if found:
            key = taken[found[0]]
            instead = f": use {key}" if key else " and must stay as it is"
            yield Problem(place, f"{found[0]!r} is set by alloop{instead}")


def _is(option: str, name: str) -> bool:
    """Say whether an option as written is the one of this name."""
    written = " ".join(option.split())
    if not written.startswith(name):
        return False
    after = written[len(name) : len(name) + 1]
    return not after.isalnum() and after not in ("-", "_")


def _check_walltime(pool: BatchPool, where: tuple[str, ...], longest: float) -> Iterator[Problem]:
    if pool.walltime % 60:
        yield Problem((*where, "walltime"), "want whole minutes: batch systems count in those")
    elif pool.walltime - longest - MARGIN_S <= 0:
        what = (
            f"{spoken(pool.walltime)} is too short for tasks of up to {spoken(longest)}"
            f" (longest_task): want more than {spoken(longest + MARGIN_S)}, or shorter tasks"
        )
        yield Problem((*where, "walltime"), what, needs=((*where, "longest_task"), ("roles",)))


def spoken(seconds: float) -> str:
    """Return a duration for people: ``2 h 30 min``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "0 s"
