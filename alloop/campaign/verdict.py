"""When a campaign is over, and what to call its end."""

from __future__ import annotations

from dataclasses import dataclass

from alloop.config.model import Campaign
from alloop_db.state import CampaignState, EvaluationState

LEAST_LABELS = 5
"""With fewer labels left for a system there is nothing to choose, audit and train with."""
EXIT_CODES = {"converged": 0, "error": 1, "budget": 3, "stalled": 4, "paused": 5, "lost": 75}


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a campaign ended: one of the states of EXIT_CODES, and why."""

    state: str
    text: str

    @property
    def exit_code(self) -> int:
        """The exit code of ``alloop start``."""
        return EXIT_CODES[self.state]


def judge(config: Campaign, state: CampaignState, elapsed: float) -> Verdict | None:
    """Return the verdict after a generation has been evaluated, or None if it goes on.

    ``elapsed`` is the wall time of this driver, s; those before it are in the state.
    """
    audits = {e.generation: e for e in state.evaluations if e.kind == "audit"}
    return (
        _converged(config, state, audits)
        or _budget(config, state, audits, elapsed)
        or _stalled(config, state, audits)
    )


def below_target(config: Campaign, audit: EvaluationState | None) -> bool:
    """Return whether the upper end of the error's interval lies below the target."""
    if audit is None or audit.force_high is None:
        return False
    return audit.force_high <= config.target.force_rmse


def describe(audit: EvaluationState | None) -> str:
    """Return an audit error in words."""
    if audit is None:
        return "no audit error is known yet"
    interval = ""
    if audit.force_low is not None and audit.force_high is not None:
        interval = f" [{audit.force_low:.3f}, {audit.force_high:.3f}]"
    return (
        f"audit force RMSE {audit.force_rmse:.3f}{interval} eV/Å"
        f" on {audit.n_frames} frames of {audit.n_groups} trajectories"
    )


def _converged(
    config: Campaign, state: CampaignState, audits: dict[int, EvaluationState]
) -> Verdict | None:
    number, wanted = state.generation.number, config.stop.for_generations
    latest = range(number - wanted + 1, number + 1)
    for generation in latest:
        if "audit_below_target" in config.stop.when and not below_target(
            config, audits.get(generation)
        ):
            return None
        run, complete = state.stability.get(generation, (0, 0))
        if "stable" in config.stop.when and not (run > 0 and complete == run):
            return None
    text = f"converged: {describe(audits.get(number))}, target {config.target.force_rmse:.3f} eV/Å"
    return Verdict("converged", text)


def _budget(
    config: Campaign,
    state: CampaignState,
    audits: dict[int, EvaluationState],
    elapsed: float,
) -> Verdict | None:
    number, stop = state.generation.number, config.stop
    seconds, labels = state.seconds + elapsed, config.tiers[0].budget.labels
    if number >= stop.max_generations:
        spent = f"{number} of {stop.max_generations} generations"
    elif labels - state.requested < LEAST_LABELS * len(state.systems):
        spent = f"{state.requested} of {labels} labels"
    elif stop.wall_clock is not None and not seconds < stop.wall_clock:
        spent = f"{seconds:.0f} of {stop.wall_clock:.0f} s of wall time"
    else:
        return None
    return Verdict("budget", f"budget spent ({spent}): {describe(audits.get(number))}")


def _stalled(
    config: Campaign, state: CampaignState, audits: dict[int, EvaluationState]
) -> Verdict | None:
    number, patience = state.generation.number, config.stop.patience
    before = [e.force_rmse for g, e in audits.items() if g <= number - patience]
    since = [e.force_rmse for g, e in audits.items() if g > number - patience]
    if not before or not since or min(since) < min(before):
        return None
    return Verdict(
        "stalled",
        f"stalled: no better audit error for {patience} generations;"
        f" {describe(audits.get(number))}; more labels per generation, longer training"
        " or a larger network may help",
    )
