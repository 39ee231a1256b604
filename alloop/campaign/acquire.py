"""New frames: explore with the last committee, then choose among what it saw."""

from __future__ import annotations

from alloop.campaign import specs
from alloop.campaign.actions import Plan, failed, give_up, unfinished
from alloop.config.model import Campaign
from alloop_db.state import CampaignState


def acquire(state: CampaignState, config: Campaign) -> Plan | None:
    """Return what is missing until frames have been chosen; None then."""
    explorer = state.explorer
    if explorer is None:
        raise LookupError(f"generation {state.generation.number} has no committee to explore with")
    exploring = specs.explore(
        config, state, explorer, state.generation.number, config.explore.routes
    )
    if missing := unfinished(state, exploring):
        return Plan("explore", tuple(missing))
    if not any(s.committee_id == explorer.committee_id for s in state.generation.shards):
        return give_up("explore", failed(state, exploring))
    selecting = specs.select(config, state, explorer)
    if lost := failed(state, selecting):
        return give_up("select", lost)
    if missing := unfinished(state, selecting):
        return Plan("select", tuple(missing))
    return None
