"""Read from the ledger what the planner needs to know of labels."""

from __future__ import annotations

from itertools import takewhile
from typing import Any

from sqlalchemy import Connection, Row, case, func, select

from alloop_db import schema as t
from alloop_db.arrays import blob_to_vectors
from alloop_db.state import AttemptState, LabelNeed, PriceState, TierState

WINDOW = 400
"""Pending labels of a tier shown to the planner at a time; bounds memory, not the campaign."""
RECENT = 300
"""Latest label attempts that tell the speed and the health of a tier."""


def read_counts(connection: Connection, generation_id: int | None) -> dict[str, dict[str, int]]:
    """Return by tier how many labels are in which status."""
    query = (
        select(t.LevelOfTheory.tier, t.LabelTally.status, func.sum(t.LabelTally.n))
        .join(
            t.LevelOfTheory,
            t.LevelOfTheory.level_of_theory_id == t.LabelTally.level_of_theory_id,
        )
        .group_by(t.LevelOfTheory.tier, t.LabelTally.status)
    )
    if generation_id is not None:
        query = query.where(t.LabelTally.generation_id == generation_id)
    counts: dict[str, dict[str, int]] = {}
    for tier, status, n in connection.execute(query):
        if n:
            counts.setdefault(tier, {})[status] = n
    return counts


def read_tiers(connection: Connection) -> dict[str, TierState]:
    """Return the labels of every tier, of the whole campaign."""
    counts = read_counts(connection, None)
    # Of this driver alone: whoever starts again has perhaps mended what failed before.
    epoch = connection.scalar(select(t.CampaignRow.epoch))
    levels = connection.execute(
        select(
            t.LevelOfTheory.level_of_theory_id, t.LevelOfTheory.tier, t.LevelOfTheory.seconds
        ).order_by(t.LevelOfTheory.level_of_theory_id)
    ).all()
    tiers = {}
    for level, tier, seconds in levels:
        rows = _attempts(connection, level)
        failures = list(takewhile(lambda row: row.status == "failed" and row.epoch == epoch, rows))
        found = counts.get(tier, {})
        tiers[tier] = TierState(
            requested=sum(found.values()),
            done=found.get("done", 0),
            failed=found.get("failed", 0),
            core_seconds=seconds,
            attempts=tuple(
                AttemptState(
                    row.n_atoms,
                    None if row.n_basis is None else int(row.n_basis),
                    row.seconds,
                    row.status == "done",
                )
                for row in rows
            ),
            # Labels, not attempts: the retries of a few hopeless frames do not condemn a tier.
            consecutive_failures=len({row.label_id for row in failures}),
            last_failures=tuple(f"{row.error_class}: {row.error_text}" for row in failures[:3]),
        )
    return tiers


def _attempts(connection: Connection, level: int) -> list[Row[Any]]:
    """Return the latest attempts at labels of a level, newest first."""
    return list(
        connection.execute(
            select(
                t.LabelAttempt.label_id,
                t.LabelAttempt.status,
                t.LabelAttempt.seconds,
                t.LabelAttempt.error_class,
                t.LabelAttempt.error_text,
                t.Task.epoch,
                t.FrameRow.n_atoms,
                func.json_extract(t.LabelRow.diagnostics, "$.n_basis").label("n_basis"),
            )
            .join(t.Task, t.Task.task_id == t.LabelAttempt.task_id)
            .join(t.LabelRow, t.LabelRow.label_id == t.LabelAttempt.label_id)
            .join(t.FrameRow, t.FrameRow.frame_id == t.LabelRow.frame_id)
            .where(t.LabelAttempt.level_of_theory_id == level, t.Task.kind == "label")
            .order_by(t.LabelAttempt.label_attempt_id.desc())
            .limit(RECENT)
        ).all()
    )


def read_needs(connection: Connection) -> tuple[LabelNeed, ...]:
    """Return pending labels that no open task is making.

    A window of each tier: stragglers of one must not hide what is due in another.
    """
    levels = connection.scalars(
        select(t.LabelTally.level_of_theory_id)
        .where(t.LabelTally.status == "pending", t.LabelTally.n > 0)
        .distinct()
        .order_by(t.LabelTally.level_of_theory_id)
    ).all()
    return tuple(need for level in levels for need in _needs_of(connection, level))


def _needs_of(connection: Connection, level: int) -> tuple[LabelNeed, ...]:
    short_of_memory = (
        select(func.count())
        .where(
            t.LabelAttempt.label_id == t.LabelRow.label_id,
            # Not by the index of reasons: a label has few attempts.
            func.coalesce(t.LabelAttempt.error_class, "") == "out_of_memory",
        )
        .scalar_subquery()
    )
    rows = connection.execute(
        select(
            t.LabelRow.label_id,
            t.LabelRow.tries,
            t.LabelRow.alone,
            t.LevelOfTheory.tier,
            t.FrameRow.key,
            t.FrameRow.positions,
            t.System.name,
            case((t.LabelRow.tries > 0, short_of_memory), else_=0).label("short_of_memory"),
        )
        .join(t.FrameRow, t.FrameRow.frame_id == t.LabelRow.frame_id)
        .join(t.System, t.System.system_id == t.FrameRow.system_id)
        .join(t.LevelOfTheory, t.LevelOfTheory.level_of_theory_id == t.LabelRow.level_of_theory_id)
        .where(
            t.LabelRow.status == "pending",
            t.LabelRow.task_id.is_(None),
            t.LabelRow.level_of_theory_id == level,
        )
        .order_by(t.LabelRow.label_id)
        .limit(WINDOW)
    )
    return tuple(
        LabelNeed(
            row.label_id,
            row.tier,
            row.key,
            row.name,
            blob_to_vectors(row.positions).tolist(),
            row.tries,
            row.alone,
            row.short_of_memory,
        )
        for row in rows
    )


def read_asked(connection: Connection, tier: str) -> tuple[str, ...]:
    """Return the frames whose labels of a tier were asked for."""
    return tuple(
        connection.scalars(
            select(t.FrameRow.key)
            .join(t.LabelRow, t.LabelRow.frame_id == t.FrameRow.frame_id)
            .join(
                t.LevelOfTheory,
                t.LevelOfTheory.level_of_theory_id == t.LabelRow.level_of_theory_id,
            )
            .where(t.LevelOfTheory.tier == tier)
            .order_by(t.FrameRow.key)
        )
    )


def read_promotion(connection: Connection, generation_id: int) -> PriceState | None:
    """Return the choice of frames of a generation, if it was made."""
    row = connection.execute(
        select(
            t.Promotion.n_promoted,
            t.Promotion.seconds,
            t.Promotion.seconds_low,
            t.Promotion.seconds_high,
        ).where(t.Promotion.generation_id == generation_id)
    ).one_or_none()
    return None if row is None else PriceState(*row)


def is_approved(connection: Connection, number: int) -> bool:
    """Return whether a person has agreed to the price of a generation."""
    query = select(func.count()).where(
        t.Event.kind == "approval", func.json_extract(t.Event.details, "$.generation") == number
    )
    return bool(connection.scalar(query))
