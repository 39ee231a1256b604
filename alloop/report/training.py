"""The fits of a committee while they run: a table that redraws itself, or plain lines."""

from __future__ import annotations

import time

from rich.console import Console
from rich.live import Live
from rich.table import Table

from alloop.report.display import PLAIN_EVERY, Redrawn, clock, live
from alloop.training.members import Progress
from alloop.training.settings import Epoch

_HEADS = ("member", "epoch", "step", "rate", "loss", "validation energy", "force", "time")


class TrainingDisplay(Redrawn[Live]):
    """Shows how far each member is; a context manager."""

    def __init__(self, console: Console) -> None:
        super().__init__(live(console))
        self._console = console
        self._rows: dict[int, tuple[str, ...]] = {}
        self._began: dict[int, float] = {}
        self._said_at = time.monotonic()

    def say(self, line: str) -> None:
        """Print a line above the display."""
        self._console.print(line, highlight=False, soft_wrap=True, markup=False)

    def __call__(self, progress: Progress) -> None:
        """Show where a fit is."""
        began = self._began.setdefault(progress.member, time.monotonic())
        if progress.note:
            self.say(f"member {progress.member} {progress.note}")
        if progress.epoch is None:
            return
        row = _row(progress.member, progress.epoch, time.monotonic() - began)
        self._rows[progress.member] = row
        if self._live:
            self._live.update(self._table())
        elif time.monotonic() - self._said_at > PLAIN_EVERY:
            self._said_at = time.monotonic()
            self.say(", ".join(f"{name} {cell}" for name, cell in zip(_HEADS, row, strict=True)))

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 2))
        for name in _HEADS:
            table.add_column(name, justify="right")
        for row in self._rows.values():
            table.add_row(*row)
        return table


def _row(member: int, epoch: Epoch, elapsed: float) -> tuple[str, ...]:
    errors = epoch.validation
    judged = bool(errors.n_frames)
    return (
        str(member),
        f"{epoch.epoch}/{epoch.epochs}",
        str(epoch.step),
        f"{epoch.learning_rate:.1e}",
        f"{epoch.training_loss:.2e}",
        f"{1e3 * errors.energy:.2f} meV/atom" if judged else "-",
        f"{1e3 * errors.force:.1f} meV/Å" if judged else "-",
        clock(elapsed),
    )
