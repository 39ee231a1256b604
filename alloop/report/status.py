"""The state of a campaign in numbers, read from its ledger by anybody at any time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine, case, func, inspect, select

from alloop.errors import LedgerError
from alloop.report.faults import read_faults
from alloop.report.running import Running, count_running
from alloop.report.tiers import AUDIT, current_tier, read_approval, read_modes, read_tiers
from alloop.report.usage import read_usage
from alloop_db import schema as t


def status(engine: Engine, running: Sequence[Running] = ()) -> dict[str, Any]:
    """Return a JSON-ready summary: campaign, tiers, generations, labels, tasks, errors, 4D models.

    ``running`` is what a living driver has sent out; without it nobody is at work.

    Raises LedgerError if the ledger knows of no campaign yet, or is of an older alloop.
    """
    with engine.connect() as connection:
        if not inspect(connection).has_table(t.Promotion.__tablename__):
            raise LedgerError(
                "the ledger is of an older alloop: `alloop start` upgrades it, `alloop report`"
                " shows an upgraded copy"
            )
        campaign = connection.execute(select(t.CampaignRow.__table__)).one_or_none()
        if campaign is None:  # its driver was killed between making the file and filling it
            raise LedgerError(
                f"ledger {engine.url.database} is still empty; `alloop start` fills it"
            )
        number = connection.scalar(select(func.max(t.Generation.number)))
        summary = {
            "name": campaign.name,
            "state": campaign.state,
            "verdict": campaign.verdict,
            "exit_code": campaign.exit_code,
            "generation": number,
            "tier": current_tier(connection),
            "tiers": read_tiers(connection),
            "modes": read_modes(connection),
            "approval": read_approval(connection),
            "wall_seconds": round(campaign.seconds, 1),
            "labels": _counts(connection, t.LabelRow.status),
            "label_failures": _label_failures(connection),
            **_tasks(connection),
            **read_faults(connection),
            "running": count_running(running),
            "trajectories": _counts(connection, t.Trajectory.reason),
            "generations": _generations(connection),
            "spacetime_models": _spacetime(connection),
        }
    return summary | read_usage(engine, running)


def _counts(connection: Connection, column: Any) -> dict[str, int]:
    rows = connection.execute(select(column, func.count()).group_by(column).order_by(column))
    return dict(rows.all())


def _label_failures(connection: Connection) -> dict[str, int]:
    rows = connection.execute(
        select(t.LabelAttempt.error_class, func.count())
        .where(t.LabelAttempt.status == "failed")
        .group_by(t.LabelAttempt.error_class)
    )
    return {str(code): count for code, count in rows}


def _tasks(connection: Connection) -> dict[str, Any]:
    """Return the tasks of each kind by state, and their processor time: one look at each."""
    tasks: dict[str, dict[str, int]] = {}
    seconds: dict[str, float] = {}
    rows = connection.execute(
        select(
            t.Task.kind,
            t.Task.status,
            func.count(),
            func.sum(t.Task.cpu_seconds),
        ).group_by(t.Task.kind, t.Task.status)
    )
    for kind, state, count, spent in rows:
        tasks.setdefault(kind, {})[state] = count
        if spent is not None:
            seconds[kind] = seconds.get(kind, 0.0) + spent
    rounded = {kind: round(spent, 2) for kind, spent in seconds.items()}
    return {"tasks": tasks, "cpu_seconds": rounded}


def _generations(connection: Connection) -> list[dict[str, Any]]:
    rows = connection.execute(
        select(
            t.Generation.number,
            t.Generation.generation_id,
            t.LevelOfTheory.tier,
            t.LevelOfTheory.level_of_theory_id,
            func.count(t.LabelRow.label_id).label("labels"),
            func.sum(case((t.LabelRow.status == "failed", 1), else_=0)).label("failed"),
        )
        .join(
            t.LevelOfTheory,
            t.LevelOfTheory.level_of_theory_id == t.Generation.level_of_theory_id,
        )
        .join(t.LabelRow, t.LabelRow.generation_id == t.Generation.generation_id, isouter=True)
        .group_by(t.Generation.generation_id)
        .order_by(t.Generation.number)
    ).all()
    result = []
    for row in rows:
        entry: dict[str, Any] = {
            "generation": row.number,
            "tier": row.tier,
            "labels": row.labels,
            "failed": row.failed or 0,
        }
        entry["training_labels"] = connection.scalar(
            select(t.Snapshot.n_labels).where(
                t.Snapshot.generation_id == row.generation_id,
                t.Snapshot.level_of_theory_id == row.level_of_theory_id,
            )
        )
        entry["errors"] = _errors(connection, row.generation_id)
        result.append(entry)
    return result


def _errors(connection: Connection, generation_id: int) -> dict[str, dict[str, Any]]:
    rows = connection.execute(
        select(t.Evaluation.__table__).where(t.Evaluation.generation_id == generation_id)
    )
    return {row.kind: {name: getattr(row, name) for name in AUDIT} for row in rows}


def _spacetime(connection: Connection) -> list[dict[str, Any]]:
    rows = connection.execute(
        select(
            t.SpacetimeModel.metrics,
            t.SpacetimeModel.cutoff,
            t.SpacetimeModel.status,
            t.SpacetimeModel.reason,
            t.System.name,
            t.Generation.number,
            t.LevelOfTheory.tier,
            t.Artifact.sha256,
            t.SpacetimeProbe.n_segments,
            t.SpacetimeProbe.n_flagged,
            select(func.count())
            .where(t.Trajectory.task_id == t.SpacetimeProbe.task_id)
            .scalar_subquery()
            .label("n_begun"),
        )
        .join(t.System, t.System.system_id == t.SpacetimeModel.system_id)
        .join(t.Generation, t.Generation.generation_id == t.SpacetimeModel.generation_id)
        .join(t.Artifact, t.Artifact.artifact_id == t.SpacetimeModel.artifact_id)
        .join(t.Committee, t.Committee.committee_id == t.SpacetimeModel.committee_id)
        .join(
            t.LevelOfTheory,
            t.LevelOfTheory.level_of_theory_id == t.Committee.level_of_theory_id,
        )
        .join(
            t.SpacetimeProbe,
            t.SpacetimeProbe.spacetime_model_id == t.SpacetimeModel.spacetime_model_id,
            isouter=True,
        )
        .order_by(t.SpacetimeModel.spacetime_model_id)
    )
    probe = ("n_segments", "n_flagged", "n_begun")
    return [
        {
            "system": row.name,
            "generation": row.number,
            "tier": row.tier,
            "cutoff_fs": row.cutoff,
            "sha256": row.sha256,
            "status": row.status,
            "reason": row.reason,
            "metrics": row.metrics,
            "probe": (
                None if row.n_segments is None else {name: getattr(row, name) for name in probe}
            ),
        }
        for row in rows
    ]
