"""A campaign on a cluster of the benchmark's virtual clock: nothing lost, nothing made twice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from alloop_db import label_reader
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
def run(tmp_path_factory) -> Run:
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
