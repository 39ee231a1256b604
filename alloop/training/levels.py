"""Two levels of theory on the same frames: what one adds to the other, and labels made of that."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from alloop.errors import TrainingError
from alloop.frames import Frame
from alloop.potentials.architectures import architecture
from alloop.potentials.committee import build_committee
from alloop.potentials.member import Member
from alloop.training.data import TrainingSet, group_frames
from alloop.training.trainer import force_scale

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FRAMES_AT_ONCE = 64

Labelled = tuple["NDArray[np.float64]", tuple["NDArray[np.float64]", ...]]
"""Energies (n_frames,), eV, and for each frame forces (n_atoms, 3), eV/Å."""


def differences(upper: TrainingSet, lower: TrainingSet) -> TrainingSet:
    """Return the frames that both have, labelled with upper less lower.

    Forces are all NaN where either has none; the upper set says which frames validate. Raises
    TrainingError if no frame for training has both labels.
    """
    place = _places(lower)
    shared = np.array([frame.key in place for frame in upper.frames])
    if not (shared & ~upper.is_validation).any():
        raise TrainingError(
            f"none of the {len(upper.frames)} frames of the upper level of theory has a label of"
            " the lower one, so that there is no difference to learn: label some at both"
        )
    both = upper.subset(shared)
    index = [place[frame.key] for frame in both.frames]
    return replace(
        both,
        energies=both.energies - lower.energies[index],
        forces=tuple(f - lower.forces[i] for f, i in zip(both.forces, index, strict=True)),
    )


def with_new_head(member: Member, data: TrainingSet, level_of_theory: str, seed: int) -> Member:
    """Return a member with the body of another and a head that is drawn for these labels.

    The head is what joint training gives each level of theory for itself.
    """
    model = architecture(member.architecture)
    drawn = model.trainable(
        group_frames(data),
        member.elements,
        member.settings,
        dict.fromkeys(member.elements, 0.0),
        scale=force_scale(data),
        seed=seed,
        start=None,
    )
    fresh = drawn.export(drawn.start)
    head = model.head(member.settings, member.elements)
    weights = {
        name: fresh[name] if any(re.search(pattern, name) for pattern in head) else weight
        for name, weight in member.weights.items()
    }
    return replace(
        member,
        weights=weights,
        atom_energies=dict.fromkeys(member.elements, 0.0),
        level_of_theory=level_of_theory,
    )


def for_training(
    data: TrainingSet, elements: Sequence[int], besides: TrainingSet | None = None
) -> TrainingSet | None:
    """Return the training frames of these elements that the other set has not; None if none."""
    known = {} if besides is None else _places(besides)
    keep = [
        frame.key not in known and set(frame.numbers.tolist()) <= set(elements)
        for frame in data.frames
    ]
    chosen = np.array(keep) & ~data.is_validation
    return data.subset(chosen) if chosen.any() else None


def lifted(lower: TrainingSet, difference: Member) -> TrainingSet:
    """Return the frames of lower with labels lower + difference: those of the upper level."""
    energies, forces = predicted([difference], lower.frames)
    return replace(
        lower,
        energies=lower.energies + energies,
        forces=tuple(a + b for a, b in zip(lower.forces, forces, strict=True)),
    )


def completed(upper: TrainingSet, forces: Sequence[NDArray[np.float64]]) -> TrainingSet:
    """Return the set with these forces at training frames that have none of their own."""
    lacking = ~upper.has_forces & ~upper.is_validation
    kept = zip(upper.forces, forces, lacking, strict=True)
    return replace(upper, forces=tuple(b if absent else a for a, b, absent in kept))


def lower_forces(upper: TrainingSet, lower: TrainingSet) -> list[NDArray[np.float64]]:
    """Return the forces of lower for each frame of upper, NaN where it has none."""
    known = dict(zip(_places(lower), lower.forces, strict=True))
    return [known.get(f.key, np.full((f.n_atoms, 3), np.nan)) for f in upper.frames]


def joined(*sets: TrainingSet) -> TrainingSet:
    """Return the frames of several sets of one level of theory as one."""
    return TrainingSet(
        tuple(frame for data in sets for frame in data.frames),
        np.concatenate([data.energies for data in sets]),
        tuple(force for data in sets for force in data.forces),
        np.concatenate([data.is_validation for data in sets]),
    )


def predicted(members: Sequence[Member], frames: Sequence[Frame]) -> Labelled:
    """Return what the mean of members says of frames.

    Raises TrainingError if an answer is not finite.
    """
    committee = build_committee(members)
    energies = np.empty(len(frames))
    forces: list[NDArray[np.float64]] = [np.empty(0)] * len(frames)
    for index in _batches(frames):
        first = frames[index[0]]
        positions = torch.tensor(np.array([frames[i].positions for i in index]))
        cell = None
        if first.cell is not None:
            cell = torch.tensor(np.where(np.array(first.pbc)[:, None], first.cell, 0.0))
        answer = committee.evaluate(first.numbers, positions, forces="mean", cell=cell)
        energies[index] = answer.energies.mean(0).numpy()
        if answer.forces is None:
            raise TrainingError("the members gave no forces though they were asked for them")
        for i, force in zip(index, answer.forces.numpy(), strict=True):
            forces[i] = force
    for frame, energy, force in zip(frames, energies, forces, strict=True):
        if not (np.isfinite(energy) and np.isfinite(force).all()):
            raise TrainingError(
                f"frame {frame.key[:12]}: what members say of it is not finite; leave it out"
            )
    return energies, tuple(forces)


def _batches(frames: Sequence[Frame]) -> Iterator[list[int]]:
    """Return the places of frames that can be evaluated together."""
    alike: dict[tuple[bytes, bytes], list[int]] = {}
    for i, frame in enumerate(frames):
        cell = b"" if frame.cell is None else frame.cell.tobytes() + bytes(frame.pbc)
        alike.setdefault((frame.numbers.tobytes(), cell), []).append(i)
    for index in alike.values():
        firsts = range(0, len(index), _FRAMES_AT_ONCE)
        yield from (index[first : first + _FRAMES_AT_ONCE] for first in firsts)


def _places(data: TrainingSet) -> dict[str, int]:
    return {frame.key: index for index, frame in enumerate(data.frames)}
