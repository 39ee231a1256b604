"""What a driver sends to an executor of several pools: to each as much as it takes, no more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from alloop.artifacts import ArtifactStore
from alloop.campaign.driver import Driver
from alloop.executors.protocol import Condition, Outcome
from alloop.frames import Frame
from alloop_db import schema as t
from alloop_db.ledger import open_ledger
from alloop_db.queue import TaskIntent
from alloop_db.sessions import transaction
from alloop_db.store import Store
from tests import planner_states

WATER = Frame(np.array([8, 1, 1]), np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]))
TIERS = [
    {"id": tier, "method": {"engine": "tblite", "model": model}, "budget": {"labels": 500}}
    for tier, model in [("low", "GFN1-xTB"), ("high", "GFN2-xTB")]
]


class TwoPools:
    """An executor with a pool for the labels of the tier ``high`` and one for all else."""

    slots = 8

    def __init__(self) -> None:
        self.takes = {"high": 2, "rest": 4}
        self.sent: list[tuple[str, int]] = []

    def submit(self, kind, spec, key, losses=0):
        self.sent.append((key, losses))
        self.takes["high" if spec.get("tier") == "high" else "rest"] -= 1

    def room(self, work):
        high = frozenset({("label", "high")})
        return {high: self.takes["high"], frozenset(work) - high: self.takes["rest"]}

    def wait(self, timeout):
        return []

    def failure(self):
        return None

    def conditions(self) -> dict[str, Condition]:
        return {}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(open_ledger(tmp_path, create=True), ArtifactStore(tmp_path / "artifacts"))
    made.create("water", 1, "0", {"water": WATER}, {one["id"]: one["method"] for one in TIERS})
    tasks = [("label", "high", n) for n in range(6)] + [("label", "low", n) for n in range(3)]
    tasks += [("explore", None, n) for n in range(3)]
    made.tasks.add(
        [
            TaskIntent(f"{tier or kind} {n}", kind, {"tier": tier, "frames": [{}]}, 0, 3)
            for kind, tier, n in tasks
        ]
    )
    return made


@pytest.fixture
def executor() -> TwoPools:
    return TwoPools()


@pytest.fixture
def driver(store: Store, executor: TwoPools, tmp_path: Path) -> Driver:
    config = planner_states.config(tiers=TIERS)
    return Driver(config, tmp_path, store, executor, 1, lambda: None, lambda _: None)


def pending(store: Store) -> list[str]:
    with transaction(store.engine) as session:
        return list(session.scalars(select(t.Task.key).where(t.Task.status == "pending")))


def test_a_pool_gets_what_it_takes_and_the_rest_waits_in_the_ledger(driver, executor, store):
    driver._submit()

    assert [key for key, _ in executor.sent] == [
        "high 0", "high 1", "low 0", "low 1", "low 2", "explore 0",
    ]  # fmt: skip
    assert set(pending(store)) == {
        "high 2", "high 3", "high 4", "high 5", "explore 1", "explore 2",
    }  # fmt: skip


def test_a_full_pool_does_not_stop_another(driver, executor, store):
    executor.takes = {"high": 0, "rest": 99}

    driver._submit()

    assert [key for key, _ in executor.sent] == [
        "low 0", "low 1", "low 2", "explore 0", "explore 1", "explore 2",
    ]  # fmt: skip
    executor.takes["high"] = 99
    driver._submit()
    assert len(executor.sent) == 12


def test_what_has_no_more_tasks_is_not_asked_for_again_until_there_may_be_some(
    driver, executor, store, monkeypatch
):
    asked = []
    claim = store.tasks.claim
    monkeypatch.setattr(store.tasks, "claim", lambda *a: asked.append(a) or claim(*a))
    executor.takes = {"high": 1, "rest": 99}
    driver._submit()
    assert len(asked) == 2
    driver._submit()
    assert len(asked) == 2, "one pool is full, for the other there is nothing"

    driver._settle(Outcome("low 1", "lost", "WorkerLost", pool="rest"))
    driver._submit()

    assert executor.sent[-1] == ("low 1", 1)
    driver._settle(Outcome("low 2", "done"))  # and has left no result
    driver._submit()

    assert executor.sent[-1] == ("low 2", 1)
