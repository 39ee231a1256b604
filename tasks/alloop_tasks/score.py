"""Judge what each mode of transfer has learnt on labels that none of its models has seen."""

from __future__ import annotations

import math
from typing import Any

from alloop.datasets import Dataset, load_dataset
from alloop.errors import DataError, ModelError
from alloop_tasks.evaluate import judge
from alloop_tasks.workspace import Workspace

_COLUMNS = ("n_frames", "n_groups", "force_rmse", "energy_rmse")


def run(spec: dict[str, Any], workspace: Workspace) -> dict[str, Any]:
    """Return ``scores``, as rows of ``mode_score``, and the outcome in words.

    The audit split judges, or the validation split while no audit frame has a label. Of forces
    where the labels have them, else of energies. A mode whose error is not a number has no row.

    Raises DataError without a held-out label, ModelError if no mode has an error.
    """
    split, data = _held_out(spec, workspace)
    deciding = "force_rmse" if data.has_forces.all() else "energy_rmse"
    rows, errors = {}, {}
    for mode, members in spec["modes"].items():
        paths = [workspace.input(sha256, ".pt") for sha256 in members]
        rows[mode] = judge(paths, data, spec["confidence"])
        errors[mode] = _error(rows[mode], deciding)
    sound = [mode for mode in rows if math.isfinite(errors[mode])]
    if not sound:
        raise ModelError(f"no mode of {', '.join(rows)} gives numbers on the {split} frames")
    best = min(sound, key=lambda mode: errors[mode])
    scores = [
        {"mode": mode, "split": split, "promoted": mode == best}
        | {"relative": errors[mode] / errors[best] if errors[best] else 1.0}
        | {name: rows[mode][name] for name in _COLUMNS}
        for mode in sound
    ]
    unit = "meV/Å" if deciding == "force_rmse" else "meV/atom"
    return {"scores": scores, "text": _text(errors, best, f"{unit} on {len(data)} {split} frames")}


def _held_out(spec: dict[str, Any], workspace: Workspace) -> tuple[str, Dataset]:
    if spec["held_out"] is not None:
        return "audit", load_dataset(workspace.input(spec["held_out"], ".npz"))
    data = load_dataset(workspace.input(spec["data"], ".npz")).where(split="validation")
    if not len(data):
        raise DataError("modes cannot be scored: no audit or validation frame has a label")
    return "validation", data


def _error(row: dict[str, Any], deciding: str) -> float:
    """Return the error that decides; infinite where a model says nothing of some frame."""
    if row["energy_rmse"] is None or row[deciding] is None:
        return math.inf
    return float(row[deciding])


def _text(errors: dict[str, float], best: str, where: str) -> str:
    listed = ", ".join(
        f"{mode} {1e3 * error:.1f}" if math.isfinite(error) else f"{mode} no number"
        for mode, error in errors.items()
    )
    return f"mode {best} is kept: {listed} {where}"
