"""Fitting a 4D model to trajectories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alloop import seeds
from alloop.checkpoint import CheckpointFile, identity
from alloop.errors import SpacetimeError
from alloop.spacetime import features, polynomial
from alloop.spacetime.basis import TimeBasis
from alloop.spacetime.coordinates.choice import choose
from alloop.spacetime.coordinates.protocol import Coordinates
from alloop.spacetime.isomers import Isomers, find_isomers
from alloop.spacetime.judging.accuracy import Assessment, assess
from alloop.spacetime.learning.energy_loss import EnergyLoss
from alloop.spacetime.learning.ensemble import MotionLoss, Progress, Sample, new_layers, train
from alloop.spacetime.learning.settings import FitSettings
from alloop.spacetime.learning.trajectories import TrajectorySet, draw_windows
from alloop.spacetime.model import SpacetimeModel
from alloop.spacetime.surface import Surface
from alloop.spacetime.symmetry import Operation, find_operations

N_SAMPLED_FRAMES = 100
"""How many frames decide about coordinates and symmetries."""
CHECKPOINT_S = 20.0
"""Seconds between checkpoints: what a fit that is stopped may lose."""
N_VALIDATION_WINDOWS = 4096
"""Enough to tell the better of two sets of networks."""


@dataclass(frozen=True, slots=True, eq=False)
class FittedModel:
    """A model and how well it does.

    Attributes
    ----------
    model : the model.
    course : ``windows`` learnt from, ``operations`` of symmetry, ``steps`` done, ``train_loss``
        (where steps were done) and ``validation_loss`` (where that split has trajectories).
    validation, test : the errors that ``accuracy.assess`` gives, or None where the split has no
        trajectory as long as a segment.
    note : what is to be said about the checkpoint; empty if nothing.

    """

    model: SpacetimeModel
    course: Mapping[str, float]
    validation: Assessment | None
    test: Assessment | None
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    data: TrajectorySet
    internal: Coordinates
    isomers: Isomers
    basis: TimeBasis
    times: Tensor
    operations: list[Operation]
    reversible: bool

    def lesson(self, indices: list[int], n_windows: int, seed: int) -> _Lesson:
        """Return random windows of some trajectories, with the coefficients of their motion."""
        starts, rates, wanted = [], [], []
        n_steps = len(self.times)
        for windows in draw_windows(
            self.data,
            indices,
            self.internal,
            self.operations,
            n_steps,
            n_windows,
            seed,
            backward=self.reversible,
        ):
            uniform = windows.rates[:, None]
            bent = windows.displacements - uniform * self.times[:, None]
            coefficients = self.basis.project(self.times, bent, windows.later_rates - uniform)
            starts.append(windows.starts)
            rates.append(windows.rates)
            wanted.append(coefficients.flatten(1).to(torch.float32))
        return _Lesson(torch.cat(starts), torch.cat(rates), torch.cat(wanted))


@dataclass(frozen=True, slots=True, eq=False)
class _Lesson:
    starts: Tensor
    rates: Tensor
    wanted: Tensor

    def as_seen_by(self, model: SpacetimeModel) -> tuple[Tensor, Tensor]:
        """Return normalised features and the coefficients to be had from them."""
        return model.normalised(self.starts, self.rates), self.wanted

    def for_networks(self, model: SpacetimeModel) -> Sample:
        """Return what the polynomial of a model leaves to its networks."""
        inputs, wanted = self.as_seen_by(model)
        rest = polynomial.subtract(model.internal, inputs, wanted, model.polynomial)
        return Sample(inputs, rest / model.coefficient_scale.flatten())


def fit(
    data: TrajectorySet,
    settings: FitSettings,
    seed: int,
    *,
    initial: SpacetimeModel | None = None,
    surface: Surface | None = None,
    checkpoint: Path | None = None,
    checkpoint_s: float = CHECKPOINT_S,
    lay_down_at: float | None = None,
    deadline: float | None = None,
    on_progress: Progress | None = None,
) -> FittedModel:
    """Fit a model to the trajectories of the training split.

    The validation split decides which networks along the training are kept; the test split is only
    used to measure. Same data, settings and seed on one thread: same model, unless the deadline
    cuts in.

    Parameters
    ----------
    data : the trajectories.
    settings : what the fit may cost.
    seed : of everything random.
    initial : an earlier model of the molecule, whose networks are trained further.
    surface : the potential energy, needed with ``settings.energy_weight``.
    checkpoint : file that keeps the state of the training; a fit that finds its own goes on from
        there, to the last bit.
    checkpoint_s : seconds between two states.
    lay_down_at : value of ``time.monotonic()`` by which a training that has not ended keeps its
        state in the checkpoint and raises OutOfTime.
    deadline : of ``time.monotonic()``, when training ends early.
    on_progress : called now and then with (steps done, steps in all, loss).

    Raises
    ------
    SpacetimeError
        No trajectory to learn from is as long as a segment, the frames do not fit the cutoff, the
        molecule cannot be described, ``initial`` is of another kind, or the energy has a weight
        and no surface.

    """
    if settings.energy_weight > 0 and surface is None:
        raise SpacetimeError("4D fit: energy_weight needs a potential, and none is given")
    usable = _usable(data, settings.cutoff)
    problem = _pose(data, settings, usable["train"], initial)
    lesson = problem.lesson(usable["train"], settings.windows, seed)
    generator = torch.Generator().manual_seed(seeds.integer(seed, "networks"))
    held_out = None
    if usable["validation"]:
        held_out = problem.lesson(usable["validation"], N_VALIDATION_WINDOWS, seed)
    untrained = _untrained(problem, lesson, held_out, settings, generator, initial)
    untrained = replace(untrained, metadata=_metadata(data, settings, seed))
    scale = untrained.coefficient_scale
    energy_loss = None
    if surface is not None and settings.energy_weight > 0:
        energy_loss = EnergyLoss(
            problem.internal,
            problem.basis,
            scale,
            surface,
            lesson.starts,
            lesson.rates,
            lesson.wanted,
        )
    file = None
    if checkpoint is not None:
        sample_energies = None
        if surface is not None and energy_loss is not None:  # they tell one potential from another
            sample_energies = surface.energies(torch.tensor(data.frames(usable["train"], 1)))
        # As little as possible that is computed: another processor computes other last bits.
        began_with = None if initial is None else (initial.weights, initial.polynomial)
        content = data, settings, seed, began_with, sample_energies
        file = CheckpointFile(checkpoint, identity(*content), checkpoint_s, lay_down_at)
    (weights, biases), course = train(
        (untrained.weights, untrained.biases),
        lesson.for_networks(untrained),
        held_out.for_networks(untrained) if held_out else None,
        MotionLoss(problem.internal, problem.basis, problem.times, scale),
        settings,
        generator,
        energy_loss=energy_loss,
        checkpoint=file,
        deadline=deadline,
        on_progress=on_progress,
    )
    model = replace(untrained, weights=weights, biases=biases)
    course |= {"windows": len(lesson.starts), "operations": len(problem.operations)}
    validation, test = (
        assess(model, data, usable[split]) if usable[split] else None
        for split in ("validation", "test")
    )
    return FittedModel(model, course, validation, test, "" if file is None else file.note)


def can_go_on(
    initial: SpacetimeModel, numbers: NDArray[np.int64], settings: FitSettings, timestep: float
) -> bool:
    """Return whether a fit with these settings can go on from a model.

    ``numbers`` (n_atoms,) are the atoms of the trajectories, ``timestep`` the time between their
    frames, fs.
    """
    return _has(initial) == _wants(numbers, settings, timestep)


def _has(model: SpacetimeModel) -> tuple[object, ...]:
    hidden = tuple(weight.shape[-1] for weight in model.weights[:-1])
    dummies = model.internal.oriented
    return model.numbers, model.cutoff, model.n_members, hidden, model.basis.size, dummies


def _wants(
    numbers: NDArray[np.int64], settings: FitSettings, timestep: float
) -> tuple[object, ...]:
    size = settings.n_functions(round(settings.cutoff / timestep))
    dummies = settings.coordinates == "dummies"
    hidden = tuple(settings.hidden)
    atoms = tuple(int(z) for z in numbers)
    return atoms, settings.cutoff, settings.members, hidden, size, dummies


def _usable(data: TrajectorySet, cutoff: float) -> dict[str, list[int]]:
    """Return for each split the trajectories that are longer than a segment."""
    n_steps = round(cutoff / data.timestep)
    if n_steps < 2 or not abs(n_steps * data.timestep - cutoff) <= 1e-6 * cutoff:
        raise SpacetimeError(
            f"4D fit: a cutoff of {cutoff} fs is not a multiple (2 or more) of the time between"
            f" frames, {data.timestep} fs; change the cutoff or store frames more often"
        )
    usable = {
        split: [i for i in data.members(split) if len(data.positions[i]) > n_steps]
        for split in ("train", "validation", "test")
    }
    if not usable["train"]:
        raise SpacetimeError(
            f"4D fit: no training trajectory is longer than a segment of {cutoff} fs ({n_steps}"
            f" frames), of {len(data.ids)} trajectories given; run longer ones"
        )
    return usable


def _pose(
    data: TrajectorySet,
    settings: FitSettings,
    indices: list[int],
    initial: SpacetimeModel | None,
) -> _Problem:
    frames = data.frames(indices, N_SAMPLED_FRAMES)
    n_steps = round(settings.cutoff / data.timestep)
    times = data.timestep * torch.arange(1, n_steps + 1, dtype=torch.float64)
    size = settings.n_functions(n_steps)
    if initial is None:
        internal = choose(
            data.numbers, data.masses, frames, dummies=settings.coordinates == "dummies"
        )
        basis = TimeBasis.orthonormal(settings.cutoff, times, size)
    else:
        if not can_go_on(initial, data.numbers, settings, data.timestep):
            raise SpacetimeError(
                "4D fit: the initial model has other (numbers, cutoff, members, hidden, basis size,"
                f" dummies) than asked for, {_has(initial)} against"
                f" {_wants(data.numbers, settings, data.timestep)}; fit without it"
            )
        internal, basis = initial.internal, initial.basis
    operations = find_operations(internal, data.numbers, frames)
    if not settings.augment:
        operations = operations[:1]
    isomers = find_isomers(internal, data.numbers, frames)
    return _Problem(data, internal, isomers, basis, times, operations, settings.augment)


def _untrained(
    problem: _Problem,
    lesson: _Lesson,
    held_out: _Lesson | None,
    settings: FitSettings,
    generator: torch.Generator,
    initial: SpacetimeModel | None,
) -> SpacetimeModel:
    """Return a model with its polynomial solved, and networks that are new or the initial ones."""
    shape = problem.internal.n_coordinates, problem.basis.size
    if initial is None:
        raw = features.first_order(problem.internal, lesson.starts, lesson.rates)
        mean, scale = raw.mean(dim=0), raw.std(dim=0).clamp_min(1e-6)
        sizes = [raw.shape[1], *settings.hidden, shape[0] * shape[1]]
        weights, biases = new_layers(sizes, settings.members, generator)
    else:
        mean, scale = initial.feature_mean, initial.feature_scale
        weights, biases = initial.weights, initial.biases
    model = SpacetimeModel(
        numbers=tuple(int(z) for z in problem.data.numbers),
        masses=torch.tensor(np.array(problem.data.masses, dtype=np.float64)),
        internal=problem.internal,
        isomers=problem.isomers,
        basis=problem.basis,
        feature_mean=mean,
        feature_scale=scale,
        polynomial=torch.empty(0),
        coefficient_scale=torch.ones(shape) if initial is None else initial.coefficient_scale,
        weights=weights,
        biases=biases,
        metadata={},
    )
    exam = None if held_out is None else held_out.as_seen_by(model)
    solution = polynomial.solve(model.internal, *lesson.as_seen_by(model), exam)
    model = replace(model, polynomial=solution)
    if initial is None:
        spread = lesson.for_networks(model).targets.std(dim=0).clamp_min(1e-8)
        model = replace(model, coefficient_scale=spread.view(shape))
    return model


def _metadata(data: TrajectorySet, settings: FitSettings, seed: int) -> dict[str, object]:
    return {
        "settings": asdict(settings),
        "seed": seed,
        "timestep": data.timestep,
        **{split: [data.ids[i] for i in data.members(split)] for split in ("train", "validation")},
    }
