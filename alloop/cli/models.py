"""The verbs that train and judge potentials on labelled files: ``train`` and ``evaluate``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alloop.cli.options import JsonOption, Multiplicity
from alloop.errors import DataError

if TYPE_CHECKING:
    from alloop.datafiles import Convention
    from alloop.datasets import Dataset
    from alloop.datasources import Keys
    from alloop.training.members import Recipe

Name = str | None
DataFile = Annotated[
    Path, typer.Argument(help="Labelled frames: .npz, HDF5, or what ASE reads.", metavar="DATA")
]
EnergyKey = Annotated[Name, typer.Option(help="Name of the energies in the file.")]
ForcesKey = Annotated[Name, typer.Option(help="Name of the forces in the file.")]
PositionsKey = Annotated[Name, typer.Option(help="Name of the positions (.npz, HDF5).")]
NumbersKey = Annotated[Name, typer.Option(help="Name of the atomic numbers (.npz, HDF5).")]
CellKey = Annotated[Name, typer.Option(help="Name of the lattice vectors (.npz, HDF5).")]
ChargeKey = Annotated[Name, typer.Option(help="Name of the total charges.")]
MultiplicityKey = Annotated[Name, typer.Option(help="Name of the spin multiplicities.")]
GroupKey = Annotated[Name, typer.Option(help="Name of what says which trajectory a frame is of.")]
EnergyUnit = Annotated[str, typer.Option(help="eV, meV, kcal/mol, kJ/mol or Ha; never guessed.")]
LengthUnit = Annotated[str, typer.Option(help="A, bohr or nm. Forces are energy by length.")]
Level = Annotated[str, typer.Option(help='Level of theory of the labels, "PBE/def2-SVP".')]
Charge = Annotated[
    int | None, typer.Option(help="Total charge of all frames. Default: the file's, or 0.")
]
Molecules = Annotated[
    bool, typer.Option("--molecules", help="The cells are mere boxes: read molecules.")
]
DropBad = Annotated[
    bool, typer.Option("--drop-bad", help="Leave out frames that cannot be used, and say so.")
]


def train(
    data: DataFile,
    energy_unit: EnergyUnit,
    level: Level,
    energy_key: EnergyKey = None,
    forces_key: ForcesKey = None,
    positions_key: PositionsKey = None,
    numbers_key: NumbersKey = None,
    cell_key: CellKey = None,
    charge_key: ChargeKey = None,
    multiplicity_key: MultiplicityKey = None,
    group_key: GroupKey = None,
    length_unit: LengthUnit = "A",
    charge: Charge = None,
    multiplicity: Multiplicity = None,
    molecules: Molecules = False,
    drop_bad: DropBad = False,
    kind: Annotated[str, typer.Option(help="Architecture, see docs/potentials.md.")] = "ani",
    size: Annotated[str, typer.Option(help="Named size of the architecture.")] = "small",
    members: Annotated[int, typer.Option(min=1, help="Networks of the committee.")] = 4,
    validation: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Share of the groups that choose when to stop.")
    ] = 0.1,
    test: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Share of the groups kept for the errors.")
    ] = 0.0,
    test_file: Annotated[
        Path | None, typer.Option(help="Frames for the errors, with the same names and units.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, splits and order.")] = 1,
    settings: Annotated[
        Path | None, typer.Option(help="YAML file with the keys of a campaign's train section.")
    ] = None,
    start: Annotated[
        str, typer.Option(help="Member file, folder of them, or ANI-1x, ANI-1ccx, ANI-2x.")
    ] = "",
    freeze: Annotated[
        list[str] | None,
        typer.Option(help="Pattern of weights that keep their values, or auto; can be repeated."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder.")] = Path("models"),
    threads: Annotated[int, typer.Option(min=1, help="Of the processor.")] = 1,
) -> None:
    """Train a committee on a labelled file; stop it when you like, the same command goes on."""
    import torch
    from rich.console import Console

    from alloop.acquisition.accuracy import judge_splits
    from alloop.acquisition.partition import partition
    from alloop.campaign.verdict import EXIT_CODES
    from alloop.datafiles import Convention
    from alloop.datasources import Keys
    from alloop.potentials.committee import load_committee
    from alloop.report.accuracy import accuracy_table, write_accuracies
    from alloop.report.training import TrainingDisplay
    from alloop.training.members import fit_members

    torch.set_num_threads(threads)
    keys = Keys(
        energy_key, forces_key, positions_key, numbers_key, cell_key, charge_key,
        multiplicity_key, group_key,
    )  # fmt: skip
    convention = Convention(
        energy_unit, length_unit, level, charge, multiplicity, molecules, drop_bad
    )
    parts, notes = partition(
        _read(data, keys, convention),
        validation=validation,
        test=test,
        seed=seed,
        tests=None if test_file is None else _read(test_file, keys, convention),
    )
    _say(notes)
    recipe = _recipe(kind, size, members, settings, seed, start, freeze or [])
    try:
        with TrainingDisplay(Console()) as display:
            files = fit_members(parts, recipe, output, display)
        accuracies = judge_splits(load_committee(files), parts)
    except KeyboardInterrupt:
        typer.echo(f"stopped; the same command goes on from what is in {output}", err=True)
        raise typer.Exit(EXIT_CODES["paused"]) from None
    names = {"train": "training", "validation": "validation", "audit": "test"}
    named = {names[split]: accuracy for split, accuracy in accuracies.items()}
    typer.echo(accuracy_table(named))
    write_accuracies(output / "errors.json", named)
    typer.echo(f"members and errors.json are in {output}; use: alloop evaluate {output} DATA")


def evaluate(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Member files or a folder of them, then the frames.", metavar="MODEL... DATA"
        ),
    ],
    energy_unit: EnergyUnit,
    level: Level,
    energy_key: EnergyKey = None,
    forces_key: ForcesKey = None,
    positions_key: PositionsKey = None,
    numbers_key: NumbersKey = None,
    cell_key: CellKey = None,
    charge_key: ChargeKey = None,
    multiplicity_key: MultiplicityKey = None,
    group_key: GroupKey = None,
    length_unit: LengthUnit = "A",
    charge: Charge = None,
    multiplicity: Multiplicity = None,
    molecules: Molecules = False,
    drop_bad: DropBad = False,
    as_json: JsonOption = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Predictions as .npz or .extxyz.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of the processor.")] = 1,
) -> None:
    """Say how far a model or a committee is from labels."""
    import torch

    from alloop.acquisition.accuracy import judge, predict
    from alloop.datafiles import Convention
    from alloop.datasources import Keys
    from alloop.potentials.committee import build_committee
    from alloop.potentials.library import find_members
    from alloop.report.accuracy import accuracy_table, accuracy_values
    from alloop.report.predictions import write_predictions

    torch.set_num_threads(threads)
    if len(paths) < 2:
        raise DataError("want one model or more, and then a file of labelled frames")
    keys = Keys(
        energy_key, forces_key, positions_key, numbers_key, cell_key, charge_key,
        multiplicity_key, group_key,
    )  # fmt: skip
    convention = Convention(
        energy_unit, length_unit, level, charge, multiplicity, molecules, drop_bad
    )
    members = [member for name in paths[:-1] for member in find_members(name)]
    data = _read(Path(paths[-1]), keys, convention)
    for other in sorted({m.level_of_theory for m in members} - {level}):
        _say([f"the model was trained on {other}, the labels are {level}"])
    predictions = predict(build_committee(members), data)
    accuracy = judge(data, predictions)
    if as_json:
        typer.echo(json.dumps(accuracy_values(accuracy), indent=2))
    else:
        typer.echo(accuracy_table({"errors": accuracy}))
    if output is not None:
        write_predictions(output, data, predictions)
        typer.echo(f"wrote {output}", err=as_json)


def _read(path: Path, keys: Keys, convention: Convention) -> Dataset:
    from alloop.datafiles import read_dataset

    reading = read_dataset(path, keys, convention)
    _say([f"{path.name}: {note}" for note in reading.notes])
    return reading.data


def _say(notes: Iterable[str]) -> None:
    for note in notes:
        typer.echo(f"note: {note}", err=True)


def _recipe(
    kind: str,
    size: str,
    members: int,
    settings: Path | None,
    seed: int,
    start: str,
    freeze: list[str],
) -> Recipe:
    from alloop.campaign.specs import train_settings
    from alloop.config.learning import Train
    from alloop.config.train_file import load_train
    from alloop.potentials.architectures import architecture
    from alloop.potentials.library import find_members
    from alloop.training.members import Recipe
    from alloop.training.settings import TrainSettings

    first = tuple(find_members(start)) if start else ()
    kind = first[0].architecture if first else kind
    chosen = Train() if settings is None else load_train(settings)
    values = train_settings(chosen, warm=False)
    if values["learning_rate"] is None:
        values["learning_rate"] = architecture(kind).learning_rate
    return Recipe(kind, size, members, TrainSettings(**values), seed, first, tuple(freeze))
