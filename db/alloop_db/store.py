"""The only writer of the ledger: each public method is one transaction.

The order is always intent, work, file, row: a task is in the ledger before it is submitted, its
result lies in a file before it is committed, and a commit is made once, whoever asks how often.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as insert_or
from sqlalchemy.orm import Session

from alloop.artifacts import ArtifactStore
from alloop.errors import LedgerError
from alloop.frames import Frame
from alloop_db import schema as t
from alloop_db.arrays import floats_to_blob, integers_to_blob
from alloop_db.commits import (
    COMMITS,
    add_evaluations,
    record_artifacts,
    record_attempt,
    record_environment,
)
from alloop_db.reader import read_state, system_record
from alloop_db.sets import seal_snapshot
from alloop_db.state import CampaignState

MAX_TRIES = 2
"""How often a task other than a label may fail before it counts as failed."""
MAX_LOSSES = 5
"""How often a task may be lost with its worker before it counts as failed."""
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
class ConfigRecord:
    """The config that a driver was started with."""

    sha256: str
    source: str
    resolved: str
    """Canonical JSON with every default filled in."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A task handed out for submission."""

    key: str
    kind: str
    spec: dict[str, Any]


class Store:
    """Transactions of the campaign loop."""

    def __init__(self, engine: Engine, artifacts: ArtifactStore) -> None:
        self.engine = engine
        self.artifacts = artifacts

    @contextmanager
    def _session(self) -> Iterator[Session]:
        with Session(self.engine) as session, session.begin():
            yield session

    # -- the campaign as a whole ---------------------------------------------------------------

    def create(
        self,
        name: str,
        seed: int,
        version: str,
        systems: dict[str, Frame],
        tier: str,
        method: dict[str, Any],
        levels_of_theory: Sequence[str],
    ) -> bool:
        """Create the campaign's rows unless they exist; return whether they were created."""
        with self._session() as session:
            if session.scalar(select(func.count()).select_from(t.CampaignRow)):
                return False
            session.add(
                t.CampaignRow(
                    campaign_id=1,
                    name=name,
                    seed=seed,
                    created_at=t.now(),
                    alloop_version=version,
                    state="running",
                    epoch=0,
                    seconds=0.0,
                )
            )
            for system, frame in systems.items():
                session.add(_system_row(system, frame))
            for level in dict.fromkeys(levels_of_theory):
                session.add(t.LevelOfTheory(name=level, tier=tier, method=method))
            session.add(t.Generation(number=0, state="open", numbers={}, opened_at=t.now()))
            return True

    def begin_epoch(self, config: ConfigRecord, changes: Sequence[str]) -> int:
        """Note that a driver has taken the campaign; return its epoch."""
        with self._session() as session:
            known = session.scalar(
                select(t.ConfigVersion).where(t.ConfigVersion.sha256 == config.sha256)
            )
            if known is None:
                session.add(
                    t.ConfigVersion(
                        sha256=config.sha256,
                        source=config.source,
                        resolved=json.loads(config.resolved),
                        changes={"changes": list(changes)},
                        created_at=t.now(),
                    )
                )
            campaign = session.scalars(select(t.CampaignRow)).one()
            campaign.epoch += 1
            campaign.state, campaign.exit_code, campaign.verdict = "running", None, None
            return campaign.epoch

    def latest_config(self) -> str | None:
        """Return the resolved config of the last start, as JSON text."""
        with self._session() as session:
            stored = session.scalar(
                select(t.ConfigVersion.resolved)
                .order_by(t.ConfigVersion.config_version_id.desc())
                .limit(1)
            )
        return None if stored is None else json.dumps(stored)

    def campaign(self) -> t.CampaignRow:
        """Return the campaign's row, detached."""
        with Session(self.engine, expire_on_commit=False) as session:
            row = session.scalars(select(t.CampaignRow)).one()
            session.expunge(row)
            return row

    def spend(self, seconds: float) -> None:
        """Add to the wall time of the campaign."""
        with self._session() as session:
            session.execute(update(t.CampaignRow).values(seconds=t.CampaignRow.seconds + seconds))

    def system_records(self) -> dict[str, dict[str, Any]]:
        """Return every system as it was when the campaign began."""
        with self._session() as session:
            rows = session.scalars(select(t.System).order_by(t.System.system_id))
            return {row.name: system_record(row) for row in rows}

    def finish(self, state: str, exit_code: int, verdict: str) -> None:
        """Store the verdict with which a driver ends."""
        with self._session() as session:
            session.execute(
                update(t.CampaignRow).values(state=state, exit_code=exit_code, verdict=verdict)
            )
            _event(session, "verdict", verdict, {"state": state, "exit_code": exit_code})

    def event(self, kind: str, text: str, details: dict[str, Any] | None = None) -> None:
        """Note something that people should be able to read later."""
        with self._session() as session:
            _event(session, kind, text, details)

    def state(self) -> CampaignState:
        """Return what the planner needs to know."""
        with self.engine.connect() as connection:
            return read_state(connection)

    # -- tasks -----------------------------------------------------------------------------------

    def add(self, intents: Sequence[TaskIntent]) -> int:
        """Record intents that are not known yet; return how many were new."""
        if not intents:
            return 0
        new = 0
        with self._session() as session:
            for intent in intents:
                statement = (
                    insert_or(t.Task)
                    .values(
                        key=intent.key,
                        kind=intent.kind,
                        spec=intent.spec,
                        generation=intent.generation,
                        priority=intent.priority,
                        status="pending",
                        tries=0,
                        losses=0,
                        created_at=t.now(),
                    )
                    .on_conflict_do_nothing(index_elements=["key"])
                    .returning(t.Task.task_id)
                )
                task_id = session.scalar(statement)
                if task_id is None:
                    continue
                new += 1
                if intent.labels:
                    session.execute(
                        update(t.LabelRow)
                        .where(t.LabelRow.label_id.in_(intent.labels))
                        .values(task_id=task_id)
                    )
        return new

    def claim(self, limit: int, epoch: int) -> list[Claim]:
        """Hand out up to ``limit`` pending tasks and mark them running."""
        if limit <= 0:
            return []
        with self._session() as session:
            rows = session.execute(
                select(t.Task.task_id, t.Task.key, t.Task.kind, t.Task.spec)
                .where(t.Task.status == "pending")
                .order_by(t.Task.priority, t.Task.task_id)
                .limit(limit)
            ).all()
            session.execute(
                update(t.Task)
                .where(t.Task.task_id.in_([row.task_id for row in rows]))
                .values(status="running", epoch=epoch, submitted_at=t.now())
            )
        return [Claim(row.key, row.kind, row.spec) for row in rows]

    def open_keys(self) -> list[str]:
        """Return the keys of tasks that are not finished."""
        with self._session() as session:
            return list(
                session.scalars(select(t.Task.key).where(t.Task.status.in_(("pending", "running"))))
            )

    def commit(self, envelope: dict[str, Any]) -> bool:
        """Commit the result of a task; return False if it was committed before."""
        with self._session() as session:
            task = _task(session, envelope["key"])
            if task.status not in ("pending", "running"):
                return False
            environment_id = record_environment(session, envelope["environment"])
            record_artifacts(session, envelope["artifacts"], task.task_id)
            _finish(task, envelope, environment_id)
            COMMITS[task.kind](session, task, envelope["result"], self.artifacts)
            return True

    def fail(self, envelope: dict[str, Any]) -> str:
        """Note that a task itself failed; return its new status, pending or failed."""
        with self._session() as session:
            task = _task(session, envelope["key"])
            if task.status not in ("pending", "running"):
                return task.status
            _finish(task, envelope, record_environment(session, envelope["environment"]))
            task.tries += 1
            task.status = "pending" if task.tries < MAX_TRIES else "failed"
            kind = "retry" if task.status == "pending" else "failure"
            text = f"{task.kind} {task.key[:12]}: {task.error_text}"
            _event(session, kind, text, {"error_class": task.error_class, "tries": task.tries})
            if task.status == "failed" and task.kind == "label":
                _release_labels(session, task)
            return task.status

    def lose(self, key: str, reason: str) -> str:
        """Note that a task was lost with its worker; return its new status, pending or failed."""
        with self._session() as session:
            task = _task(session, key)
            if task.status not in ("pending", "running"):
                return task.status
            task.losses += 1
            shared = task.kind == "label" and len(task.spec["frames"]) > 1
            limit = MAX_SHARED_LOSSES if shared else MAX_LOSSES
            task.status = "pending" if task.losses < limit else "failed"
            task.error_class, task.error_text = "Lost", reason
            _event(session, "loss", f"{task.kind} {key[:12]}: {reason}", {"losses": task.losses})
            if task.status == "failed" and task.kind == "label":
                _release_labels(session, task)
            return task.status

    def requeue(self, keys: Sequence[str]) -> int:
        """Put running tasks back to pending: their driver is gone, they are not to blame."""
        with self._session() as session:
            return int(
                session.execute(
                    update(t.Task)
                    .where(t.Task.key.in_(keys), t.Task.status == "running")
                    .values(status="pending")
                ).rowcount  # type: ignore[attr-defined]  # an update has one
            )

    def revive(self) -> list[str]:
        """Give failed tasks of the open generation another chance; return what they were."""
        with self._session() as session:
            number = session.scalar(select(func.max(t.Generation.number)))
            rows = session.scalars(
                select(t.Task).where(
                    t.Task.status == "failed", t.Task.generation == number, t.Task.kind != "label"
                )
            ).all()
            for task in rows:
                task.status, task.tries, task.losses = "pending", 0, 0
            return [f"{task.kind} {task.key[:12]}" for task in rows]

    # -- the turns of the loop -------------------------------------------------------------------

    def seal(self, number: int) -> int:
        """Seal the training set of a generation; return how many labels it has."""
        with self._session() as session:
            return seal_snapshot(session, number, self.artifacts)

    def form_committee(self, number: int, members: Sequence[str], sha256: str) -> None:
        """Seat the models of a generation, in the order of ``members``."""
        with self._session() as session:
            generation_id = _generation_id(session, number)
            models = {
                model.member: model
                for model in session.scalars(
                    select(t.Model).where(t.Model.generation_id == generation_id)
                )
            }
            snapshot = session.get_one(t.Snapshot, models[members[0]].snapshot_id)
            committee = t.Committee(
                sha256=sha256,
                generation_id=generation_id,
                level_of_theory_id=snapshot.level_of_theory_id,
                created_at=t.now(),
            )
            session.add(committee)
            session.flush()
            for position, member in enumerate(members):
                session.add(
                    t.CommitteeMember(
                        committee_id=committee.committee_id,
                        position=position,
                        model_id=models[member].model_id,
                    )
                )

    def record_evaluations(
        self, committee_id: int, number: int, evaluations: Sequence[dict[str, Any]]
    ) -> None:
        """Add error estimates that the driver itself has made."""
        with self._session() as session:
            add_evaluations(session, committee_id, _generation_id(session, number), evaluations)

    def open_generation(self, number: int, committee_id: int) -> None:
        """Close the open generation and open the next."""
        with self._session() as session:
            session.execute(
                update(t.Generation)
                .where(t.Generation.number == number - 1)
                .values(state="closed", closed_at=t.now())
            )
            session.execute(
                insert_or(t.Generation)
                .values(
                    number=number,
                    state="open",
                    committee_id=committee_id,
                    numbers={},
                    opened_at=t.now(),
                )
                .on_conflict_do_nothing(index_elements=["number"])
            )
            _event(session, "generation", f"generation {number} begins", None)


