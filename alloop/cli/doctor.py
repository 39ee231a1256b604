"""The verb that asks whether a site can run campaigns: ``doctor``."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from alloop.cli.options import JsonOption

Site = Annotated[
    str, typer.Argument(help="A site file, or one that ships with alloop.", metavar="SITE")
]
Probe = Annotated[bool, typer.Option("--probe", help="Ask every pool for a node, and look there.")]
Directory = Annotated[
    Path,
    typer.Option(
        "--directory", "-d", help="Where campaigns are to lie.", exists=True, file_okay=False
    ),
]
Wait = Annotated[float, typer.Option(help="How long to wait for a node, seconds.", min=1.0)]
Needs = Annotated[
    list[str] | None, typer.Option("--needs", help="A program that every node must have.")
]
Scripts = Annotated[
    bool, typer.Option("--scripts", help="Print what would be submitted, and nothing else.")
]


def doctor(
    site: Site,
    probe: Probe = False,
    directory: Directory = Path(),
    wait: Wait = 600.0,
    needs: Needs = None,
    scripts: Scripts = False,
    as_json: JsonOption = False,
) -> None:
    """Check a site file and, with --probe, every pool that it names."""
    from alloop.executors.cluster import doctor as ask
    from alloop.executors.site import load_site

    found = load_site(site, Path())
    if scripts:
        for pool, script in ask.scripts(found, directory):
            typer.echo(f"# pool {pool}\n{script}")
        return
    findings = []
    visits = ask.probe(found, directory, needs or [], wait) if probe else iter(())
    for finding in chain(ask.examine(found, directory), visits):
        findings.append(finding)
        if not as_json:
            typer.echo(str(finding))
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(1)
