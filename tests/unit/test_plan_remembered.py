"""What the planner remembers is the answer to the very same question, or nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from alloop.campaign import specs
from alloop.campaign.actions import Plan
from alloop.campaign.plan import plan
from alloop.campaign.remembered import Remembered
from alloop.config.model import Campaign
from alloop_db.state import CampaignState, ShardState, SystemState
from tests.planner_states import SNAPSHOT, WATER, config, done, exploring, run, shard, state

ROUTES = [{"id": "warm", "temperature": "300 K", "replicas": 6, "batch": 4, "start": "wigner"}]
COOL, HOT = (config(explore={"routes": [ROUTES[0] | {"temperature": t}]}) for t in ("300 K", "9 K"))
SEEDED = config(campaign__seed=8)
SHARDS: tuple[ShardState, ...] = (shard(1),)
BEGINNING, AGAIN = state(), state()


def prepared(digit: str) -> dict[str, SystemState]:
    return {"water": SystemState(1, WATER, digit * 64)}


def with_explorer(**changes: Any) -> CampaignState:
    given = exploring()
    assert given.explorer is not None
    return dataclasses.replace(given, explorer=dataclasses.replace(given.explorer, **changes))


def sealed(**changes: Any) -> dict[str, Any]:
    return {"explorer_snapshots": {"xtb": dataclasses.replace(SNAPSHOT, **changes)}}


def explored(settings: Campaign, **values: Any) -> CampaignState:
    """Return a state in which all has been explored and nothing chosen."""
    explorer, shards = values.pop("explorer", {}), values.pop("shards", SHARDS)
    tasks = done(run(exploring(**values), settings).tasks)
    given = exploring(tasks=tasks, generation={"shards": shards}, **values)
    assert given.explorer is not None
    return dataclasses.replace(given, explorer=dataclasses.replace(given.explorer, **explorer))


QUESTIONS: dict[str, list[tuple[Campaign, CampaignState]]] = {
    "prepare": [(COOL, BEGINNING), (SEEDED, AGAIN)],
    "explore": [
        (COOL, exploring()),
        (HOT, exploring()),
        (COOL, dataclasses.replace(exploring(2), explorer=exploring(1).explorer)),
        (COOL, exploring(systems=prepared("1"))),
        (COOL, with_explorer(members=(("ani/0", "9" * 64),))),
        (COOL, with_explorer(committee_id=9)),
    ],
    "explore from frames": [
        (SEEDED, exploring()),
        (SEEDED, exploring(**sealed(artifact="d" * 64))),
    ],
    "select": [
        (SEEDED, explored(SEEDED)),
        (SEEDED, explored(SEEDED, shards=(shard(1, "nve"),))),
        (SEEDED, explored(SEEDED, requested=480)),
        (SEEDED, explored(SEEDED, explorer={"calibration": {"alpha": 1.0}})),
        (SEEDED, explored(SEEDED, explorer={"calibration": {"alpha": 2.0}})),
        (SEEDED, explored(SEEDED, **sealed(held_out="e" * 64))),
    ],
}


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_PREPARED", "_EXPLORED", "_SELECTED"):
        monkeypatch.setattr(specs, name, Remembered(2))


def ask(question: tuple[Campaign, CampaignState]) -> Plan:
    settings, given = question
    return plan(given, settings, 2, 0.0)


@pytest.mark.parametrize("stage", QUESTIONS)
def test_another_question_gets_its_own_answer(stage, monkeypatch):
    fresh = []
    for question in QUESTIONS[stage]:
        forget(monkeypatch)
        fresh.append(ask(question).tasks)
    assert all(stage.startswith(task.kind) for tasks in fresh for task in tasks)
    keys = [tuple(task.key for task in tasks) for tasks in fresh]
    assert len(set(keys)) == len(keys)  # they do differ
    forget(monkeypatch)

    for question, wanted in zip(QUESTIONS[stage], fresh, strict=True):
        assert ask(QUESTIONS[stage][0]).tasks == fresh[0]
        assert ask(question).tasks == wanted


@pytest.mark.parametrize("stage", QUESTIONS)
def test_the_same_question_is_not_worked_out_again(stage, monkeypatch):
    forget(monkeypatch)
    question = QUESTIONS[stage][0]
    first = ask(question).tasks
    monkeypatch.setattr(specs, "task_key", lambda *_: pytest.fail("written down again"))

    assert ask(question).tasks == first


def test_only_the_latest_answers_are_kept():
    built: list[str] = []
    memory = Remembered(2)
    for question in "abacab":
        memory.tasks(question, lambda question=question: built.append(question) or [])

    assert "".join(built) == "abcab"  # c drives out a, the oldest, and the second a drives out b
