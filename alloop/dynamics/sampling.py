"""Reference trajectories: motion at constant energy, from starts about a minimum.

Every replica has its own seed, so what it does does not depend on the batch it is in. Finished
batches can be kept in a folder, from which the same call goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from ase.data import atomic_masses

from alloop import seeds
from alloop.artifacts import save_arrays, write_atomically
from alloop.dynamics.health import COLDEST_REFERENCE, HealthLimits
from alloop.dynamics.initial import thermal, wigner
from alloop.dynamics.md import MdSettings, run_md
from alloop.dynamics.normal_modes import NormalModes, normal_modes
from alloop.errors import DynamicsError
from alloop.reference.optimise import hessian, optimise
from alloop.trajectories import Shard, Trajectory, write_shard
from alloop.units import HBAR, KB

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alloop.frames import Frame
    from alloop.reference.potential import Potential

    Starts = tuple[NDArray[np.float64], NDArray[np.float64]]

FORCE_TOLERANCE = 0.003
"""Largest force left at a minimum, eV/Å: the starts are drawn about it."""
SPIKE_FACTOR = 2.0
"""Safety factor on the kinetic energy at the mean energy of the starts."""
EVEN = 1e-6
"""A time may differ from a multiple of another by this part of it."""

Start = Literal["wigner", "thermal"]
"""Distributions that starts are drawn from."""
Progress = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, what is going on)."""


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """Which trajectories are run.

    Attributes
    ----------
    replicas : number of trajectories.
    duration, timestep, record_every : fs; the duration is a multiple of the time between records,
        and that of the time step.
    start : "wigner" or "thermal", see :mod:`alloop.dynamics.initial`.
    temperature : of the starts, K.
    seed : of the starts.
    batch : replicas propagated side by side.

    Raises
    ------
    DynamicsError
        A number is out of range, or a time is no multiple of the next.

    """

    replicas: int
    duration: float
    timestep: float = 0.25
    record_every: float = 0.5
    start: Start = "wigner"
    temperature: float = 0.0
    seed: int = 1
    batch: int = 32

    def __post_init__(self) -> None:
        for name in ("replicas", "duration", "timestep", "record_every", "batch"):
            if not 0.0 < getattr(self, name) < np.inf:
                raise DynamicsError(f"sampling: {name} is {getattr(self, name)}, want more than 0")
        if self.start not in ("wigner", "thermal"):
            raise DynamicsError(f"sampling: start is {self.start!r}, want 'wigner' or 'thermal'")
        if not 0.0 <= self.temperature < np.inf:
            raise DynamicsError(f"sampling: temperature is {self.temperature} K, want 0 or more")
        if self.start == "thermal" and self.temperature == 0.0:
            raise DynamicsError("sampling: thermal starts at 0 K do not move; say a temperature")
        for longer, shorter in pairwise(("duration", "record_every", "timestep")):
            ratio = getattr(self, longer) / getattr(self, shorter)
            if not (round(ratio) >= 1 and abs(ratio - round(ratio)) <= EVEN * ratio):
                raise DynamicsError(
                    f"sampling: {longer} {getattr(self, longer):g} fs is no multiple of"
                    f" {shorter} {getattr(self, shorter):g} fs"
                )

    @property
    def n_steps(self) -> int:
        """Time steps of each replica."""
        return round(self.duration / self.timestep)


@dataclass(frozen=True, slots=True)
class PartsFolder:
    """A folder that keeps the finished parts of a sampling, named by a hash of what is sampled.

    Parts of another sampling are never mixed in.
    """

    folder: Path

    def batch(self, identity: str, first: int) -> Path:
        """Return where the batch lies whose first replica has this index."""
        return self.folder / f"{identity[:16]}-{first:05d}.h5"

    def minimum(self, identity: str) -> Path:
        """Return where minimum and Hessian lie."""
        return self.folder / f"{identity[:16]}-minimum.npz"

    def remove(self) -> None:
        """Remove the folder and what it keeps."""
        for path in self.folder.glob("*"):
            path.unlink()
        if self.folder.is_dir():
            self.folder.rmdir()


def sample_trajectories(
    potential: Potential,
    frame: Frame,
    settings: SamplingSettings,
    *,
    modes: NormalModes | None = None,
    parts: PartsFolder | None = None,
    on_progress: Progress | None = None,
) -> list[Trajectory]:
    """Return trajectories of a molecule, none of which moves or turns as a whole.

    A replica that breaks costs that replica only; ``about.ended`` says how each ended, and
    ``about.tags`` where it is from.

    Parameters
    ----------
    potential : moves the atoms.
    frame : the molecule, with its charge and multiplicity.
    settings : how many, how long, from where.
    modes : about which starts are drawn; found by :func:`find_modes` if None.
    parts : where finished batches are kept, and taken from.
    on_progress : called at every recorded frame.

    Raises
    ------
    DynamicsError
        The frame is periodic, or starts cannot be drawn.
    LabelError
        A geometry on the way to the minimum has no label.

    """
    modes = find_modes(potential, frame, parts) if modes is None else modes
    tags = sampling_tags(potential, frame, settings)
    limits = _limits(modes, settings)
    found: list[Trajectory] = []
    for first in range(0, settings.replicas, settings.batch):
        indices = range(first, min(first + settings.batch, settings.replicas))
        kept = None if parts is None else parts.batch(str(tags["sampling"]), first)
        if kept is not None and kept.is_file():
            found += list(Shard(kept))
            continue
        progress = _progress(on_progress, settings, indices)
        batch = _run_batch(potential, frame, modes, settings, limits, indices, progress)
        batch = [replace(t, about=replace(t.about, tags=tags)) for t in batch]
        if kept is not None:
            write_shard(kept, batch)
        found += batch
    return found


