"""What each stage of the loop asks of a worker, as JSON. Same campaign, same specs.

A spec holds everything that its task's result depends on, and nothing else: its hash is the
task's identity, so that equal work is recognised and never done twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from alloop import seeds
from alloop.acquisition.splits import Split, assign_splits
from alloop.campaign import ladder
from alloop.campaign.methods import method_of
from alloop.campaign.remembered import Remembered, Same
from alloop.config.model import Campaign, Members, Route, Select, Tier, Train
from alloop_db.queue import TaskIntent
from alloop_db.state import (
    CampaignState,
    CommitteeState,
    LabelNeed,
    ShardState,
    SnapshotState,
    SystemState,
)
from alloop_tasks.workspace import task_key

PRIORITY = {
    "select": 0,
    "promote": 0,
    "evaluate": 1,
    "score": 1,
    "prepare": 2,
    "label": 3,
    "train": 4,
    "transfer": 4,
    "explore": 5,
    "fit_spacetime": 6,
    "probe_spacetime": 6,
}
LABEL_SECONDS = 2.0
"""Aim for label tasks of about this length: long against the overhead, short against a loss."""
LABEL_SECONDS_PER_WORKER = 0.02
"""Longer ones where there are many workers: all of them together ask 50 times a second at most."""
MOST_LABELS = 50
MANY_WORKERS = 100
"""With more than these the first labels go one by one, or most workers would get none."""
_PREPARED, _EXPLORED, _SELECTED = Remembered(1), Remembered(2), Remembered(1)
"""Two explorations: the last one of a campaign comes while its generation's own is known."""


def intent(
    kind: str, spec: dict[str, Any], generation: int, labels: Sequence[int] = ()
) -> TaskIntent:
    """Return a spec as an intent, identified by its content."""
    key = task_key(kind, spec)
    return TaskIntent(key, kind, spec, generation, PRIORITY[kind], tuple(labels))


def prepare(config: Campaign, state: CampaignState) -> list[TaskIntent]:
    """Optimise every system, find its modes and draw its initial frames."""
    systems = list(state.systems.values())
    basis = (Same(config), tuple(Same(system.record) for system in systems))
    return _PREPARED.tasks(basis, lambda: [_prepare(config, system) for system in systems])


def _prepare(config: Campaign, system: SystemState) -> TaskIntent:
    initial = config.explore.initial
    name = system.record["name"]
    modes = any(
        name in route.systems and route.start != "frames" for route in config.explore.routes
    )
    fractions: dict[Split, float] = {"validation": config.select.validation_fraction}
    splits = assign_splits(
        initial.frames, fractions, seeds.generator(config.campaign.seed, "split", name)
    )
    spec = {
        "system": system.record,
        "method": method_of(config, config.tiers[0]),
        "sampler": initial.sampler,
        "modes": modes or initial.sampler != "rattle",
        "temperature": initial.temperature,
        "amplitude": initial.amplitude,
        "splits": splits,
        "seed": seeds.integer(config.campaign.seed, "initial", name),
    }
    return intent("prepare", spec, 0)


def explore(
    config: Campaign,
    state: CampaignState,
    committee: CommitteeState,
    generation: int,
    routes: Iterable[Route],
) -> list[TaskIntent]:
    """Run every route on every system, in batches whose make-up the config fixes."""
    asked = [(route, state.systems[name]) for route in routes for name in route.systems]
    data = _snapshot_of(config, state, committee)
    basis = (
        Same(config),
        tuple((route.id, Same(system.record), system.preparation) for route, system in asked),
        (committee.committee_id, committee.generation, committee.members),
        (generation, data.artifact),
    )

    def build() -> list[TaskIntent]:
        return [
            task
            for route, system in asked
            for task in _explore_route(config, system, committee, data, generation, route)
        ]

    return _EXPLORED.tasks(basis, build)


