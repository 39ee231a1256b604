"""Fitting to several levels of theory at once: one body, and a head for each level."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alloop import seeds
from alloop.checkpoint import CheckpointFile, identity
from alloop.errors import TrainingError
from alloop.potentials.architectures import architecture
from alloop.potentials.fitting import Prediction, Trainable
from alloop.potentials.graphs.graph import ranges
from alloop.potentials.member import Member
from alloop.training.data import Labels, TrainingSet, group_frames, labels_of
from alloop.training.restarts import fit_with_restarts
from alloop.training.settings import Epoch, TrainReport, TrainSettings
from alloop.training.trainer import CHECKPOINT_S, fitted_energies, force_scale

Level = tuple[str, TrainingSet]


def train_joint(
    data: Sequence[Level],
    settings: TrainSettings,
    *,
    seed: int,
    kind: str = "ani",
    size: str = "small",
    shape: Mapping[str, Any] | None = None,
    repeats: Sequence[int] | None = None,
    start: Member | None = None,
    metadata: Mapping[str, Any] | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    checkpoint: Path | None = None,
    checkpoint_s: float = CHECKPOINT_S,
    lay_down_at: float | None = None,
) -> tuple[list[Member], TrainReport]:
    """Fit one member for each level of theory; they share all weights but those of their heads.

    Batches mix the levels, the loss is the mean over frames, and the atomic energies are each
    level's own. The members are ordinary ones of equal shape.

    Parameters
    ----------
    data : level of theory and labelled frames of each. The validation frames of all levels
        choose when to stop: a level that shall not have a say in it has none.
    settings : how to fit.
    seed : of the first weights, of the resampling and of the order of the frames.
    kind, size, shape : architecture, see ``train_member``.
    repeats : how often each frame of a level is shown in one epoch; if not given, so that every
        level is shown about as often as the largest.
    start : a member whose weights are the first ones, of all heads; architecture and shape are
        its own, and the atomic energies of each level are fitted to what its networks leave.
    metadata, should_stop, on_epoch, checkpoint, checkpoint_s, lay_down_at : see ``train_member``.

    Raises
    ------
    TrainingError
        Fewer than two levels, a level twice or without frames of some element, repeats that
        make no sense, or a fit that diverged however small its steps.
    ModelError
        Unknown architecture or size, or ``start`` lacks an element of the frames.

    """
    sets = [frames for _, frames in data]
    every = _union(data)
    repeats = _repeats(sets) if repeats is None else _checked(repeats, len(sets))
    if start is not None:
        kind, shape = start.architecture, start.settings
    model, elements = architecture(kind), _elements(every, start)
    wanted = model.settings(size, elements) if shape is None else dict(shape)
    energies = [fitted_energies(frames) for frames in sets]
    potential = model.trainable(
        group_frames(every),
        elements,
        wanted,
        energies[0] if start is None else start.atom_energies,
        scale=force_scale(*sets),
        seed=seeds.integer(seed, "weights"),
        start=start,
    )
    if start is not None:
        energies = _refitted(sets, potential, start)
    labels = _joined([labels_of(*pair) for pair in zip(sets, energies, strict=True)])
    level = torch.arange(len(sets)).repeat_interleave(torch.tensor([len(s.frames) for s in sets]))
    heads = Heads(potential, level, labels.n_atoms, model.head(wanted, elements))
    training = labels.training.nonzero()[:, 0]
    file = None
    if checkpoint is not None:
        owner = identity("joint", list(data), settings, seed, kind, wanted, repeats, start)
        file = CheckpointFile(checkpoint, owner, checkpoint_s, lay_down_at)
    fitted, report = fit_with_restarts(
        heads,
        labels,
        settings,
        seed,
        shown=training.repeat_interleave(torch.tensor(repeats)[level[training]]),
        should_stop=should_stop,
        on_epoch=on_epoch,
        checkpoint=file,
    )
    members = [
        Member(kind, elements, wanted, heads.export(fitted, k), atoms, name, dict(metadata or {}))
        for k, ((name, _), atoms) in enumerate(zip(data, energies, strict=True))
    ]
    return members, report


class Heads:
    """One potential for several levels of theory; implements ``Fittable``.

    The flat vector is that of the potential for the first level, and after it the heads of the
    other levels.

    Parameters
    ----------
    potential : predicts all frames, whatever their level.
    level : (n_frames,) int64, the level of each frame.
    n_atoms : (n_frames,) int64.
    head : patterns of the weights that each level has for itself.

    Raises
    ------
    TrainingError
        No weight has a name with one of the patterns.

    """

    def __init__(
        self, potential: Trainable, level: Tensor, n_atoms: Tensor, head: Sequence[str]
    ) -> None:
        self._potential, self._level, self._n_atoms = potential, level, n_atoms
        for pattern in head:
            if not any(re.search(pattern, name) for name in potential.layout):
                raise TrainingError(f"no weight has a name with {pattern!r}: there is no such head")
        own = torch.cat(
            [
                torch.arange(place.start, place.stop)
                for name, place in potential.layout.items()
                if any(re.search(pattern, name) for pattern in head)
            ]
        )
        n, n_levels = len(potential.start), int(level.max()) + 1
        self._places = torch.arange(n).repeat(n_levels, 1)
        added = n + torch.arange((n_levels - 1) * len(own))
        self._places[1:, own] = added.view(n_levels - 1, len(own))
        self.start = torch.cat([potential.start, potential.start[own].repeat(n_levels - 1)])

    def predict(self, parameters: Tensor, frames: Tensor) -> Prediction:
        """Predict frames (k,) int64, each with the head of its level."""
        levels, lengths = self._level[frames], self._n_atoms[frames]
        first = lengths.cumsum(0) - lengths
        places, atoms, parts = [], [], []
        for level in levels.unique().tolist():
            place = (levels == level).nonzero()[:, 0]
            places.append(place)
            atoms.append(ranges(first[place], lengths[place]))
            of_level = parameters[self._places[level]]
            parts.append(self._potential.predict(of_level, frames[place]))
        return _merged(parts, torch.argsort(torch.cat(places)), torch.argsort(torch.cat(atoms)))

    def export(self, parameters: Tensor, level: int) -> dict[str, Tensor]:
        """Return parameters as the weights of the member of a level."""
        return dict(self._potential.export(parameters[self._places[level]]))


def _merged(parts: Sequence[Prediction], frames: Tensor, atoms: Tensor) -> Prediction:
    """Put predictions one after the other and into this order."""
    if len(parts) == 1:
        return parts[0]

    def merge(values: Sequence[Tensor | None], order: Tensor) -> Tensor | None:
        given = [value for value in values if value is not None]
        return torch.cat(given)[order] if given else None

    return Prediction(
        energies=torch.cat([part.energies for part in parts])[frames],
        forces=torch.cat([part.forces for part in parts])[atoms],
        latent_forces=merge([part.latent_forces for part in parts], atoms),
        penalty=merge([part.penalty for part in parts], frames),
    )


def _elements(every: TrainingSet, start: Member | None) -> tuple[int, ...]:
    known = start is not None and set(every.elements) <= set(start.elements)
    return start.elements if start is not None and known else every.elements


def _refitted(
    sets: Sequence[TrainingSet], potential: Trainable, start: Member
) -> list[dict[int, float]]:
    """Return the atomic energies of each level that fit what ``start`` leaves of its energies."""
    firsts = accumulate((len(s.frames) for s in sets), initial=0)
    atoms = start.atom_energies
    return [
        {**atoms, **fitted_energies(frames, potential, atoms, first)}
        for frames, first in zip(sets, firsts, strict=False)
    ]


def _union(data: Sequence[Level]) -> TrainingSet:
    names = [name for name, _ in data]
    if len(names) < 2 or len(set(names)) < len(names):
        raise TrainingError(f"a joint fit needs two or more levels of theory, got {names}")
    sets = [frames for _, frames in data]
    every = TrainingSet(
        tuple(chain.from_iterable(s.frames for s in sets)),
        np.concatenate([s.energies for s in sets]),
        tuple(chain.from_iterable(s.forces for s in sets)),
        np.concatenate([s.is_validation for s in sets]),
    )
    for name, frames in data:
        missing = sorted(set(every.elements) - set(frames.elements))
        if missing:
            raise TrainingError(
                f"no frame of {name} has the elements {missing} that other levels of theory have:"
                " its member could not describe them; label some, or leave theirs out"
            )
    return every


def _repeats(sets: Sequence[TrainingSet]) -> list[int]:
    counts = [int((~s.is_validation).sum()) for s in sets]
    return [max(1, round(max(counts) / count)) for count in counts]


def _checked(repeats: Sequence[int], n_levels: int) -> list[int]:
    if len(repeats) != n_levels or not all(repeat >= 1 for repeat in repeats):
        raise TrainingError(
            f"repeats are {list(repeats)}, want 1 or more for each of {n_levels} levels of theory"
        )
    return list(repeats)


def _joined(labels: Sequence[Labels]) -> Labels:
    return Labels(*(torch.cat([getattr(x, f.name) for x in labels]) for f in fields(Labels)))