def sampling_tags(
    potential: Potential, frame: Frame, settings: SamplingSettings
) -> dict[str, str | int]:
    """Return what every trajectory of a sampling remembers.

    ``sampling`` is a hash of potential, molecule and settings: equal ones give equal trajectories.
    """
    content = f"{potential.identity} {frame.key} {sorted(asdict(settings).items())}"
    return {
        "potential": potential.name,
        "level_of_theory": potential.reference.name,
        "program": potential.reference.program,
        "charge": frame.charge,
        "multiplicity": frame.multiplicity,
        "start": settings.start,
        "sampling": hashlib.sha256(content.encode()).hexdigest(),
    }


def find_modes(potential: Potential, frame: Frame, parts: PartsFolder | None = None) -> NormalModes:
    """Optimise a molecule with a potential and return the normal modes of its minimum.

    Raises
    ------
    DynamicsError
        The frame is periodic.
    LabelError
        A geometry on the way has no label, or there is no minimum near.

    """
    if frame.cell is not None:
        raise DynamicsError(f"sampling: {frame.formula} is periodic; want a molecule")
    identity = hashlib.sha256(f"{potential.identity} {frame.key}".encode()).hexdigest()
    kept = None if parts is None else parts.minimum(identity)
    if kept is not None and kept.is_file():
        with np.load(kept, allow_pickle=False) as arrays:
            minimum, curvature = arrays["minimum"], arrays["hessian"]
        return normal_modes(replace(frame, positions=minimum), curvature)
    relaxed = optimise(potential.reference, frame, fmax=FORCE_TOLERANCE)
    curvature = hessian(potential.reference, relaxed)
    if kept is not None:
        arrays = {"minimum": relaxed.positions, "hessian": curvature}
        write_atomically(kept, lambda path: save_arrays(path, arrays))
    return normal_modes(relaxed, curvature)


def draw_starts(
    modes: NormalModes, start: Start, temperature: float, replica_seeds: Sequence[int]
) -> Starts:
    """Return positions and velocities (n, n_atoms, 3), Å and Å/fs, one start for each seed."""
    draw = wigner if start == "wigner" else thermal
    drawn = [draw(modes, temperature, 1, np.random.default_rng(seed)) for seed in replica_seeds]
    return np.concatenate([x for x, _ in drawn]), np.concatenate([v for _, v in drawn])


def seeds_of_replicas(seed: int, indices: Iterable[int]) -> tuple[int, ...]:
    """Return the seeds of the starts of some replicas of a sampling."""
    return tuple(seeds.integer(seed, "start", index) for index in indices)


def _limits(modes: NormalModes, settings: SamplingSettings) -> HealthLimits:
    """Return limits that let molecules shake as their starts will have it.

    A Wigner start at 0 K holds the zero-point energy, that of a classical molecule at 1000 K and
    more: spikes are judged against the temperature of equal mean energy. Bonds may break; what
    ends a replica is what cannot be true.
    """
    hot = settings.temperature
    frequencies = modes.frequencies[modes.sampled]
    if settings.start == "wigner" and len(frequencies):
        quanta = HBAR * frequencies / (2.0 * KB)  # K
        coth = 1.0 if hot == 0.0 else 1.0 / np.tanh(quanta / hot)
        hot = float(np.mean(quanta * coth))
    known = max(settings.temperature, COLDEST_REFERENCE)
    return HealthLimits(spike_factor=SPIKE_FACTOR * max(1.0, hot / known), max_stretch=None)


def _run_batch(
    potential: Potential,
    frame: Frame,
    modes: NormalModes,
    settings: SamplingSettings,
    limits: HealthLimits,
    indices: range,
    on_progress: Callable[[int, int], None],
) -> list[Trajectory]:
    replica_seeds = seeds_of_replicas(settings.seed, indices)
    positions, velocities = draw_starts(modes, settings.start, settings.temperature, replica_seeds)
    motion = MdSettings(
        ensemble="nve",
        timestep=settings.timestep,
        n_steps=settings.n_steps,
        record_every=round(settings.record_every / settings.timestep),
        temperatures=(settings.temperature,) * len(indices),
        seeds=replica_seeds,
    )
    return run_md(
        potential.committee,
        frame.numbers,
        positions,
        velocities,
        atomic_masses[frame.numbers],
        motion,
        limits,
        on_progress=on_progress,
    )


def _progress(
    on_progress: Progress | None, settings: SamplingSettings, indices: range
) -> Callable[[int, int], None]:
    n_batches = -(-settings.replicas // settings.batch)
    batch = indices.start // settings.batch

    def tell(step: int, running: int) -> None:
        if on_progress is not None:
            text = f"batch {batch + 1} of {n_batches}, {running} of {len(indices)} replicas"
            on_progress(batch * settings.n_steps + step, n_batches * settings.n_steps, text)

    return tell
