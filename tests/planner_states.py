"""Stages of a made-up campaign on water, as the planner sees them."""

from __future__ import annotations

import dataclasses

import numpy as np

from alloop.campaign import specs
from alloop.campaign.actions import Plan
from alloop.campaign.plan import plan
from alloop.config.model import Campaign
from alloop.frames import Frame
from alloop_db.state import (
    AttemptState,
    CampaignState,
    CommitteeState,
    EvaluationState,
    GenerationState,
    PriceState,
    ReplicaState,
    ShardState,
    SnapshotState,
    SystemState,
    TierState,
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


def committee(number: int, tier: str = "xtb") -> CommitteeState:
    members = tuple((f"ani/{i}", f"{number}{i}" * 32) for i in range(3))
    return CommitteeState(number + 1, number, tier, members, False, None)


def generation(number: int, **values) -> GenerationState:
    """Labels are given by status, those of tier xtb; so is its snapshot."""
    blank = {"labels": {}, "snapshot": None, "models": {}, "committee": None, "shards": ()}
    values = blank | {"tier": "xtb"} | values
    snapshot, labels = values.pop("snapshot"), values.pop("labels")
    return GenerationState(
        number=number,
        snapshots=values.pop("snapshots", {"xtb": snapshot} if snapshot else {}),
        labels=labels if any(isinstance(n, dict) for n in labels.values()) else {"xtb": labels},
        **values,
    )


def took(seconds: float) -> tuple[AttemptState, ...]:
    return (AttemptState(3, None, seconds, True),)


def state(**values) -> CampaignState:
    blank = {
        "systems": {"water": SystemState(1, WATER, None)},
        "generation": generation(0),
        "explorer": None,
        "explorer_snapshots": {},
        "tasks": {},
        "needs": (),
        "open_label_tasks": 0,
        "seconds": 0.0,
        "evaluations": (),
        "nve_shards": (),
        "spacetime": (),
        "fits": {},
        "stability": {},
    }
    known = {name: values.pop(name) for name in _OF_A_TIER if name in values}
    blank["tiers"] = {"xtb": TierState(**({"attempts": took(0.01)} | known))}
    number = values.get("generation", blank["generation"]).number
    blank["tier_of"] = dict.fromkeys(range(number + 1), "xtb")
    return CampaignState(**(blank | values))


_OF_A_TIER = (
    *("requested", "done", "failed", "core_seconds", "attempts"),
    *("consecutive_failures", "last_failures"),
)


def exploring(number: int = 1, **values) -> CampaignState:
    return state(
        generation=generation(number, **values.pop("generation", {})),
        explorer=committee(number - 1),
        **({"explorer_snapshots": {"xtb": SNAPSHOT}} | values),
    )


def shard(number: int, ensemble: str = "nvt", committee_id: int | None = None) -> ShardState:
    replicas = (ReplicaState(1, 0, "train", "11", 100, "completed"),)
    by = number if committee_id is None else committee_id
    digest = f"{number}{by}{ensemble}".encode().hex().ljust(64, "0")
    return ShardState(digest, "water", "free", ensemble, by, "xtb", number, replicas)


def audit(number: int, rmse: float, high: float | None = None) -> EvaluationState:
    high = high or rmse * 1.2
    return EvaluationState(number + 1, number, "audit", 40, 4, rmse, rmse / 2, high, 0.001)


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


# -- two tiers: xtb until generation 2, gfn1 from generation 3 on ----------------------------------

LOWER, UPPER = (
    SnapshotState(digit * 64, letter * 64, other * 64, n)
    for digit, letter, other, n in (("6", "c", "d", 80), ("7", "e", "f", 20))
)
FIRST_TURN = 3


def climb(**changes) -> Campaign:
    """Return the config with a tier gfn1 above xtb; ``upper`` changes that tier."""
    upper = {
        "id": "gfn1",
        "method": {"engine": "tblite", "model": "GFN1-xTB"},
        "budget": {"labels": 100},
        "escalate": {"per_round": 20},
    }
    lower = {"id": "xtb", "method": {"engine": "tblite"}, "budget": {"labels": 500}}
    tiers = [lower, upper | changes.pop("upper", {})]
    return config(**({"tiers": tiers, "spacetime": None} | changes))


def upper_turn(number: int = FIRST_TURN, **values) -> CampaignState:
    """A turn of tier gfn1: its first one begins with the committee of the tier below."""
    explorer = committee(number - 1, "xtb" if number == FIRST_TURN else "gfn1")
    sealed = {"xtb": SNAPSHOT} | ({} if number == FIRST_TURN else {"gfn1": UPPER})
    known = {"requested": 20, "done": 20, "attempts": took(10.0)} if number > FIRST_TURN else {}
    known |= {name: values.pop(name) for name in _OF_A_TIER if name in values}
    tiers = {
        "xtb": TierState(requested=100, done=100, attempts=took(0.01)),
        "gfn1": TierState(**known),
    }
    blank = {
        "generation": generation(number, tier="gfn1", **values.pop("generation", {})),
        "explorer": explorer,
        "explorer_snapshots": sealed,
        "below": committee(FIRST_TURN - 1),
        "tiers": tiers,
        "tier_of": {n: "xtb" if n < FIRST_TURN else "gfn1" for n in range(number + 1)},
    }
    return state(**(blank | values))


def price(n: int = 20, seconds: float | None = None, **values) -> PriceState:
    return PriceState(n, seconds, *(values.get(name) for name in ("low", "high")))
