"""Labels made elsewhere, into the rows that asked for them: all at once, or none."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from alloop.artifacts import sha256
from alloop.exchange.reading import Returned
from alloop_db import schema as t
from alloop_db.arrays import floats_to_blob
from alloop_db.commits import record_attempt, record_environment
from alloop_db.import_plan import ImportPlan, plan_import
from alloop_db.ledger import open_current, open_ledger
from alloop_db.lock import CampaignLock
from alloop_db.sessions import record_event, transaction


@dataclass(frozen=True, slots=True)
class ImportSource:
    """Where labels come from: their file, what made them, and what this program runs in."""

    path: Path
    program: str
    units: str
    environment: dict[str, Any]


def import_labels(
    directory: Path,
    returned: Returned,
    level_of_theory: str,
    source: ImportSource,
    *,
    drop_bad: bool,
) -> ImportPlan:
    """Fill the rows that labels are for, all or none, and return what was done.

    ``drop_bad`` leaves out frames that cannot be taken instead of refusing all.

    Raises
    ------
    DataError
        The level is none of the campaign's, frames cannot be taken, or the units look wrong.
    LedgerError
        A driver holds the campaign, or the ledger cannot be written.

    """
    with CampaignLock(directory):
        engine = open_ledger(directory, create=False)
        try:
            plan = plan_import(engine, returned, level_of_theory)
            plan.check(source.path, drop_bad=drop_bad)
            if plan.fillings:
                _commit(engine, plan, source)
        finally:
            engine.dispose()
    return plan


def preview_import(
    directory: Path,
    returned: Returned,
    level_of_theory: str,
    source: ImportSource,
    *,
    drop_bad: bool,
) -> ImportPlan:
    """Return what ``import_labels`` would do, with the same errors; works while a driver runs."""
    engine = open_current(directory)
    try:
        plan = plan_import(engine, returned, level_of_theory)
    finally:
        engine.dispose()
    plan.check(source.path, drop_bad=drop_bad)
    return plan


def _commit(engine: Engine, plan: ImportPlan, source: ImportSource) -> None:
    """Fill the rows of a plan, all or none; hold the campaign's lock."""
    with transaction(engine) as session:
        task = _task(session, plan, source)
        for filling in plan.fillings:
            label = session.get_one(t.LabelRow, filling.label_id)
            record_attempt(
                session,
                label,
                task,
                status="done",
                seconds=0.0,  # nobody said how long it took
                program=source.program,
                attempted_at=task.created_at,
            )
            label.task_id = None
            label.energy = filling.energy
            if filling.forces is not None:
                label.forces = floats_to_blob(filling.forces)
            label.status, label.done_at = "done", t.now()
        text = (
            f"imported {len(plan.fillings)} labels of {plan.level_of_theory} from"
            f" {source.path.name}, made by {source.program}"
        )
        record_event(session, "import", text, task.spec)


def _task(session: Session, plan: ImportPlan, source: ImportSource) -> t.Task:
    spec = {
        "file": source.path.name,
        "sha256": sha256(source.path),
        "level_of_theory": plan.level_of_theory,
        "units": source.units,
        "program": source.program,
        "n_labels": len(plan.fillings),
    }
    content = [spec, sorted(filling.label_id for filling in plan.fillings)]
    instant = t.now()
    task = t.Task(
        key=hashlib.sha256(json.dumps(["import", *content], sort_keys=True).encode()).hexdigest(),
        kind="import",
        generation=session.scalar(select(func.max(t.Generation.number))),
        spec=spec,
        priority=0,
        status="done",
        tries=0,
        losses=0,
        created_at=instant,
        started_at=instant,
        finished_at=instant,
        seconds=0.0,
        cpu_seconds=0.0,
        host=source.environment["host"],
        environment_id=record_environment(session, source.environment),
    )
    session.add(task)
    session.flush()
    return task
