"""The verbs of ``alloop spacetime``: trajectories, 4D models of them, and what those predict."""

from __future__ import annotations

import time
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alloop.cli import comparison, inputs, motion
from alloop.cli.options import Charge, Interval, Multiplicity, Potentials, Seed, Threads
from alloop.errors import ConfigError, DataError

if TYPE_CHECKING:
    from alloop.spacetime.learning.fit import FittedModel
    from alloop.spacetime.learning.sources import Exclusions
    from alloop.spacetime.model import SpacetimeModel


class Start(Enum):
    """Distributions that starts are drawn from."""

    wigner = "wigner"
    thermal = "thermal"


app = typer.Typer(
    no_args_is_help=True,
    help="Trajectories as a function of time: sample them, fit 4D models, propagate, evaluate.",
)


@app.command()
def sample(
    structure: Annotated[str, typer.Argument(help="Structure file, or SMILES.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File of trajectories (.h5).")],
    potential: Potentials = None,
    replicas: Annotated[int, typer.Option(min=1, help="Number of trajectories.")] = 32,
    duration: Annotated[str, typer.Option(help="Of each trajectory.")] = "4 ps",
    timestep: Annotated[str, typer.Option(help="Of the integration.")] = "0.25 fs",
    record_every: Annotated[str, typer.Option(help="Time between stored frames.")] = "0.5 fs",
    start: Annotated[Start, typer.Option(help="Distribution of the starts.")] = Start.wigner,
    temperature: Annotated[str, typer.Option(help="Of the starts.")] = "0 K",
    charge: Charge = None,
    multiplicity: Multiplicity = None,
    seed: Seed = 1,
    batch: Annotated[int, typer.Option(min=1, help="Replicas propagated side by side.")] = 32,
    threads: Threads = 1,
) -> None:
    """Run reference trajectories at constant energy; stop when you like, the same goes on."""
    import torch
    from rich.console import Console

    from alloop.campaign.verdict import EXIT_CODES
    from alloop.config.quantities import TEMPERATURE, TIME
    from alloop.dynamics.sampling import (
        PartsFolder,
        SamplingSettings,
        find_modes,
        sample_trajectories,
        sampling_tags,
    )
    from alloop.report.progress import ProgressDisplay
    from alloop.trajectories import write_shard

    torch.set_num_threads(threads)
    settings = SamplingSettings(
        replicas=replicas,
        duration=inputs.quantity("--duration", duration, TIME),
        timestep=inputs.quantity("--timestep", timestep, TIME),
        record_every=inputs.quantity("--record-every", record_every, TIME),
        start=start.value,
        temperature=inputs.quantity("--temperature", temperature, TEMPERATURE, 0.0),
        seed=seed,
        batch=batch,
    )
    frame = inputs.molecule(structure, charge, multiplicity)
    chosen = inputs.potential_of(potential, frame)
    if output.exists():
        _say_whether_there(output, str(sampling_tags(chosen, frame, settings)["sampling"]))
        return
    parts = PartsFolder(output.with_name(f"{output.name}.parts"))
    try:
        inputs.say(["optimising and finding normal modes"])
        modes = find_modes(chosen, frame, parts)
        inputs.say(f"left at rest, imaginary or too soft: {x:.0f} cm⁻¹" for x in modes.dropped)
        with ProgressDisplay(Console(stderr=True), "trajectories") as display:
            found = sample_trajectories(
                chosen, frame, settings, modes=modes, parts=parts, on_progress=display
            )
        write_shard(output, found)
    except KeyboardInterrupt:
        inputs.stop(f"finished batches are in {parts.folder}")
    parts.remove()
    ended = [trajectory.about.ended for trajectory in found]
    inputs.say(
        f"replica {i} ended early: {why}" for i, why in enumerate(ended) if why != "completed"
    )
    typer.echo(
        f"wrote {len(found)} trajectories, {ended.count('completed')} of them whole, to {output};"
        f" now: alloop spacetime fit {output}"
    )
    if "completed" not in ended:
        raise typer.Exit(EXIT_CODES["stalled"])


