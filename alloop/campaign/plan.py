"""What is missing: a pure function of the ledger's state.

The driver carries out what ``plan`` returns and asks again, until the answer is a verdict. Nothing
is remembered in between, so a driver that was killed loses nothing that the ledger knows.
"""

from __future__ import annotations

from dataclasses import replace

from alloop.campaign import climb, ladder, spacetime, specs
from alloop.campaign.acquire import acquire
from alloop.campaign.actions import (
    Finish,
    FormCommittee,
    OpenGeneration,
    Plan,
    Seal,
    failed,
    give_up,
    unfinished,
)
from alloop.campaign.labelling import label
from alloop.campaign.verdict import ENDS_A_TIER, Verdict, judge
from alloop.config.model import Campaign
from alloop_db.state import CampaignState, CommitteeState


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
    if generation.tier != config.tiers[0].id:
        return climb.stage(state, config, slots)
    if generation.snapshot is not None:
        return _train(state, config)
    before = _prepare(state, config) if generation.number == 0 else acquire(state, config)
    return (
        before
        or label(state, config, config.tiers[0], slots)
        or Plan("label", action=Seal(generation.number))
    )


def _prepare(state: CampaignState, config: Campaign) -> Plan | None:
    tasks = specs.prepare(config, state)
    if lost := failed(state, tasks):
        return give_up("prepare", lost)
    if missing := unfinished(state, tasks):
        return Plan("prepare", tuple(missing))
    return None


def _train(state: CampaignState, config: Campaign) -> Plan:
    snapshot = state.generation.snapshot
    if snapshot is None:
        raise LookupError("training needs a sealed snapshot")
    tasks = specs.train(config, state, snapshot)
    if lost := failed(state, tasks):
        return give_up("train", lost)
    if missing := unfinished(state, tasks):
        return Plan("train", tuple(missing))
    seats = [member for member, _ in specs.members(config)]
    return Plan("train", action=FormCommittee.of(state.generation, "plain", seats))


def _after_training(
    state: CampaignState, config: Campaign, committee: CommitteeState, elapsed: float
) -> Plan:
    snapshot = state.generation.snapshot
    if snapshot is None:
        raise LookupError("a committee without a training set")
    task = specs.evaluate(config, state, snapshot, committee)
    if lost := failed(state, [task]):
        return give_up("evaluate", lost)
    if missing := unfinished(state, [task]):
        return Plan("evaluate", tuple(missing))
    if spacetime.owed(state, config):
        return Plan("4D fit", spacetime.beside(state, config, explored=True))
    verdict = judge(config, state, elapsed)
    if goes_on := _next_generation(state, config, committee, verdict):
        last = goes_on.tier != committee.tier == spacetime.tier(config)
        fit = _last_fit(state, config, committee) if last else None
        return fit or Plan("evaluate", action=goes_on)
    if verdict is None:
        raise LookupError("a campaign that neither ends nor goes on")
    return _last_fit(state, config, committee) or Plan("verdict", action=Finish(verdict))


def _next_generation(
    state: CampaignState, config: Campaign, committee: CommitteeState, verdict: Verdict | None
) -> OpenGeneration | None:
    """Return the next turn of this tier, or the first of the next one; None if there is none."""
    generation = state.generation
    number = generation.number + 1
    if verdict is None:
        return OpenGeneration(number, committee.committee_id, generation.tier)
    higher = ladder.above(config, generation.tier)
    if higher is None or verdict.state not in ENDS_A_TIER or verdict.whole_campaign:
        return None
    why = f"tier {generation.tier} is over, on to {higher.id}: {verdict.text}"
    return OpenGeneration(number, committee.committee_id, higher.id, why)


def _last_fit(state: CampaignState, config: Campaign, committee: CommitteeState) -> Plan | None:
    """Before the end: trajectories of the final committee, the 4D model, its probe and refit."""
    if config.spacetime is None:
        return None
    if committee.tier != spacetime.tier(config):
        return Plan("4D fit") if spacetime.under_way(state) else None
    routes = [route for route in config.explore.routes if route.ensemble == "nve"]
    exploring = specs.explore(config, state, committee, state.generation.number, routes)
    if missing := unfinished(state, exploring):
        return Plan("4D trajectories", (*missing, *spacetime.beside(state, config, explored=True)))
    if tasks := spacetime.at_the_end(state, config, committee):
        return Plan("4D probe" if tasks[0].kind == "probe_spacetime" else "4D fit", tasks)
    return Plan("4D fit") if spacetime.under_way(state) else None