def _explore_route(
    config: Campaign,
    system: SystemState,
    committee: CommitteeState,
    data: SnapshotState,
    generation: int,
    route: Route,
) -> list[TaskIntent]:
    name, seed = system.record["name"], config.campaign.seed
    place: tuple[int | str, ...] = (generation, route.id, name)
    if committee.generation == generation:  # the last one has explored from these starts before
        place = (*place, "final")
    fractions: dict[Split, float] = {
        "validation": config.select.validation_fraction,
        "audit": config.select.audit_fraction,
    }
    splits = assign_splits(route.replicas, fractions, seeds.generator(seed, "split", *place))
    replicas = [
        {
            "replica": index % route.batch,
            "split": splits[index],
            "temperature": route.temperature[index % len(route.temperature)],
            "seed": str(seeds.integer(seed, "explore", *place, index)),
        }
        for index in range(route.replicas)
    ]
    spec = {
        "system": system.record,
        "preparation": system.preparation if route.start != "frames" else None,
        "snapshot": data.artifact if route.start == "frames" else None,
        "start": route.start,
        "committee": [sha256 for _, sha256 in committee.members],
        "committee_id": committee.committee_id,
        "route": route.id,
        "ensemble": route.ensemble,
        "timestep": route.timestep,
        "friction": route.friction,
        "n_steps": round(route.duration / route.timestep),
        "record_every": round(route.record_every / route.timestep),
        "health": config.explore.health.model_dump(mode="json"),
        "bonds_hold": not config.systems[name].reactive,
    }
    batches = range(0, route.replicas, route.batch)
    return [
        intent("explore", spec | {"replicas": replicas[first : first + route.batch]}, generation)
        for first in batches
    ]


def _snapshot_of(
    config: Campaign, state: CampaignState, committee: CommitteeState
) -> SnapshotState:
    """Return the first tier's training set of a committee's generation: every frame known then.

    Not the latest: what is explored must not change by labels that come meanwhile.
    """
    own = committee.generation == state.generation.number
    snapshots = state.generation.snapshots if own else state.explorer_snapshots
    snapshot = snapshots.get(config.tiers[0].id)
    if snapshot is None:
        raise LookupError("exploring needs a training set, and none has been sealed")
    return snapshot


def select(config: Campaign, state: CampaignState, committee: CommitteeState) -> list[TaskIntent]:
    """Choose from what was explored, one task a system.

    In a turn of a higher tier the frames are labelled at every tier below it: those are promoted.
    None where too little is left of these tiers' budgets, or labels of one of them are made
    elsewhere or want approval: then what is known is promoted.
    """
    paid = ladder.below(config, state.generation.tier) or config.tiers[:1]
    if any(t.method.engine == "external" or t.escalate.approve for t in paid[1:]):
        return []
    left, data = min(_left(state, tier) for tier in paid), _snapshot_of(config, state, committee)
    basis = (
        Same(config),
        tuple(Same(system.record) for system in state.systems.values()),
        (state.generation.number, state.generation.tier, Same(state.generation.shards)),
        (committee.committee_id, committee.tier, tuple((committee.calibration or {}).items())),
        (data.artifact, data.held_out, left),
    )
    return _SELECTED.tasks(basis, lambda: _select(config, state, committee, data, left))


def _select(
    config: Campaign,
    state: CampaignState,
    committee: CommitteeState,
    data: SnapshotState,
    left: int,
) -> list[TaskIntent]:
    options = config.select
    explored: dict[str, list[ShardState]] = {}
    for shard in state.generation.shards:
        if shard.committee_id == committee.committee_id:
            explored.setdefault(shard.system, []).append(shard)
    budget = min(options.per_generation, left) // max(1, len(explored))
    if not _trains(budget, options):
        return []
    lower, number = ladder.below(config, state.generation.tier), state.generation.number
    tiers = {"tiers": [tier.id for tier in lower]} if lower else {}
    return [
        intent(
            "select",
            {
                "system": system.record,
                "shards": [shard_record(shard) for shard in explored[name]],
                "snapshot": data.artifact,
                "held_out": data.held_out,
                "committee_id": committee.committee_id,
                "calibration": committee.calibration,
                "target": ladder.target(config, committee.tier).force_rmse,
                "measure": options.measure,
                "policy": options.policy,
                "budget": budget,
                "audit_fraction": options.audit_fraction,
                "validation_fraction": options.validation_fraction,
                "thinning": options.thinning,
                "duplicate_tolerance": options.duplicate_tolerance,
                "per_trajectory": options.per_trajectory,
                "max_force_spread": config.explore.health.max_force_spread,
                "seed": seeds.integer(config.campaign.seed, "select", number, name),
                **tiers,
            },
            number,
        )
        for name, system in state.systems.items()
        if name in explored
    ]


def _trains(budget: int, options: Select) -> bool:
    """Return whether audit and validation leave any of these labels to train on."""
    shares = (options.audit_fraction, options.validation_fraction)
    return budget - sum(math.ceil(share * budget - 1e-9) for share in shares) > 0


def _left(state: CampaignState, tier: Tier) -> int:
    """Return how many labels a tier had left when the generation began.

    What this generation itself has asked for is left out: the spec must not change by it.
    """
    own = sum(state.generation.labels.get(tier.id, {}).values())
    return max(0, tier.budget.labels - (state.tiers[tier.id].requested - own))


