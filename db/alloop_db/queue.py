"""Tasks from intent to commit: each public method is one transaction.

The order is always intent, work, file, row: a task is in the ledger before it is submitted, its
result lies in a file before it is committed, and a commit is made once, whoever asks how often.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, Select, bindparam, func, select, true, union_all, update
from sqlalchemy.dialects.sqlite import insert as insert_or
from sqlalchemy.orm import Session

from alloop.artifacts import ArtifactStore
from alloop.errors import LedgerError
from alloop_db import schema as t
from alloop_db.commits import COMMITS, record_artifacts, record_attempt, record_environment
from alloop_db.sessions import record_event, transaction

MAX_TRIES = 2
"""How often a task other than a label may fail before it counts as failed."""
MAX_LOSSES = 5
"""How often in a row a task may be lost with its worker, or find no time to begin, without having
got any further, before it counts as failed.
"""
MAX_SHARED_LOSSES = 2
"""The same for a task of several labels, which are then made one by one."""


@dataclass(frozen=True, slots=True)
class TaskIntent:
    """Work that is to be done.

    ``labels`` are the rows that a label task is to fill.
    """

    key: str
    kind: str
    spec: dict[str, Any]
    generation: int
    priority: int
    labels: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Claim:
    """A task handed out for submission.

    ``losses`` counts its attempts in a row that were lost and got it no further.
    """

    key: str
    kind: str
    spec: dict[str, Any]
    losses: int = 0


# Made once: to put a statement together takes longer than to carry it out.
_TASKS, _LABELS = (t.Base.metadata.tables[one.__tablename__] for one in (t.Task, t.LabelRow))
_ADD = insert_or(_TASKS).on_conflict_do_nothing(index_elements=["key"]).returning(_TASKS.c.task_id)
_GIVE = (
    update(_LABELS).where(_LABELS.c.label_id == bindparam("row")).values(task_id=bindparam("task"))
)


class TaskQueue:
    """The tasks of a campaign."""

    def __init__(self, engine: Engine, artifacts: ArtifactStore) -> None:
        self._engine, self._artifacts = engine, artifacts

    def add(self, intents: Sequence[TaskIntent]) -> int:
        """Record intents that are not known yet; return how many were new."""
        if not intents:
            return 0
        new = 0
        given: list[dict[str, int]] = []
        with transaction(self._engine) as session:
            for intent in intents:
                task_id = session.scalar(_ADD, _columns(intent))
                if task_id is not None:
                    new += 1
                    given += [{"row": row, "task": task_id} for row in intent.labels]
            if given:
                session.execute(_GIVE, given)
        return new

    def claim(
        self, limit: int, epoch: int, work: Mapping[str, Collection[str] | None] | None = None
    ) -> list[Claim]:
        """Hand out up to ``limit`` pending tasks and mark them running.

        ``work`` names the kinds of task that are wanted, each with the tiers that it may be for,
        None for any; without it all are wanted.
        """
        if limit <= 0:
            return []
        with transaction(self._engine) as session:
            rows = session.execute(_pending(limit, work)).all()
            session.execute(
                update(t.Task)
                .where(t.Task.task_id.in_([row.task_id for row in rows]))
                .values(status="running", epoch=epoch, submitted_at=t.now())
            )
        return [Claim(row.key, row.kind, row.spec, row.losses) for row in rows]

    def open_keys(self) -> list[str]:
        """Return the keys of tasks that are not finished."""
        with transaction(self._engine) as session:
            return list(
                session.scalars(select(t.Task.key).where(t.Task.status.in_(("pending", "running"))))
            )

    def commit(self, envelope: dict[str, Any]) -> bool:
        """Commit the result of a task; return False if it was committed before."""
        with transaction(self._engine) as session:
            task = _task(session, envelope["key"])
            if task.status not in ("pending", "running"):
                return False
            environment_id = record_environment(session, envelope["environment"])
            record_artifacts(session, envelope["artifacts"], task.task_id)
            _finish(task, envelope, environment_id)
            COMMITS[task.kind](session, task, envelope["result"], self._artifacts)
            return True

    def fail(self, envelope: dict[str, Any]) -> str:
        """Note that a task itself failed; return its new status, pending or failed."""
        with transaction(self._engine) as session:
            task = _task(session, envelope["key"])
            if task.status not in ("pending", "running"):
                return task.status
            _finish(task, envelope, record_environment(session, envelope["environment"]))
            task.tries += 1
            task.status = "pending" if task.tries < MAX_TRIES else "failed"
            kind = "retry" if task.status == "pending" else "failure"
            text = f"{task.kind} {task.key[:12]}: {task.error_text}"
            record_event(
                session, kind, text, {"error_class": task.error_class, "tries": task.tries}
            )
            if task.status == "failed" and task.kind == "label":
                _release_labels(session, task)
            return task.status

    def lose(
        self, key: str, reason: str, *, advanced: bool = False, pool: str = "", host: str = ""
    ) -> str:
        """Note that a task was lost with its worker; return its new status, pending or failed.

        ``advanced`` says whether it has left parts that the next attempt goes on from, ``pool``
        and ``host`` where it was lost.
        """
        with transaction(self._engine) as session:
            task = _task(session, key)
            if task.status in ("pending", "running"):
                _set_back(session, task, "Lost", reason, advanced=advanced)
                text = f"{task.kind} {key[:12]}: {reason}"
                details = {"losses": task.losses, "pool": pool, "host": host}
                record_event(session, "loss", text, details)
            return task.status

    def hand_back(self, key: str, reason: str, *, advanced: bool, seconds: float) -> str:
        """Note that a task was laid down because its block ends; return its new status.

        It stays running, in the driver's hands, or has failed: nothing has got it any further,
        again and again. ``seconds`` is how long this attempt took.
        """
        with transaction(self._engine) as session:
            task = _task(session, key)
            if task.status in ("pending", "running"):
                _set_back(session, task, "OutOfTime", reason, advanced=advanced)
                if task.status == "pending":
                    task.status = "running"
                task.hand_backs += 1
                task.earlier_seconds += seconds
                text = f"{task.kind} {key[:12]}: {reason}"
                details = {"hand_backs": task.hand_backs, "advanced": advanced}
                record_event(session, "handed_back", text, details)
            return task.status

    def requeue(self, keys: Sequence[str]) -> int:
        """Put running tasks back to pending: their driver is gone, they are not to blame."""
        with transaction(self._engine) as session:
            return int(
                session.execute(
                    update(t.Task)
                    .where(t.Task.key.in_(keys), t.Task.status == "running")
                    .values(status="pending")
                ).rowcount  # type: ignore[attr-defined]  # an update has one
            )

    def revive_labels(self) -> int:
        """Ask again for the labels that failed since the last success; return how many.

        For a tier that was stopped because it only failed: its program was to blame, not the
        frames. What they have tried so far stays counted.
        """
        with transaction(self._engine) as session:
            last = session.scalar(
                select(func.max(t.LabelAttempt.label_attempt_id)).where(
                    t.LabelAttempt.status == "done",
                    # Labels that were made elsewhere say nothing of the program.
                    t.LabelAttempt.task_id.in_(
                        select(t.Task.task_id).where(t.Task.kind == "label")
                    ),
                )
            )
            since = select(t.LabelAttempt.label_id).where(
                t.LabelAttempt.label_attempt_id > (last or 0)
            )
            return int(
                session.execute(
                    update(t.LabelRow)
                    .where(t.LabelRow.status == "failed", t.LabelRow.label_id.in_(since))
                    .values(status="pending")
                ).rowcount  # type: ignore[attr-defined]  # an update has one
            )

    def revive(self) -> list[str]:
        """Give failed tasks of the open generation another chance; return what they were."""
        with transaction(self._engine) as session:
            number = session.scalar(select(func.max(t.Generation.number)))
            rows = session.scalars(
                select(t.Task).where(
                    t.Task.status == "failed", t.Task.generation == number, t.Task.kind != "label"
                )
            ).all()
            for task in rows:
                task.status, task.tries, task.losses = "pending", 0, 0
            return [f"{task.kind} {task.key[:12]}" for task in rows]


def _pending(
    limit: int, work: Mapping[str, Collection[str] | None] | None
) -> Select[tuple[int, str, str, dict[str, Any], int]]:
    """Return what asks for the tasks that come next.

    Kind by kind, each by an index: what is not wanted may lie there by the hundred thousand.
    """
    columns = (t.Task.task_id, t.Task.key, t.Task.kind, t.Task.spec, t.Task.losses)
    order = (t.Task.priority, t.Task.task_id)
    if work is None:
        return select(*columns).where(t.Task.status == "pending").order_by(*order).limit(limit)
    tier = t.Task.spec["tier"].as_string()
    chosen = [
        select(t.Task.task_id)
        .where(t.Task.status == "pending", t.Task.kind == kind)
        # Tasks of an older alloop do not say their tier.
        .where(true() if tiers is None else tier.in_(tiers) | tier.is_(None))
        .order_by(*order)
        .limit(limit)
        .subquery()
        for kind, tiers in work.items()
    ]
    ids = union_all(*(select(one.c.task_id) for one in chosen))
    return select(*columns).where(t.Task.task_id.in_(ids)).order_by(*order).limit(limit)


def _columns(intent: TaskIntent) -> dict[str, Any]:
    names = ("key", "kind", "spec", "generation", "priority")
    return {name: getattr(intent, name) for name in names} | {
        "status": "pending",
        "tries": 0,
        "losses": 0,
        "created_at": t.now(),
    }


def _task(session: Session, key: str) -> t.Task:
    task = session.scalar(select(t.Task).where(t.Task.key == key))
    if task is None:
        raise LedgerError(f"task {key[:12]} is not in the ledger: nobody intended it")
    return task


def _set_back(
    session: Session, task: t.Task, error_class: str, reason: str, *, advanced: bool
) -> None:
    """Make a task pending again, or failed when it has got no further too often."""
    task.losses = 0 if advanced else task.losses + 1
    shared = task.kind == "label" and len(task.spec["frames"]) > 1
    limit = MAX_SHARED_LOSSES if shared else MAX_LOSSES
    task.status = "pending" if task.losses < limit else "failed"
    task.error_class, task.error_text = error_class, reason
    if task.status == "failed" and task.kind == "label":
        _release_labels(session, task)


def _finish(task: t.Task, envelope: dict[str, Any], environment_id: int) -> None:
    task.status = envelope["status"]
    task.started_at, task.finished_at = envelope["started_at"], t.now()
    task.seconds, task.cpu_seconds = envelope["seconds"], envelope["cpu_seconds"]
    task.host, task.environment_id = envelope["environment"]["host"], environment_id
    task.pool, task.job, task.peak_memory = (
        envelope.get(name) for name in ("pool", "job", "peak_memory")
    )
    task.error_class = envelope.get("error_class")
    task.error_text = envelope.get("error_text")


def _release_labels(session: Session, task: t.Task) -> None:
    """Let go of the labels that a failed task was to make.

    Nobody knows which of several frames is to blame: each gets a task of its own. A frame that
    was alone has failed, and its attempt says how.
    """
    labels = session.scalars(
        select(t.LabelRow).where(t.LabelRow.status == "pending", t.LabelRow.task_id == task.task_id)
    ).all()
    for label in labels:
        label.task_id = None
        if len(labels) > 1:
            label.alone = True
            continue
        label.status, label.tries = "failed", label.tries + 1
        record_attempt(
            session,
            label,
            task,
            status="failed",
            error_class=task.error_class,
            error_text=task.error_text,
            seconds=task.seconds or 0.0,
            program="none",
            attempted_at=t.now(),
        )
