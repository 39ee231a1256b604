"""A turn of a tier above the first: promote frames, label them, learn from the tier below."""

from __future__ import annotations

from alloop.campaign import ladder, specs, tier_specs
from alloop.campaign.acquire import acquire
from alloop.campaign.actions import (
    Finish,
    FormCommittee,
    Plan,
    Seal,
    failed,
    give_up,
    unfinished,
)
from alloop.campaign.labelling import label
from alloop.campaign.verdict import Verdict
from alloop.config.model import Campaign, Tier
from alloop_db.queue import TaskIntent
from alloop_db.state import CampaignState, CommitteeState, PriceState

PILOT = 2
"""Labels that are made before anybody is asked: without one there is no price."""


def stage(state: CampaignState, config: Campaign, slots: int) -> Plan:
    """Return what is missing until the generation has its committee."""
    if state.generation.snapshot is not None:
        return _learn(state, config)
    return (
        _label_below(state, config, slots)
        or _promote(state, config)
        or _nothing_promoted(state)
        or _ask(state, config)
        or label(state, config, ladder.tier(config, state.generation.tier), slots)
        or Plan("label", action=Seal(state.generation.number))
    )


def _label_below(state: CampaignState, config: Campaign, slots: int) -> Plan | None:
    """Explore with a committee of this tier; what it finds is labelled at all tiers below.

    The first turn has no such committee: it promotes what the tier below has found.
    """
    explorer, generation = state.explorer, state.generation
    if generation.promotion is not None:
        return None
    if explorer is not None and explorer.tier == generation.tier:
        if step := acquire(state, config):
            return step
        for lower in ladder.below(config, generation.tier):
            if step := label(state, config, lower, slots):
                return step
    lowest = ladder.below(config, generation.tier)[-1].id
    if lowest not in generation.snapshots:
        return Plan("promote", action=Seal(generation.number, below=True))
    return None


def _promote(state: CampaignState, config: Campaign) -> Plan | None:
    if state.generation.promotion is not None:
        return None
    task = tier_specs.promote(config, state)
    if lost := failed(state, [task]):
        return give_up("promote", lost)
    return Plan("promote", (task,))


def _nothing_promoted(state: CampaignState) -> Plan | None:
    """End a campaign whose tier has no label and can get none: a turn promotes only once."""
    promotion, tier = state.generation.promotion, state.generation.tier
    if promotion is None or promotion.n_promoted or state.tiers[tier].done:
        return None
    text = (
        f"stalled: no frame could be promoted to tier {tier!r}, and no change of the config lets it"
        " choose again: begin again in another campaign.directory, with more labels in the tier"
        f" below and a larger budget of {tier!r}"
    )
    return Plan("promote", action=Finish(Verdict("stalled", text)))


def _ask(state: CampaignState, config: Campaign) -> Plan | None:
    """Pause with the price, unless somebody has agreed to it."""
    tier, generation = ladder.tier(config, state.generation.tier), state.generation
    if not tier.escalate.approve or generation.approved or generation.promotion is None:
        return None
    if tier.method.engine == "external":  # it pauses anyway, and nobody knows its price
        return None
    pending = generation.labels.get(tier.id, {}).get("pending", 0)
    if not pending:
        return None
    price, attempts = generation.promotion, state.tiers[tier.id].attempts
    if price.seconds is None and len(attempts) < PILOT:
        missing = max(0, PILOT - len(attempts) - state.open_label_tasks)
        return Plan("label", tuple(specs.labels(config, state, tier, slots=1)[:missing]))
    if price.seconds is None:
        each = sum(a.seconds for a in attempts) / max(1, sum(a.done for a in attempts))
        price = PriceState(pending, each * pending, None, None)
    return Plan("label", action=Finish(Verdict("paused", _question(tier, price))))


def _question(tier: Tier, price: PriceState) -> str:
    hours = "an unknown number of" if price.seconds is None else f"{price.seconds / 3600:.3g}"
    between = ""
    if price.seconds_low is not None and price.seconds_high is not None:
        low, high = price.seconds_low / 3600, price.seconds_high / 3600
        between = f" [{low:.3g}, {high:.3g}]"
    return (
        f"paused: {price.n_promoted} labels of tier {tier.id!r} will cost about {hours}{between}"
        f" core-hours; `alloop start --approve` goes on"
    )


def _learn(state: CampaignState, config: Campaign) -> Plan:
    """Learn in every mode, score them, seat the members of the best."""
    below = state.below
    if below is None:
        raise LookupError(f"tier {state.generation.tier} has no committee below it")
    if best := state.generation.best_mode:
        seats = [member for member, _ in specs.members(config)]
        return Plan("learn", action=FormCommittee.of(state.generation, best, seats))
    if step := _train(state, config, below):
        return step
    ready = tier_specs.complete_modes(config, state)
    if not ready:
        return give_up("learn", _lost(state, config, below))
    scoring = tier_specs.score(config, state, ready)
    if lost := failed(state, [scoring]):
        return give_up("score", lost)
    return Plan("score", (scoring,))


def _train(state: CampaignState, config: Campaign, below: CommitteeState) -> Plan | None:
    """Return fits that are missing; those of a mode whose fits have failed are left."""
    tasks = tier_specs.transfers(config, state, below)
    if missing := unfinished(state, tasks):
        return Plan("learn", tuple(missing))
    return None


def _lost(state: CampaignState, config: Campaign, below: CommitteeState) -> list[TaskIntent]:
    return failed(state, tier_specs.transfers(config, state, below))
