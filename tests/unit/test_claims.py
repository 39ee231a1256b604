"""Which pending tasks are handed out when some pools take none: the others', in their order."""

from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import event, insert

from alloop.artifacts import ArtifactStore
from alloop.frames import Frame
from alloop_db import schema as t
from alloop_db.ledger import open_ledger
from alloop_db.sessions import transaction
from alloop_db.store import Store

METHODS = {"xtb": {"engine": "tblite", "model": "GFN2-xTB"}}
WATER = Frame(np.array([8, 1, 1]), np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]))
TASKS = [  # kind, tier, priority
    ("explore", None, 5),
    ("label", "low", 3),
    ("label", "high", 3),
    ("train", None, 4),
    ("label", None, 3),
    ("select", None, 0),
    ("train", None, 4),
]


def fill(store: Store, tasks: list[tuple[str, str | None, int]]) -> None:
    rows = [
        {
            "key": f"{number} {kind}",
            "kind": kind,
            "spec": {"tier": tier} if tier else {},
            "generation": 0,
            "priority": priority,
            "status": "pending",
            "tries": 0,
            "losses": 0,
            "created_at": t.now(),
        }
        for number, (kind, tier, priority) in enumerate(tasks)
    ]
    with transaction(store.engine) as session:
        session.execute(insert(t.Task), rows)


@pytest.fixture
def store(tmp_path) -> Store:
    made = Store(open_ledger(tmp_path, create=True), ArtifactStore(tmp_path / "artifacts"))
    made.create("water", 1, "0", {"water": WATER}, METHODS)
    return made


def keys(claims) -> list[str]:
    return [claim.key for claim in claims]


@pytest.mark.parametrize(
    ("work", "wanted"),
    [
        (None, "5 select|1 label|2 label|4 label|3 train|6 train|0 explore"),
        ({"train": None, "explore": None}, "3 train|6 train|0 explore"),
        ({"label": None, "select": None}, "5 select|1 label|2 label|4 label"),
        ({"label": {"high"}, "train": None}, "2 label|4 label|3 train|6 train"),
        ({"label": {"low", "high"}}, "1 label|2 label|4 label"),
        ({"fit_spacetime": None}, ""),
    ],
)
def test_only_what_is_wanted_is_handed_out_the_most_urgent_first(store, work, wanted):
    """A label that does not say its tier is an older alloop's: nobody must leave it lying."""
    fill(store, TASKS)

    assert keys(store.tasks.claim(99, 1, work)) == [key for key in wanted.split("|") if key]


def test_what_was_not_wanted_stays_and_a_limit_holds_over_all_kinds(store):
    fill(store, TASKS)

    assert keys(store.tasks.claim(2, 1, {"train": None, "explore": None})) == ["3 train", "6 train"]
    assert keys(store.tasks.claim(3, 1)) == ["5 select", "1 label", "2 label"]
    assert keys(store.tasks.claim(9, 1, {"explore": None, "train": None})) == ["0 explore"]


def test_a_claim_tells_how_often_its_task_was_lost(store):
    fill(store, TASKS[:1])
    store.tasks.claim(1, 1)
    store.tasks.lose("0 explore", "WorkerLost")

    (claim,) = store.tasks.claim(1, 1)

    assert claim.losses == 1


def test_unwanted_tasks_cost_nothing_however_many_there_are(store):
    """Counted in steps of SQLite's machine: 50,000 tasks of a pool that is broken off."""
    fill(store, [("explore", None, 3)] * 50_000 + [("train", None, 4)] * 5)
    steps = 0

    @event.listens_for(store.engine, "checkout")
    def count(connection, *_):
        def step():
            nonlocal steps
            steps += 1

        connection.set_progress_handler(step, 100)

    assert len(store.tasks.claim(10, 1, {"train": None, "label": None})) == 5
    assert steps < 100, f"{100 * steps} steps"
