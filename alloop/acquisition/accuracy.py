"""How far a committee is from labels: errors in energy and forces, by element, and its spread."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from ase.data import chemical_symbols

from alloop.acquisition.calibration import calibrate
from alloop.acquisition.ranking import rank_correlation
from alloop.acquisition.uncertainty import energy_spread, force_spread
from alloop.datasets import Dataset
from alloop.errors import AcquisitionError
from alloop.potentials.evaluation import Committee

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH = 64
"""Frames evaluated together."""


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What a committee says of the frames of a dataset.

    Attributes
    ----------
    energies : (n_members, n_frames), eV.
    forces : for each frame (n_members, n_atoms, 3), eV/Å.

    """

    energies: NDArray[np.float64]
    forces: tuple[NDArray[np.float64], ...]


@dataclass(frozen=True, slots=True)
class ForceError:
    """Errors of the force components on the atoms of one element, eV/Å."""

    n_atoms: int
    mae: float
    rmse: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """What the spread of a committee is worth.

    Attributes
    ----------
    spearman : rank correlation of the largest force spread of a frame with its force RMSE; None
        where it is not defined.
    force_factor, energy_factor : error by spread, see ``acquisition.calibration``.

    """

    spearman: float | None
    force_factor: float
    energy_factor: float


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Errors of the mean of a committee; what is not finite counts as infinite.

    Attributes
    ----------
    n_frames, n_atoms : atoms of all frames together.
    energy_mae, energy_rmse : of total energies, eV.
    energy_mae_per_atom, energy_rmse_per_atom : eV/atom.
    energy_offset : mean error of the energy per atom, eV/atom.
    force_mae, force_rmse : of components, eV/Å.
    force_r2 : part of the variance of the force components that is explained.
    mepa : mean absolute force error of each element in a frame, summed over elements, mean over
        frames, eV/Å; equation 11 of arXiv:2504.03521.
    elements : force errors by chemical symbol.
    reliability : None for a single model.

    """

    n_frames: int
    n_atoms: int
    energy_mae: float
    energy_rmse: float
    energy_mae_per_atom: float
    energy_rmse_per_atom: float
    energy_offset: float
    force_mae: float
    force_rmse: float
    force_r2: float
    mepa: float
    elements: dict[str, ForceError]
    reliability: Reliability | None


def predict(committee: Committee, data: Dataset) -> Predictions:
    """Evaluate the frames of a dataset, those of one composition and cell together."""
    energies = np.empty((committee.n_members, len(data)))
    forces: list[NDArray[np.float64]] = [np.empty(0)] * len(data)
    for index in _batches(data):
        first = data.frames[index[0]]
        positions = torch.tensor(np.array([data.frames[i].positions for i in index]))
        cell = None
        if first.cell is not None:
            cell = torch.tensor(np.where(np.array(first.pbc)[:, None], first.cell, 0.0))
        answer = committee.evaluate(first.numbers, positions, forces="members", cell=cell)
        if answer.member_forces is None:
            raise AcquisitionError("the committee gave no forces although it was asked for them")
        energies[:, index] = answer.energies.numpy()
        for i, force in zip(index, answer.member_forces.numpy().swapaxes(0, 1), strict=True):
            forces[i] = force
    return Predictions(energies, tuple(forces))


def _batches(data: Dataset) -> Iterator[list[int]]:
    """Return the places of frames that can be evaluated together."""
    alike: dict[tuple[bytes, bytes], list[int]] = {}
    for i, frame in enumerate(data.frames):
        cell = b"" if frame.cell is None else frame.cell.tobytes() + bytes(frame.pbc)
        alike.setdefault((frame.numbers.tobytes(), cell), []).append(i)
    for index in alike.values():
        yield from (index[first : first + BATCH] for first in range(0, len(index), BATCH))


def judge(data: Dataset, predictions: Predictions) -> Accuracy:
    """Return the errors of predictions; AcquisitionError if there are no frames."""
    if not len(data):
        raise AcquisitionError("there are no frames to judge a model by")
    n_atoms = np.array([frame.n_atoms for frame in data.frames])
    energy = _bad_to_inf(predictions.energies.mean(axis=0) - data.energies)
    errors = [
        _bad_to_inf(force.mean(axis=0) - true)
        for force, true in zip(predictions.forces, data.forces, strict=True)
    ]
    numbers = np.concatenate([frame.numbers for frame in data.frames])
    every, true = np.concatenate(errors), np.concatenate(data.forces)
    return Accuracy(
        n_frames=len(data),
        n_atoms=len(numbers),
        energy_mae=float(np.abs(energy).mean()),
        energy_rmse=_rms(energy),
        energy_mae_per_atom=float(np.abs(energy / n_atoms).mean()),
        energy_rmse_per_atom=_rms(energy / n_atoms),
        energy_offset=float((energy / n_atoms).mean()),
        force_mae=float(np.abs(every).mean()),
        force_rmse=_rms(every),
        force_r2=float(1.0 - np.square(every).mean() / max(float(true.var()), 1e-300)),
        mepa=_mepa(data, errors),
        elements={
            chemical_symbols[z]: ForceError(
                n_atoms=int((numbers == z).sum()),
                mae=float(np.abs(every[numbers == z]).mean()),
                rmse=_rms(every[numbers == z]),
            )
            for z in sorted(set(numbers.tolist()))
        },
        reliability=_reliability(data, predictions, energy, errors),
    )


def judge_splits(committee: Committee, data: Dataset) -> dict[str, Accuracy]:
    """Return the errors on each split that there is: train, validation, audit."""
    parts = {split: data.where(split=split) for split in ("train", "validation", "audit")}
    return {split: judge(part, predict(committee, part)) for split, part in parts.items() if part}


def _mepa(data: Dataset, errors: list[NDArray[np.float64]]) -> float:
    sums = [
        sum(np.abs(error[frame.numbers == z]).mean() for z in set(frame.numbers.tolist()))
        for frame, error in zip(data.frames, errors, strict=True)
    ]
    return float(np.mean(sums))


def _reliability(
    data: Dataset,
    predictions: Predictions,
    energy: NDArray[np.float64],
    errors: list[NDArray[np.float64]],
) -> Reliability | None:
    n_members = len(predictions.energies)
    if n_members < 2:
        return None
    groups: NDArray[np.int64] = np.unique(data.groups, return_inverse=True)[1]
    spreads = np.array([force_spread(force[:, None]).max() for force in predictions.forces])
    rmses = np.array([_rms(error) for error in errors])
    by_energy = energy_spread(predictions.energies)
    force = calibrate(rmses, spreads, groups, measure="force")
    total = calibrate(energy, by_energy, groups, measure="energy", n_members=n_members)
    return Reliability(rank_correlation(spreads, rmses), force.alpha, total.alpha)


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.square(values).mean()))


def _bad_to_inf(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isfinite(errors), errors, np.inf)
