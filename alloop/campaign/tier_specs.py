"""What the stages of a higher tier ask of a worker, as JSON; see :mod:`alloop.campaign.specs`."""

from __future__ import annotations

from typing import Any

from alloop import seeds
from alloop.campaign import ladder
from alloop.campaign.methods import gives_forces, method_of
from alloop.campaign.specs import intent, members, train_settings
from alloop.config.model import Campaign, Tier
from alloop_db.queue import TaskIntent
from alloop_db.state import CampaignState, CommitteeState, SnapshotState


def promote(config: Campaign, state: CampaignState) -> TaskIntent:
    """Choose frames of the tier below whose labels in this tier are worth their price."""
    number, tier = state.generation.number, ladder.tier(config, state.generation.tier)
    lower = ladder.below(config, tier.id)[-1]
    if state.below is None or state.explorer is None:
        raise LookupError(f"tier {tier.id} has no committee below it")
    snapshot, known = state.generation.snapshots[lower.id], state.tiers[tier.id]
    climbed, seen = state.explorer.tier == tier.id, state.explorer_snapshots.get(tier.id)
    left = tier.budget.core_time
    spec = {
        "tier": tier.id,
        "level": _level(config, tier),
        "lower_level": _level(config, lower),
        "lower": snapshot.artifact,
        "lower_held_out": snapshot.held_out,
        "upper": None if seen is None else seen.artifact,
        "asked": list(state.generation.asked),
        "below": [sha256 for _, sha256 in state.below.members],
        "committee_id": state.explorer.committee_id,
        "committee": [sha256 for _, sha256 in state.explorer.members] if climbed else None,
        "calibration": state.explorer.calibration if climbed else None,
        "labels": max(0, min(tier.escalate.per_round, tier.budget.labels - known.requested)),
        "core_seconds": None if left is None else max(0.0, left - known.core_seconds),
        "policy": tier.escalate.policy,
        "audit_fraction": config.select.audit_fraction,
        "validation_fraction": config.select.validation_fraction,
        "attempts": [[a.n_atoms, a.n_basis, a.seconds, a.done] for a in known.attempts],
        "method": method_of(config, tier),
        "gives_forces": gives_forces(config, tier),
        "seed": seeds.integer(config.campaign.seed, "promote", number),
    }
    return intent("promote", spec, number)


def transfers(config: Campaign, state: CampaignState, below: CommitteeState) -> list[TaskIntent]:
    """Fit every member of the committee in every mode; students wait for their teachers."""
    tasks = []
    for mode in modes(config, state):
        teachers = _teachers(config, state) if mode == "distil" else []
        if mode == "distil" and not teachers:
            continue
        tasks += [_transfer(config, state, below, mode, seat, teachers) for seat in members(config)]
    return tasks


def _transfer(
    config: Campaign,
    state: CampaignState,
    below: CommitteeState,
    mode: str,
    seat: tuple[str, Any],
    teachers: list[str],
) -> TaskIntent:
    member, group = seat
    number, tier = state.generation.number, ladder.tier(config, state.generation.tier)
    lower = ladder.below(config, tier.id)[-1]
    upper: SnapshotState = state.generation.snapshots[tier.id]
    settings = train_settings(config.train, warm=False) | {"max_steps": config.transfer.max_steps}
    spec = {
        "mode": mode,
        "member": member,
        "architecture": {"kind": group.kind, "size": group.size, "settings": group.settings},
        "freeze": list(config.transfer.freeze),
        "settings": settings,
        "level": _level(config, tier),
        "lower_level": _level(config, lower),
        "snapshot": upper.sha256,
        "data": upper.artifact,
        "lower": state.generation.snapshots[lower.id].artifact,
        "parent": dict(below.members)[member],
        "teachers": teachers,
        "seed": seeds.integer(config.campaign.seed, "transfer", number, mode, member),
    }
    return intent("transfer", spec, number)


def modes(config: Campaign, state: CampaignState) -> list[str]:
    """Return the modes that are tried: students need teachers, and labels without forces."""
    wanted: list[str] = list(config.transfer.modes)
    energies_only = not gives_forces(config, ladder.tier(config, state.generation.tier))
    if "distil" in wanted:
        wanted.remove("distil")
        if energies_only:
            wanted = [*dict.fromkeys(["finetune", *wanted]), "distil"]
    return wanted or ["finetune"]


def _teachers(config: Campaign, state: CampaignState) -> list[str]:
    fitted = state.generation.models.get("finetune", {})
    seats = [member for member, _ in members(config)]
    return [fitted[seat] for seat in seats] if all(seat in fitted for seat in seats) else []


def complete_modes(config: Campaign, state: CampaignState) -> dict[str, list[str]]:
    """Return the modes that have all their members, with the weights in seat order."""
    seats = [member for member, _ in members(config)]
    return {
        mode: [models[seat] for seat in seats]
        for mode in modes(config, state)
        if set(seats) <= set(models := state.generation.models.get(mode, {}))
    }


def score(config: Campaign, state: CampaignState, ready: dict[str, list[str]]) -> TaskIntent:
    """Judge what every mode has learnt on labels that none of them has seen."""
    snapshot = state.generation.snapshots[state.generation.tier]
    spec = {
        "modes": ready,
        "data": snapshot.artifact,
        "held_out": snapshot.held_out,
        "confidence": ladder.target(config, state.generation.tier).confidence,
    }
    return intent("score", spec, state.generation.number)


def _level(config: Campaign, tier: Tier) -> str:
    return str(method_of(config, tier)["model"])
