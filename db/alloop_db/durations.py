"""How long the latest tasks took, for executors to tell what a block has time for."""

from __future__ import annotations

from sqlalchemy import Engine, func, select

from alloop_db import schema as t

LATEST = 1000
"""How many tasks are looked at."""


def longest_tasks(engine: Engine) -> list[tuple[str, str | None, float]]:
    """Return the longest that tasks of each kind took lately: kind, tier and seconds.

    Of label tasks each tier is a kind of its own, and what counts is one label.
    """
    labels = func.json_array_length(t.Task.spec, "$.frames")
    pieces = func.iif(t.Task.kind == "label", labels, 1)
    tier = func.iif(t.Task.kind == "label", func.json_extract(t.Task.spec, "$.tier"), None)
    seconds = func.max((t.Task.seconds + t.Task.earlier_seconds) / pieces)
    latest = select(func.max(t.Task.task_id)).scalar_subquery()
    with engine.connect() as connection:
        rows = connection.execute(
            select(t.Task.kind, tier, seconds)
            .where(
                t.Task.task_id > latest - LATEST, t.Task.status == "done", t.Task.kind != "import"
            )
            .group_by(t.Task.kind, tier)
        )
        return [(kind, tier, seconds) for kind, tier, seconds in rows]
