"""What a committee says of labelled frames, beside the labels, as a file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.io import write

from alloop.acquisition.accuracy import Predictions
from alloop.acquisition.uncertainty import energy_spread, force_spread
from alloop.artifacts import save_arrays, write_atomically
from alloop.datasets import Dataset
from alloop.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def write_predictions(path: Path, data: Dataset, predictions: Predictions) -> None:
    """Write labels, means over the members and, with several members, their standard deviations.

    ``.npz`` holds flat arrays, the atoms frame after frame; any other suffix is extended XYZ.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder, want a name for a file")
    fill = _fill_npz if path.suffix == ".npz" else _fill_xyz
    write_atomically(path, lambda temporary: fill(temporary, data, predictions))


def _fill_npz(path: Path, data: Dataset, predictions: Predictions) -> None:
    arrays: dict[str, NDArray[Any]] = {
        "n_atoms": np.array([frame.n_atoms for frame in data.frames]),
        "numbers": np.concatenate([frame.numbers for frame in data.frames]),
        "positions": np.concatenate([frame.positions for frame in data.frames]),
        "reference_energy": data.energies,
        "reference_forces": np.concatenate(data.forces),
        "predicted_energy": predictions.energies.mean(axis=0),
        "predicted_forces": np.concatenate([force.mean(axis=0) for force in predictions.forces]),
    }
    if len(predictions.energies) > 1:
        arrays["energy_std"] = energy_spread(predictions.energies)
        arrays["forces_std"] = np.concatenate([_spread(force) for force in predictions.forces])
    save_arrays(path, arrays)


def _fill_xyz(path: Path, data: Dataset, predictions: Predictions) -> None:
    spreads = energy_spread(predictions.energies) if len(predictions.energies) > 1 else None
    images = []
    for i, frame in enumerate(data.frames):
        atoms = frame.to_atoms()
        atoms.info |= {
            "reference_energy": float(data.energies[i]),
            "predicted_energy": float(predictions.energies[:, i].mean()),
            "group": data.groups[i],
        }
        atoms.arrays["reference_forces"] = data.forces[i]
        atoms.arrays["predicted_forces"] = predictions.forces[i].mean(axis=0)
        if spreads is not None:
            atoms.info["energy_std"] = float(spreads[i])
            atoms.arrays["forces_std"] = _spread(predictions.forces[i])
        images.append(atoms)
    write(path, images, format="extxyz")


def _spread(forces: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the spread of one frame's forces (n_members, n_atoms, 3) on each atom."""
    spread: NDArray[np.float64] = force_spread(forces[:, None])[0]
    return spread
