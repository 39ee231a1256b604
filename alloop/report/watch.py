"""Watching a campaign that somebody else drives: it is read, again and again, never touched."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from sqlalchemy import Engine

from alloop.errors import LedgerError
from alloop.report.display import PLAIN_EVERY, Redrawn, clock, live
from alloop.report.running import Running, progress_of, read_running
from alloop.report.status import status
from alloop.report.words import error_table, error_words, status_lines
from alloop_db.ledger import open_readonly
from alloop_db.lock import holder

PATIENCE = 10.0
"""A reader waits at least this many times as long as it took to read: large ledgers are slow."""
GENERATIONS = 6
TASKS = 12
"""How many generations and tasks are shown: the last ones, and those at work the longest."""


def look(engine: Engine, directory: Path) -> tuple[dict[str, Any], tuple[Running, ...]]:
    """Return the status of a campaign, with its driver and directory, and its tasks in flight."""
    owner = holder(directory)
    running = () if owner is None else read_running(engine, directory)
    summary = status(engine, running)
    summary["driver"] = None if owner is None else str(owner)
    summary["directory"] = str(directory)
    return summary, running


def watch(directory: Path, console: Console, every: float) -> None:
    """Show how a campaign stands each ``every`` seconds, until it is over and nobody drives it.

    On a terminal the picture is redrawn; elsewhere a line is printed when something has changed.
    Raises LedgerError if the campaign cannot be read at first; later that is shown, and tried
    again.
    """
    engine = open_readonly(directory)
    try:
        with Watcher(directory, console) as watcher:
            while True:
                began = time.monotonic()
                if watcher.look(engine):
                    return
                time.sleep(max(every, PATIENCE * (time.monotonic() - began)))
    finally:
        engine.dispose()


class Watcher(Redrawn[Live]):
    """Shows a campaign, one look after the other; a context manager."""

    def __init__(self, directory: Path, console: Console) -> None:
        super().__init__(live(console))
        self._directory, self._console = directory, console
        self._seen = False
        self._said = ""
        self._said_at = 0.0

    def look(self, engine: Engine) -> bool:
        """Show how the campaign stands; return whether it is over and nobody drives it."""
        try:
            summary, running = look(engine, self._directory)
        except LedgerError as error:
            if not self._seen:
                raise
            self._say(f"{error}; trying again")
            return False
        self._seen = True
        if self._live is None:
            self._say(line(summary))
        else:
            self._live.update(picture(summary, running, self._directory), refresh=True)
        return summary["driver"] is None and summary["verdict"] is not None

    def _say(self, words: str) -> None:
        now = time.monotonic()
        if words != self._said or now - self._said_at > PLAIN_EVERY:
            self._said, self._said_at = words, now
            stamp = time.strftime("%H:%M:%S")
            self._console.print(f"[{stamp}] {words}", highlight=False, soft_wrap=True, markup=False)


def line(summary: dict[str, Any]) -> str:
    """Return how a campaign stands, in one line that stays the same while nothing happens."""
    labels = ", ".join(f"{n} {state}" for state, n in summary["labels"].items()) or "none yet"
    work = ", ".join(
        f"{n['at_work']} {kind}" for kind, n in summary["running"].items() if n["at_work"]
    )
    driven = "" if summary["driver"] else ", nobody drives it"
    words = [
        f"{summary['name']}: {summary['state']}{driven}",
        f"generation {summary['generation']}"
        + (f" of tier {summary['tier']}" if len(summary["tiers"]) > 1 else ""),
        f"labels {labels}",
        f"at work {work or 'nothing'}",
    ]
    words += [f"audit {error}" for error in _last_audit(summary)]
    if summary["utilisation"]:
        words.append(f"workers {100.0 * summary['utilisation']['part']:.0f} % busy")
    if summary["driver"]:
        words += [f"pool {pool['pool']} {pool['state']}" for pool in summary["pools"]]
    if summary["losses"]:
        words.append(f"{summary['losses']} tasks lost and repeated")
    if summary["verdict"]:
        words.append(summary["verdict"])
    return "; ".join(words)


def picture(summary: dict[str, Any], running: tuple[Running, ...], directory: Path) -> Group:
    """Return how a campaign stands, for a terminal; one that is too low loses the end of it."""
    head = f"read at {time.strftime('%H:%M:%S')}; Ctrl-C ends the watching, not the campaign"
    recent = summary["generations"][-GENERATIONS:]
    errors = error_table(recent, len(summary["tiers"]) > 1) if recent else []
    return Group(
        Text(head, style="dim"),
        Text("\n".join(status_lines(summary))),
        _table(running, directory),
        Text("\n".join(errors)),
    )


def _table(running: tuple[Running, ...], directory: Path) -> Table:
    table, now = Table(box=None, padding=(0, 2)), time.time()
    at_work = [task for task in running if task.began is not None]
    for task in at_work[:TASKS]:
        said = progress_of(directory, task)
        done, total = said.get("done"), said.get("total")
        share = f"{100 * done / total:3.0f} %" if done is not None and total else ""
        cells = (task.kind, task.name, clock(task.seconds(now)), share, said.get("text", ""))
        table.add_row(*map(Text, cells))
    if len(at_work) > TASKS:
        table.add_row(Text(f"and {len(at_work) - TASKS} others at work"))
    return table


def _last_audit(summary: dict[str, Any]) -> list[str]:
    audits = [entry["errors"].get("audit") for entry in summary["generations"]]
    return [error_words(audit) for audit in audits if audit is not None][-1:]
