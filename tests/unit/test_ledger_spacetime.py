"""4D models, the judgement on them and their probes: into the ledger and back to the plan."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import insert, select

from alloop.artifacts import ArtifactStore
from alloop.frames import Frame
from alloop_db import schema as t
from alloop_db.ledger import open_ledger
from alloop_db.queue import TaskIntent
from alloop_db.sessions import transaction
from alloop_db.store import Store
from tests.ledger_rows import NUMBERS, REST
from tests.task_results import envelope

METHODS = {"xtb": {"engine": "tblite", "model": "GFN2-xTB"}}
WATER = Frame(NUMBERS, REST)
LIMITS = {"limits": {"spread": 0.01}}
GATE = {"ratio": 0.9}


def weights(name: str) -> str:
    return name.encode().hex().ljust(64, "0")


@pytest.fixture
def store(tmp_path) -> Store:
    """Return a ledger with a committee of generation 0 and two of its NVE trajectories."""
    store = Store(open_ledger(tmp_path, create=True), ArtifactStore(tmp_path / "artifacts"))
    store.create("water", 1, "0", {"water": WATER}, METHODS)
    with transaction(store.engine) as session:
        row = {"sha256": weights("committee"), "generation_id": 1, "level_of_theory_id": 1}
        session.execute(insert(t.Committee).values(**row, created_at=t.now()))
    replicas = [replica(0), replica(1, reason="contact")]
    finish(store, "explore", {"route": "free", "ensemble": "nve", "timestep": 0.5},
           {"artifact": weights("shard"), "replicas": replicas})  # fmt: skip
    return store


def replica(index: int, seed: int = 0, **more: Any) -> dict[str, Any]:
    blank = {"split": "train", "n_frames": 9, "n_stable": 9, "reason": "completed"}
    about = {"replica": index, "temperature": 300.0, "seed": str(seed + index), "duration": 8.0}
    return blank | about | more


def finish(store: Store, kind: str, spec: dict[str, Any], result: dict[str, Any]) -> None:
    """Record a task and commit its result."""
    key = f"{kind} {result.get('artifact')}"
    spec = {"system": {"name": "water"}, "committee_id": 1} | spec
    store.tasks.add([TaskIntent(key, kind, spec, 0, 6)])
    made = [result["artifact"]] if result["artifact"] else []
    files = [{"sha256": sha, "suffix": ".x", "kind": kind, "bytes": 1} for sha in made]
    record = envelope(key, *files, **result)
    assert store.tasks.commit(record)
    assert not store.tasks.commit(record), "a result is committed once"


def fit(store: Store, name: str, turn: int = 0, parent: str | None = None, **more: Any) -> None:
    spec = {
        "settings": {"cutoff": 10.0},
        "seed": 5,
        "parent": parent and weights(parent),
        "turn": turn,
        "committee": ["a" * 64, "b" * 64],
    }
    result = {
        "artifact": weights(name),
        "status": "promoted",
        "reason": "better",
        "metrics": {"thresholds": LIMITS, "gate": GATE},
        "trajectories": [{"trajectory_id": 1, "split": "train"}],
        "excluded": [{"trajectory_id": 2, "reason": "contact"}],
    }
    finish(store, "fit_spacetime", spec, result | more)


def probe(store: Store, model: str, found: int, turn: int = 0) -> None:
    spec = {
        "model": weights(model),
        "thresholds": LIMITS,
        "turn": turn,
        "reference": {"timestep": 0.5},
    }
    result = {
        "artifact": weights(f"probe of {model}") if found else None,
        "replicas": [replica(i, 100) for i in range(found)],
        "n_replicas": 4,
        "n_segments": 40,
        "n_flagged": found,
        "flagged": {"spread": found},
        "numbers": {"ended": {"completed": 4}},
        "segments": [{"replica": i, "time": 10.0} for i in range(found)],
    }
    finish(store, "probe_spacetime", spec, result)


def rows(store: Store, table: Any) -> list[Any]:
    with store.engine.connect() as connection:
        return list(connection.execute(select(table.__table__)))


def test_a_fit_comes_back_as_the_planner_needs_it(store):
    fit(store, "one")

    state = store.state()

    (model,) = state.spacetime
    assert model.place == ("water", 1, 0)
    assert (model.promoted, model.committee) == (True, ("a" * 64, "b" * 64))
    assert model.thresholds == LIMITS
    assert state.fits == {("water", 1, 0): "done"}
    assert (state.probes, state.begun) == ({}, {})


def test_what_was_seen_and_left_out_is_kept_with_the_judgement(store):
    fit(store, "one")
    fit(store, "two", 1, "one", status="held_back", reason="worse", metrics={"thresholds": None})

    first, second = rows(store, t.SpacetimeModel)
    assert (second.status, second.reason) == ("held_back", "worse")
    assert (first.parent_spacetime_model_id, second.parent_spacetime_model_id) == (None, 1)
    left_out = [(row.trajectory_id, row.reason) for row in rows(store, t.SpacetimeExclusion)]
    assert left_out == [(2, "contact")] * 2
    held_back = store.state().spacetime[-1]
    assert (held_back.promoted, held_back.thresholds) == (False, None)


def test_trajectories_of_a_probe_join_the_store_and_say_where_they_begin(store):
    fit(store, "one")
    probe(store, "one", found=2)

    state = store.state()

    assert state.probes == {("water", 1, 0): "done"}
    assert state.begun == {("water", 1, 0): 2}
    added = [shard for shard in state.nve_shards if shard.route == t.PROBE_ROUTE]
    assert [len(shard.replicas) for shard in added] == [2]
    (row,) = rows(store, t.SpacetimeProbe)
    assert (row.spacetime_model_id, row.n_flagged, len(row.segments)) == (1, 2, 2)


def test_a_probe_that_finds_nothing_is_a_row_without_trajectories(store):
    fit(store, "one")
    probe(store, "one", found=0)

    assert rows(store, t.SpacetimeProbe)[0].artifact_id is None
    assert (store.state().probes, store.state().begun) == ({("water", 1, 0): "done"}, {})


def test_a_verdict_does_not_hang_on_when_a_probe_came_back(store):
    before = store.state().stability
    fit(store, "one")
    probe(store, "one", found=2)

    assert store.state().stability == before == {0: (2, 1)}


def test_people_are_told_what_happened(store):
    fit(store, "one")
    probe(store, "one", found=2)

    said = [row.text for row in rows(store, t.Event)]
    assert "4D model of water after generation 0 promoted: better" in said
    assert said[-1] == (
        "probe of the 4D model of water after generation 0: 2 of 40 segments flagged,"
        " 2 reference trajectories added"
    )


def test_a_fit_of_before_there_were_turns_counts_as_the_first(store):
    spec = {"system": {"name": "water"}, "committee_id": 1}
    store.tasks.add([TaskIntent("old", "fit_spacetime", spec, 0, 6)])

    assert store.state().fits == {("water", 1, 0): "pending"}
