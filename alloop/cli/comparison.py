"""The verbs that look into motion: ``spacetime compare`` and ``spacetime attribute``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alloop.cli import inputs
from alloop.cli.options import Charge, JsonOption, Multiplicity, Potentials, Threads
from alloop.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor

    from alloop.report.motions import Sides
    from alloop.spacetime.model import SpacetimeModel
    from alloop.spacetime.surface import Surface
    from alloop.spacetime.symmetry import Operation

N_FRAMES = 2000
"""Frames that baselines are looked for among."""


def compare(
    candidates: Annotated[
        list[Path],
        typer.Argument(
            help="Propagations or trajectories (.h5), one after another.", metavar="CANDIDATE..."
        ),
    ],
    reference: Annotated[
        list[Path],
        typer.Option(
            "--reference",
            "-r",
            help="What they are held against, .h5 (can be repeated). Equally many trajectories are"
            " paired by their places.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of pictures and comparison.json.")
    ],
    potential: Potentials = None,
    charge: Charge = None,
    multiplicity: Multiplicity = None,
    as_json: JsonOption = False,
    threads: Threads = 1,
) -> None:
    """Hold trajectories against reference ones: spectra, geometries, energies, with floors."""
    import torch

    from alloop.report.comparison import compare_motions
    from alloop.report.comparison_words import comparison_words
    from alloop.report.motions import read_sides
    from alloop.report.spacetime_errors import plain, write_errors

    torch.set_num_threads(threads)
    written = output / "comparison.json"
    if written.exists() or (output.exists() and not output.is_dir()):
        raise DataError(f"{output} exists; name another --output or remove it")
    sides = read_sides(reference, candidates)
    surface = _surface(sides, potential, charge, multiplicity)
    values = compare_motions(sides, output, surface)
    write_errors(written, values)
    inputs.say(values["notes"])
    if as_json:
        typer.echo(json.dumps(plain(values), indent=2))
        return
    typer.echo(comparison_words(values))
    pictures = sum((output / f"{name}.png").exists() for name in values)
    typer.echo(f"wrote {written} and {pictures} pictures beside it")


def attribute(
    model: Annotated[Path, typer.Argument(help="A 4D model (.pt).", metavar="MODEL")],
    start: Annotated[
        Path,
        typer.Option(
            help="File of trajectories (.h5) or of frames with velocities; its first is explained."
        ),
    ],
    coordinate: Annotated[
        str, typer.Option(help="What is predicted, such as 'bond C0-H3'; a wrong name lists all.")
    ],
    time: Annotated[str, typer.Option(help='How long after the start, "10 fs".')],
    frames: Annotated[
        list[Path],
        typer.Option(
            help="Trajectories (.h5) such as those learnt from (can be repeated): the baselines"
            " are frames like the start, at rest."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Bar chart, .png or .svg.")],
    as_json: JsonOption = False,
    threads: Threads = 1,
) -> None:
    """Say what of a start decides where a coordinate goes, by integrated gradients."""
    import torch

    from alloop.analysis.plots import draw_attributions
    from alloop.config.quantities import TIME
    from alloop.report.attribution import attribution_table, attribution_values, unit_of
    from alloop.spacetime.files import load_model
    from alloop.spacetime.judging import attribution
    from alloop.spacetime.propagation.starts import read_starts

    torch.set_num_threads(threads)
    loaded = load_model(model)
    names = attribution.coordinate_names(loaded.internal, loaded.numbers)
    if coordinate not in names:
        raise ConfigError((
            f"--coordinate: no {coordinate!r}; the model has {', '.join(names)}",
        ))  # fmt: skip
    when = inputs.quantity("--time", time, TIME)
    with inputs.damaged_files():
        positions, velocities, _ = read_starts(start, loaded.numbers)
        near = _frames(loaded, frames)
    if len(positions) > 1:
        inputs.say([f"{start} holds {len(positions)} starts; the first is taken"])
    (here, moving), isomer = attribution.bring_home(loaded, positions[:1], velocities[:1])
    (home, _), _ = attribution.bring_home(loaded, near, torch.zeros_like(near))
    if isomer is not None:
        inputs.say([_words(loaded.isomers.operations[int(isomer[0])])])
    baselines = attribution.resting_baselines(loaded, here[0], home)
    begun = here[0], moving[0]
    found = attribution.attribute(loaded, begun, baselines, names.index(coordinate), when)
    errors = (found.member_spread.square() + found.baseline_spread.square()).sqrt()
    unit = unit_of(coordinate)
    draw_attributions(output, found.names, found.mean.numpy(), errors.numpy(), unit)
    if as_json:
        typer.echo(json.dumps(attribution_values(found, when, unit), indent=2))
        return
    typer.echo(attribution_table(found, when, unit))
    typer.echo(f"wrote {output}")


def _surface(
    sides: Sides,
    potential: list[str] | None,
    charge: int | None,
    multiplicity: int | None,
) -> Surface | None:
    from alloop.spacetime.surface import CommitteeSurface

    if not potential:
        return None
    begun = sides.reference[0].positions[0]
    frame = inputs.with_electrons(sides.numbers, begun, charge, multiplicity, sides.said)
    return CommitteeSurface(inputs.potential_of(potential, frame).committee, frame.numbers)


def _frames(model: SpacetimeModel, shards: list[Path]) -> Tensor:
    """Return frames (n_frames, n_atoms, 3), Å, from all over some trajectories."""
    import torch

    from alloop.spacetime.learning.sources import gather, list_sources

    data, _ = gather(list_sources(shards))
    if tuple(data.numbers.tolist()) != model.numbers:
        raise DataError(
            f"--frames: they are of atoms {data.numbers.tolist()}, the model of"
            f" {list(model.numbers)}; want the same atoms in the same order"
        )
    picked = data.frames(list(range(len(data.ids))), N_FRAMES)
    return torch.from_numpy(picked)


def _words(operation: Operation) -> str:
    """Return what names mean for a start that is not the isomer of the data."""
    moved = [
        f"{name} is the start's {atom}"
        for name, atom in enumerate(operation.permutation)
        if name != atom
    ]
    how = " and ".join(["mirrored"] * operation.mirror + ["numbered otherwise"] * bool(moved))
    which = f"; in names of coordinates atom {', '.join(moved)}" if moved else ""
    return f"the start is the isomer that the model knows, {how}: brought there{which}"
