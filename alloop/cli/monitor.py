"""``alloop status``: once, or again and again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from alloop.cli.options import CampaignOption, JsonOption

EVERY = 5.0
"""How often a watcher looks if nobody says, s."""


def status(
    seconds: Annotated[
        float | None,
        typer.Argument(metavar="SECONDS", help="With --watch: how often to look.", min=0.1),
    ] = None,
    campaign: CampaignOption = None,
    as_json: JsonOption = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Look again every SECONDS, until it is over or Ctrl-C ends the looking."
        ),
    ] = False,
) -> None:
    """Show how a campaign stands; works while it runs."""
    if as_json and watch:
        raise typer.BadParameter("--json prints once: leave out --json or --watch")
    if seconds is not None and not watch:
        raise typer.BadParameter(f"{seconds:g} says how often to look: it goes with --watch")
    try:
        _watch(campaign, seconds or EVERY) if watch else _show(campaign, as_json)
    except KeyboardInterrupt:
        raise typer.Exit(0 if watch else 130) from None


def _show(campaign: Path | None, as_json: bool) -> None:
    from alloop.cli.campaigns import find_campaign
    from alloop.report.watch import look
    from alloop.report.words import status_text
    from alloop_db.ledger import open_readonly

    directory = find_campaign(campaign)
    summary, _ = look(open_readonly(directory), directory)
    typer.echo(json.dumps(summary, indent=2) if as_json else status_text(summary))


def _watch(campaign: Path | None, seconds: float) -> None:
    from rich.console import Console

    from alloop.cli.campaigns import find_campaign
    from alloop.report.watch import watch

    watch(find_campaign(campaign), Console(), seconds)