@app.command()
def fit(
    shards: Annotated[
        list[Path] | None, typer.Argument(help="Files of trajectories (.h5).", metavar="SHARD...")
    ] = None,
    campaign: Annotated[
        Path | None,
        typer.Option("--campaign", "-c", help="Campaign whose trajectories are learnt from."),
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="System of the campaign. Default: the only one.")
    ] = None,
    committee: Annotated[
        str, typer.Option(help="Number of the committee whose potential counts, or latest.")
    ] = "latest",
    tier: Annotated[
        str | None, typer.Option(help="Tier whose latest committee with trajectories counts.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            help="SQL condition on the columns of `alloop query nve_trajectories`. Default: the"
            " committee's own trajectories and those of potentials about as good."
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The 4D model.")] = Path("4d.pt"),
    cutoff: Annotated[str, typer.Option(help="Longest time after a start.")] = "10 fs",
    interval: Interval = None,
    networks: Annotated[int, typer.Option(min=1, help="Of the ensemble.")] = 8,
    hidden: Annotated[
        str, typer.Option(help="Widths of the hidden layers, as in '512 512'.")
    ] = "256 256",
    steps: Annotated[int, typer.Option(min=0, help="Of the optimiser.")] = 4000,
    windows: Annotated[int, typer.Option(min=1, help="Segments learnt from.")] = 72_000,
    energy_weight: Annotated[
        float, typer.Option(min=0.0, help="Weight of the potential energy in the loss.")
    ] = 0.0,
    potential: Potentials = None,
    charge: Charge = None,
    multiplicity: Multiplicity = None,
    augment: Annotated[
        bool, typer.Option(help="Learn from reversed, mirrored and permuted motion too.")
    ] = True,
    validation: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Share of trajectories that choose networks.")
    ] = 0.1,
    test: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Share of trajectories kept for the errors.")
    ] = 0.1,
    init: Annotated[
        Path | None, typer.Option(help="A 4D model to go on from, with the same settings.")
    ] = None,
    time_limit: Annotated[
        str | None, typer.Option(help='When to stop training, "2 h"; the same command goes on.')
    ] = None,
    seed: Seed = 1,
    threads: Threads = 1,
) -> None:
    """Fit a 4D model to trajectories; stop it when you like, the same command goes on."""
    import torch
    from rich.console import Console

    from alloop.config.quantities import TIME, WALL_TIME
    from alloop.report.progress import ProgressDisplay
    from alloop.report.spacetime_errors import errors_table
    from alloop.spacetime.files import load_model
    from alloop.spacetime.learning.fit import fit as fit_model
    from alloop.spacetime.learning.settings import FitSettings
    from alloop.spacetime.learning.sources import Shares, gather, roles
    from alloop.spacetime.surface import CommitteeSurface

    torch.set_num_threads(threads)
    began = time.monotonic()
    if not validation + test < 1.0:
        raise ConfigError(("--validation and --test: together they leave nothing to learn from",))
    settings = FitSettings(
        cutoff=inputs.quantity("--cutoff", cutoff, TIME),
        members=networks,
        hidden=inputs.widths(hidden),
        windows=windows,
        steps=steps,
        energy_weight=energy_weight,
        augment=augment,
    )
    limit = None if time_limit is None else inputs.quantity("--time-limit", time_limit, WALL_TIME)
    initial = None if init is None else load_model(init)
    sources, members = inputs.sources_of(shards, campaign, system, committee, tier, where)
    with inputs.damaged_files():
        data, left_out = gather(
            sources,
            interval=inputs.time_between(interval),
            shortest=settings.cutoff,
            shares=Shares(validation, test, seed),
            known={} if initial is None else roles(initial),
        )
    inputs.say_left_out(left_out, len(sources))
    surface = None
    if energy_weight > 0.0:
        frame = inputs.molecule_of(sources[0], charge, multiplicity)
        chosen = inputs.potential_of(potential or members, frame)
        surface = CommitteeSurface(chosen.committee, data.numbers)
    checkpoint = output.with_name(f"{output.name}.checkpoint")
    try:
        with ProgressDisplay(Console(stderr=True), "fit") as display:
            fitted = fit_model(
                data,
                settings,
                seed,
                initial=initial,
                surface=surface,
                checkpoint=checkpoint,
                deadline=None if limit is None else began + limit,
                on_progress=lambda done, total, loss: display(done, total, f"loss {loss:.4f}"),
            )
    except KeyboardInterrupt:
        inputs.stop(f"the state of the fit is in {checkpoint}")
    inputs.say([fitted.note] if fitted.note else [])
    _keep_fit(fitted, initial, left_out, output)
    judged = fitted.test or fitted.validation
    if fitted.test is None:
        inputs.say(["no test trajectory; errors, if any, are of those that chose the networks"])
    if judged is not None:
        typer.echo(errors_table(judged, settings.cutoff))
    if fitted.course["steps"] < steps:
        done = round(fitted.course["steps"])
        inputs.say([f"out of time after {done} of {steps} steps; the same command goes on"])
    else:
        checkpoint.unlink(missing_ok=True)
    typer.echo(f"wrote {output}; its errors are in {_errors_file(output)}")


app.command()(motion.propagate)
app.command()(motion.evaluate)
app.command()(comparison.compare)
app.command()(comparison.attribute)


def _say_whether_there(output: Path, sampling: str) -> None:
    """Say that a file holds what is asked for; raise DataError if it holds something else."""
    from alloop.trajectories import Shard

    with inputs.damaged_files():
        shard = Shard(output)
    if not len(shard) or shard.about[0].tags.get("sampling") != sampling:
        raise DataError(f"{output} exists and holds something else; name another --output")
    typer.echo(f"{output} is there already, with {len(shard)} trajectories")


def _keep_fit(
    fitted: FittedModel, initial: SpacetimeModel | None, left_out: Exclusions, output: Path
) -> None:
    """Write a model, which remembers what those before it have seen, and its errors."""
    from alloop.artifacts import write_atomically
    from alloop.report.spacetime_errors import write_errors
    from alloop.spacetime.files import save_model
    from alloop.spacetime.learning.sources import remember

    model = remember(fitted.model, initial)
    write_atomically(output, lambda path: save_model(model, path))
    values = {
        "cutoff": model.cutoff,
        "course": fitted.course,
        "validation": fitted.validation,
        "test": fitted.test,
        "left_out": dict(left_out.reasons),
    }
    write_errors(_errors_file(output), values)


def _errors_file(model: Path) -> Path:
    return model.with_name(f"{model.stem}.errors.json")
