"""Read from the ledger what the planner needs to know of 4D models."""

from __future__ import annotations

import json

from sqlalchemy import Connection, func, select
from sqlalchemy.orm import aliased

from alloop_db import schema as t
from alloop_db.state import SpacetimeState

_PLACE = (
    func.json_extract(t.Task.spec, "$.system.name").label("system"),
    func.json_extract(t.Task.spec, "$.committee_id").label("committee_id"),
    func.coalesce(func.json_extract(t.Task.spec, "$.turn"), 0).label("turn"),
)
"""Which 4D model a task is about; specs of before there were refits name no turn."""


def read_tasks(connection: Connection, kind: str) -> dict[tuple[str, int, int], str]:
    """Return the status of each task of a kind, by the model it is about."""
    rows = connection.execute(
        select(*_PLACE, t.Task.status).where(
            # All of them, but named, so that an index finds the few of this kind.
            t.Task.kind == kind,
            t.Task.status.in_(t.TASK_STATES),
        )
    )
    return {(row.system, row.committee_id, row.turn): row.status for row in rows}


def read_begun(connection: Connection) -> dict[tuple[str, int, int], int]:
    """Return how many trajectories each probe has begun."""
    rows = connection.execute(
        select(*_PLACE, func.count())
        .join(t.SpacetimeProbe, t.SpacetimeProbe.task_id == t.Task.task_id)
        .join(t.Trajectory, t.Trajectory.task_id == t.Task.task_id)
        .group_by(t.Task.task_id)
    )
    return {(system, number, turn): n for system, number, turn, n in rows}


def read_models(connection: Connection) -> tuple[SpacetimeState, ...]:
    """Return the fitted models, oldest first."""
    data = aliased(t.Artifact)
    snapshot = (
        select(data.sha256)
        .join(t.Snapshot, t.Snapshot.artifact_id == data.artifact_id)
        .where(t.Snapshot.generation_id == t.SpacetimeModel.generation_id)
        .order_by(t.Snapshot.snapshot_id.desc())
        .limit(1)
    )
    rows = connection.execute(
        select(
            t.System.name,
            t.SpacetimeModel.committee_id,
            t.Generation.number,
            t.Artifact.sha256,
            t.SpacetimeModel.status,
            func.json_extract(t.SpacetimeModel.metrics, "$.thresholds").label("thresholds"),
            func.json_extract(t.Task.spec, "$.committee").label("committee"),
            snapshot.scalar_subquery().label("snapshot"),
            *_PLACE[2:],
        )
        .join(t.System, t.System.system_id == t.SpacetimeModel.system_id)
        .join(t.Generation, t.Generation.generation_id == t.SpacetimeModel.generation_id)
        .join(t.Artifact, t.Artifact.artifact_id == t.SpacetimeModel.artifact_id)
        .join(t.Task, t.Task.task_id == t.SpacetimeModel.task_id)
        .order_by(t.SpacetimeModel.spacetime_model_id)
    )
    return tuple(
        SpacetimeState(
            row.name,
            row.committee_id,
            row.number,
            row.sha256,
            turn=row.turn,
            promoted=row.status == "promoted",
            committee=tuple(json.loads(row.committee or "[]")),
            snapshot=row.snapshot,
            thresholds=json.loads(row.thresholds or "null"),
        )
        for row in rows
    )
