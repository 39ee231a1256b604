"""What is missing: a pure function of the ledger's state.

The driver carries out what ``plan`` returns and asks again, until the answer is a verdict. Nothing
is remembered in between, so a driver that was killed loses nothing that the ledger knows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from alloop.campaign import spacetime, specs
from alloop.campaign.verdict import Verdict, judge
from alloop.config.model import Campaign
from alloop_db.queue import TaskIntent
from alloop_db.state import CampaignState, CommitteeState


@dataclass(frozen=True, slots=True)
class Seal:
    """Seal the training set of a generation."""

    generation: int


@dataclass(frozen=True, slots=True)
class FormCommittee:
    """Seat the members that a generation has trained."""

    generation: int
    members: tuple[str, ...]
    sha256: str


@dataclass(frozen=True, slots=True)
class OpenGeneration:
    """Close the open generation and begin the next, explored by a committee."""

    generation: int
    committee_id: int


@dataclass(frozen=True, slots=True)
class Finish:
    """End the campaign."""

    verdict: Verdict


Action = Seal | FormCommittee | OpenGeneration | Finish


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done: intents to record, or one action that needs no worker.

    ``stage`` names the stage that the campaign is in, for people.
    """

    stage: str
    tasks: tuple[TaskIntent, ...] = ()
    action: Action | None = None


def plan(state: CampaignState, config: Campaign, slots: int, elapsed: float) -> Plan:
    """Return what is missing.

    ``slots`` bounds the label tasks in flight, ``elapsed`` is the wall time of this driver, s.
    """
    step = _stage(state, config, slots, elapsed)
    if step.action is not None or step.stage.startswith("4D"):
        return step
    due = spacetime.beside(state, config, explored=step.stage not in ("prepare", "explore"))
    return replace(step, tasks=(*step.tasks, *due))


def _stage(state: CampaignState, config: Campaign, slots: int, elapsed: float) -> Plan:
    generation = state.generation
    if generation.committee is not None:
        return _after_training(state, config, generation.committee, elapsed)
    if generation.snapshot is not None:
        return _train(state, config)
    before_labels = _prepare(state, config) if generation.number == 0 else _acquire(state, config)
    return before_labels or _label(state, config, slots)


def _unfinished(state: CampaignState, tasks: Sequence[TaskIntent]) -> list[TaskIntent]:
    return [task for task in tasks if state.tasks.get(task.key) not in ("done", "failed")]


def _failed(state: CampaignState, tasks: Sequence[TaskIntent]) -> list[TaskIntent]:
    return [task for task in tasks if state.tasks.get(task.key) == "failed"]


def _give_up(stage: str, failed: Sequence[TaskIntent]) -> Plan:
    names = ", ".join(f"{task.kind} {task.key[:12]}" for task in failed)
    text = (
        f"{len(failed)} task(s) failed for good: {names}; `alloop query failures` shows why,"
        " `alloop start` tries them again"
    )
    return Plan(stage, action=Finish(Verdict("error", text)))


def _prepare(state: CampaignState, config: Campaign) -> Plan | None:
    tasks = [specs.prepare(config, system) for system in state.systems.values()]
    if failed := _failed(state, tasks):
        return _give_up("prepare", failed)
    if missing := _unfinished(state, tasks):
        return Plan("prepare", tuple(missing))
    return None


def _acquire(state: CampaignState, config: Campaign) -> Plan | None:
    """Explore with the last committee, then choose among what it saw."""
    explorer = state.explorer
    if explorer is None:
        raise LookupError(f"generation {state.generation.number} has no committee to explore with")
    exploring = specs.explore(
        config, state, explorer, state.generation.number, config.explore.routes
    )
    if missing := _unfinished(state, exploring):
        return Plan("explore", tuple(missing))
    if not any(s.committee_id == explorer.committee_id for s in state.generation.shards):
        return _give_up("explore", _failed(state, exploring))
    selecting = specs.select(config, state, explorer)
    if failed := _failed(state, selecting):
        return _give_up("select", failed)
    if missing := _unfinished(state, selecting):
        return Plan("select", tuple(missing))
    return None


def _label(state: CampaignState, config: Campaign, slots: int) -> Plan:
    tier, labels = config.tiers[0], state.generation.labels
    if state.consecutive_failures >= tier.give_up_after:
        words = "; ".join(state.last_failures)
        text = (
            f"stalled: the last {state.consecutive_failures} labels of tier {tier.id!r} failed"
            f" ({words}); mend the method and start again"
        )
        return Plan("label", action=Finish(Verdict("stalled", text)))
    total = sum(labels.values())
    pending = labels.get("pending", 0)
    if pending and not total - pending >= tier.close_at * total:
        return Plan("label", tuple(specs.labels(config, state, slots)))
    if state.done == 0:
        words = "; ".join(state.last_failures)
        text = (
            f"stalled: not one of {state.requested} labels could be made ({words}); mend the"
            " method and start again"
        )
        return Plan("label", action=Finish(Verdict("stalled", text)))
    return Plan("label", action=Seal(state.generation.number))


def _train(state: CampaignState, config: Campaign) -> Plan:
    snapshot, number = state.generation.snapshot, state.generation.number
    if snapshot is None:
        raise LookupError("training needs a sealed snapshot")
    tasks = specs.train(config, state, snapshot)
    if failed := _failed(state, tasks):
        return _give_up("train", failed)
    if missing := _unfinished(state, tasks):
        return Plan("train", tuple(missing))
    members = tuple(member for member, _ in specs.members(config))
    digest = hashlib.sha256(f"generation {number}\n".encode())
    for member in members:
        digest.update(f"{member} {state.generation.models[member]}\n".encode())
    return Plan("train", action=FormCommittee(number, members, digest.hexdigest()))


def _after_training(
    state: CampaignState, config: Campaign, committee: CommitteeState, elapsed: float
) -> Plan:
    snapshot = state.generation.snapshot
    if snapshot is None:
        raise LookupError("a committee without a training set")
    task = specs.evaluate(config, state, snapshot, committee)
    if failed := _failed(state, [task]):
        return _give_up("evaluate", failed)
    if missing := _unfinished(state, [task]):
        return Plan("evaluate", tuple(missing))
    if spacetime.owed(state, config):
        return Plan("4D fit", spacetime.beside(state, config, explored=True))
    verdict = judge(config, state, elapsed)
    if verdict is None:
        number = state.generation.number + 1
        return Plan("evaluate", action=OpenGeneration(number, committee.committee_id))
    return _last_fit(state, config, committee) or Plan("verdict", action=Finish(verdict))


def _last_fit(state: CampaignState, config: Campaign, committee: CommitteeState) -> Plan | None:
    """Before the end: trajectories of the final committee, the 4D model, its probe and refit."""
    if config.spacetime is None:
        return None
    routes = [route for route in config.explore.routes if route.ensemble == "nve"]
    exploring = specs.explore(config, state, committee, state.generation.number, routes)
    if missing := _unfinished(state, exploring):
        return Plan("4D trajectories", (*missing, *spacetime.beside(state, config, explored=True)))
    if tasks := spacetime.at_the_end(state, config, committee):
        return Plan("4D probe" if tasks[0].kind == "probe_spacetime" else "4D fit", tasks)
    return Plan("4D fit") if spacetime.under_way(state) else None