def _system_row(name: str, frame: Frame) -> t.System:
    return t.System(
        name=name,
        formula=frame.formula,
        n_atoms=frame.n_atoms,
        charge=frame.charge,
        multiplicity=frame.multiplicity,
        numbers=integers_to_blob(frame.numbers),
        positions=floats_to_blob(frame.positions),
        cell=None if frame.cell is None else floats_to_blob(frame.cell),
        pbc="".join("T" if flag else "F" for flag in frame.pbc),
    )


def _event(session: Session, kind: str, text: str, details: dict[str, Any] | None) -> None:
    session.execute(insert(t.Event).values(at=t.now(), kind=kind, text=text, details=details))


def _task(session: Session, key: str) -> t.Task:
    task = session.scalar(select(t.Task).where(t.Task.key == key))
    if task is None:
        raise LedgerError(f"task {key[:12]} is not in the ledger: nobody intended it")
    return task


def _generation_id(session: Session, number: int) -> int:
    return session.scalars(
        select(t.Generation.generation_id).where(t.Generation.number == number)
    ).one()


def _finish(task: t.Task, envelope: dict[str, Any], environment_id: int) -> None:
    task.status = envelope["status"]
    task.started_at, task.finished_at = envelope["started_at"], t.now()
    task.seconds, task.cpu_seconds = envelope["seconds"], envelope["cpu_seconds"]
    task.host, task.environment_id = envelope["environment"]["host"], environment_id
    task.error_class = envelope.get("error_class")
    task.error_text = envelope.get("error_text")


def _release_labels(session: Session, task: t.Task) -> None:
    """Let go of the labels that a failed task was to make.

    Nobody knows which of several frames is to blame: each gets a task of its own. A frame that
    was alone has failed, and its attempt says how.
    """
    labels = session.scalars(select(t.LabelRow).where(t.LabelRow.task_id == task.task_id)).all()
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
