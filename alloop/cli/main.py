"""The verbs of ``alloop``. Heavy imports happen inside them: ``alloop --help`` must be quick."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from alloop import __version__
from alloop.cli import doctor, exchange, models, monitor, spacetime
from alloop.cli.options import CampaignOption, JsonOption
from alloop.errors import (
    AlloopError,
    ConfigError,
    DataError,
    DynamicsError,
    FrameError,
    MethodError,
    ModelError,
    SiteError,
    SpacetimeError,
    StructureError,
)


class Preset(Enum):
    """The templates that ``init`` knows."""

    quick = "quick"
    production = "production"


class Form(Enum):
    """The forms in which ``query`` prints."""

    table = "table"
    csv = "csv"
    json = "json"
    extxyz = "extxyz"


app = typer.Typer(
    name="alloop",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="From one YAML file to a neural potential that can be trusted, and a 4D model.",
)

_ABOUT_WHAT_IS_GIVEN = (
    *(ConfigError, StructureError, SiteError, DataError, ModelError),
    *(FrameError, MethodError, DynamicsError, SpacetimeError),
)
"""Errors of what a person gave: exit code 2."""

ConfigFile = Annotated[Path, typer.Argument(help="The campaign file.", metavar="CONFIG")]


@app.command()
def init(
    structure: Annotated[str, typer.Argument(help="Structure file, or SMILES.")],
    output: Annotated[Path, typer.Option("--output", "-o")] = Path("config.yaml"),
    preset: Annotated[Preset, typer.Option(help="How much it may cost.")] = Preset.quick,
    charge: Annotated[int | None, typer.Option(help="Total charge, e.")] = None,
    multiplicity: Annotated[int | None, typer.Option(help="Spin multiplicity 2S + 1.")] = None,
) -> None:
    """Write a commented config that runs as it stands."""
    from alloop.config.init import write_config

    written = write_config(structure, output, preset.value, charge, multiplicity)
    for note in written.notes:
        typer.echo(note)
    typer.echo(f"wrote {written.path}; now: alloop start {written.path}")


@app.command()
def validate(config: ConfigFile) -> None:
    """Check a config and say everything that is wrong with it."""
    from alloop.config.load import load
    from alloop.executors.site import describe, load_site

    loaded = load(config)
    site = load_site(loaded.config.site, loaded.path.parent)
    systems = ", ".join(f"{name} ({f.formula})" for name, f in loaded.structures.items())
    typer.echo(f"{config} is sound: {systems}; campaign directory {loaded.directory}")
    typer.echo(f"site {loaded.config.site}: {site.kind}")
    for line in describe(site):
        typer.echo(f"  {line}")
    for warning in loaded.warnings:
        typer.echo(f"warning: {warning}")


@app.command()
def schema(
    table: Annotated[bool, typer.Option("--table", help="A table of every key instead.")] = False,
    site: Annotated[bool, typer.Option("--site", help="Of a site file of kind cluster.")] = False,
) -> None:
    """Print the config's JSON schema, or a table of every key with unit, default and meaning."""
    from alloop.config.model import Campaign
    from alloop.config.schema import json_schema, markdown_table
    from alloop.executors.sites.model import ClusterSite

    root, title = (ClusterSite, "alloop site") if site else (Campaign, "alloop campaign")
    typer.echo(markdown_table(root) if table else json.dumps(json_schema(root, title), indent=2))


@app.command()
def start(
    config: ConfigFile,
    approve: Annotated[
        bool, typer.Option("--approve", help="Agree to the price that the campaign paused with.")
    ] = False,
) -> None:
    """Create a campaign or go on with it, until its verdict."""
    from rich.console import Console

    from alloop.campaign.start import start as start_campaign
    from alloop.campaign.verdict import EXIT_CODES
    from alloop.config.load import load
    from alloop.report.display import Display

    loaded = load(config)
    console = Console()
    try:
        with Display(loaded.config, console) as display:
            verdict = start_campaign(loaded, display.say, display, approve=approve)
    except KeyboardInterrupt:  # before the driver listens to signals, or a second time
        typer.echo("stopped; start again to go on", err=True)
        raise typer.Exit(EXIT_CODES["paused"]) from None
    display.say(verdict.text)
    _report_at_the_end(loaded.directory)
    display.say(f"more: alloop status -c {loaded.directory}; alloop query -c {loaded.directory}")
    raise typer.Exit(verdict.exit_code)


