"""Stages of a made-up campaign on water, as the planner sees them."""

from __future__ import annotations

import dataclasses

import numpy as np

from alloop.campaign import specs
from alloop.campaign.plan import Plan, plan
from alloop.config.model import Campaign
from alloop.frames import Frame
from alloop_db.state import (
    CampaignState,
    CommitteeState,
    EvaluationState,
    GenerationState,
    ReplicaState,
    ShardState,
    SnapshotState,
    SystemState,
)
from alloop_tasks.systems import system_record

WATER = system_record(
    "water", Frame(np.array([8, 1, 1]), np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]))
)
SNAPSHOT = SnapshotState("5" * 64, "a" * 64, "b" * 64, 60)


def config(**changes) -> Campaign:
    content = {
        "schema": 1,
        "campaign": {"name": "water", "seed": 7},
        "systems": {"water": {"structure": "water.xyz"}},
        "target": {"force_rmse": "0.1 eV/A"},
        "tiers": [{"id": "xtb", "method": {"engine": "tblite"}, "budget": {"labels": 500}}],
        "committee": [{"id": "ani", "members": 3}],
        "explore": {
            "routes": [
                {"id": "warm", "temperature": ["300 K", "600 K"], "replicas": 6, "batch": 4},
                {"id": "free", "ensemble": "nve", "duration": "500 fs", "replicas": 4},
            ]
        },
        "spacetime": {"every": "2 generations"},
        "stop": {"max_generations": 5, "patience": 2, "for_generations": 1},
    }
    for path, value in changes.items():
        *around, last = path.split("__")
        here = content
        for name in around:
            here = here[name]
        here[last] = value
    return Campaign.model_validate(content)


def committee(number: int) -> CommitteeState:
    members = tuple((f"ani/{i}", f"{number}{i}" * 32) for i in range(3))
    return CommitteeState(number + 1, number, members, False, None)


def generation(number: int, **values) -> GenerationState:
    blank = {"labels": {}, "snapshot": None, "models": {}, "committee": None, "shards": ()}
    return GenerationState(number=number, **(blank | values))


def state(**values) -> CampaignState:
    blank = {
        "systems": {"water": SystemState(1, WATER, None)},
        "generation": generation(0),
        "explorer": None,
        "explorer_snapshot": None,
        "tasks": {},
        "needs": (),
        "open_label_tasks": 0,
        "seconds_per_label": 0.01,
        "consecutive_failures": 0,
        "requested": 0,
        "done": 0,
        "failed": 0,
        "seconds": 0.0,
        "evaluations": (),
        "nve_shards": (),
        "spacetime": (),
        "fits": {},
        "stability": {},
    }
    return CampaignState(**(blank | values))


def exploring(number: int = 1, **values) -> CampaignState:
    return state(
        generation=generation(number, **values.pop("generation", {})),
        explorer=committee(number - 1),
        explorer_snapshot=SNAPSHOT,
        **values,
    )


def shard(number: int, ensemble: str = "nvt", committee_id: int | None = None) -> ShardState:
    replicas = (ReplicaState(1, 0, "train", "11", 100, "completed"),)
    by = number if committee_id is None else committee_id
    digest = f"{number}{by}{ensemble}".encode().hex().ljust(64, "0")
    return ShardState(digest, "water", "free", ensemble, by, number, replicas)


def audit(number: int, rmse: float, high: float | None = None) -> EvaluationState:
    return EvaluationState(number + 1, number, "audit", 40, 4, rmse, rmse / 2, high or rmse * 1.2)


def run(given: CampaignState, settings: Campaign | None = None, **options) -> Plan:
    """Return what the planner wants."""
    return plan(given, settings or config(), options.get("slots", 2), options.get("elapsed", 0.0))


def done(tasks, status: str = "done") -> dict[str, str]:
    return {task.key: status for task in tasks}


def judged(number: int, **values) -> CampaignState:
    """A generation whose committee has been evaluated."""
    given = exploring(
        number,
        generation={"snapshot": SNAPSHOT, "committee": committee(number)},
        **({"done": 100, "requested": 100} | values),
    )
    evaluate = specs.evaluate(config(), given, SNAPSHOT, committee(number))
    return dataclasses.replace(given, tasks=given.tasks | done([evaluate]))
