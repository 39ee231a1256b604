"""The verbs that hand frames to other programs and take labels back: ``export``, ``import``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from alloop.cli.campaigns import find_campaign
from alloop.cli.models import (
    CellKey,
    ChargeKey,
    DropBad,
    EnergyKey,
    ForcesKey,
    MultiplicityKey,
    NumbersKey,
    PositionsKey,
)
from alloop.cli.options import CampaignOption

export = typer.Typer(
    no_args_is_help=True, help="Hand labels, frames to label, or a committee to other programs."
)


class Split(Enum):
    """The splits that ``export labels`` knows."""

    train = "train"
    validation = "validation"
    audit = "audit"


Tier = Annotated[str | None, typer.Option(help="Tier of the labels. Needed where there are more.")]
Level = Annotated[str | None, typer.Option(help="The same by the name of the level of theory.")]
Charge = Annotated[
    int | None, typer.Option(help="Total charge of all frames, where the file does not say it.")
]
Multiplicity = Annotated[int | None, typer.Option(help="The same for their 2S + 1.")]


@export.command()
def labels(
    output: Annotated[Path, typer.Option("--output", "-o", help="File: .extxyz, .xyz or .npz.")],
    campaign: CampaignOption = None,
    tier: Tier = None,
    level: Level = None,
    split: Annotated[Split | None, typer.Option(help="Only frames of this split.")] = None,
) -> None:
    """Write the labelled frames of a level of theory."""
    from alloop_db.handover import choose_level, write_labels
    from alloop_db.ledger import open_current

    engine = open_current(find_campaign(campaign))
    chosen = choose_level(engine, tier=tier, level=level)
    n = write_labels(engine, chosen, output, split and split.value)
    typer.echo(
        f"wrote {n} labels of {chosen} to {output}" if n else f"no label of {chosen} is there yet"
    )


@export.command()
def todo(
    output: Annotated[Path, typer.Option("--output", "-o", help="File: .extxyz or .xyz.")],
    campaign: CampaignOption = None,
    tier: Tier = None,
    level: Level = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="Those whose labels have failed instead.")
    ] = False,
) -> None:
    """Write the frames whose labels are still to be made, for another program to make them."""
    from alloop_db.handover import choose_level, count_labels, write_todo
    from alloop_db.ledger import open_current

    directory = find_campaign(campaign)
    engine = open_current(directory)
    chosen = choose_level(engine, tier=tier, level=level)
    n = write_todo(engine, chosen, output, failed=failed)
    if not n:
        counts = ", ".join(
            f"{many} {state}" for state, many in count_labels(engine, chosen).items()
        )
        state = "failed" if failed else "pending"
        typer.echo(f"no label of {chosen} is {state}; there are: {counts or 'none'}")
        return
    typer.echo(f"wrote {n} frames to {output}; when they are labelled at {chosen}:")
    typer.echo(f'alloop import FILE -c {directory} --level "{chosen.name}" --units UNITS')


@export.command()
def committee(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder.")],
    which: Annotated[
        str, typer.Argument(help="Number of a committee, latest, or a tier.", metavar="COMMITTEE")
    ] = "latest",
    campaign: CampaignOption = None,
) -> None:
    """Copy the member files of a committee, of any tier, into a folder."""
    from alloop.artifacts import ArtifactStore
    from alloop_db.handover import copy_committee
    from alloop_db.ledger import open_current

    directory = find_campaign(campaign)
    store = ArtifactStore(directory / "artifacts")
    name, *members = copy_committee(open_current(directory), store, which, output)
    typer.echo(f"copied {name} ({', '.join(members)}) to {output}")


def import_(
    file: Annotated[
        Path, typer.Argument(help="Labels: what ASE reads, .npz or HDF5.", metavar="FILE")
    ],
    level: Annotated[str, typer.Option(help="Level of theory of the labels: one of the campaign.")],
    units: Annotated[
        str | None,
        typer.Option(help='Such as "eV, Å" or "Hartree, Bohr". Needed for .xyz, .npz and HDF5.'),
    ] = None,
    campaign: CampaignOption = None,
    program: Annotated[
        str, typer.Option(help='What made them, "ORCA 6.0.1".')
    ] = "an unnamed program",
    energy_key: EnergyKey = None,
    forces_key: ForcesKey = None,
    positions_key: PositionsKey = None,
    numbers_key: NumbersKey = None,
    cell_key: CellKey = None,
    charge_key: ChargeKey = None,
    multiplicity_key: MultiplicityKey = None,
    charge: Charge = None,
    multiplicity: Multiplicity = None,
    drop_bad: DropBad = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be imported; works while it runs.")
    ] = False,
) -> None:
    """Take labels that another program has made of frames that the campaign asked for."""
    from alloop.datasources import Keys
    from alloop.exchange.reading import read_returned
    from alloop.exchange.units import parse_units
    from alloop_db.imports import ImportSource, import_labels, preview_import
    from alloop_tasks.environment import environment

    keys = Keys(
        energy_key, forces_key, positions_key, numbers_key, cell_key, charge_key, multiplicity_key
    )
    directory = find_campaign(campaign)
    returned = read_returned(
        file,
        keys,
        None if units is None else parse_units(units),
        level_of_theory=level,
        charge=charge,
        multiplicity=multiplicity,
    )
    source = ImportSource(file, program, str(returned.units), environment())
    act = preview_import if dry_run else import_labels
    plan = act(directory, returned, level, source, drop_bad=drop_bad)
    for note in plan.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"would import {plan}" if dry_run else f"imported {plan}")