def shard_record(shard: ShardState) -> dict[str, Any]:
    """Return a shard as the JSON that travels in specs."""
    return {
        "sha256": shard.sha256,
        "route": shard.route,
        "replicas": [
            {
                "trajectory_id": replica.trajectory_id,
                "replica": replica.replica,
                "split": replica.split,
                "seed": replica.seed,
            }
            for replica in shard.replicas
        ],
    }


def labels(config: Campaign, state: CampaignState, tier: Tier, slots: int) -> list[TaskIntent]:
    """Cut pending labels of a tier into tasks of a few seconds, as many as can be in flight."""
    wanted = max(0, 2 * slots - state.open_label_tasks)
    seconds = state.tiers[tier.id].seconds_per_label
    size = _labels_per_task(seconds, slots, cheapest=tier is config.tiers[0])
    intents: list[TaskIntent] = []
    method = method_of(config, tier)
    needs: dict[str, list[LabelNeed]] = {name: [] for name in state.systems}
    for need in state.needs:
        if need.tier == tier.id:
            needs[need.system].append(need)
    for name, system in state.systems.items():
        for chunk in _chunks(needs[name], size):
            if len(intents) == wanted:
                return intents
            spec = {
                "system": system.record,
                "tier": tier.id,
                "method": method,
                "retries": tier.retries,
                "frames": [_frame_record(need) for need in chunk],
            }
            ids = [need.label_id for need in chunk]
            intents.append(intent("label", spec, state.generation.number, ids))
    return intents


def _labels_per_task(seconds: float | None, slots: int, *, cheapest: bool) -> int:
    """Return how many labels make a task; before a time is known, one.

    On few workers ten of the cheapest tier: they take milliseconds, as a rule.
    """
    if seconds is None:
        return 10 if cheapest and slots <= MANY_WORKERS else 1
    wanted = max(LABEL_SECONDS, slots * LABEL_SECONDS_PER_WORKER)
    return max(1, min(int(wanted / max(seconds, 1e-4)), MOST_LABELS))


def _chunks(needs: Sequence[LabelNeed], size: int) -> list[list[LabelNeed]]:
    together = [need for need in needs if not need.alone]
    chunks = [together[first : first + size] for first in range(0, len(together), size)]
    return chunks + [[need] for need in needs if need.alone]


def _frame_record(need: LabelNeed) -> dict[str, Any]:
    record = {"frame_key": need.frame_key, "positions": need.positions, "attempt": need.tries}
    return record | ({"short_of_memory": need.short_of_memory} if need.short_of_memory else {})


def members(config: Campaign) -> list[tuple[str, Members]]:
    """Return the seats of the committee, such as ``ani/0``, each with its group."""
    return [
        (f"{group.id}/{index}", group)
        for group in config.committee
        for index in range(group.members)
    ]


def train(config: Campaign, state: CampaignState, snapshot: SnapshotState) -> list[TaskIntent]:
    """Fit every member of the committee."""
    parents = dict(state.explorer.members) if state.explorer and config.train.warm_start else {}
    number = state.generation.number
    return [
        intent(
            "train",
            {
                "member": member,
                "architecture": {
                    "kind": group.kind,
                    "size": group.size,
                    "settings": group.settings,
                },
                "pretrained": group.pretrained,
                "freeze": list(group.freeze),
                "layer_rates": group.layer_rates,
                "settings": train_settings(config.train, warm=member in parents),
                "snapshot": snapshot.sha256,
                "data": snapshot.artifact,
                "parent": parents.get(member),
                "seed": seeds.integer(config.campaign.seed, "train", number, member),
            },
            number,
        )
        for member, group in members(config)
    ]


def train_settings(train: Train, *, warm: bool) -> dict[str, Any]:
    """Return a config's ``train`` as arguments of ``TrainSettings``; no rate if none is named."""
    settings = train.model_dump(mode="json", exclude={"warm_start", "warm_steps", "bootstrap"})
    if warm:
        settings["max_steps"] = train.warm_steps
    return settings | {"resample": "bootstrap" if train.bootstrap else "none"}


def evaluate(
    config: Campaign, state: CampaignState, snapshot: SnapshotState, committee: CommitteeState
) -> TaskIntent:
    """Judge a committee on frames that none of its members was trained on."""
    spec = {
        "committee": [sha256 for _, sha256 in committee.members],
        "committee_id": committee.committee_id,
        "data": snapshot.artifact,
        "held_out": snapshot.held_out,
        "confidence": ladder.target(config, committee.tier).confidence,
    }
    return intent("evaluate", spec, state.generation.number)
