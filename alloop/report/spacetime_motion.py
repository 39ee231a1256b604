"""Pictures of a 4D model beside its held-out trajectories, for the report of a campaign."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from sqlalchemy import Engine

from alloop.analysis.plots import draw_spectra
from alloop.analysis.similarity import compare
from alloop.analysis.spectrum import mean_spectrum, power_spectra
from alloop.artifacts import ArtifactStore
from alloop.errors import SpacetimeError
from alloop.report import plots
from alloop.report.comparison import kinetic_energy
from alloop.report.markup import paragraph, picture
from alloop.spacetime.files import load_model
from alloop.spacetime.judging.growth import error_growth
from alloop.spacetime.judging.held_out import gather_held_out
from alloop.spacetime.learning.sources import Source
from alloop.spacetime.propagation.propagate import propagate
from alloop.spacetime.propagation.schedule import Regular
from alloop.units import EV_PER_KCAL_MOL
from alloop_db.queries import run

if TYPE_CHECKING:
    from alloop.spacetime.learning.trajectories import TrajectorySet
    from alloop.spacetime.model import SpacetimeModel

N_SHOWN: Final = 16
"""Held-out trajectories that are looked at: a page must not take long to write."""
LONGEST: Final = 1000.0
"""Time of each that is looked at, fs."""
SHORTEST: Final = 100.0
"""In less time, fs, a peak is wider than 330 cm⁻¹, and a spectrum shows nothing."""
_UNITS: Final = {"bond": "Å", "angle": "rad", "dihedral": "rad", "displacement": "Å"}


def show_motion(engine: Engine, store: ArtifactStore, key: int, sha256: str) -> Iterable[str]:
    """Yield pictures of a 4D model; a line instead of what cannot be shown."""
    try:
        model = load_model(store.get(sha256, ".pt"))
        data, _ = gather_held_out(model, _held_out(engine, store, key))
    except Exception as error:  # whatever a file or a model may do, the page is written
        yield paragraph(_excuse(f"Motion of model {key} beside held-out trajectories", error))
        return
    yield _part("Errors by time after a start", lambda: _growth(model, data))
    yield _part("Power spectra", lambda: _spectra(model, data))


def _part(name: str, draw: Callable[[], str]) -> str:
    try:
        return draw()
    except Exception as error:  # as above
        return paragraph(_excuse(name, error))


def _excuse(name: str, error: Exception) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return f"{name}: cannot be shown: {words[:300]}"


def _held_out(engine: Engine, store: ArtifactStore, key: int) -> list[Source]:
    """Return trajectories that measure a model."""
    result = run(engine, "spacetime_trajectories", {"model": key})
    rows = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
    audit = [row for row in rows if row["split"] == "audit"][:N_SHOWN]
    shards = {sha256: store.get(sha256, ".h5") for sha256 in {row["shard"] for row in audit}}
    return [
        Source(shards[row["shard"]], row["replica"], f"trajectory {row['trajectory_id']}")
        for row in audit
    ]


def _growth(model: SpacetimeModel, data: TrajectorySet) -> str:
    found = error_growth(model, data, range(len(data.ids)))
    panels = {
        f"{kind} / {_UNITS.get(kind, '?')}": {
            "ensemble": found.ensemble[kind].tolist(),
            "uniform motion": found.ballistic[kind].tolist(),
        }
        for kind in found.ensemble
    }
    return picture(
        plots.png(plots.spacetime_growth(found.times.tolist(), panels)),
        "Errors of the 4D model by time after a start",
        f"Root-mean-square errors within a segment, of {found.n_segments} segments of"
        f" {len(data.ids)} trajectories that the model has not seen.",
    )


def _spectra(model: SpacetimeModel, data: TrajectorySet) -> str:
    """Follow the model as long as its held-out trajectories last, from the same starts."""
    lengths = sorted(len(x) for x in data.positions)
    n_frames = min(lengths[len(lengths) // 2], round(LONGEST / data.timestep))
    length = (n_frames - 1) * data.timestep
    if not length >= SHORTEST:
        raise SpacetimeError(
            f"half of the held-out trajectories last no longer than {length:g} fs, want"
            f" {SHORTEST:g}"
        )
    long = [i for i, x in enumerate(data.positions) if len(x) >= n_frames]
    motions = [data.motion(i) for i in long]
    starts = (torch.stack([part[0] for part in parts]) for parts in zip(*motions, strict=True))
    positions, velocities = starts
    done = propagate(model, positions, velocities, Regular(length, data.timestep))
    whole = [i for i, course in enumerate(done.courses) if course.reason is None]
    moves = [data.velocities[long[i]][:n_frames] for i in whole]
    moves += [np.asarray(done.velocities[i]) for i in whole]
    found = power_spectra(moves, data.masses, data.timestep)
    reference, candidate = found[: len(whole)], found[len(whole) :]
    means = mean_spectrum(reference), mean_spectrum(candidate)
    drawn = {"4D model": (means[1], compare(reference, candidate))}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spectra.png"
        draw_spectra(path, means[0], drawn)
        content = path.read_bytes()
    n_ended = len(long) - len(whole)
    energies = [kinetic_energy(spectrum) / EV_PER_KCAL_MOL for spectrum in means]
    ended = f" {n_ended} more ended early and are left out." if n_ended else ""
    return picture(
        content,
        "Power spectra of the 4D model and of its held-out trajectories",
        f"Motion of {length:g} fs from {len(whole)} held-out starts, by the mean of the networks,"
        f" nothing done about the energy, beside the trajectories themselves. Mean kinetic energy:"
        f" {energies[1]:.3g} kcal/mol, of the trajectories {energies[0]:.3g}.{ended}",
    )
