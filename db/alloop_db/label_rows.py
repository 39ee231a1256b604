"""What a task of labels means for the ledger: a statement for all of them, not some for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Update, bindparam, func, select, update
from sqlalchemy.orm import Session

from alloop.artifacts import ArtifactStore
from alloop_db import schema as t
from alloop_db.arrays import floats_to_blob
from alloop_db.frame_rows import add_rows

Result = dict[str, Any]
_LABELS = t.Base.metadata.tables[t.LabelRow.__tablename__]


def _change(*columns: str) -> Update:
    """Return a change of labels, which then are no task's."""
    values: dict[str, Any] = {name: bindparam(name) for name in columns}
    statement = update(_LABELS).where(_LABELS.c.label_id == bindparam("row"))
    return statement.values(task_id=None, **values)


# Made once: to put a statement together takes longer than to carry it out.
_FILL = _change("status", "energy", "forces", "diagnostics", "done_at")
_FAIL = _change("status", "tries")
_PENDING = (
    select(
        t.FrameRow.key,
        t.LabelRow.label_id,
        t.LabelRow.level_of_theory_id,
        t.LabelRow.tries,
        select(func.count())
        .where(t.LabelAttempt.label_id == t.LabelRow.label_id)
        .scalar_subquery()
        .label("attempts"),
    )
    .join(t.FrameRow, t.FrameRow.frame_id == t.LabelRow.frame_id)
    .where(t.LabelRow.status == "pending", t.LabelRow.task_id == bindparam("task_id"))
)


def commit_label(session: Session, task: t.Task, result: Result, _: ArtifactStore) -> None:
    """Fill labels; a failed one goes back to pending while its reason may be cured by a retry."""
    waiting = _waiting(session, task)
    attempts, done, failed = [], [], []
    for record in result["labels"]:
        # Nobody waits for a label of another task, nor a second time for one of this task.
        label = waiting.pop(record["frame_key"], None)
        if label is None:
            continue
        attempts.append(_attempt(record, label, task))
        if record["status"] == "done":
            done.append({"row": label.label_id, **_filled(record)})
        else:
            tries = label.tries + 1
            again = record["retryable"] and tries <= task.spec["retries"]
            status = "pending" if again else "failed"
            failed.append({"row": label.label_id, "status": status, "tries": tries})
    add_rows(session, t.LabelAttempt, attempts)
    _update(session, _FILL, done)
    _update(session, _FAIL, failed)


def _waiting(session: Session, task: t.Task) -> dict[str, Any]:
    """Return by frame the pending labels that a task is to make."""
    return {row.key: row for row in session.execute(_PENDING, {"task_id": task.task_id})}


def _attempt(record: Result, label: Any, task: t.Task) -> Result:
    names = ("status", "seconds", "program", "attempted_at")
    return {name: record[name] for name in names} | {
        "label_id": label.label_id,
        "level_of_theory_id": label.level_of_theory_id,
        "number": label.attempts + 1,
        "error_class": record.get("error_class"),
        "error_text": record.get("error_text"),
        "host": task.host,
        "environment_id": task.environment_id,
        "task_id": task.task_id,
    }


def _filled(record: Result) -> Result:
    forces = record["forces"]
    return {
        "status": "done",
        "energy": record["energy"],
        "forces": None if forces is None else floats_to_blob(forces),
        "diagnostics": record.get("diagnostics") or None,
        "done_at": t.now(),
    }


def _update(session: Session, change: Update, rows: Sequence[Result]) -> None:
    if rows:
        session.execute(change, rows)
