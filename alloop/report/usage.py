"""Core-hours by stage and tier, and how busy the workers were."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Engine

from alloop.report.running import Running
from alloop_db.queries import run

Hours = dict[str, dict[str, float]]
"""Core-hours by stage, then by tier."""


def read_usage(engine: Engine, running: Sequence[Running] = ()) -> dict[str, Any]:
    """Return ``core_hours`` by stage and tier, and ``utilisation``, None before any task has ended.

    Of utilisation: ``workers``, on average over the drivers' wall time; ``workers_are``, how they
    were counted; ``busy_seconds`` and ``all_seconds`` of all workers together, ``part`` their
    ratio. Tasks that are ``running`` count as busy since they began; they have no core-hours yet.
    """
    result = run(engine, "utilisation")
    rows = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
    hours: Hours = {}
    for row in rows:
        if row["core_hours"] is not None:
            tier = hours.setdefault(row["kind"], {})
            tier[row["tier"] or "no tier"] = round(row["core_hours"], 9)
    return {"core_hours": hours, "utilisation": _utilisation(rows, running)}


def _utilisation(rows: list[dict[str, Any]], running: Sequence[Running]) -> dict[str, Any] | None:
    if not rows:
        return None
    now, ended = time.time(), [row["seconds"] for row in rows if row["kind"] != "idle"]
    whole = sum(row["seconds"] for row in rows)
    # What runs was idle in the ledger's eyes: it cannot be more than that.
    busy = min(sum(ended) + sum(task.seconds(now) for task in running), whole)
    return {
        "workers": rows[0]["workers"],
        "workers_are": rows[0]["workers_are"],
        "busy_seconds": round(busy, 2),
        "all_seconds": round(whole, 2),
        "part": round(busy / whole, 4),
    }


def usage_words(usage: dict[str, Any]) -> str:
    """Return how busy the workers were, in one line."""
    workers, counted = usage["workers"], usage["workers_are"]
    many = "an unknown number" if workers is None else f"{workers:g}"
    return f"workers: {many} ({counted}), {100.0 * usage['part']:.0f} % of their time busy"


def hours_words(tiers: dict[str, float], several: bool) -> str:
    """Return the core-hours of a stage, tier by tier if there are ``several``."""
    total = f"{sum(tiers.values()):.2g} core-hours"
    if not several:
        return total
    if len(tiers) == 1:
        return f"{total} of {next(iter(tiers))}"
    return f"{total} ({', '.join(f'{tier} {hours:.2g}' for tier, hours in tiers.items())})"
