"""Trajectories that a finished model has never seen, and what it does to their energy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from alloop.errors import SpacetimeError
from alloop.spacetime.judging.disagreement import segments, signals
from alloop.spacetime.learning.sources import Exclusions, Source, fingerprint, gather, roles
from alloop.spacetime.learning.trajectories import TrajectorySet
from alloop.spacetime.model import SpacetimeModel
from alloop.spacetime.surface import Surface

EVEN = 1e-6
"""A cutoff may differ from a multiple of the time between frames by this part of it."""


@dataclass(frozen=True, slots=True)
class EnergyChange:
    """Change of the true total energy over one segment of the ensemble's mean, eV.

    Attributes
    ----------
    n_segments : segments judged.
    n_broken : those whose end has no energy; not in the other numbers.
    rms, largest : of the absolute change; NaN where no end has an energy.

    """

    n_segments: int
    n_broken: int
    rms: float
    largest: float


def gather_held_out(
    model: SpacetimeModel, sources: Sequence[Source], interval: float | None = None
) -> tuple[TrajectorySet, Exclusions]:
    """Return the trajectories that a model was not made with, all as test.

    Those it was trained or validated on, or the models it started from, are left out with the
    reason ``in_training_set``; a model that does not know hashes of them cannot tell.

    Raises
    ------
    SpacetimeError
        Nothing is left, they are of another molecule, or the cutoff is no multiple of the time
        between frames.

    """
    found, exclusions = gather(
        [Source(s.shard, s.replica, s.name, "test") for s in sources],
        interval=interval,
        shortest=model.cutoff,
    )
    if tuple(found.numbers.tolist()) != model.numbers:
        raise SpacetimeError(
            f"4D model: it is of atoms {list(model.numbers)}, the trajectories of"
            f" {found.numbers.tolist()}; give trajectories of the same molecule, atoms in order"
        )
    n_steps = round(model.cutoff / found.timestep)
    if n_steps < 1 or not abs(n_steps * found.timestep - model.cutoff) <= EVEN * model.cutoff:
        raise SpacetimeError(
            f"4D model: its cutoff of {model.cutoff:g} fs is no multiple of the time between"
            f" frames, {found.timestep:g} fs"
        )
    seen = roles(model)
    fresh = [i for i, name in enumerate(found.ids) if fingerprint(name) not in seen]
    used = [name.rpartition("@")[0] for i, name in enumerate(found.ids) if i not in set(fresh)]
    exclusions = Exclusions(exclusions.reasons + tuple((n, "in_training_set") for n in used))
    if not fresh:
        raise SpacetimeError(
            f"4D model: all {len(found.ids)} trajectories were used to make it; errors on them"
            " would mean nothing"
        )
    return _subset(found, fresh), exclusions


def energy_change(model: SpacetimeModel, data: TrajectorySet, surface: Surface) -> EnergyChange:
    """Return what one segment of the model does to the total energy, over all trajectories."""
    starts, _ = segments(model, data, list(range(len(data.ids))))
    changes = signals(model, *starts, surface).energy_change
    if changes is None:
        raise SpacetimeError("4D model: the surface gave no energies")
    sound = changes[torch.isfinite(changes)]
    known = len(sound) > 0
    return EnergyChange(
        n_segments=len(changes),
        n_broken=len(changes) - len(sound),
        rms=float(sound.square().mean().sqrt()) if known else float("nan"),
        largest=float(sound.abs().max()) if known else float("nan"),
    )


def _subset(data: TrajectorySet, indices: Sequence[int]) -> TrajectorySet:
    return TrajectorySet(
        data.numbers,
        data.masses,
        data.timestep,
        *(
            tuple(getattr(data, name)[i] for i in indices)
            for name in ("positions", "velocities", "splits", "ids")
        ),
    )
