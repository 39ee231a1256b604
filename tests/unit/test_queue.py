"""Transactions of the loop: what failing and lost tasks mean for the rows they were to fill."""

from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import select

from alloop.artifacts import ArtifactStore
from alloop.frames import Frame
from alloop_db import schema as t
from alloop_db.ledger import open_ledger
from alloop_db.queue import MAX_LOSSES, MAX_SHARED_LOSSES, TaskIntent
from alloop_db.sessions import transaction
from alloop_db.store import Store
from tests.ledger_rows import NUMBERS, REST, frame_row
from tests.task_results import envelope

METHODS = {"xtb": {"engine": "tblite", "model": "GFN2-xTB"}}
WATER = Frame(NUMBERS, REST)


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(open_ledger(tmp_path, create=True), ArtifactStore(tmp_path / "artifacts"))
    store.create("water", 1, "0", {"water": WATER}, METHODS)
    with transaction(store.engine) as session:
        for number in range(3):
            frame = frame_row(number)
            session.add(frame)
            session.flush()
            label = t.LabelRow(
                frame_id=frame.frame_id,
                level_of_theory_id=1,
                generation_id=1,
                status="pending",
                tries=0,
            )
            session.add(label)
    return store


def ask(store: Store, key: str, labels: tuple[int, ...]) -> None:
    frames = [{"frame_key": f"{label - 1:064x}"} for label in labels]
    spec = {"frames": frames, "retries": 2}
    store.tasks.add([TaskIntent(key, "label", spec, 0, 3, labels)])
    assert [claim.key for claim in store.tasks.claim(5, 1)] == [key]


def lose(store: Store, key: str, times: int) -> list[str]:
    states = []
    for _ in range(times):
        states.append(store.tasks.lose(key, "WorkerLost"))
        store.tasks.claim(5, 1)
    return states


def done(number: int) -> dict:
    return {
        "frame_key": f"{number:064x}",
        "status": "done",
        "energy": -1.0 - number,
        "forces": np.zeros((3, 3)).tolist(),
        "seconds": 0.1,
        "program": "tblite",
        "attempted_at": t.now(),
    }


def labels(store: Store) -> list[t.LabelRow]:
    with transaction(store.engine) as session:
        rows = list(session.scalars(select(t.LabelRow).order_by(t.LabelRow.label_id)))
        session.expunge_all()
        return rows


def test_a_task_of_several_labels_that_is_lost_twice_falls_apart_and_fails_nobody(store):
    ask(store, "shared", (1, 2, 3))

    assert lose(store, "shared", MAX_SHARED_LOSSES) == ["pending", "failed"]

    assert {(row.status, row.task_id, row.alone) for row in labels(store)} == {
        ("pending", None, True)
    }
    assert all(need.alone for need in store.state().needs)


def test_a_label_that_is_lost_alone_for_good_has_an_attempt_that_says_so(store):
    ask(store, "own", (1,))

    assert lose(store, "own", MAX_LOSSES)[-1] == "failed"

    assert [row.status for row in labels(store)] == ["failed", "pending", "pending"]
    with transaction(store.engine) as session:
        (attempt,) = session.scalars(select(t.LabelAttempt))
        assert (attempt.error_class, attempt.error_text) == ("Lost", "WorkerLost")


def test_a_result_is_committed_once_whoever_asks_how_often(store):
    ask(store, "one", (1, 2))
    result = envelope("one", labels=[done(0), done(1)])

    assert store.tasks.commit(result)
    assert not store.tasks.commit(result)
    assert store.tasks.lose("one", "late") == "done"

    assert [row.status for row in labels(store)] == ["done", "done", "pending"]
    with transaction(store.engine) as session:
        assert len(list(session.scalars(select(t.LabelAttempt)))) == 2


def test_an_intent_that_is_known_is_not_added_again(store):
    intent = TaskIntent("same", "label", {"frames": [{}]}, 0, 3, (1,))

    assert store.tasks.add([intent]) == 1
    assert store.tasks.add([intent]) == 0


def test_labels_go_to_the_task_that_is_to_make_them_and_stay_there(store):
    first = TaskIntent("first", "label", {"frames": [{}, {}]}, 0, 3, (1, 3))
    store.tasks.add([first, TaskIntent("second", "label", {"frames": [{}]}, 0, 3, (2,))])
    before = [label.task_id for label in labels(store)]
    assert before == [row(store, "first").task_id, row(store, "second").task_id, before[0]]

    store.tasks.add([first])

    assert [label.task_id for label in labels(store)] == before


def test_what_a_dead_driver_had_submitted_goes_back_without_blame(store):
    ask(store, "left", (1,))

    assert store.tasks.requeue(store.tasks.open_keys()) == 1

    with transaction(store.engine) as session:
        (task,) = session.scalars(select(t.Task))
        assert (task.status, task.tries, task.losses) == ("pending", 0, 0)


def hand_back(store: Store, key: str, *, advanced: bool) -> str:
    return store.tasks.hand_back(key, "its block ends", advanced=advanced, seconds=60.0)


def row(store: Store, key: str) -> t.Task:
    with transaction(store.engine) as session:
        found = session.scalar(select(t.Task).where(t.Task.key == key))
        session.expunge_all()
        return found


def test_a_task_that_gets_further_may_be_handed_back_as_often_as_it_likes(store):
    ask(store, "long", (1,))

    for _ in range(3 * MAX_LOSSES):
        assert hand_back(store, "long", advanced=True) == "running"

    task = row(store, "long")
    assert (task.hand_backs, task.losses) == (3 * MAX_LOSSES, 0)
    assert task.earlier_seconds == pytest.approx(60.0 * 3 * MAX_LOSSES)
    assert store.tasks.claim(5, 1) == []  # it stays in the driver's hands
    with transaction(store.engine) as session:
        assert session.scalar(select(t.Event.kind).limit(1)) == "handed_back"


def test_a_task_that_never_finds_time_to_begin_fails_and_says_why(store):
    ask(store, "own", (1,))

    said = [hand_back(store, "own", advanced=False) for _ in range(MAX_LOSSES)]

    assert said == ["running"] * (MAX_LOSSES - 1) + ["failed"]
    assert row(store, "own").error_text == "its block ends"
    assert labels(store)[0].status == "failed"


def test_losses_count_only_while_nothing_gets_further(store):
    ask(store, "own", (1,))

    lose(store, "own", MAX_LOSSES - 1)
    assert store.tasks.lose("own", "WorkerLost", advanced=True) == "pending"
    store.tasks.claim(5, 1)

    assert lose(store, "own", MAX_LOSSES)[-2:] == ["pending", "failed"]


def test_what_ended_long_ago_cannot_be_handed_back(store):
    ask(store, "one", (1, 2))
    store.tasks.commit(envelope("one", labels=[done(0), done(1)]))

    assert hand_back(store, "one", advanced=False) == "done"
    assert row(store, "one").hand_backs == 0
