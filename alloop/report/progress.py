"""How far one long piece of work is: a bar that redraws itself, or plain lines."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from alloop.report.display import PLAIN_EVERY, Redrawn, clock


class ProgressDisplay(Redrawn[Progress]):
    """Shows steps done of steps in all; a context manager.

    Parameters
    ----------
    console : where to.
    title : what is going on.

    """

    def __init__(self, console: Console, title: str) -> None:
        super().__init__(_bar(console) if console.is_terminal else None)
        self._console, self._title = console, title
        self._task = None if self._live is None else self._live.add_task(title, total=None, text="")
        self._began = self._said_at = time.monotonic()

    def __call__(self, done: float, total: float, text: str = "") -> None:
        """Show how far the work is, and a few words on it."""
        if self._live is not None and self._task is not None:
            self._live.update(self._task, completed=done, total=total, text=text)
        elif time.monotonic() - self._said_at > PLAIN_EVERY:
            self._said_at = time.monotonic()
            share = f"{100 * done / total:.0f} %" if total else ""
            line = f"[{clock(self._said_at - self._began)}] {self._title}: {share}  {text}"
            self._console.print(line.rstrip(), highlight=False, soft_wrap=True, markup=False)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
        console=console,
    )
