"""Labels of a generation: which are to be made, and when there is no point in going on."""

from __future__ import annotations

from alloop.campaign import specs
from alloop.campaign.actions import Finish, Plan
from alloop.campaign.verdict import Verdict
from alloop.config.model import Campaign, Tier
from alloop_db.state import CampaignState


def label(state: CampaignState, config: Campaign, tier: Tier, slots: int) -> Plan | None:
    """Return what is to be done until a generation has its labels of a tier; None then."""
    counts, known = state.generation.labels.get(tier.id, {}), state.tiers[tier.id]
    total, pending = sum(counts.values()), counts.get("pending", 0)
    if known.consecutive_failures >= tier.give_up_after:
        words = "; ".join(known.last_failures)
        return _stalled(
            f"the last {known.consecutive_failures} labels of tier {tier.id!r} failed ({words});"
            " mend the method and start again"
        )
    if pending and not total - pending >= tier.close_at * total:
        if tier.method.engine == "external":
            return _elsewhere(tier, pending)
        return Plan("label", tuple(specs.labels(config, state, tier, slots)))
    if known.done == 0 and known.requested:
        words = "; ".join(known.last_failures)
        return _stalled(
            f"not one of {known.requested} labels of tier {tier.id!r} could be made ({words});"
            " mend the method and start again"
        )
    return None


def _stalled(text: str) -> Plan:
    return Plan("label", action=Finish(Verdict("stalled", f"stalled: {text}")))


def _elsewhere(tier: Tier, pending: int) -> Plan:
    text = (
        f"paused: {pending} labels of tier {tier.id!r} are made elsewhere: `alloop export todo"
        f" --tier {tier.id} -o FILE` writes their frames, `alloop import` takes the labels, and"
        " start again goes on"
    )
    return Plan("label", action=Finish(Verdict("paused", text)))
