"""The tiers of a campaign in numbers: labels, price, error, target, modes, and what is asked.

Budgets and targets are those of the campaign file that a driver was last started with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, func, select

from alloop.config.quantities import ENERGY_PER_ATOM, FORCE, WALL_TIME, Dimension, Quantity
from alloop_db import schema as t

AUDIT: Final = (
    *("n_frames", "n_groups", "force_rmse", "force_low", "force_high", "energy_rmse"),
    *("coverage", "spearman"),
)
"""Columns of ``evaluation`` that say how large an error is."""


def read_tiers(connection: Connection) -> list[dict[str, Any]]:
    """Return one record for each tier, cheap to expensive.

    Labels ``done``, ``failed`` and ``to_go`` of ``budget_labels``; ``core_hours`` of
    ``budget_core_hours``; ``seconds_per_label``, its failures included; the ``audit`` error of its
    latest committee and its ``target``: eV/Å, and eV per atom. None where nothing is known.
    """
    config = _config(connection)
    sections = {section["id"]: section for section in config.get("tiers", ())}
    levels = connection.execute(
        select(t.LevelOfTheory.__table__).order_by(t.LevelOfTheory.level_of_theory_id)
    )
    return [_tier(connection, level, sections.get(level.tier, {}), config) for level in levels]


def current_tier(connection: Connection) -> str | None:
    """Return the tier that the latest generation is a turn of; None before the first."""
    tier: str | None = connection.scalar(
        select(t.LevelOfTheory.tier)
        .join(t.Generation, t.Generation.level_of_theory_id == t.LevelOfTheory.level_of_theory_id)
        .order_by(t.Generation.number.desc())
        .limit(1)
    )
    return tier


def read_modes(connection: Connection) -> list[dict[str, Any]]:
    """Return the scores of the modes that were last compared, the best first."""
    latest = select(func.max(t.ModeScore.generation_id)).scalar_subquery()
    rows = connection.execute(
        select(t.ModeScore.__table__, t.Generation.number.label("generation"))
        .join(t.Generation, t.Generation.generation_id == t.ModeScore.generation_id)
        .where(t.ModeScore.generation_id == latest)
        .order_by(t.ModeScore.relative, t.ModeScore.mode)
    )
    names = (
        *("generation", "mode", "relative", "promoted", "split", "n_frames", "n_groups"),
        *("force_rmse", "energy_rmse"),
    )
    return [{name: getattr(row, name) for name in names} for row in rows]


def read_approval(connection: Connection) -> dict[str, Any] | None:
    """Return what a paused campaign asks for: labels of a tier and their core-hours; else None."""
    state = connection.scalar(select(t.CampaignRow.state))
    row = connection.execute(
        select(t.Generation.number, t.Generation.generation_id, t.LevelOfTheory.tier,
               t.LevelOfTheory.level_of_theory_id, t.LevelOfTheory.seconds.label("spent"),
               t.Promotion.seconds, t.Promotion.seconds_low, t.Promotion.seconds_high)
        .join(t.Promotion, t.Promotion.generation_id == t.Generation.generation_id)
        .join(t.LevelOfTheory,
              t.LevelOfTheory.level_of_theory_id == t.Promotion.level_of_theory_id)
        .where(t.Generation.state == "open")
    ).one_or_none()  # fmt: skip
    if state != "paused" or row is None or not _asks(connection, row.tier, row.number):
        return None
    pending = _counts(connection, row.level_of_theory_id, row.generation_id).get("pending", 0)
    if not pending:
        return None
    done = _counts(connection, row.level_of_theory_id).get("done", 0)
    seconds = row.seconds
    if seconds is None and done:  # the first of the tier: as dear as those that are made
        seconds = row.spent / done * pending
    return {
        "tier": row.tier,
        "labels": pending,
        "core_hours": _hours(seconds),
        "core_hours_low": _hours(row.seconds_low),
        "core_hours_high": _hours(row.seconds_high),
    }


def _tier(
    connection: Connection, level: Any, section: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, Any]:
    counts = _counts(connection, level.level_of_theory_id)
    budget = section.get("budget") or {}
    done = counts.get("done", 0)
    return {
        "tier": level.tier,
        "level_of_theory": level.name,
        "done": done,
        "failed": counts.get("failed", 0),
        "to_go": counts.get("pending", 0),
        "budget_labels": budget.get("labels"),
        "core_hours": level.seconds / 3600.0,
        "budget_core_hours": _hours(_parsed(budget.get("core_time"), WALL_TIME)),
        "seconds_per_label": level.seconds / done if done else None,
        "audit": _audit(connection, level.level_of_theory_id),
        "target": _target(section.get("target") or config.get("target") or {}),
    }


def _config(connection: Connection) -> dict[str, Any]:
    resolved: dict[str, Any] | None = connection.scalar(
        select(t.ConfigVersion.resolved).order_by(t.ConfigVersion.config_version_id.desc()).limit(1)
    )
    return resolved or {}


def _counts(
    connection: Connection, level_id: int, generation_id: int | None = None
) -> dict[str, int]:
    query = (
        select(t.LabelTally.status, func.sum(t.LabelTally.n))
        .where(t.LabelTally.level_of_theory_id == level_id)
        .group_by(t.LabelTally.status)
    )
    if generation_id is not None:
        query = query.where(t.LabelTally.generation_id == generation_id)
    return dict(connection.execute(query).all())


def _audit(connection: Connection, level_id: int) -> dict[str, Any] | None:
    row = connection.execute(
        select(t.Evaluation.__table__)
        .join(t.Committee, t.Committee.committee_id == t.Evaluation.committee_id)
        .where(t.Committee.level_of_theory_id == level_id, t.Evaluation.kind == "audit")
        .order_by(t.Evaluation.committee_id.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else {name: getattr(row, name) for name in AUDIT}


def _asks(connection: Connection, tier: str, number: int) -> bool:
    """Return whether the tier wants approval of each round, and this one has none."""
    sections = {section["id"]: section for section in _config(connection).get("tiers", ())}
    if not (sections.get(tier, {}).get("escalate") or {}).get("approve"):
        return False
    given = select(func.count()).where(
        t.Event.kind == "approval", func.json_extract(t.Event.details, "$.generation") == number
    )
    return not connection.scalar(given)


def _target(section: Mapping[str, Any]) -> dict[str, float | None]:
    return {
        "force_rmse": _parsed(section.get("force_rmse"), FORCE),
        "energy_rmse": _parsed(section.get("energy_rmse"), ENERGY_PER_ATOM),
    }


def _parsed(text: str | None, dimension: Dimension) -> float | None:
    return None if text is None else float(Quantity(dimension).parse(text))


def _hours(seconds: float | None) -> float | None:
    return None if seconds is None else seconds / 3600.0
