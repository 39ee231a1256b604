"""Two levels of theory of water and hydrogen peroxide, as the tasks of a higher tier get them.

Labels are GFN1-xTB (below) and GFN2-xTB (above), by tblite; members are tiny and barely trained.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.build import molecule

from alloop.datasets import Dataset, save_dataset
from alloop.frames import Frame
from alloop.potentials.ani.settings import AniSettings
from alloop.potentials.files import load_member, save_member
from alloop.potentials.member import Member
from alloop.reference.method import MethodSpec, build_reference
from alloop.training.data import TrainingSet
from alloop.training.settings import TrainSettings
from alloop.training.trainer import train_member
from alloop_tasks.workspace import Workspace

BELOW, ABOVE = "GFN1-xTB", "GFN2-xTB"
SHAPE = AniSettings(((12, 8), (12, 8))).to_plain()
SPLITS = ("train", "train", "train", "train", "validation", "audit")
"""Splits of the frames of a system, again and again."""
MOLECULES = {"water": "H2O", "peroxide": "H2O2"}


@functools.cache
def labelled(system: str, level: str, n: int) -> Dataset:
    """Return ``n`` shaken geometries of a system with labels of a level of theory."""
    atoms = molecule(MOLECULES[system])
    rng = np.random.default_rng(len(system))
    reference = build_reference(MethodSpec("tblite", level), atoms.numbers, 0, 1)
    frames = [
        Frame(atoms.numbers, atoms.positions + rng.normal(0.0, 0.06, atoms.positions.shape))
        for _ in range(n)
    ]
    labels = [reference.label(frame) for frame in frames]
    return Dataset(
        tuple(frames),
        np.array([label.energy for label in labels]),
        tuple(label.forces for label in labels if label.forces is not None),
        tuple(SPLITS[i % len(SPLITS)] for i in range(n)),
        (system,) * n,
        tuple(f"{system} {i // 2}" for i in range(n)),
        level,
    )


def chosen(data: Dataset, *splits: str, first: int | None = None) -> Dataset:
    """Return the frames of some splits, at most the first ones of each."""
    keep, counts = [], dict.fromkeys(splits, 0)
    for split in data.splits:
        keep.append(split in splits and (first is None or counts[split] < first))
        counts[split] = counts.get(split, 0) + keep[-1]
    return data.subset(np.array(keep))


def energies_only(data: Dataset) -> Dataset:
    """Return the same labels without their forces."""
    return replace(data, forces=tuple(np.full_like(force, np.nan) for force in data.forces))


@functools.cache
def member(level: str, seed: int, steps: int = 12) -> Member:
    """Return a member that has learnt a little of water and peroxide."""
    parts = [labelled(system, level, 24) for system in MOLECULES]
    frames = parts[0].frames + parts[1].frames
    data = TrainingSet(
        frames,
        np.concatenate([part.energies for part in parts]),
        parts[0].forces + parts[1].forces,
        np.arange(len(frames)) % 6 == 0,
    )
    settings = TrainSettings(epochs=steps, max_steps=steps, learning_rate=5e-3, resample="none")
    return train_member(data, settings, level_of_theory=level, seed=seed, shape=SHAPE)[0]


def broken(whole: Member) -> Member:
    """Return a member whose answers overflow: its weights are finite, or it would be none."""
    weights = {name: 1e30 * torch.sign(value) for name, value in whole.weights.items()}
    return replace(whole, weights=weights)


class Bench:
    """A campaign folder with inputs in its store."""

    def __init__(self, folder: Path) -> None:
        self.workspace = Workspace(folder, "k" * 64)

    def data(self, data: Dataset | None) -> str | None:
        """Store a dataset."""
        if data is None:
            return None
        return self.workspace.add("snapshot", ".npz", lambda path: save_dataset(path, data))

    def members(self, members: Sequence[Member]) -> list[str]:
        """Store members."""
        return [
            self.workspace.add("model", ".pt", lambda path, one=one: save_member(path, one))
            for one in members
        ]

    def made(self, result: Mapping[str, Any]) -> Member:
        """Return the member that a task has made."""
        return load_member(self.workspace.input(result["artifact"], ".pt"))
