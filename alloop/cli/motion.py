"""The verbs that use a 4D model: ``spacetime propagate`` and ``spacetime evaluate``."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alloop.cli import inputs
from alloop.cli.options import Charge, Interval, JsonOption, Multiplicity, Potentials, Seed, Threads
from alloop.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from alloop.spacetime.model import SpacetimeModel
    from alloop.spacetime.propagation.writers import AtomsWriter, Hdf5Writer

ModelFile = Annotated[Path, typer.Argument(help="A 4D model (.pt).", metavar="MODEL")]


class Rule(Enum):
    """What is done about the total energy."""

    shell = "shell"
    select = "select"
    mean = "mean"


def propagate(
    model: ModelFile,
    start: Annotated[
        str,
        typer.Option(
            help="Where to begin: file of trajectories (.h5, the first frame of each) or frames"
            " with velocities; with --wigner or --thermal a structure file or SMILES."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Trajectories: .h5, .extxyz or .traj.")
    ],
    wigner: Annotated[
        str | None, typer.Option(help='Draw starts at a temperature, "0 K", quantum.')
    ] = None,
    thermal: Annotated[
        str | None, typer.Option(help='Draw starts at a temperature, "300 K", classical.')
    ] = None,
    replicas: Annotated[int, typer.Option(min=1, help="Number of starts to draw.")] = 16,
    potential: Potentials = None,
    charge: Charge = None,
    multiplicity: Multiplicity = None,
    duration: Annotated[str, typer.Option(help="Of each replica.")] = "3 ps",
    interval: Annotated[str, typer.Option(help="Time between written frames.")] = "0.5 fs",
    rule: Annotated[
        Rule | None,
        typer.Option(
            help="Of the energy: shell (ensemble mean, then back to the energy of the start),"
            " select (the network that changes it least), mean (none). Default: shell with a"
            " potential, else mean."
        ),
    ] = None,
    rescue: Annotated[
        bool, typer.Option("--rescue", help="Let dynamics do the segments that the model cannot.")
    ] = False,
    seed: Seed = 1,
    as_json: JsonOption = False,
    threads: Threads = 1,
) -> None:
    """Propagate molecules with a 4D model, segment by segment, and say how each replica ended."""
    import torch
    from rich.console import Console

    from alloop.campaign.verdict import EXIT_CODES
    from alloop.config.quantities import TIME
    from alloop.report.progress import ProgressDisplay
    from alloop.report.spacetime_errors import course_values, courses_table, plain
    from alloop.spacetime.files import load_model
    from alloop.spacetime.propagation.energy_rules import PropagationSettings
    from alloop.spacetime.propagation.propagate import propagate as propagate_model
    from alloop.spacetime.propagation.schedule import Regular
    from alloop.spacetime.propagation.writers import PARTIAL, Hdf5Writer, describe_run

    torch.set_num_threads(threads)
    loaded = load_model(model)
    times = Regular(
        inputs.quantity("--duration", duration, TIME), inputs.quantity("--interval", interval, TIME)
    )
    chosen = Rule.shell if rule is None and potential else rule or Rule.mean
    if not potential and (chosen is not Rule.mean or rescue):
        raise ConfigError((f"--rule {chosen.value}, --rescue {rescue}: these need --potential",))
    settings = PropagationSettings(rule=chosen.value, rescue=rescue)
    path = _new_output(output)
    drawn = inputs.Draw.of(wigner, thermal, replicas, seed)
    begun = inputs.starts_of(loaded, start, drawn, potential, charge, multiplicity)
    about = describe_run(loaded, settings, [] if drawn is None else [seed])
    try:
        with (
            _writer(output, loaded, len(begun.positions), about) as sink,
            ProgressDisplay(Console(stderr=True), "propagation") as display,
        ):
            done = propagate_model(
                loaded,
                begun.positions,
                begun.velocities,
                times,
                surface=begun.surface,
                settings=settings,
                sink=sink,
                on_progress=lambda at, total, going: display(at, total, f"{going} replicas"),
            )
            if isinstance(sink, Hdf5Writer):
                sink.note(done.courses)
    except KeyboardInterrupt:
        typer.echo(f"stopped; what was written until then is in {path}{PARTIAL}", err=True)
        raise typer.Exit(EXIT_CODES["paused"]) from None
    if as_json:
        values = [course_values(course, times.interval) for course in done.courses]
        typer.echo(json.dumps(plain(values), indent=2))
    else:
        typer.echo(courses_table(done.courses, times.interval))
        typer.echo(f"wrote {path}")
    if any(course.reason is not None for course in done.courses):
        raise typer.Exit(EXIT_CODES["stalled"])


def evaluate(
    model: ModelFile,
    shards: Annotated[
        list[Path], typer.Argument(help="Files of trajectories (.h5).", metavar="SHARD...")
    ],
    interval: Interval = None,
    potential: Potentials = None,
    charge: Charge = None,
    multiplicity: Multiplicity = None,
    as_json: JsonOption = False,
    threads: Threads = 1,
) -> None:
    """Say how far a 4D model is from trajectories that it was not made with."""
    import torch

    from alloop.report.spacetime_errors import energy_words, errors_table, plain
    from alloop.spacetime.files import load_model
    from alloop.spacetime.judging.accuracy import assess
    from alloop.spacetime.judging.held_out import energy_change, gather_held_out
    from alloop.spacetime.learning.sources import list_sources, roles
    from alloop.spacetime.surface import CommitteeSurface

    torch.set_num_threads(threads)
    loaded = load_model(model)
    with inputs.damaged_files():
        sources = list_sources(shards)
        data, left_out = gather_held_out(loaded, sources, inputs.time_between(interval))
    inputs.say_left_out(left_out, len(sources))
    if not roles(loaded):
        inputs.say([f"{model} does not say which trajectories it was made with: not checked"])
    judged = assess(loaded, data, list(range(len(data.ids))))
    values = {"cutoff": loaded.cutoff, "errors": judged, "left_out": left_out.counts}
    if potential:
        frame = inputs.molecule_of(sources[0], charge, multiplicity)
        chosen = inputs.potential_of(potential, frame)
        surface = CommitteeSurface(chosen.committee, data.numbers)
        change = energy_change(loaded, data, surface)
        values["energy_change"] = change
    if as_json:
        typer.echo(json.dumps(plain(values), indent=2))
        return
    typer.echo(errors_table(judged, loaded.cutoff))
    if potential:
        typer.echo(energy_words(change))


def _new_output(output: Path) -> str:
    """Return how the files of a propagation will be called; raise if they cannot be."""
    if output.suffix not in (".h5", ".extxyz", ".traj"):
        raise ConfigError((f"--output: want .h5, .extxyz or .traj, got {output.name!r}",))
    alone = output.suffix == ".h5"
    first = output if alone else output.with_stem(f"{output.stem}-00000")
    if first.exists():
        raise DataError(f"{first} exists; name another --output or remove it")
    return str(output if alone else output.with_stem(f"{output.stem}-*"))


def _writer(
    output: Path, model: SpacetimeModel, n_replicas: int, about: Mapping[str, object]
) -> Hdf5Writer | AtomsWriter:
    from alloop.spacetime.propagation.writers import AtomsWriter, Hdf5Writer

    if output.suffix == ".h5":
        return Hdf5Writer(output, model, n_replicas, about)
    return AtomsWriter(output, model)
