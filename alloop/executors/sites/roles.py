"""Which pool a task goes to: by its kind, and for labels by their tier.

A role that the site does not name is its parent's: ``label.ccsd`` goes where ``label`` goes,
``fit4d`` and ``transfer`` where ``train`` goes, all the small tasks where ``explore`` goes. On a
site with a single pool everything goes there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from alloop.errors import SiteError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alloop.executors.sites.model import ClusterSite


class Role:
    """The roles that a site of several pools must name, and those that are labels of a tier."""

    EXPLORE: Final = "explore"
    LABEL: Final = "label"
    TRAIN: Final = "train"
    FIT4D: Final = "fit4d"


REQUIRED: Final = (Role.EXPLORE, Role.LABEL, Role.TRAIN)
PARENTS: Final = {
    **dict.fromkeys(
        ("prepare", "select", "promote", "score", "evaluate", "probe_spacetime"), Role.EXPLORE
    ),
    "transfer": Role.TRAIN,
    Role.FIT4D: Role.TRAIN,
}
"""Where the tasks of a role go that a site does not name."""
LONGEST_S: Final = {Role.EXPLORE: 600.0, Role.LABEL: 7200.0, Role.TRAIN: 600.0}
"""How long one task takes at most where the pool does not say it, and nobody has measured it.

Dynamics and fits may take longer: they go on in the next block.
"""


def known_roles() -> tuple[str, ...]:
    """Return the names of roles; labels of a tier (``label.<tier>``) come on top."""
    return (*REQUIRED, *PARENTS)


def role_of(kind: str, spec: dict[str, Any]) -> str:
    """Return the role of a task."""
    if kind == "label" and spec.get("tier"):
        return f"{Role.LABEL}.{spec['tier']}"
    return Role.FIT4D if kind == "fit_spacetime" else kind


def ancestry(role: str) -> Iterator[str]:
    """Yield a role and those whose pools it may use, the nearest first."""
    yield role
    if role.startswith(f"{Role.LABEL}."):
        yield Role.LABEL
    elif role in PARENTS:
        yield PARENTS[role]


def pools_of(site: ClusterSite, role: str) -> tuple[str, ...]:
    """Return the pools of a role in order of preference; empty if the site has none for it."""
    for name in ancestry(role):
        if name in site.roles:
            return site.roles[name]
    return tuple(site.pools) if len(site.pools) == 1 else ()


def pools_for(site: ClusterSite, kind: str, spec: dict[str, Any]) -> tuple[str, ...]:
    """Return the pools that a task may run in, in order of preference.

    Raises SiteError if there is none.
    """
    role = role_of(kind, spec)
    pools = pools_of(site, role)
    if not pools:
        raise SiteError(f"the site has no pool for the role {role!r}: name one in 'roles'")
    return pools


def pool_for(site: ClusterSite, kind: str, spec: dict[str, Any]) -> str:
    """Return the pool that a task should run in."""
    return pools_for(site, kind, spec)[0]


def memory_of(site: ClusterSite) -> dict[str, float]:
    """Return the memory of one worker, MB, of the pools that say it."""
    said = {name: getattr(pool, "memory_per_worker", None) for name, pool in site.pools.items()}
    return {name: memory for name, memory in said.items() if memory is not None}


def longest_task(site: ClusterSite, pool: str) -> float:
    """Return how long one task of a pool takes at most, seconds."""
    said = getattr(site.pools[pool], "longest_task", None)
    if said is not None:
        return float(said)
    roles = {*REQUIRED, *PARENTS, *site.roles}
    here = (role for role in roles if pool in pools_of(site, role))
    return max((_longest(role) for role in here), default=max(LONGEST_S.values()))


def _longest(role: str) -> float:
    return next((LONGEST_S[name] for name in ancestry(role) if name in LONGEST_S), 0.0)