def _report_at_the_end(directory: Path) -> None:
    """Write the report; whatever goes wrong with it, even Ctrl-C, the verdict stands."""
    try:
        from alloop.report.html import write_report

        typer.echo(f"report: {write_report(directory)}")
    except (Exception, KeyboardInterrupt) as error:
        words = " ".join(f"{type(error).__name__} {error}".split())
        typer.echo(f"warning: no report was written: {words}", err=True)


@app.command()
def pause(campaign: CampaignOption = None) -> None:
    """Ask the driver of a campaign to stop when its running tasks are done."""
    from alloop.campaign.driver import PAUSE
    from alloop.cli.campaigns import find_campaign
    from alloop_db.lock import holder

    directory = find_campaign(campaign)
    owner = holder(directory)
    if owner is None:
        typer.echo(f"nobody drives {directory}: there is nothing to pause")
        return
    (directory / PAUSE).touch()
    typer.echo(f"asked {owner} to pause")


app.command()(monitor.status)


@app.command()
def report(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="File to write. Default: report.html beside the ledger."
        ),
    ] = None,
    campaign: CampaignOption = None,
) -> None:
    """Write what the ledger knows, with plots, as one HTML file; works while it runs."""
    from alloop.cli.campaigns import find_campaign
    from alloop.report.html import write_report

    typer.echo(f"wrote {write_report(find_campaign(campaign), output)}")


@app.command()
def query(
    question: Annotated[str, typer.Argument(help="SQL, or the name of a shipped query.")] = "",
    parameters: Annotated[
        list[str] | None, typer.Option("--set", help="Parameter of the query, name=value.")
    ] = None,
    form: Annotated[Form, typer.Option("--format", "-f", help="How to print.")] = Form.table,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write.")] = None,
    campaign: CampaignOption = None,
) -> None:
    """Ask the ledger; without a question, list the shipped queries."""
    from alloop.cli.campaigns import find_campaign, parse_parameters
    from alloop_db import export, queries
    from alloop_db.ledger import open_readonly

    if not question:
        for name in queries.names():
            typer.echo(f"{name:28} {queries.describe(name).summary}")
        return
    engine = open_readonly(find_campaign(campaign))
    result = queries.run(engine, question, parse_parameters(parameters or []))
    if form is Form.extxyz:
        with nullcontext(sys.stdout) if output is None else output.open("w") as stream:
            export.write_extxyz(engine, result, stream)
    elif output is None:
        typer.echo(export.render(result, form.value))
    else:
        output.write_text(export.render(result, form.value) + "\n", encoding="utf-8")
    if output is not None:
        typer.echo(f"wrote {len(result.rows)} rows to {output}")


@app.command()
def why(
    frame: Annotated[str, typer.Argument(help="Number of a frame, or the beginning of its key.")],
    campaign: CampaignOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say why a frame is, or is not, in the training set."""
    from alloop.cli.campaigns import find_campaign
    from alloop_db.ledger import open_readonly
    from alloop_db.provenance import why as explain

    answer = explain(open_readonly(find_campaign(campaign)), frame)
    typer.echo(answer.json() if as_json else answer.text())


@app.command()
def lineage(
    identity: Annotated[
        str, typer.Argument(help="Hash of a file, a weights file, or such as model:3, frame:17.")
    ],
    campaign: CampaignOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what something was made from, and what was made from it."""
    from alloop.cli.campaigns import find_campaign
    from alloop_db.ledger import open_readonly
    from alloop_db.lineage import lineage as trace

    answer = trace(open_readonly(find_campaign(campaign)), identity)
    typer.echo(answer.json() if as_json else answer.text())


app.command()(models.train)
app.command()(models.evaluate)
app.command("import")(exchange.import_)
app.add_typer(exchange.export, name="export")
app.add_typer(spacetime.app, name="spacetime")
app.command()(doctor.doctor)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"alloop {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Active learning of neural interatomic potentials, and 4D-spacetime models."""


def main() -> None:
    """Run the command line; every foreseen error is one message and an exit code."""
    try:
        app()
    except _ABOUT_WHAT_IS_GIVEN as error:
        typer.echo(str(error), err=True)
        sys.exit(2)
    except AlloopError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        typer.echo(f"error: {error.filename or ''}: {error.strerror or error}", err=True)
        sys.exit(1)
