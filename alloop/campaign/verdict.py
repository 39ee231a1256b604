"""When a campaign is over, and what to call its end."""

from __future__ import annotations

from dataclasses import dataclass

from alloop.campaign import ladder
from alloop.config.model import Campaign, Target, Tier
from alloop_db.state import CampaignState, EvaluationState

LEAST_LABELS = 5
"""With fewer labels left for a system there is nothing to choose, audit and train with."""
EXIT_CODES = {"converged": 0, "error": 1, "budget": 3, "stalled": 4, "paused": 5, "lost": 75}


ENDS_A_TIER = ("converged", "budget", "stalled")
"""Verdicts after which a campaign climbs to the next tier, if there is one."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a campaign, or a tier of it, ended: one of the states of EXIT_CODES, and why.

    ``whole_campaign`` says that no tier goes on.
    """

    state: str
    text: str
    whole_campaign: bool = False

    @property
    def exit_code(self) -> int:
        """The exit code of ``alloop start``."""
        return EXIT_CODES[self.state]


def judge(config: Campaign, state: CampaignState, elapsed: float) -> Verdict | None:
    """Return the verdict on a tier after a generation of it, or None if it goes on.

    ``elapsed`` is the wall time of this driver, s; those before it are in the state.
    """
    tier = ladder.tier(config, state.generation.tier)
    audits = {
        e.generation: e
        for e in state.evaluations
        if e.kind == "audit" and state.tier_of[e.generation] == tier.id
    }
    return (
        _converged(config, state, tier, audits)
        or _budget(config, state, tier, audits, elapsed)
        or _stalled(config, state, audits)
    )


def below_target(target: Target, audit: EvaluationState | None) -> bool:
    """Return whether an audit error is good enough.

    The upper end of the force error's interval must lie below its target, and the energy error
    where it has a target; a method without forces needs one.
    """
    if audit is None:
        return False
    if target.energy_rmse is not None and not audit.energy_rmse <= target.energy_rmse:
        return False
    if audit.force_rmse is None:
        return target.energy_rmse is not None
    return audit.force_high is not None and audit.force_high <= target.force_rmse


def describe(audit: EvaluationState | None) -> str:
    """Return an audit error in words."""
    if audit is None:
        return "no audit error is known yet"
    frames = f"on {audit.n_frames} frames of {audit.n_groups} trajectories"
    if audit.force_rmse is None:
        return f"audit energy RMSE {1e3 * audit.energy_rmse:.2f} meV/atom {frames}"
    interval = ""
    if audit.force_low is not None and audit.force_high is not None:
        interval = f" [{audit.force_low:.3f}, {audit.force_high:.3f}]"
    return f"audit force RMSE {audit.force_rmse:.3f}{interval} eV/Å {frames}"


Audits = dict[int, EvaluationState]


def _converged(
    config: Campaign, state: CampaignState, tier: Tier, audits: Audits
) -> Verdict | None:
    number, wanted = state.generation.number, config.stop.for_generations
    target = ladder.target(config, tier.id)
    for generation in range(number - wanted + 1, number + 1):
        if "audit_below_target" in config.stop.when and not below_target(
            target, audits.get(generation)
        ):
            return None
        run, complete = state.stability.get(generation, (0, 0))
        if "stable" in config.stop.when and not (run > 0 and complete == run):
            return None
    audit = audits.get(number)
    return Verdict("converged", f"converged: {describe(audit)}, target {_wanted(target, audit)}")


def _wanted(target: Target, audit: EvaluationState | None) -> str:
    """Return the target that the audit error in words is to be held against."""
    if audit is not None and audit.force_rmse is None and target.energy_rmse is not None:
        return f"{1e3 * target.energy_rmse:.2f} meV/atom"
    return f"{target.force_rmse:.3f} eV/Å"


def _budget(
    config: Campaign, state: CampaignState, tier: Tier, audits: Audits, elapsed: float
) -> Verdict | None:
    stop, known, budget = config.stop, state.tiers[tier.id], tier.budget
    seconds, audit = state.seconds + elapsed, audits.get(state.generation.number)
    turns = sum(name == tier.id for name in state.tier_of.values())
    if tier is config.tiers[0]:
        turns -= 1  # the initial set is not counted
    whole = False
    if stop.wall_clock is not None and not seconds < stop.wall_clock:
        spent, whole = f"{seconds:.0f} of {stop.wall_clock:.0f} s of wall time", True
    elif state.generation.promotion is not None and not state.generation.promotion.n_promoted:
        spent = "no frame is left to promote"
    elif turns >= stop.max_generations:
        spent = f"{turns} of {stop.max_generations} generations"
    elif budget.labels - known.requested < LEAST_LABELS * len(state.systems):
        spent = f"{known.requested} of {budget.labels} labels"
    elif budget.core_time is not None and not known.core_seconds < budget.core_time:
        spent = f"{known.core_seconds / 3600:.2g} of {budget.core_time / 3600:.2g} core-hours"
    else:
        return None
    return Verdict("budget", f"budget spent ({spent}): {describe(audit)}", whole)


def _stalled(config: Campaign, state: CampaignState, audits: Audits) -> Verdict | None:
    number, patience = state.generation.number, config.stop.patience
    before = [_error(e) for g, e in audits.items() if g <= number - patience]
    since = [_error(e) for g, e in audits.items() if g > number - patience]
    if not before or not since or min(since) < min(before):
        return None
    return Verdict(
        "stalled",
        f"stalled: no better audit error for {patience} generations;"
        f" {describe(audits.get(number))}; more labels per generation, longer training"
        " or a larger network may help",
    )


def _error(audit: EvaluationState) -> float:
    return audit.energy_rmse if audit.force_rmse is None else audit.force_rmse
