"""A campaign on a cluster of the benchmark's virtual clock: nothing lost, nothing made twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine

from alloop.campaign import specs
from alloop_db import label_reader
from alloop_db.ledger import open_ledger
from alloop_db.reader import StateReader
from alloop_tasks.workspace import task_key
from benchmarks.scale import Run, Setup, simulate
from benchmarks.virtual_cluster import FAULTY, Faults

pytestmark = pytest.mark.timeout(600)

SETUP = Setup(
    labels=2000,
    workers=20,
    per_generation=1000,
    systems=2,
    explorations=40,
    label_seconds=0.05,
    close_at=0.9,
    faults=replace(
        FAULTY, workers_per_hour=4.0, blocks_per_hour=4.0, finished_unheard=0.5, tasks=0.05
    ),
)
SOUND = replace(SETUP, systems=1, explorations=4, faults=Faults())


@pytest.fixture(scope="module")
def written() -> Counter[str]:
    """Return how many specs of each kind the planner has written down for ``run``."""
    return Counter()


@pytest.fixture(scope="module")
def run(tmp_path_factory, written) -> Run:
    def counted(kind: str, spec: dict[str, Any]) -> str:
        written[kind] += 1
        return task_key(kind, spec)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(specs, "task_key", counted)
        return simulate(SETUP, tmp_path_factory.mktemp("scale"))


def test_every_label_is_made_once_whatever_breaks(run):
    assert run.tally.ended["lost"] > 0
    assert run.tally.ended["failed"] > 0
    assert run.tally.unheard > 0
    statuses = ("done", "failed", "pending")  # pending: what the last generation did not wait for
    assert sum(run.rows.get(status, 0) for status in statuses) == SETUP.labels
    assert run.rows["done"] == len(run.tally.made) >= 0.94 * SETUP.labels
    assert run.made_twice == 0
    assert run.rows["twice"] == 0


def test_the_clock_counts_no_second_twice(run):
    spent = sum(run.tally.useful_s.values()) + run.tally.wasted_s
    assert 0.0 < spent < SETUP.workers * run.makespan_s


def test_a_decision_serves_several_tasks(run):
    assert len(run.spent.spent["plan"]) < run.tasks


def test_specs_are_written_once_not_with_every_decision(run, written):
    assert len(run.spent.spent["plan"]) > 50
    assert written["prepare"] == SETUP.systems
    assert written["explore"] <= SETUP.explorations  # one generation explores
    assert written["select"] == SETUP.systems
    assert written["label"] < 1.2 * run.tally.submitted["label"]


def test_a_small_window_of_labels_leaves_no_worker_without_a_task(tmp_path, monkeypatch):
    monkeypatch.setattr(label_reader, "WINDOW", 5)
    small = replace(SOUND, labels=200, workers=3, per_generation=100)

    done = simulate(replace(small, label_seconds=20.0), tmp_path)

    assert done.tally.most_in_flight >= 2 * small.workers


def test_with_more_than_a_hundred_workers_several_ends_share_a_decision(tmp_path):
    many = replace(SOUND, labels=120, workers=200, per_generation=60, explorations=60)

    done = simulate(replace(many, label_seconds=5.0), tmp_path)

    assert done.tally.ended["done"] > 150
    assert len(done.spent.spent["plan"]) < 0.5 * done.tally.ended["done"]


# -- what reading the ledger costs -----------------------------------------------------------------

NUMBERS = "WITH RECURSIVE far(n) AS (SELECT 1000001 UNION ALL SELECT n + 1 FROM far LIMIT 3000)"
HISTORY = (
    """INSERT INTO task
        (key, kind, generation, spec, priority, status, tries, losses, created_at)
    SELECT printf('%064d', n), 'label', generation, '{}', 3, 'done', 0, 0, '' FROM far, (
        SELECT max(number) AS generation FROM generation)""",
    """INSERT INTO trajectory
    SELECT n, artifact_id, n, system_id, generation_id, committee_id, task_id, route, ensemble,
        temperature, timestep, seed, split, n_frames, n_stable, duration, reason
    FROM far, (SELECT * FROM trajectory LIMIT 1)""",
    """INSERT INTO frame
    SELECT n, printf('%064d', n), system_id, generation_id, trajectory_id, step, time, source,
        split, n_atoms, positions, cell FROM far, (SELECT * FROM frame LIMIT 1)""",
    """INSERT INTO label
        (label_id, frame_id, level_of_theory_id, generation_id, status, tries, task_id, energy)
    SELECT n, n, 1, 1, iif(n % 2, 'done', 'pending'), 0, iif(n % 2, NULL, 1), 0.0 FROM far""",
    """INSERT INTO label_attempt
        (label_id, level_of_theory_id, number, status, seconds, program, task_id, attempted_at)
    SELECT n, 1, 1, 'done', 1.0, '', task_id, '' FROM far, (
        SELECT task_id FROM task WHERE kind = 'label' LIMIT 1) WHERE n % 2""",
)
"""Much more than the small campaign has of everything: all of it is over, or in a task's hands."""


@pytest.fixture
def ledger(tmp_path) -> Iterator[Engine]:
    simulate(replace(SOUND, labels=400, per_generation=200), tmp_path)
    opened = open_ledger(tmp_path / "run", create=False)
    yield opened
    opened.dispose()


def work_of_reading(engine: Engine, reader: StateReader) -> int:
    """Return how many instructions SQLite takes to read the state, in hundreds."""
    hundreds = 0

    def tick() -> int:
        nonlocal hundreds
        hundreds += 1
        return 0

    with engine.connect() as connection:
        raw = connection.connection.driver_connection
        raw.set_progress_handler(tick, 100)
        reader.read(connection)
        raw.set_progress_handler(None, 0)
    return hundreds


def test_reading_the_state_costs_no_more_after_a_long_history(ledger):
    reader = StateReader()
    work_of_reading(ledger, reader)  # what is never changed is read once
    short = work_of_reading(ledger, reader)
    with ledger.begin() as connection:
        for statement in HISTORY:
            connection.exec_driver_sql(f"{NUMBERS} {statement}")
    work_of_reading(ledger, reader)

    assert work_of_reading(ledger, reader) < 1.2 * short
