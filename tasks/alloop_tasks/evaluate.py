"""Judge a committee on frames that none of its members was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from alloop.acquisition.bands import choose_band
from alloop.acquisition.calibration import Calibration, calibrate
from alloop.acquisition.intervals import rmse_interval
from alloop.acquisition.ranking import rank_correlation
from alloop.acquisition.uncertainty import energy_spread, max_force_spread
from alloop.datasets import Dataset, load_dataset
from alloop.potentials.committee import Committee, load_committee
from alloop_tasks.workspace import Workspace, without_nan

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

LEVEL = 0.9
"""Coverage that the conformal bound promises."""
BATCH = 64


class _Errors:
    """Errors and spreads of a committee on a dataset, by frame."""

    def __init__(self, data: Dataset, committee: Committee) -> None:
        n_frames = len(data)
        self.have_forces = bool(data.has_forces.all())
        self.groups: NDArray[np.int64] = np.unique(data.groups, return_inverse=True)[1]
        self.n_atoms = np.array([frame.n_atoms for frame in data.frames])
        self.energy = np.full(n_frames, np.inf)
        self.squared_force = np.full(n_frames, np.inf)
        self.energy_spread = np.full(n_frames, np.inf)
        self.force_spread = np.full(n_frames, np.inf)
        for name in sorted(set(data.systems)):
            index = np.flatnonzero(np.array(data.systems) == name)
            for first in range(0, len(index), BATCH):
                self._fill(data, committee, index[first : first + BATCH])

    def _fill(self, data: Dataset, committee: Committee, index: NDArray[np.int64]) -> None:
        first = data.frames[index[0]]
        positions = torch.tensor(np.array([data.frames[i].positions for i in index]))
        cell = None if first.cell is None else torch.tensor(first.cell)
        answer = committee.evaluate(first.numbers, positions, forces="members", cell=cell)
        if answer.member_forces is None:
            raise ValueError("the committee gave no member forces")
        energies, forces = answer.energies.numpy(), answer.member_forces.numpy()
        true_forces = np.array([data.forces[i] for i in index])
        self.energy[index] = energies.mean(axis=0) - data.energies[index]
        self.squared_force[index] = ((forces.mean(axis=0) - true_forces) ** 2).mean(axis=(1, 2))
        self.energy_spread[index] = energy_spread(energies)
        self.force_spread[index] = max_force_spread(forces)


def run(spec: dict[str, Any], workspace: Workspace) -> dict[str, Any]:
    """Return ``evaluations`` and ``calibrations``, as rows of their tables.

    The audit split alone measures the error and calibrates the spread. The validation split,
    which early stopping has looked at, is reported beside it.
    """
    paths = [workspace.input(sha256, ".pt") for sha256 in spec["committee"]]
    committee = load_committee(paths)
    validation = load_dataset(workspace.input(spec["data"], ".npz")).where(split="validation")
    evaluations, calibrations = [], []
    if len(validation):
        errors = _Errors(validation, committee)
        evaluations.append(_evaluation("validation", errors, spec["confidence"]))
    if spec["held_out"] is not None:
        errors = _Errors(load_dataset(workspace.input(spec["held_out"], ".npz")), committee)
        evaluations.append(_evaluation("audit", errors, spec["confidence"]))
        calibrations = _calibrations(errors, committee.n_members, spec["confidence"])
    result: dict[str, Any] = without_nan({"evaluations": evaluations, "calibrations": calibrations})
    return result


def judge(members: Sequence[Path], data: Dataset, confidence: float = 0.95) -> dict[str, Any]:
    """Return the error of a committee on any labelled frames, as a row of ``evaluation``."""
    row = _evaluation("audit", _Errors(data, load_committee(members)), confidence)
    judged: dict[str, Any] = without_nan(row)
    return judged


def frame_errors(members: Sequence[Path], data: Dataset) -> NDArray[np.float64]:
    """Return the force RMSE of a committee on each of some labelled frames, eV/Å."""
    errors: NDArray[np.float64] = np.sqrt(_Errors(data, load_committee(members)).squared_force)
    return errors


def _evaluation(kind: str, errors: _Errors, confidence: float) -> dict[str, Any]:
    row = {
        "kind": kind,
        "n_frames": len(errors.groups),
        "n_groups": len(set(errors.groups)),
        **dict.fromkeys(("force_rmse", "force_low", "force_high")),
        "energy_rmse": float(np.sqrt(np.mean((errors.energy / errors.n_atoms) ** 2))),
        "confidence": confidence,
        "coverage": None,
        "spearman": rank_correlation(errors.energy_spread, np.abs(errors.energy)),
    }
    if not errors.have_forces:
        return row
    interval = rmse_interval(errors.squared_force, errors.groups, confidence)
    return row | {
        "force_rmse": interval.value,
        "force_low": interval.low,
        "force_high": interval.high,
        "spearman": rank_correlation(errors.force_spread, errors.squared_force),
    }


def _calibrations(errors: _Errors, n_members: int, confidence: float) -> list[dict[str, Any]]:
    # One broken geometry with a huge spread would decide the second moments alone.
    band = choose_band(errors.force_spread, 0.0, None)
    known = errors.squared_force if errors.have_forces else errors.energy
    sound = ~band.is_broken(errors.force_spread) & np.isfinite(known)
    force = calibrate(
        np.sqrt(errors.squared_force[sound]),
        errors.force_spread[sound],
        errors.groups[sound],
        measure="force",
        level=LEVEL,
        confidence=confidence,
    )
    energy = calibrate(
        errors.energy[sound],
        errors.energy_spread[sound],
        errors.groups[sound],
        measure="energy",
        n_members=n_members,
        level=LEVEL,
        confidence=confidence,
    )
    if not errors.have_forces:
        return [_calibration_row(energy)]
    return [_calibration_row(force), _calibration_row(energy)]


def _calibration_row(calibration: Calibration) -> dict[str, Any]:
    return {
        "measure": calibration.measure,
        "estimator": calibration.estimator,
        "n_members": calibration.n_members,
        "n": calibration.n,
        "n_groups": calibration.n_groups,
        "alpha": calibration.alpha,
        "alpha_low": calibration.alpha_low,
        "alpha_high": calibration.alpha_high,
        "confidence": calibration.confidence,
        "quantile": calibration.quantile,
        "level": calibration.level,
    }
