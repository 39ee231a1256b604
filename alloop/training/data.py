"""Training sets: labelled frames as tensors, grouped by composition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from alloop.errors import TrainingError
from alloop.frames import Frame
from alloop.potentials.fitting import FrameGroup
from alloop.potentials.graphs.graph import ranges

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """Labelled frames, each either for training or for validation.

    Attributes
    ----------
    frames : the geometries; compositions may differ.
    energies : (n_frames,) float64, total energies, eV.
    forces : for each frame (n_atoms, 3) float64, eV/Å; all NaN where the method gave none.
    is_validation : (n_frames,) bool, frames that judge the model and never shape it.

    Raises
    ------
    TrainingError
        Lengths or shapes disagree, a label is not finite, forces of a frame are NaN in part, or
        no frame is left for training.

    """

    frames: tuple[Frame, ...]
    energies: NDArray[np.float64]
    forces: tuple[NDArray[np.float64], ...]
    is_validation: NDArray[np.bool_]

    def __post_init__(self) -> None:
        object.__setattr__(self, "frames", tuple(self.frames))
        object.__setattr__(self, "forces", tuple(np.asarray(f, np.float64) for f in self.forces))
        object.__setattr__(self, "energies", np.asarray(self.energies, np.float64))
        object.__setattr__(self, "is_validation", np.asarray(self.is_validation, np.bool_))
        n = len(self.frames)
        if not (self.energies.shape == self.is_validation.shape == (n,) and len(self.forces) == n):
            raise TrainingError(
                f"a training set of {n} frames has {self.energies.shape} energies,"
                f" {len(self.forces)} forces and {self.is_validation.shape} validation flags"
            )
        for index, (frame, energy, force) in enumerate(
            zip(self.frames, self.energies, self.forces, strict=True)
        ):
            if force.shape != frame.positions.shape:
                raise TrainingError(
                    f"frame {index}: forces have shape {force.shape}, want {frame.positions.shape}"
                )
            lacking = np.isnan(force)
            if not (np.isfinite(energy) and (np.isfinite(force) | lacking).all()):
                raise TrainingError(
                    f"frame {index} ({frame.key[:12]}): its label is not finite; leave it out"
                )
            if lacking.any() and not lacking.all():
                raise TrainingError(
                    f"frame {index} ({frame.key[:12]}): {lacking.sum()} of {lacking.size} force"
                    " components are NaN; want all of them, or all NaN where there are no forces"
                )
        if self.is_validation.all():
            raise TrainingError(f"none of {n} frames is for training")

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that occur, ascending."""
        return tuple(sorted({int(z) for frame in self.frames for z in frame.numbers}))

    @property
    def has_forces(self) -> NDArray[np.bool_]:
        """Which frames have forces, (n_frames,); the others are labelled with an energy only."""
        return np.array([not np.isnan(force).any() for force in self.forces], np.bool_)

    def subset(self, chosen: NDArray[np.bool_]) -> TrainingSet:
        """Return the frames at which ``chosen`` (n_frames,) is true.

        Raises TrainingError if none of them is for training.
        """
        index = np.flatnonzero(chosen)
        return TrainingSet(
            tuple(self.frames[i] for i in index),
            self.energies[index],
            tuple(self.forces[i] for i in index),
            self.is_validation[index],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """The labels of a set of frames as tensors; atoms follow frame after frame.

    Attributes
    ----------
    energies : (n_frames,) float32, total energies less the energies of the atoms, eV.
    forces : (all atoms, 3) float32, eV/Å; all NaN for frames that have none.
    numbers : (all atoms,) int64, atomic numbers.
    n_atoms : (n_frames,) int64.
    training : (n_frames,) bool, the frames that may shape the model.

    """

    energies: Tensor
    forces: Tensor
    numbers: Tensor
    n_atoms: Tensor
    training: Tensor

    def of(self, frames: Tensor) -> Labels:
        """Return the labels of frames (k,) int64, in this order."""
        first = self.n_atoms.cumsum(0) - self.n_atoms
        atoms = ranges(first[frames], self.n_atoms[frames])
        return Labels(
            self.energies[frames],
            self.forces[atoms],
            self.numbers[atoms],
            self.n_atoms[frames],
            self.training[frames],
        )

    @property
    def has_forces(self) -> Tensor:
        """Which frames have forces, (n_frames,) bool."""
        return ~self.forces[self.n_atoms.cumsum(0) - self.n_atoms, 0].isnan()

    @property
    def frame(self) -> Tensor:
        """The frame of each atom, (all atoms,) int64."""
        return torch.arange(len(self.n_atoms)).repeat_interleave(self.n_atoms)


def labels_of(data: TrainingSet, atom_energies: Mapping[int, float]) -> Labels:
    """Return the labels of a training set relative to the energies of the atoms, eV.

    Raises TrainingError if an element has none.
    """
    missing = [z for z in data.elements if z not in atom_energies]
    if missing:
        raise TrainingError(f"no atomic energy for the elements {missing} of the frames")
    atoms = [sum(atom_energies[int(z)] for z in frame.numbers) for frame in data.frames]
    return Labels(
        # Subtract in float64: a total energy in float32 is good to 1e-3 eV at best.
        energies=torch.tensor(data.energies - np.array(atoms)).to(torch.float32),
        forces=torch.tensor(np.concatenate(data.forces)).to(torch.float32),
        numbers=torch.tensor(np.concatenate([frame.numbers for frame in data.frames])),
        n_atoms=torch.tensor([frame.n_atoms for frame in data.frames]),
        training=torch.tensor(~data.is_validation),
    )


def group_frames(data: TrainingSet) -> list[FrameGroup]:
    """Group frames by composition and periodicity, in order of first appearance."""
    members: dict[tuple[tuple[int, ...], bool], list[int]] = {}
    for index, frame in enumerate(data.frames):
        key = tuple(int(z) for z in frame.numbers), frame.cell is not None
        members.setdefault(key, []).append(index)
    return [
        _group(data, numbers, periodic, index) for (numbers, periodic), index in members.items()
    ]


def _group(
    data: TrainingSet, numbers: tuple[int, ...], periodic: bool, index: Sequence[int]
) -> FrameGroup:
    frames = [data.frames[i] for i in index]
    return FrameGroup(
        numbers=numbers,
        positions=torch.tensor(np.array([frame.positions for frame in frames])),
        cells=torch.tensor(np.array([_cell(f) for f in frames])) if periodic else None,
        training=torch.tensor(~data.is_validation[list(index)]),
        index=torch.tensor(index),
    )


def _cell(frame: Frame) -> NDArray[np.float64]:
    """Return the lattice of a periodic frame, with zeros where it is not periodic."""
    if frame.cell is None:
        raise TrainingError(f"frame {frame.key[:12]} has no cell")
    return np.where(np.array(frame.pbc)[:, None], frame.cell, 0.0)
