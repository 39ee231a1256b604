"""Trajectories in internal coordinates, and the short windows of them that a model learns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alloop import seeds
from alloop.errors import SpacetimeError
from alloop.spacetime.coordinates.protocol import Coordinates
from alloop.spacetime.symmetry import Operation

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True, eq=False)
class TrajectorySet:
    """NVE trajectories of one molecule, all with the same time between frames.

    Attributes
    ----------
    numbers : (n_atoms,) int64, atomic numbers.
    masses : (n_atoms,) float64, amu.
    timestep : time between stored frames, fs.
    positions : of each trajectory (n_frames, n_atoms, 3) float64, Å.
    velocities : of each trajectory (n_frames, n_atoms, 3) float64, Å/fs.
    splits : of each trajectory "train", "validation" or "test".
    ids : of each trajectory a name for messages and lineage.

    Raises
    ------
    SpacetimeError
        Shapes disagree, a number is not finite or a split is unknown.

    """

    numbers: NDArray[np.int64]
    masses: NDArray[np.float64]
    timestep: float
    positions: tuple[NDArray[np.float64], ...]
    velocities: tuple[NDArray[np.float64], ...]
    splits: tuple[str, ...]
    ids: tuple[str, ...]

    def __post_init__(self) -> None:
        n_atoms = len(self.numbers)
        if len(self.masses) != n_atoms or not (np.asarray(self.masses) > 0).all():
            raise SpacetimeError(f"{n_atoms} atoms need as many positive masses, got {self.masses}")
        if not (self.timestep > 0 and np.isfinite(self.timestep)):
            raise SpacetimeError(f"time between frames is {self.timestep} fs, want a positive one")
        counts = {len(x) for x in (self.positions, self.velocities, self.splits, self.ids)}
        if len(counts) != 1:
            raise SpacetimeError(f"positions, velocities, splits, ids differ in length: {counts}")
        for name in ("positions", "velocities"):
            for trajectory, array in zip(self.ids, getattr(self, name), strict=True):
                _check_frames(f"{name} of trajectory {trajectory}", array, n_atoms)
        for trajectory, x, v in zip(self.ids, self.positions, self.velocities, strict=True):
            if len(x) != len(v):
                raise SpacetimeError(
                    f"trajectory {trajectory} has {len(x)} positions but {len(v)} velocities"
                )
        unknown = set(self.splits) - set(SPLITS)
        if unknown:
            raise SpacetimeError(f"splits {sorted(unknown)} are unknown; want one of {SPLITS}")

    def members(self, split: str) -> list[int]:
        """Return the indices of the trajectories of a split."""
        return [i for i, name in enumerate(self.splits) if name == split]

    def frames(self, indices: list[int], n_frames: int) -> NDArray[np.float64]:
        """Return about so many positions (n, n_atoms, 3), Å, from all over some trajectories."""
        each = -(-n_frames // len(indices))
        picked = [np.linspace(0, len(self.positions[i]) - 1, each).astype(int) for i in indices]
        return np.concatenate([self.positions[i][k] for i, k in zip(indices, picked, strict=True)])

    def motion(self, index: int) -> tuple[Tensor, Tensor]:
        """Return positions and velocities of a trajectory as float64 tensors."""
        positions, velocities = (
            torch.as_tensor(np.array(arrays[index], dtype=np.float64))
            for arrays in (self.positions, self.velocities)
        )
        return positions, velocities


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Stretches of motion in internal coordinates: a start, and what came of it.

    Attributes
    ----------
    starts : (n_windows, n_coordinates), coordinates at t = 0, Å and rad.
    rates : (n_windows, n_coordinates), their rates at t = 0, 1/fs.
    displacements : (n_windows, n_steps, n_coordinates), coordinates minus start, continuous.
    later_rates : (n_windows, n_steps, n_coordinates), rates, 1/fs.

    """

    starts: Tensor
    rates: Tensor
    displacements: Tensor
    later_rates: Tensor

    def __len__(self) -> int:
        return len(self.starts)


@dataclass(frozen=True, slots=True, eq=False)
class InternalTrajectory:
    """One trajectory in internal coordinates, continuous in time, ready to be cut into windows."""

    internal: Coordinates
    coordinates: Tensor
    rates: Tensor

    @classmethod
    def of(cls, internal: Coordinates, positions: Tensor, velocities: Tensor) -> InternalTrajectory:
        """Return the trajectory (n_frames, n_atoms, 3) in internal coordinates."""
        return cls(internal, *internal.follow(positions, velocities))

    def cut(self, starts: Tensor, n_steps: int, *, backward: bool = False) -> Windows:
        """Return windows of ``n_steps`` frames after the starting frames, or reversed in time."""
        sign = -1 if backward else 1
        frames = starts[:, None] + sign * torch.arange(1, n_steps + 1)
        start = self.coordinates[starts], sign * self.rates[starts]
        moved = self.coordinates[frames] - start[0][:, None]
        first, later = self.internal.fold(start, (moved, sign * self.rates[frames]))
        return Windows(*first, *later)


def draw_windows(
    data: TrajectorySet,
    indices: list[int],
    internal: Coordinates,
    operations: list[Operation],
    n_steps: int,
    n_windows: int,
    seed: int,
    *,
    backward: bool = True,
) -> Iterator[Windows]:
    """Yield about ``n_windows`` random overlapping windows in pieces, forward and backward in time.

    Each trajectory is used under each symmetry operation; all its frames are equally likely to be
    starts. Fewer windows come when the trajectories hold no more.
    """
    rng = seeds.generator(seed, "windows")
    starts_of = {i: max(len(data.positions[i]) - n_steps, 0) for i in indices}
    directions = (False, True) if backward else (False,)
    available = len(directions) * len(operations) * sum(starts_of.values())
    share = min(1.0, n_windows / max(available, 1))
    for operation in operations:
        for i, n_starts in starts_of.items():
            count = int(np.ceil(share * n_starts))
            if count == 0:
                continue
            positions, velocities = data.motion(i)
            motion = InternalTrajectory.of(internal, operation(positions), operation(velocities))
            for reverse in directions:
                chosen = np.sort(rng.choice(n_starts, count, replace=False))
                starts = torch.as_tensor(chosen + (n_steps if reverse else 0))
                yield motion.cut(starts, n_steps, backward=reverse)


def consecutive_starts(n_frames: int, n_steps: int) -> Tensor:
    """Return the starts of the windows that follow each other without overlap."""
    return torch.arange(0, n_frames - n_steps, n_steps)


def _check_frames(what: str, array: NDArray[np.float64], n_atoms: int) -> None:
    shape = np.shape(array)
    if len(shape) != 3 or shape[1:] != (n_atoms, 3):
        raise SpacetimeError(f"{what} have shape {shape}, want (n_frames, {n_atoms}, 3)")
    bad = np.flatnonzero(~np.isfinite(array).all(axis=(1, 2)))
    if len(bad):
        raise SpacetimeError(f"{what} are not finite in {len(bad)} frames, first in {bad[0]}")
