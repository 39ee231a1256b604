"""What the verbs of ``alloop spacetime`` are given, as objects; or one line on what is wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import typer

from alloop.errors import ArtifactError, ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from alloop.config.quantities import Dimension
    from alloop.frames import Frame
    from alloop.reference.potential import Potential
    from alloop.spacetime.learning.sources import Exclusions, Source
    from alloop.spacetime.model import SpacetimeModel
    from alloop.spacetime.surface import CommitteeSurface


def quantity(option: str, text: str, dimension: Dimension, least: float | None = None) -> float:
    """Return a number with a unit in internal units; above 0, or at least ``least``."""
    from pydantic_core import PydanticCustomError

    from alloop.config.quantities import Quantity

    above = 0.0 if least is None else None
    try:
        return Quantity(dimension, above=above, least=least).parse(text)
    except PydanticCustomError as error:
        raise ConfigError((f"{option}: {error.message()}",)) from None


def time_between(text: str | None) -> float | None:
    """Return the value of ``--interval``, fs."""
    from alloop.config.quantities import TIME

    return None if text is None else quantity("--interval", text, TIME)


def widths(text: str) -> tuple[int, ...]:
    """Return the value of ``--hidden``, such as "512 512" or "512,512"."""
    try:
        return tuple(int(word) for word in text.replace(",", " ").split())
    except ValueError:
        raise ConfigError(
            (f"--hidden: want whole numbers as in '512 512', got {text!r}",)
        ) from None


def molecule(structure: str, charge: int | None, multiplicity: int | None) -> Frame:
    """Return the molecule of a structure file or SMILES, and say what was assumed of it."""
    from alloop.config.init import read_geometry, settle_electrons

    frame, *notes = settle_electrons(read_geometry(structure)[0], charge, multiplicity)
    names = (f"charge {frame.charge}", f"multiplicity {frame.multiplicity}")
    said = zip(names, notes, strict=True)
    say(f"{name} {note}" for name, note in said if note.startswith("assumed"))
    return frame


def molecule_of(source: Source, charge: int | None, multiplicity: int | None) -> Frame:
    """Return the molecule of a trajectory, with the charge it remembers if none is given."""
    from alloop.trajectories import Shard

    with damaged_files():
        shard = Shard(source.shard)
        positions = shard.read(source.replica).positions[0]
    tags = shard.about[source.replica].tags
    return with_electrons(shard.system.numbers, positions, charge, multiplicity, tags)


def with_electrons(
    numbers: NDArray[np.int64],
    positions: NDArray[np.float64],
    charge: int | None,
    multiplicity: int | None,
    said: Mapping[str, Any],
) -> Frame:
    """Return a molecule; its file may have said something of its charge and multiplicity."""
    from alloop.frames import Frame

    charge = int(said.get("charge") or 0) if charge is None else charge
    lowest = 1 + (int(sum(numbers)) - charge) % 2
    multiplicity = int(said.get("multiplicity") or lowest) if multiplicity is None else multiplicity
    return Frame(numbers, positions, charge, multiplicity)


def potential_of(names: Sequence[str] | None, frame: Frame) -> Potential:
    """Return the potential that ``--potential`` names."""
    from alloop.reference.potential import find_potential

    if not names:
        raise ConfigError(
            ("--potential: say which, such as ANI-1ccx, GFN2-xTB or a folder of members",)
        )
    return find_potential(names, frame)


def sources_of(
    shards: Sequence[Path] | None,
    campaign: Path | None,
    system: str | None,
    committee: str,
    tier: str | None,
    where: str | None,
) -> tuple[list[Source], list[str]]:
    """Return trajectories of files and of a campaign, and the campaign's potential."""
    from alloop.spacetime.learning.sources import list_sources

    with damaged_files():
        found = list_sources(shards or [])
    if campaign is None:
        for option, value in (("--system", system), ("--tier", tier), ("--where", where)):
            if value is not None:
                raise ConfigError((f"{option}: needs --campaign",))
        if not found:
            raise ConfigError(("no trajectories: name shards (.h5), or a --campaign",))
        return found, []
    from alloop.campaign.teachers import find_teachers
    from alloop.cli.campaigns import find_campaign

    if committee != "latest" and not committee.isdecimal():
        raise ConfigError((f"--committee: want a number or latest, got {committee!r}",))
    chosen = find_teachers(
        find_campaign(campaign),
        system=system,
        committee=None if committee == "latest" else int(committee),
        tier=tier,
        where=where,
    )
    say([
        f"{len(chosen.sources)} trajectories of {chosen.system}, where {chosen.condition};"
        f" {chosen.n_others} others are not"
    ])  # fmt: skip
    return [*found, *chosen.sources], [str(path) for path in chosen.members]


