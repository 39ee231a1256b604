"""What has gone wrong around the work: pools that do not work, losses and where, wrong clocks."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, select

from alloop_db import schema as t

MOST_PLACES = 5
"""So many places where tasks were lost are named."""


def read_faults(connection: Connection) -> dict[str, Any]:
    """Return what is told of faults, of the whole campaign.

    ``losses``, and by place ``losses_by`` [{pool, host, n}], the most frequent first;
    ``hand_backs``; ``task_failures`` by class of error; and of the present driver, or the last:
    ``pools`` [{pool, state, reason, since}] that are not ok, and ``clocks`` [{host,
    seconds_ahead}].
    """
    places = _losses(connection)
    return {
        "losses": sum(place["n"] for place in places),
        "losses_by": places,
        "hand_backs": connection.scalar(select(func.coalesce(func.sum(t.Task.hand_backs), 0))),
        "task_failures": _failures(connection),
        "pools": [pool for pool in _latest(connection, "pool") if pool["state"] != "ok"],
        "clocks": [
            {"host": clock["host"], "seconds_ahead": clock["seconds_ahead"]}
            for clock in _latest(connection, "clock", name="host")
        ],
    }


def fault_lines(summary: dict[str, Any]) -> list[str]:
    """Return the faults of a status in words, one line each."""
    # How pools and clocks are only a driver knows.
    lines = trouble_lines(summary) if summary["driver"] else []
    if summary["task_failures"]:
        counts = ", ".join(f"{n} {name}" for name, n in summary["task_failures"].items())
        lines.append(f"failed tasks by reason: {counts}")
    if summary["losses"]:
        lines.append(losses_words(summary))
    if summary["hand_backs"]:
        count = summary["hand_backs"]
        lines.append(f"tasks laid down because their block ended, to go on elsewhere: {count}")
    return lines


def trouble_lines(summary: dict[str, Any]) -> list[str]:
    """Return what is wrong at present as far as the last driver knows, one line each."""
    pools = [_pool_words(pool) for pool in summary["pools"]]
    return pools + [_clock_words(clock) for clock in summary["clocks"]]


def losses_words(summary: dict[str, Any]) -> str:
    """Return how many tasks were lost, and where, in one line."""
    words = f"tasks lost with their worker or driver and repeated: {summary['losses']}"
    known = [place for place in summary["losses_by"] if place["pool"] or place["host"]]
    named = [
        f"{place['n']} " + " on ".join(part for part in (place["pool"], place["host"]) if part)
        for place in known[:MOST_PLACES]
    ]
    return f"{words} ({', '.join(named)})" if named else words


def _pool_words(pool: dict[str, Any]) -> str:
    words = f"pool {pool['pool']}: {pool['state']} since {pool['since']}"
    return f"{words}: {pool['reason']}" if pool["reason"] else words


def _clock_words(clock: dict[str, Any]) -> str:
    ahead = clock["seconds_ahead"]
    side = "ahead" if ahead > 0 else "behind"
    return f"warning: the clock of {clock['host']} is {abs(ahead):.0f} s {side}"


def _losses(connection: Connection) -> list[dict[str, Any]]:
    pool, host = (t.Event.details[name].as_string() for name in ("pool", "host"))
    rows = connection.execute(
        select(func.coalesce(pool, ""), func.coalesce(host, ""), func.count())
        .where(t.Event.kind == "loss")
        .group_by(pool, host)
        .order_by(func.count().desc(), pool, host)
    )
    return [{"pool": pool, "host": host, "n": n} for pool, host, n in rows]


def _failures(connection: Connection) -> dict[str, int]:
    name = t.Event.details["error_class"].as_string()
    rows = connection.execute(
        select(func.coalesce(name, "unknown"), func.count())
        .where(t.Event.kind.in_(("retry", "failure")))
        .group_by(name)
        .order_by(func.count().desc(), name)
    )
    return dict(rows.all())


def _latest(connection: Connection, kind: str, name: str = "pool") -> list[dict[str, Any]]:
    """Return the last event of a kind by what it is about, of the last driver.

    With ``since``: when the state that it tells of began.
    """
    began = select(func.coalesce(func.max(t.Event.event_id), 0)).where(t.Event.kind == "workers")
    rows = connection.execute(
        select(t.Event.at, t.Event.details)
        .where(t.Event.kind == kind, t.Event.event_id > began.scalar_subquery())
        .order_by(t.Event.event_id)
    )
    found: dict[str, dict[str, Any]] = {}
    for at, details in rows:
        known = found.get(details[name], {})
        same = known.get("state") == details.get("state")
        found[details[name]] = details | {"since": known["since"] if known and same else at}
    return list(found.values())
