"""The tasks that a living driver has sent out: what is at work, since when, and how far."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, select

from alloop_db import schema as t
from alloop_tasks.workspace import Workspace, read_json


@dataclass(frozen=True, slots=True)
class Running:
    """A task in flight.

    Attributes
    ----------
    key : the task's key.
    kind : what it does.
    generation : the generation it serves.
    name : the member or the route it works on; empty if it has none.
    began : when a worker took it, s since 1970; None while it waits for one.

    """

    key: str
    kind: str
    generation: int
    name: str
    began: float | None

    def seconds(self, until: float) -> float:
        """Return how long a worker has been at it, s."""
        return 0.0 if self.began is None else max(until - self.began, 0.0)


def read_running(engine: Engine, directory: Path) -> tuple[Running, ...]:
    """Return the tasks in flight, those at work the longest first.

    Ask only while a driver lives: one that was killed leaves its tasks marked as running. The files
    by which workers tell that they have begun are dated by the file server; a begin is never taken
    to be before the task was sent.
    """
    spec = t.Task.spec
    with engine.connect() as connection:
        rows = connection.execute(
            select(
                t.Task.key, t.Task.kind, t.Task.generation, t.Task.submitted_at,
                spec["member"].as_string(), spec["route"].as_string(),
            ).where(t.Task.status == "running")
        ).all()  # fmt: skip
    found = [
        Running(key, kind, generation, member or route or "", _began(directory, key, sent))
        for key, kind, generation, sent, member, route in rows
    ]
    return tuple(sorted(found, key=lambda task: (task.began or time.time(), task.key)))


def progress_of(directory: Path, task: Running) -> dict[str, Any]:
    """Return what a task says of itself: ``done``, ``total``, ``text``; nothing if it is silent."""
    said: dict[str, Any] = read_json(Workspace(directory, task.key).progress_path) or {}
    return said


def count_running(tasks: Iterable[Running]) -> dict[str, dict[str, int]]:
    """Return how many tasks of each kind are ``at_work`` and how many are ``waiting``."""
    counts: dict[str, dict[str, int]] = {}
    for task in tasks:
        of_kind = counts.setdefault(task.kind, {"at_work": 0, "waiting": 0})
        of_kind["waiting" if task.began is None else "at_work"] += 1
    return counts


def _began(directory: Path, key: str, sent: str | None) -> float | None:
    try:
        taken = Workspace(directory, key).running_path.stat().st_mtime
    except OSError:  # no worker has taken it, or the server is away for a moment
        return None
    return taken if sent is None else max(taken, datetime.fromisoformat(sent).timestamp())
