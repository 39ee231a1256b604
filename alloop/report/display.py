"""The live display of a driver: a table that redraws itself, or plain lines where it cannot."""

from __future__ import annotations

import time
from collections import Counter
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from rich.console import Console, Group
from rich.live import Live
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from alloop.campaign import ladder
from alloop.campaign.driver import Moment
from alloop.campaign.verdict import below_target
from alloop.config.model import Campaign, Tier
from alloop_db.state import CampaignState, EvaluationState, TierState

PLAIN_EVERY = 20.0
"""Without a terminal a line is printed at each change of stage and at least this often, s."""


Shown = TypeVar("Shown", Live, Progress)


class Redrawn(Generic[Shown]):
    """A context manager around what redraws itself on a terminal and is None elsewhere."""

    def __init__(self, shown: Shown | None) -> None:
        self._live: Shown | None = shown

    def __enter__(self) -> Self:
        if self._live:
            self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.__exit__(kind, error, trace)


def live(console: Console) -> Live | None:
    """Return what redraws itself, on a terminal."""
    return Live(console=console, refresh_per_second=4) if console.is_terminal else None


class Display(Redrawn[Live]):
    """Shows a campaign while it runs; a context manager."""

    def __init__(self, config: Campaign, console: Console) -> None:
        super().__init__(live(console))
        self._config, self._console = config, console
        self._said: tuple[Any, ...] = ()
        self._said_at = 0.0

    def say(self, line: str) -> None:
        """Print a line above the display."""
        self._console.print(line, highlight=False, soft_wrap=True)

    def __call__(self, moment: Moment) -> None:
        """Show a moment."""
        if self._live:
            self._live.update(self._picture(moment))
            return
        news = (moment.stage, moment.state.generation.number, len(moment.state.evaluations))
        if news != self._said or time.monotonic() - self._said_at > PLAIN_EVERY:
            self._said, self._said_at = news, time.monotonic()
            self._console.print(self._line(moment), highlight=False, soft_wrap=True)

    def _line(self, moment: Moment) -> str:
        state = moment.state
        kinds = Counter(claim.kind for claim, _ in moment.running)
        running = ", ".join(f"{n} {kind}" for kind, n in kinds.items()) or "nothing"
        audit = _last(state.evaluations, "audit") or _last(state.evaluations, "validation")
        error = f"; {audit.kind} {error_text(audit)}" if audit else ""
        return (
            f"[{clock(moment.elapsed)}] {self._turn(state)}, {moment.stage}:"
            f" running {running}; {_labels_text(state)}{error}"
        )

    def _picture(self, moment: Moment) -> Group:
        state, config = moment.state, self._config
        head = Text.assemble(
            (f"{config.campaign.name}  ", "bold"),
            f"{self._turn(state)} · {moment.stage} · {clock(moment.elapsed)}{self._left(moment)}",
        )
        labels = [Text(_tier_text(tier, state.tiers[tier.id])) for tier in config.tiers]
        tier = ladder.tier(config, state.generation.tier)
        wanted = ladder.target(config, tier.id).force_rmse
        target = Text(f"target  tier {tier.id}: force RMSE {wanted:g} eV/Å on audit frames")
        return Group(head, *labels, target, self._errors(moment), self._running(moment))

    def _turn(self, state: CampaignState) -> str:
        """Return the generation, and its tier if there are several."""
        tier = f" of tier {state.generation.tier}" if len(self._config.tiers) > 1 else ""
        return f"generation {state.generation.number}{tier}"

    def _left(self, moment: Moment) -> str:
        """Say how long it can take at most, judging by the generations that are over."""
        state, number = moment.state, moment.state.generation.number
        if number < 1:
            return ""
        so_far = state.seconds
        turns = self._config.stop.max_generations * len(self._config.tiers) + 1
        most = so_far * turns / (number + 0.5) - so_far
        if self._config.stop.wall_clock is not None:
            most = min(most, self._config.stop.wall_clock - so_far)
        return f" · at most about {clock(max(most, 0.0))} left"

    def _errors(self, moment: Moment) -> Table:
        table = Table(box=None, padding=(0, 2), title_justify="left")
        for name in ("generation", "force RMSE of the audit / eV/Å", "blind, chosen", "validation"):
            table.add_column(name, justify="right")
        numbers = sorted({e.generation for e in moment.state.evaluations})
        for number in numbers[-8:]:
            found = {e.kind: e for e in moment.state.evaluations if e.generation == number}
            audit = found.get("audit")
            tier = moment.state.tier_of[number]
            met = below_target(ladder.target(self._config, tier), audit)
            table.add_row(
                str(number),
                Text(error_text(audit), style="green" if met else ""),
                error_text(found.get("prospective")),
                error_text(found.get("validation")),
            )
        return table

    def _running(self, moment: Moment) -> Table:
        table = Table(box=None, padding=(0, 2))
        for claim, progress in moment.running:
            done, total = progress.get("done"), progress.get("total")
            share = "starting" if progress.get("taken") else "queued"
            if done is not None and total:
                share = f"{100 * done / total:3.0f} %"
            name = claim.spec.get("member") or claim.spec.get("route") or ""
            table.add_row(claim.kind, name, share, progress.get("text", ""))
        return table


def _labels_text(state: CampaignState) -> str:
    """Return the labels of every tier that has any, in a few words."""
    parts = [
        f"{name}: {tier.done} done, {tier.failed} failed, {tier.to_go} to go"
        for name, tier in state.tiers.items()
        if tier.requested
    ]
    return "labels " + ("; ".join(parts) or "none yet")


def _tier_text(tier: Tier, known: TierState) -> str:
    hours = f" · {known.core_seconds / 3600:.2g} core-hours"
    return (
        f"labels  {tier.id}: {known.done} done · {known.failed} failed · {known.to_go} to go ·"
        f" budget {tier.budget.labels}{hours}"
    )


def error_text(evaluation: EvaluationState | None) -> str:
    """Return an error with its interval, such as ``0.123 [0.101, 0.150]``."""
    if evaluation is None:
        return "–"
    if evaluation.force_rmse is None:
        return f"{1e3 * evaluation.energy_rmse:.2f} meV/atom"
    if evaluation.force_low is None or evaluation.force_high is None:
        return f"{evaluation.force_rmse:.3f}"
    return f"{evaluation.force_rmse:.3f} [{evaluation.force_low:.3f}, {evaluation.force_high:.3f}]"


def clock(seconds: float) -> str:
    """Return a duration as ``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _last(evaluations: tuple[EvaluationState, ...], kind: str) -> EvaluationState | None:
    found = [e for e in evaluations if e.kind == kind]
    return found[-1] if found else None
