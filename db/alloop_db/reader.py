"""Read from the ledger what the planner needs, at a cost that does not grow with its history."""

from __future__ import annotations

import json
import statistics
from itertools import takewhile
from typing import Any

from sqlalchemy import Connection, Row, case, func, select
from sqlalchemy.orm import aliased

from alloop_db import schema as t
from alloop_db.arrays import blob_to_integers, blob_to_vectors
from alloop_db.state import (
    CampaignState,
    CommitteeState,
    EvaluationState,
    GenerationState,
    LabelNeed,
    ReplicaState,
    ShardState,
    SnapshotState,
    SpacetimeState,
    SystemState,
)

WINDOW = 400
"""Pending labels shown to the planner at a time; bounds memory, not the campaign."""
RECENT = 300
"""Latest label attempts that tell the speed and the health of a tier."""
_PLACE = (
    func.json_extract(t.Task.spec, "$.system.name").label("system"),
    func.json_extract(t.Task.spec, "$.committee_id").label("committee_id"),
    func.coalesce(func.json_extract(t.Task.spec, "$.turn"), 0).label("turn"),
)
"""Which 4D model a task is about; specs of before there were refits name no turn."""


def read_state(connection: Connection) -> CampaignState:
    """Return the planner's view of the campaign."""
    number, generation_id = connection.execute(
        select(t.Generation.number, t.Generation.generation_id)
        .order_by(t.Generation.number.desc())
        .limit(1)
    ).one()
    attempts = connection.execute(
        select(
            t.LabelAttempt.label_id,
            t.LabelAttempt.status,
            t.LabelAttempt.seconds,
            t.LabelAttempt.error_class,
            t.LabelAttempt.error_text,
            t.Task.epoch,
        )
        .join(t.Task, t.Task.task_id == t.LabelAttempt.task_id)
        .order_by(t.LabelAttempt.label_attempt_id.desc())
        .limit(RECENT)
    ).all()
    # Of this driver alone: whoever starts again has perhaps mended what failed before.
    epoch = connection.scalar(select(t.CampaignRow.epoch))
    failures = list(takewhile(lambda row: row.status == "failed" and row.epoch == epoch, attempts))
    labels = _label_counts(connection, None)
    return CampaignState(
        systems=_systems(connection),
        generation=_generation(connection, number, generation_id),
        explorer=_committee(connection, number - 1),
        explorer_snapshot=_snapshot(connection, number - 1),
        tasks=_tasks(connection, number),
        needs=_needs(connection),
        open_label_tasks=connection.scalar(
            select(func.count()).where(
                t.Task.kind == "label", t.Task.status.in_(("pending", "running"))
            )
        )
        or 0,
        seconds_per_label=(
            statistics.median(row.seconds for row in attempts) if attempts else None
        ),
        # Labels, not attempts: the retries of a few hopeless frames do not condemn a tier.
        consecutive_failures=len({row.label_id for row in failures}),
        requested=sum(labels.values()),
        done=labels.get("done", 0),
        failed=labels.get("failed", 0),
        seconds=connection.scalar(select(t.CampaignRow.seconds)) or 0.0,
        evaluations=_evaluations(connection),
        nve_shards=read_shards(connection, t.Trajectory.ensemble == "nve"),
        spacetime=_spacetime(connection),
        fits=_spacetime_tasks(connection, "fit_spacetime"),
        probes=_spacetime_tasks(connection, "probe_spacetime"),
        begun=_begun(connection),
        stability=_stability(connection),
        last_failures=tuple(f"{row.error_class}: {row.error_text}" for row in failures[:3]),
    )


def read_shards(connection: Connection, condition: object) -> tuple[ShardState, ...]:
    """Return the shards whose trajectories meet a condition, in the order of their making."""
    rows = connection.execute(
        select(
            t.Artifact.sha256,
            t.System.name,
            t.Trajectory.route,
            t.Trajectory.ensemble,
            t.Trajectory.committee_id,
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
            generation=heads[sha256].number,
            replicas=tuple(replicas),
        )
        for sha256, replicas in shards.items()
    )


def system_record(row: t.System) -> dict[str, Any]:
    """Return a system as the JSON that travels in specs."""
    return {
        "name": row.name,
        "numbers": blob_to_integers(row.numbers).tolist(),
        "positions": blob_to_vectors(row.positions).tolist(),
        "charge": row.charge,
        "multiplicity": row.multiplicity,
        "cell": None if row.cell is None else blob_to_vectors(row.cell).tolist(),
        "pbc": [flag == "T" for flag in row.pbc],
    }


def _systems(connection: Connection) -> dict[str, SystemState]:
    rows = connection.execute(
        select(t.System.__table__, t.Artifact.sha256)
        .join(t.Artifact, t.Artifact.artifact_id == t.System.artifact_id, isouter=True)
        .order_by(t.System.system_id)
    ).all()
    return {
        row.name: SystemState(row.system_id, system_record(row), row.sha256)  # type: ignore[arg-type]  # a row has the columns of its table
        for row in rows
    }


def _label_counts(connection: Connection, generation_id: int | None) -> dict[str, int]:
    query = select(t.LabelTally.status, func.sum(t.LabelTally.n)).group_by(t.LabelTally.status)
    if generation_id is not None:
        query = query.where(t.LabelTally.generation_id == generation_id)
    return {status: n for status, n in connection.execute(query) if n}


