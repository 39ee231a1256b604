"""What a status tells of faults: counted from what the ledger was told, worded in a line each."""

from __future__ import annotations

import numpy as np
import pytest

from alloop.artifacts import ArtifactStore
from alloop.campaign.pool_log import REPEAT_S, PoolLog
from alloop.executors.protocol import Condition
from alloop.frames import Frame
from alloop.report.status import status
from alloop.report.watch import line
from alloop.report.words import status_lines
from alloop_db import schema as t
from alloop_db.ledger import open_ledger
from alloop_db.queue import TaskIntent
from alloop_db.sessions import transaction
from alloop_db.store import Store

METHODS = {"xtb": {"engine": "tblite", "model": "GFN2-xTB"}}
WATER = Frame(np.array([8, 1, 1]), np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]))


@pytest.fixture
def store(tmp_path) -> Store:
    made = Store(open_ledger(tmp_path, create=True), ArtifactStore(tmp_path / "artifacts"))
    made.create("water", 1, "0", {"water": WATER}, METHODS)
    made.tasks.add([TaskIntent(f"task {n}", "explore", {}, 0, 5) for n in range(9)])
    made.tasks.claim(9, 1)
    made.event("workers", "site cluster runs up to 9 tasks at once", {"slots": 9, "seconds": 0.0})
    return made


def told(store: Store, driver: str | None = "node1, process 7") -> dict:
    return status(store.engine) | {"driver": driver}


def lines(store: Store, driver: str | None = "node1, process 7") -> list[str]:
    return status_lines(told(store, driver))


def test_losses_are_counted_by_place_also_those_after_which_work_went_on(store):
    for key, pool, host in [
        ("task 0", "cpu", "node2"),
        ("task 0", "cpu", "node2"),
        ("task 1", "cpu", "node1"),
        ("task 2", "", ""),
    ]:
        store.tasks.lose(key, "ManagerLost", advanced=True, pool=pool, host=host)

    summary = told(store)

    assert summary["losses"] == 4
    assert summary["losses_by"][0] == {"pool": "cpu", "host": "node2", "n": 2}
    wanted = (
        "tasks lost with their worker or driver and repeated: 4 (2 cpu on node2, 1 cpu on node1)"
    )
    assert wanted in lines(store)


def test_tasks_that_were_laid_down_are_counted(store):
    for _ in range(3):
        store.tasks.hand_back("task 0", "its block ends", advanced=True, seconds=1.0)

    assert told(store)["hand_backs"] == 3
    assert lines(store)[-1].endswith("to go on elsewhere: 3")


def test_failed_tasks_are_counted_by_reason(store):
    with transaction(store.engine) as session:
        for kind, name in [
            ("retry", "ValueError"),
            ("failure", "ValueError"),
            ("retry", "OSError"),
        ]:
            details = {"error_class": name, "tries": 1}
            session.add(t.Event(at=t.now(), kind=kind, text="a task", details=details))

    assert told(store)["task_failures"] == {"ValueError": 2, "OSError": 1}
    assert "failed tasks by reason: 2 ValueError, 1 OSError" in lines(store)


class Pools:
    """An executor, as far as it tells how its pools are."""

    def __init__(self, **now: Condition) -> None:
        self.now = now

    def conditions(self) -> dict[str, Condition]:
        return self.now


WAITS = Condition("waiting for nodes", "its blocks wait in the queue")
BROKEN = Condition("broken off", "orca: command not found")


def test_a_pool_that_does_not_work_is_told_of_until_it_does(store):
    pools = Pools(cpu=Condition("ok"), gpu=WAITS)
    log = PoolLog(store, pools)
    log.look()
    assert [pool["pool"] for pool in told(store)["pools"]] == ["gpu"]

    pools.now |= {"cpu": BROKEN}
    log.look()
    ((first, second),) = [[one for one in lines(store) if one.startswith("pool ")]]
    assert first.startswith("pool gpu: waiting for nodes since 20")
    assert second.endswith(": orca: command not found")
    assert "pool cpu broken off" in line(told(store) | {"verdict": None})
    assert not any("pool cpu" in one for one in lines(store, driver=None)), "nobody knows"

    pools.now = dict.fromkeys(pools.now, Condition("ok"))
    log.look()
    assert told(store)["pools"] == []


def test_the_ledger_is_not_flooded(store, monkeypatch):
    now = 1000.0
    monkeypatch.setattr("alloop.campaign.pool_log.time.monotonic", lambda: now)
    pools = Pools(cpu=WAITS)
    log = PoolLog(store, pools)
    for second in range(100):
        now = 1000.0 + second
        pools.now = {"cpu": Condition("waiting for nodes", f"{second} blocks did not come up")}
        log.look()

    with store.engine.connect() as connection:
        rows = connection.execute(
            t.Event.__table__.select().where(t.Event.kind == "pool").order_by(t.Event.event_id)
        ).all()
    assert len(rows) == 1 + 99 // REPEAT_S
    (pool,) = told(store)["pools"]
    assert pool["since"] == rows[0].at, "since it began, not since its reason changed"
    assert pool["reason"] == "90 blocks did not come up"


def test_what_a_former_driver_knew_of_pools_and_clocks_is_not_told(store):
    PoolLog(store, Pools(cpu=BROKEN)).look()
    store.event("clock", "a clock is wrong", {"host": "node1", "seconds_ahead": -61.0})
    assert "warning: the clock of node1 is 61 s behind" in lines(store)

    store.event("workers", "site cluster runs up to 9 tasks at once", {"slots": 9, "seconds": 9.0})

    assert told(store)["pools"] == told(store)["clocks"] == []
