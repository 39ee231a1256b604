"""Starts of a propagation from files: positions and velocities of any number of replicas."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import ase.io
import numpy as np
import torch
from torch import Tensor

from alloop.errors import DataError
from alloop.trajectories import Shard
from alloop.units import FS

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray

SHARDS = (".h5", ".hdf5")
"""Endings of trajectory shards; anything else is left to ASE."""


class _Start(NamedTuple):
    numbers: list[int]
    positions: NDArray[np.float64]
    velocities: NDArray[np.float64]
    notes: Mapping[str, Any]


def read_starts(path: Path, molecule: Sequence[int]) -> tuple[Tensor, Tensor, Mapping[str, Any]]:
    """Return positions and velocities (n_replicas, n_atoms, 3) float64, Å and Å/fs, and notes.

    The notes are what the file says of its first start, such as ``charge``. Starts are of a shard
    the first frame of each trajectory, of any other file every frame. ``molecule`` are the atomic
    numbers that they must have.

    Raises
    ------
    DataError
        The file cannot be read, is of another molecule or has no velocities.
    ArtifactError
        A shard is damaged.

    """
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    if path.suffix in SHARDS:
        numbers = Shard(path).system.numbers.tolist()
        starts = [
            _Start(numbers, t.positions[0], t.velocities[0], t.about.tags)
            for t in Shard(path)
            if t.n_frames
        ]
    else:
        starts = [_start(path, index, atoms) for index, atoms in enumerate(_images(path))]
    if not starts:
        raise DataError(f"{path} holds no frames to start from")
    for index, start in enumerate(starts):
        if start.numbers != list(molecule):
            raise DataError(
                f"{path}: start {index} has atoms {start.numbers}, the model is of"
                f" {list(molecule)}; want the same atoms in the same order"
            )
    positions = torch.from_numpy(np.stack([start.positions for start in starts]))
    velocities = torch.from_numpy(np.stack([start.velocities for start in starts]))
    return positions, velocities, starts[0].notes


def _images(path: Path) -> list[Atoms]:
    try:
        with warnings.catch_warnings():
            # ASE warns of details of formats that say nothing about positions and velocities.
            warnings.simplefilter("ignore")
            return list(ase.io.read(path, index=":"))
    except Exception as error:  # readers of ASE raise whatever their parsing stumbles over
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(f"{path} cannot be read: {reason}") from None


def _start(path: Path, index: int, atoms: Atoms) -> _Start:
    if not atoms.has("momenta"):
        raise DataError(
            f"{path}: frame {index} has no velocities (ASE's momenta); write them with"
            " ase.io.write, or draw starts with --wigner or --thermal"
        )
    velocities = atoms.get_velocities() * FS
    return _Start(atoms.numbers.tolist(), atoms.positions, velocities, atoms.info)
