"""Read from the ledger what the planner needs, at a cost that does not grow with its history."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, func, or_, select

from alloop_db import label_reader, spacetime_reader
from alloop_db import schema as t
from alloop_db.arrays import blob_to_integers, blob_to_vectors
from alloop_db.state import (
    CampaignState,
    CommitteeState,
    EvaluationState,
    GenerationState,
    ShardState,
    SnapshotState,
    SystemState,
)
from alloop_db.trajectory_reader import TrajectoryReader


class StateReader:
    """Reads the planner's view of the campaign, again and again.

    What is never changed, only added to, it reads again where something was added.
    """

    def __init__(self) -> None:
        self._trajectories = TrajectoryReader()
        self._records: dict[int, dict[str, Any]] = {}

    def read(self, connection: Connection) -> CampaignState:
        """Return the planner's view of the campaign."""
        number, generation_id, tier = connection.execute(
            select(t.Generation.number, t.Generation.generation_id, t.LevelOfTheory.tier)
            .join(
                t.LevelOfTheory,
                t.LevelOfTheory.level_of_theory_id == t.Generation.level_of_theory_id,
            )
            .order_by(t.Generation.number.desc())
            .limit(1)
        ).one()
        known = self._trajectories.read(connection, generation_id)
        return CampaignState(
            systems=self._systems(connection),
            generation=_generation(connection, number, generation_id, tier, known.shards),
            explorer=_committee(connection, t.Generation.number == number - 1),
            explorer_snapshots=_snapshots(connection, number - 1),
            below=_below(connection, tier),
            tasks=_tasks(connection, number),
            needs=label_reader.read_needs(connection),
            open_label_tasks=connection.scalar(
                select(func.count()).where(
                    t.Task.kind == "label", t.Task.status.in_(("pending", "running"))
                )
            )
            or 0,
            tiers=label_reader.read_tiers(connection),
            tier_of=_tier_of(connection),
            seconds=connection.scalar(select(t.CampaignRow.seconds)) or 0.0,
            evaluations=_evaluations(connection),
            nve_shards=known.nve_shards,
            spacetime=spacetime_reader.read_models(connection),
            fits=spacetime_reader.read_tasks(connection, "fit_spacetime"),
            probes=spacetime_reader.read_tasks(connection, "probe_spacetime"),
            begun=known.begun,
            stability=known.stability,
        )

    def _systems(self, connection: Connection) -> dict[str, SystemState]:
        """Return the systems; only whether they are prepared can change."""
        if not self._records:
            rows = connection.execute(select(t.System.__table__)).all()
            self._records = {row.system_id: system_record(row) for row in rows}  # type: ignore[arg-type]  # a row has the columns of its table
        records = self._records
        prepared = connection.execute(
            select(t.System.system_id, t.Artifact.sha256)
            .join(t.Artifact, t.Artifact.artifact_id == t.System.artifact_id, isouter=True)
            .order_by(t.System.system_id)
        )
        return {
            records[system_id]["name"]: SystemState(system_id, records[system_id], sha256)
            for system_id, sha256 in prepared
        }


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


def _tier_of(connection: Connection) -> dict[int, str]:
    rows = connection.execute(
        select(t.Generation.number, t.LevelOfTheory.tier).join(
            t.LevelOfTheory,
            t.LevelOfTheory.level_of_theory_id == t.Generation.level_of_theory_id,
        )
    )
    return dict(rows.all())


def _tasks(connection: Connection, number: int) -> dict[str, str]:
    rows = connection.execute(
        select(t.Task.key, t.Task.status).where(
            t.Task.generation == number,
            # Not ``!=``: so those of labels, which are many, are not even looked at.
            or_(t.Task.kind < "label", t.Task.kind > "label"),
        )
    )
    return dict(rows.all())


def _generation(
    connection: Connection,
    number: int,
    generation_id: int,
    tier: str,
    shards: tuple[ShardState, ...],
) -> GenerationState:
    rows = connection.execute(
        select(t.Model.mode, t.Model.member, t.Artifact.sha256)
        .join(t.Artifact, t.Artifact.artifact_id == t.Model.artifact_id)
        .where(t.Model.generation_id == generation_id)
        .order_by(t.Model.member)
    )
    models: dict[str, dict[str, str]] = {}
    for mode, member, sha256 in rows:
        models.setdefault(mode, {})[member] = sha256
    promotion = label_reader.read_promotion(connection, generation_id)
    first = _below(connection, tier) is None
    return GenerationState(
        number=number,
        tier=tier,
        labels=label_reader.read_counts(connection, generation_id),
        snapshots=_snapshots(connection, number),
        models=models,
        committee=_committee(connection, t.Generation.number == number),
        shards=shards,
        promotion=promotion,
        approved=promotion is not None and label_reader.is_approved(connection, number),
        # In the first tier nobody is promoted, and there may be a million.
        asked=() if first or promotion is not None else label_reader.read_asked(connection, tier),
        best_mode=connection.scalar(
            select(t.ModeScore.mode).where(
                t.ModeScore.generation_id == generation_id, t.ModeScore.promoted
            )
        ),
    )


def _snapshots(connection: Connection, number: int) -> dict[str, SnapshotState]:
    rows = connection.execute(
        select(
            t.LevelOfTheory.tier,
            t.Snapshot.sha256,
            t.Artifact.sha256.label("artifact"),
            t.Snapshot.n_labels,
            t.Snapshot.held_out,
        )
        .join(t.Artifact, t.Artifact.artifact_id == t.Snapshot.artifact_id)
        .join(t.Generation, t.Generation.generation_id == t.Snapshot.generation_id)
        .join(t.LevelOfTheory, t.LevelOfTheory.level_of_theory_id == t.Snapshot.level_of_theory_id)
        .where(t.Generation.number == number)
        .order_by(t.Snapshot.snapshot_id)
    )
    return {
        row.tier: SnapshotState(row.sha256, row.artifact, row.held_out, row.n_labels)
        for row in rows
    }


def _below(connection: Connection, tier: str) -> CommitteeState | None:
    """Return the latest committee of the tier before this one."""
    tiers = list(
        connection.scalars(
            select(t.LevelOfTheory.tier).order_by(t.LevelOfTheory.level_of_theory_id)
        )
    )
    place = tiers.index(tier)
    return _committee(connection, t.LevelOfTheory.tier == tiers[place - 1]) if place else None


def _committee(connection: Connection, condition: object) -> CommitteeState | None:
    """Return the latest committee that meets a condition on its generation or its level."""
    head = connection.execute(
        select(t.Committee.committee_id, t.Generation.number, t.LevelOfTheory.tier)
        .join(t.Generation, t.Generation.generation_id == t.Committee.generation_id)
        .join(t.LevelOfTheory, t.LevelOfTheory.level_of_theory_id == t.Committee.level_of_theory_id)
        .where(condition)  # type: ignore[arg-type]  # a column expression, which mypy sees as bool
        .order_by(t.Committee.committee_id.desc())
        .limit(1)
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
        generation=head.number,
        tier=head.tier,
        members=tuple((row.member, row.sha256) for row in members),
        evaluated=bool(evaluated),
        calibration=_calibration(calibration),
    )


def _calibration(row: Row[Any] | None) -> dict[str, Any] | None:
    if row is None:
        return None
    hidden = ("calibration_id", "committee_id")
    return {name: value for name, value in row._mapping.items() if name not in hidden}


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
            row.energy_rmse,
        )
        for row in rows
    )
