"""Two tasks for one thing, as after a config was changed while the first one ran: the first stands.

And labels of one tier that nobody makes do not hide those of another.
"""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from alloop.artifacts import ArtifactStore
from alloop.frames import Frame
from alloop_db import label_reader
from alloop_db import schema as t
from alloop_db.ledger import open_ledger
from alloop_db.queue import TaskIntent
from alloop_db.sessions import transaction
from alloop_db.store import Store
from tests.ledger_rows import NUMBERS, REST, frame_row
from tests.task_results import envelope

METHODS = {
    "low": {"engine": "tblite", "model": "GFN1-xTB"},
    "high": {"engine": "tblite", "model": "GFN2-xTB"},
}
WATER = Frame(NUMBERS, REST)
N = 6


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(open_ledger(tmp_path, create=True), ArtifactStore(tmp_path / "artifacts"))
    store.create("water", 1, "0", {"water": WATER}, METHODS)
    with transaction(store.engine) as session:
        for number in range(N):
            session.add(frame_row(number))
    return store


def carry_out(store: Store, name: str, kind: str, spec: dict[str, Any], **result: Any) -> None:
    key = name.encode().hex().ljust(64, "0")
    store.tasks.add([TaskIntent(key, kind, spec, 0, 1)])
    store.tasks.claim(5, 1)
    store.tasks.commit(envelope(key, **result))


def choose(*frames: int) -> dict[str, Any]:
    decisions = [
        {"frame_key": f"{n:064x}", "rule": "random", "numbers": {}, "prediction": None}
        for n in frames
    ]
    row = dict.fromkeys(("seconds", "seconds_low", "seconds_high", "expected_ratio"))
    row |= {"policy": "random", "n_candidates": N, "n_promoted": len(frames), "numbers": {}}
    return {"decisions": decisions, "promotion": row}


def test_the_first_choice_of_a_generation_stands(store):
    carry_out(store, "first", "promote", {"tier": "high"}, **choose(0, 1))
    carry_out(store, "second", "promote", {"tier": "high"}, **choose(1, 2))

    with transaction(store.engine) as session:
        keys = session.scalars(
            select(t.FrameRow.key).join(t.LabelRow, t.LabelRow.frame_id == t.FrameRow.frame_id)
        ).all()
        assert sorted(keys) == [f"{n:064x}" for n in (0, 1)]
    assert store.state().generation.promotion.n_promoted == 2
    assert set(store.state().tasks.values()) == {"done"}


def score(mode: str) -> dict[str, Any]:
    row = {"mode": mode, "split": "audit", "n_frames": 2, "n_groups": 2, "force_rmse": 0.1}
    return {"scores": [row | {"energy_rmse": 0.1, "relative": 1.0, "promoted": True}], "text": ""}


def test_the_first_scores_of_a_generation_stand(store):
    carry_out(store, "first", "score", {}, **score("delta"))
    carry_out(store, "second", "score", {}, **score("joint"))

    assert store.state().generation.best_mode == "delta"
    with transaction(store.engine) as session:
        assert session.scalars(select(t.ModeScore.mode)).all() == ["delta"]


def test_labels_of_a_lower_tier_that_wait_do_not_hide_those_of_a_higher_one(store, monkeypatch):
    monkeypatch.setattr(label_reader, "WINDOW", 2)
    with transaction(store.engine) as session:
        for level, frames in ((1, range(5)), (2, range(1))):
            for number in frames:
                session.add(
                    t.LabelRow(
                        frame_id=number + 1,
                        level_of_theory_id=level,
                        generation_id=1,
                        status="pending",
                        tries=0,
                    )
                )

    assert [need.tier for need in store.state().needs] == ["low", "low", "high"]
