"""Read from the ledger what the planner needs to know of trajectories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, case, func, select

from alloop_db import schema as t
from alloop_db import spacetime_reader
from alloop_db.state import ReplicaState, ShardState


@dataclass(frozen=True, slots=True)
class KnownTrajectories:
    """What the planner needs to know of trajectories, up to the last of them."""

    last: int
    generation_id: int
    shards: tuple[ShardState, ...]
    nve_shards: tuple[ShardState, ...]
    begun: Mapping[tuple[str, int, int], int]
    stability: Mapping[int, tuple[int, int]]


class TrajectoryReader:
    """Reads trajectories again and again, but only where there are new ones.

    They are added and never changed, and a campaign may have a hundred thousand.
    """

    def __init__(self) -> None:
        self._known: KnownTrajectories | None = None

    def read(self, connection: Connection, generation_id: int) -> KnownTrajectories:
        """Return what is known while a generation is open."""
        last = connection.scalar(select(func.max(t.Trajectory.trajectory_id))) or 0
        known = self._known
        if known is None or (known.last, known.generation_id) != (last, generation_id):
            known = self._known = KnownTrajectories(
                last=last,
                generation_id=generation_id,
                shards=_shards(connection, t.Trajectory.generation_id == generation_id),
                nve_shards=_shards(connection, t.Trajectory.ensemble == "nve"),
                begun=spacetime_reader.read_begun(connection),
                stability=_stability(connection),
            )
        return known


def _shards(connection: Connection, condition: object) -> tuple[ShardState, ...]:
    """Return the shards whose trajectories meet a condition, in the order of their making."""
    rows = connection.execute(
        select(
            t.Artifact.sha256,
            t.System.name,
            t.Trajectory.route,
            t.Trajectory.ensemble,
            t.Trajectory.committee_id,
            t.LevelOfTheory.tier,
            t.Generation.number,
            t.Trajectory.trajectory_id,
            t.Trajectory.replica,
            t.Trajectory.split,
            t.Trajectory.seed,
            t.Trajectory.n_stable,
            t.Trajectory.reason,
        )
        .join(t.Artifact, t.Artifact.artifact_id == t.Trajectory.artifact_id)
        .join(t.System, t.System.system_id == t.Trajectory.system_id)
        .join(t.Generation, t.Generation.generation_id == t.Trajectory.generation_id)
        .join(t.Committee, t.Committee.committee_id == t.Trajectory.committee_id)
        .join(t.LevelOfTheory, t.LevelOfTheory.level_of_theory_id == t.Committee.level_of_theory_id)
        .where(condition)  # type: ignore[arg-type]  # a column expression, which mypy sees as bool
        .order_by(t.Generation.number, t.Artifact.sha256, t.Trajectory.replica)
    ).all()
    shards: dict[str, list[ReplicaState]] = {}
    heads = {}
    for row in rows:
        heads[row.sha256] = row
        replica = ReplicaState(
            row.trajectory_id, row.replica, row.split, row.seed, row.n_stable, row.reason
        )
        shards.setdefault(row.sha256, []).append(replica)
    return tuple(
        ShardState(
            sha256=sha256,
            system=heads[sha256].name,
            route=heads[sha256].route,
            ensemble=heads[sha256].ensemble,
            committee_id=heads[sha256].committee_id,
            tier=heads[sha256].tier,
            generation=heads[sha256].number,
            replicas=tuple(replicas),
        )
        for sha256, replicas in shards.items()
    )


def _stability(connection: Connection) -> dict[int, tuple[int, int]]:
    rows = connection.execute(
        select(
            t.Generation.number,
            func.count(),
            func.sum(case((t.Trajectory.reason == "completed", 1), else_=0)),
        )
        .join(t.Generation, t.Generation.generation_id == t.Trajectory.generation_id)
        # Those of probes come when they come: a verdict must not depend on it.
        .where(t.Trajectory.route != t.PROBE_ROUTE)
        .group_by(t.Generation.number)
    )
    return {number: (total, complete) for number, total, complete in rows}
