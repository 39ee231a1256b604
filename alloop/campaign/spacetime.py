"""What is missing of the 4D models: fits, probes of those in use, refits to what probes began.

Each system has one of these under way at a time, so that a fit knows all that went before it,
whatever the order in which the campaign's results come back.
"""

from __future__ import annotations

from alloop.campaign.spacetime_specs import fit_spacetime, probe_spacetime
from alloop.config.model import Campaign
from alloop_db.queue import TaskIntent
from alloop_db.state import CampaignState, CommitteeState, ShardState, SpacetimeState

NEARLY_AS_GOOD = 1.5
"""A 4D model also learns from older committees whose error is at most this many times larger."""
OPEN = ("pending", "running")


def tier(config: Campaign) -> str:
    """Return the tier whose committees the 4D model imitates."""
    chosen = config.spacetime.tier if config.spacetime else None
    return chosen or config.tiers[-1].id


def beside(state: CampaignState, config: Campaign, *, explored: bool) -> tuple[TaskIntent, ...]:
    """Return what is due in the middle of a campaign, beside the stages of a generation.

    ``explored`` says that the trajectories of this generation are all there.
    """
    committee = _on_schedule(state, config) if explored else None
    return _next_steps(state, config, committee, refits=0)


def owed(state: CampaignState, config: Campaign) -> bool:
    """Return whether this generation must not end yet: its fit waits for what went before."""
    committee = _on_schedule(state, config)
    return committee is not None and any(
        _fit(state, config, name, committee, refits=0) for name in state.systems
    )


def at_the_end(
    state: CampaignState, config: Campaign, committee: CommitteeState
) -> tuple[TaskIntent, ...]:
    """Return what is due before the campaign ends with its final committee."""
    probe = config.spacetime.probe if config.spacetime else None
    return _next_steps(state, config, committee, refits=probe.rounds if probe else 0)


def under_way(state: CampaignState) -> bool:
    """Return whether any fit or probe is unfinished."""
    return any(status in OPEN for status in (*state.fits.values(), *state.probes.values()))


def _on_schedule(state: CampaignState, config: Campaign) -> CommitteeState | None:
    """Return the committee of the generation before if a fit to it is due in this one."""
    settings, committee = config.spacetime, state.explorer
    if settings is None or committee is None or committee.generation == 0:
        return None
    if committee.tier != tier(config):
        return None
    return None if committee.generation % settings.every else committee


def _next_steps(
    state: CampaignState, config: Campaign, committee: CommitteeState | None, refits: int
) -> tuple[TaskIntent, ...]:
    steps = []
    for name in state.systems:
        if _busy(state, name):
            continue
        step = _probe(state, config, name)
        if step is None and committee is not None:
            step = _fit(state, config, name, committee, refits)
        if step is not None:
            steps.append(step)
    return tuple(steps)


def _busy(state: CampaignState, name: str) -> bool:
    return any(
        status in OPEN
        for steps in (state.fits, state.probes)
        for (system, _, _), status in steps.items()
        if system == name
    )


def _probe(state: CampaignState, config: Campaign, name: str) -> TaskIntent | None:
    """Return the probe of a model that has just come into use."""
    latest = _models(state, name)[-1:]
    probe = config.spacetime.probe if config.spacetime else None
    routes = [r for r in config.explore.routes if r.ensemble == "nve" and name in r.systems]
    if probe is None or not routes or not latest:
        return None
    (model,) = latest
    if not model.promoted or model.thresholds is None or model.place in state.probes:
        return None
    return probe_spacetime(config, probe, state.systems[name], routes[0], model)


def _fit(
    state: CampaignState, config: Campaign, name: str, committee: CommitteeState, refits: int
) -> TaskIntent | None:
    """Return the first fit to a committee, or the next one if a probe has found work for it."""
    shards = _teachers(state, committee, name)
    turns = [
        turn
        for system, number, turn in state.fits
        if (system, number) == (name, committee.committee_id)
    ]
    if config.spacetime is None or not shards:
        return None
    turn = 0
    if turns:
        turn = max(turns) + 1
        if turn > refits or not state.begun.get((name, committee.committee_id, turn - 1)):
            return None
    in_use = [model.sha256 for model in _models(state, name) if model.promoted]
    parent = in_use[-1] if in_use else None
    return fit_spacetime(
        config, config.spacetime, state.systems[name], committee, shards, parent, turn
    )


def _models(state: CampaignState, name: str) -> list[SpacetimeState]:
    return [model for model in state.spacetime if model.system == name]


def _teachers(state: CampaignState, committee: CommitteeState, system: str) -> list[ShardState]:
    """Return the NVE shards of a system whose potential is about as good as the committee's."""
    errors = {e.committee_id: e.force_rmse for e in state.evaluations if e.kind == "audit"}
    own = errors.get(committee.committee_id)
    shards = []
    for shard in state.nve_shards:
        error = errors.get(shard.committee_id)
        good = own is not None and error is not None and error <= NEARLY_AS_GOOD * own
        own_tier = shard.system == system and shard.tier == committee.tier
        if own_tier and (good or shard.committee_id == committee.committee_id):
            shards.append(shard)
    return shards if any(s.committee_id == committee.committee_id for s in shards) else []