@dataclass(frozen=True, slots=True, eq=False)
class Starts:
    """Where replicas begin, (n_replicas, n_atoms, 3), Å and Å/fs, and their potential if any."""

    positions: Tensor
    velocities: Tensor
    surface: CommitteeSurface | None


@dataclass(frozen=True, slots=True)
class Draw:
    """Starts to draw: from which distribution, at which temperature, K, how many, which seed."""

    start: Literal["wigner", "thermal"]
    temperature: float
    replicas: int
    seed: int

    @classmethod
    def of(cls, wigner: str | None, thermal: str | None, replicas: int, seed: int) -> Draw | None:
        """Return what ``--wigner`` or ``--thermal`` asks for; None if neither is given."""
        from alloop.config.quantities import TEMPERATURE

        if wigner is not None and thermal is not None:
            raise ConfigError(("--wigner and --thermal: choose one of them",))
        if wigner is not None:
            hot = quantity("--wigner", wigner, TEMPERATURE, 0.0)
            return cls("wigner", hot, replicas, seed)
        if thermal is not None:
            return cls("thermal", quantity("--thermal", thermal, TEMPERATURE), replicas, seed)
        return None


def starts_of(
    model: SpacetimeModel,
    start: str,
    drawn: Draw | None,
    potential: Sequence[str] | None,
    charge: int | None,
    multiplicity: int | None,
) -> Starts:
    """Return starts read from a file or, with settings, drawn about the minimum of a molecule."""
    import numpy as np
    import torch

    from alloop.dynamics.sampling import draw_starts, find_modes, seeds_of_replicas
    from alloop.spacetime.propagation.starts import read_starts
    from alloop.spacetime.surface import CommitteeSurface

    if drawn is None:
        with damaged_files():
            positions, velocities, said = read_starts(Path(start), model.numbers)
        surface = None
        if potential:
            frame = with_electrons(
                np.array(model.numbers), positions[0].numpy(), charge, multiplicity, said
            )
            surface = CommitteeSurface(potential_of(potential, frame).committee, frame.numbers)
        return Starts(positions, velocities, surface)
    frame = molecule(start, charge, multiplicity)
    if tuple(frame.numbers.tolist()) != model.numbers:
        raise DataError(
            f"{start} has atoms {frame.numbers.tolist()}, the model is of {list(model.numbers)};"
            " want the same atoms in the same order"
        )
    chosen = potential_of(potential, frame)
    modes = find_modes(chosen, frame)
    say(f"left at rest, imaginary or too soft: {x:.0f} cm⁻¹" for x in modes.dropped)
    replica_seeds = seeds_of_replicas(drawn.seed, range(drawn.replicas))
    at, moving = draw_starts(modes, drawn.start, drawn.temperature, replica_seeds)
    surface = CommitteeSurface(chosen.committee, frame.numbers)
    return Starts(torch.from_numpy(at), torch.from_numpy(moving), surface)


@contextlib.contextmanager
def damaged_files() -> Iterator[None]:
    """Turn errors of files that a person named into errors of what was given."""
    try:
        yield
    except ArtifactError as error:
        raise DataError(str(error)) from None


def say_left_out(left_out: Exclusions, n_all: int) -> None:
    """Say which trajectories were left out and why; many of one kind are counted."""
    from alloop.spacetime.learning.sources import describe

    if not left_out.reasons:
        return
    named = ", ".join(f"{name} ({why})" for name, why in left_out.reasons[:10])
    more = len(left_out.reasons) - 10
    tail = f" and {more} more" if more > 0 else ""
    n_left = len(left_out.reasons)
    say([f"left out {n_left} of {n_all} trajectories, {describe(left_out)}: {named}{tail}"])


def say(notes: Iterable[str]) -> None:
    """Print notes where they do not mix with results."""
    for note in notes:
        typer.echo(f"note: {note}", err=True)


def stop(where: str) -> NoReturn:
    """End a verb that was interrupted and can go on."""
    from alloop.campaign.verdict import EXIT_CODES

    typer.echo(f"stopped; the same command goes on: {where}", err=True)
    raise typer.Exit(EXIT_CODES["paused"]) from None
