"""The state of a campaign in numbers, read from its ledger by anybody at any time."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, case, func, inspect, select

from alloop.errors import LedgerError
from alloop_db import schema as t


def status(engine: Engine) -> dict[str, Any]:
    """Return a JSON-ready summary: campaign, generations, labels, tasks, errors, 4D models.

    Raises LedgerError if the ledger knows of no campaign yet, or is of an older alloop.
    """
    with engine.connect() as connection:
        if not inspect(connection).has_table(t.SpacetimeProbe.__tablename__):
            raise LedgerError(
                "the ledger is of an older alloop: `alloop start` upgrades it, `alloop report`"
                " shows it as it is"
            )
        models = _spacetime(connection)
    return progress(engine) | {"spacetime_models": models}


def progress(engine: Engine) -> dict[str, Any]:
    """Return the summary without 4D models, which older ledgers keep in other columns.

    Raises LedgerError if the ledger knows of no campaign yet.
    """
    with engine.connect() as connection:
        campaign = connection.execute(select(t.CampaignRow.__table__)).one_or_none()
        if campaign is None:  # its driver was killed between making the file and filling it
            raise LedgerError(
                f"ledger {engine.url.database} is still empty; `alloop start` fills it"
            )
        number = connection.scalar(select(func.max(t.Generation.number)))
        return {
            "name": campaign.name,
            "state": campaign.state,
            "verdict": campaign.verdict,
            "exit_code": campaign.exit_code,
            "generation": number,
            "wall_seconds": round(campaign.seconds, 1),
            "labels": _counts(connection, t.LabelRow.status),
            "label_failures": _label_failures(connection),
            "tasks": _tasks(connection),
            "losses": connection.scalar(select(func.coalesce(func.sum(t.Task.losses), 0))),
            "cpu_seconds": _cpu_seconds(connection),
            "trajectories": _counts(connection, t.Trajectory.reason),
            "generations": _generations(connection),
        }


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


def _tasks(connection: Connection) -> dict[str, dict[str, int]]:
    tasks: dict[str, dict[str, int]] = {}
    rows = connection.execute(
        select(t.Task.kind, t.Task.status, func.count()).group_by(t.Task.kind, t.Task.status)
    )
    for kind, state, count in rows:
        tasks.setdefault(kind, {})[state] = count
    return tasks


def _cpu_seconds(connection: Connection) -> dict[str, float]:
    rows = connection.execute(
        select(t.Task.kind, func.sum(t.Task.cpu_seconds))
        .where(t.Task.cpu_seconds.is_not(None))
        .group_by(t.Task.kind)
    )
    return {kind: round(float(seconds or 0.0), 2) for kind, seconds in rows}


def _generations(connection: Connection) -> list[dict[str, Any]]:
    rows = connection.execute(
        select(
            t.Generation.number,
            t.Generation.generation_id,
            func.count(t.LabelRow.label_id).label("labels"),
            func.sum(case((t.LabelRow.status == "failed", 1), else_=0)).label("failed"),
        )
        .join(t.LabelRow, t.LabelRow.generation_id == t.Generation.generation_id, isouter=True)
        .group_by(t.Generation.generation_id)
        .order_by(t.Generation.number)
    ).all()
    result = []
    for row in rows:
        entry: dict[str, Any] = {
            "generation": row.number,
            "labels": row.labels,
            "failed": row.failed or 0,
        }
        entry["training_labels"] = connection.scalar(
            select(t.Snapshot.n_labels).where(t.Snapshot.generation_id == row.generation_id)
        )
        entry["errors"] = _errors(connection, row.generation_id)
        result.append(entry)
    return result


def _errors(connection: Connection, generation_id: int) -> dict[str, dict[str, Any]]:
    names = ("n_frames", "n_groups", "force_rmse", "force_low", "force_high", "energy_rmse",
             "coverage", "spearman")  # fmt: skip
    rows = connection.execute(
        select(t.Evaluation.__table__).where(t.Evaluation.generation_id == generation_id)
    )
    return {row.kind: {name: getattr(row, name) for name in names} for row in rows}


def _spacetime(connection: Connection) -> list[dict[str, Any]]:
    rows = connection.execute(
        select(
            t.SpacetimeModel.metrics,
            t.SpacetimeModel.cutoff,
            t.SpacetimeModel.status,
            t.SpacetimeModel.reason,
            t.System.name,
            t.Generation.number,
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