def _tasks(connection: Connection, number: int) -> dict[str, str]:
    rows = connection.execute(
        select(t.Task.key, t.Task.status).where(t.Task.generation == number, t.Task.kind != "label")
    )
    return dict(rows.all())


def _needs(connection: Connection) -> tuple[LabelNeed, ...]:
    rows = connection.execute(
        select(
            t.LabelRow.label_id,
            t.LabelRow.tries,
            t.LabelRow.alone,
            t.FrameRow.key,
            t.FrameRow.positions,
            t.System.name,
        )
        .join(t.FrameRow, t.FrameRow.frame_id == t.LabelRow.frame_id)
        .join(t.System, t.System.system_id == t.FrameRow.system_id)
        .where(t.LabelRow.status == "pending", t.LabelRow.task_id.is_(None))
        .order_by(t.LabelRow.label_id)
        .limit(WINDOW)
    )
    return tuple(
        LabelNeed(
            row.label_id,
            row.key,
            row.name,
            blob_to_vectors(row.positions).tolist(),
            row.tries,
            row.alone,
        )
        for row in rows
    )


def _generation(connection: Connection, number: int, generation_id: int) -> GenerationState:
    models = connection.execute(
        select(t.Model.member, t.Artifact.sha256)
        .join(t.Artifact, t.Artifact.artifact_id == t.Model.artifact_id)
        .where(t.Model.generation_id == generation_id)
        .order_by(t.Model.member)
    )
    return GenerationState(
        number=number,
        labels=_label_counts(connection, generation_id),
        snapshot=_snapshot(connection, number),
        models=dict(models.all()),
        committee=_committee(connection, number),
        shards=read_shards(connection, t.Trajectory.generation_id == generation_id),
    )


def _snapshot(connection: Connection, number: int) -> SnapshotState | None:
    row = connection.execute(
        select(
            t.Snapshot.sha256,
            t.Artifact.sha256.label("artifact"),
            t.Snapshot.n_labels,
            t.Snapshot.held_out,
        )
        .join(t.Artifact, t.Artifact.artifact_id == t.Snapshot.artifact_id)
        .join(t.Generation, t.Generation.generation_id == t.Snapshot.generation_id)
        .where(t.Generation.number == number)
        .order_by(t.Snapshot.snapshot_id.desc())
        .limit(1)
    ).one_or_none()
    if row is None:
        return None
    return SnapshotState(row.sha256, row.artifact, row.held_out, row.n_labels)


def _committee(connection: Connection, number: int) -> CommitteeState | None:
    head = connection.execute(
        select(t.Committee.committee_id)
        .join(t.Generation, t.Generation.generation_id == t.Committee.generation_id)
        .where(t.Generation.number == number)
    ).one_or_none()
    if head is None:
        return None
    members = connection.execute(
        select(t.Model.member, t.Artifact.sha256)
        .join(t.CommitteeMember, t.CommitteeMember.model_id == t.Model.model_id)
        .join(t.Artifact, t.Artifact.artifact_id == t.Model.artifact_id)
        .where(t.CommitteeMember.committee_id == head.committee_id)
        .order_by(t.CommitteeMember.position)
    )
    calibration = connection.execute(
        select(t.Calibration.__table__).where(
            t.Calibration.committee_id == head.committee_id, t.Calibration.measure == "force"
        )
    ).one_or_none()
    evaluated = connection.scalar(
        select(func.count()).where(
            t.Evaluation.committee_id == head.committee_id,
            t.Evaluation.kind.in_(("audit", "validation")),
        )
    )
    return CommitteeState(
        committee_id=head.committee_id,
        generation=number,
        members=tuple((row.member, row.sha256) for row in members),
        evaluated=bool(evaluated),
        calibration=_calibration(calibration),
    )


def _calibration(row: Row[Any] | None) -> dict[str, Any] | None:
    if row is None:
        return None
    hidden = ("calibration_id", "committee_id")
    return {name: value for name, value in row._mapping.items() if name not in hidden}


def _spacetime_tasks(connection: Connection, kind: str) -> dict[tuple[str, int, int], str]:
    rows = connection.execute(select(*_PLACE, t.Task.status).where(t.Task.kind == kind))
    return {(row.system, row.committee_id, row.turn): row.status for row in rows}


def _begun(connection: Connection) -> dict[tuple[str, int, int], int]:
    rows = connection.execute(
        select(*_PLACE, func.count())
        .join(t.SpacetimeProbe, t.SpacetimeProbe.task_id == t.Task.task_id)
        .join(t.Trajectory, t.Trajectory.task_id == t.Task.task_id)
        .group_by(t.Task.task_id)
    )
    return {(system, number, turn): n for system, number, turn, n in rows}


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


def _evaluations(connection: Connection) -> tuple[EvaluationState, ...]:
    rows = connection.execute(
        select(t.Evaluation.__table__, t.Generation.number)
        .join(t.Generation, t.Generation.generation_id == t.Evaluation.generation_id)
        .order_by(t.Generation.number, t.Evaluation.evaluation_id)
    )
    return tuple(
        EvaluationState(
            row.committee_id,
            row.number,
            row.kind,
            row.n_frames,
            row.n_groups,
            row.force_rmse,
            row.force_low,
            row.force_high,
        )
        for row in rows
    )


def _spacetime(connection: Connection) -> tuple[SpacetimeState, ...]:
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
