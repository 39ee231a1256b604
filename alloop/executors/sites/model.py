"""What a site file may say, by its kind."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from alloop.config.quantities import WALL_TIME, Quantity
from alloop.config.section import Id, Many, Section, Text
from alloop.executors.sites.pools import Pool

Seconds = Annotated[int, Quantity(WALL_TIME, least=1.0, whole=True)]
ImportPath = Annotated[str, StringConstraints(strict=True, pattern=r"^[\w.]+:\w+$")]


def _listed(value: Any) -> Any:
    """Return one name as a list of one."""
    return [value] if isinstance(value, str) else value


Names = Annotated[
    Many[Id], BeforeValidator(_listed, json_schema_input_type=Id | Many[Id]), Field(min_length=1)
]


class _Site(Section):
    discriminator: ClassVar[str] = "kind"


class InProcessSite(_Site):
    """Everything in the driver's own process."""

    kind: Literal["inprocess"]


class LocalSite(_Site):
    """Parsl's HighThroughputExecutor on this machine, on the loopback interface only."""

    kind: Literal["local"]
    workers: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto", description="processes, one thread each; auto: one for each core"
    )


class ClusterSite(_Site):
    """Pools of workers, here and behind schedulers, and which tasks run in which."""

    kind: Literal["cluster"] = Field(description="What kind of site it is.")
    pools: dict[Id, Pool] = Field(
        default={}, description="Groups of equal workers, by the name you give them."
    )
    roles: dict[str, Names] = Field(
        default={},
        description="The pool of each role, or several in order of preference: the next one is"
        " used while those before it fail, and one with more memory for what ran out of it. With"
        " one pool it has them all.",
    )
    python: ImportPath | None = Field(
        default=None,
        description="Instead of pools: `module:object` that is, or returns when called, a Parsl"
        " Config; roles then name its executors by their labels.",
    )
    address: Text | None = Field(
        default=None,
        description="Where nodes reach the driver: an IP address, a network interface (`ib0`),"
        " `hostname`, or `$NAME` of an environment variable that holds an address. Required once"
        " a pool has nodes.",
    )
    ports: Many[int] = Field(
        default=(54000, 55000), description="First and last port at which the driver listens."
    )
    encrypted: bool = Field(
        default=True, description="Encrypt what goes between driver and workers."
    )
    heartbeat_period: Seconds = Field(
        default=30, description="How often driver and nodes tell each other that they live."
    )
    heartbeat_threshold: Seconds = Field(
        default=120, description="Silence after which a node counts as lost."
    )
    idle_time: Seconds = Field(
        default=600, description="Time without work after which blocks are given back."
    )


AnySite = InProcessSite | LocalSite | ClusterSite
