"""Labelled frames as one file of plain arrays: what a training set looks like to a worker."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alloop.artifacts import save_arrays
from alloop.errors import ArtifactError
from alloop.frames import Frame

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Frames of one or several systems with their labels at one level of theory.

    Attributes
    ----------
    frames : the geometries.
    energies : (n_frames,) eV.
    forces : for each frame (n_atoms, 3), eV/Å; all NaN where the label is an energy only.
    splits : for each frame train, validation or audit.
    systems : for each frame the id of its system.
    groups : for each frame the trajectory it comes from: frames of one group are correlated.
        Frames of no trajectory are groups of their own.
    level_of_theory : name of the method of all labels.

    """

    frames: tuple[Frame, ...]
    energies: NDArray[np.float64]
    forces: tuple[NDArray[np.float64], ...]
    splits: tuple[str, ...]
    systems: tuple[str, ...]
    groups: tuple[str, ...]
    level_of_theory: str

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def has_forces(self) -> NDArray[np.bool_]:
        """Which frames have forces, (n_frames,); the others are labelled with an energy only."""
        return np.array([not np.isnan(force).any() for force in self.forces], np.bool_)

    def subset(self, chosen: NDArray[np.bool_]) -> Dataset:
        """Return the frames at which ``chosen`` (n_frames,) is true."""
        index = np.flatnonzero(chosen)
        return Dataset(
            frames=tuple(self.frames[i] for i in index),
            energies=self.energies[index],
            forces=tuple(self.forces[i] for i in index),
            splits=tuple(self.splits[i] for i in index),
            systems=tuple(self.systems[i] for i in index),
            groups=tuple(self.groups[i] for i in index),
            level_of_theory=self.level_of_theory,
        )

    def where(self, *, split: str | None = None, system: str | None = None) -> Dataset:
        """Return the frames of a split, of a system, or of both."""
        pairs = zip(self.splits, self.systems, strict=True)
        keep = [
            (split is None or s == split) and (system is None or name == system)
            for s, name in pairs
        ]
        return self.subset(np.array(keep, dtype=bool))


def joined(first: Dataset, second: Dataset) -> Dataset:
    """Return the frames of two datasets as one, at the level of theory of the first."""
    return Dataset(
        frames=first.frames + second.frames,
        energies=np.concatenate([first.energies, second.energies]),
        forces=first.forces + second.forces,
        splits=first.splits + second.splits,
        systems=first.systems + second.systems,
        groups=first.groups + second.groups,
        level_of_theory=first.level_of_theory,
    )


def save_dataset(path: Path, data: Dataset) -> None:
    """Write a dataset; the same dataset gives the same bytes."""
    cells = [np.zeros((3, 3)) if frame.cell is None else frame.cell for frame in data.frames]
    arrays = {
        "n_atoms": np.array([frame.n_atoms for frame in data.frames], dtype=np.int64),
        "numbers": np.concatenate([frame.numbers for frame in data.frames]),
        "positions": np.concatenate([frame.positions for frame in data.frames]),
        "cells": np.array(cells),
        "pbc": np.array([frame.pbc for frame in data.frames], dtype=bool),
        "charges": np.array([frame.charge for frame in data.frames], dtype=np.int64),
        "multiplicities": np.array([frame.multiplicity for frame in data.frames], dtype=np.int64),
        "energies": np.asarray(data.energies, dtype=np.float64),
        "forces": np.concatenate(data.forces),
        "splits": np.array(data.splits, dtype=np.str_),
        "systems": np.array(data.systems, dtype=np.str_),
        "groups": np.array(data.groups, dtype=np.str_),
        "level_of_theory": np.array(data.level_of_theory, dtype=np.str_),
    }
    save_arrays(path, arrays)


# What zipfile, zlib and numpy raise when they meet bytes that are not what they expect.
_NO_DATASET = (
    *(KeyError, ValueError, EOFError, RuntimeError, OSError),
    *(zipfile.BadZipFile, zlib.error),
)


def load_dataset(path: Path) -> Dataset:
    """Read a dataset.

    Raises ArtifactError if the file is not one.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        n_atoms = arrays["n_atoms"]
        ends = np.cumsum(n_atoms)
        spans = [slice(int(e - n), int(e)) for n, e in zip(n_atoms, ends, strict=True)]
        frames = tuple(
            Frame(
                numbers=arrays["numbers"][span],
                positions=arrays["positions"][span],
                charge=int(arrays["charges"][i]),
                multiplicity=int(arrays["multiplicities"][i]),
                cell=arrays["cells"][i],
                pbc=tuple(arrays["pbc"][i]),
            )
            for i, span in enumerate(spans)
        )
        return Dataset(
            frames=frames,
            energies=arrays["energies"],
            forces=tuple(arrays["forces"][span] for span in spans),
            splits=tuple(arrays["splits"].tolist()),
            systems=tuple(arrays["systems"].tolist()),
            groups=tuple(arrays["groups"].tolist()),
            level_of_theory=str(arrays["level_of_theory"]),
        )
    except _NO_DATASET as error:
        raise ArtifactError(
            f"{path} is not a dataset of alloop that can be read: {error}"
        ) from error
