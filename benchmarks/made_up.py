"""Results of tasks that nobody has run, in the form in which workers leave them in the outbox.

Numbers are drawn, files are real where the ledger reads them: the first frames of a system.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from alloop.artifacts import save_arrays
from alloop_tasks.environment import environment
from alloop_tasks.workspace import Workspace

Result = dict[str, Any]
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
"""Instant zero of the virtual clock."""


def envelope(
    kind: str, workspace: Workspace, made: Result | None, *, began: float, seconds: float
) -> Result:
    """Wrap a result as :func:`alloop_tasks.boundary.run` does; None is a task that failed."""
    about = {
        "key": workspace.key,
        "kind": kind,
        "started_at": _instant(began),
        "finished_at": _instant(began + seconds),
        "seconds": seconds,
        "cpu_seconds": seconds,
        "environment": environment(),
        "artifacts": workspace.made,
    }
    if made is None:
        text = "RuntimeError: made up"
        failed = {"status": "failed", "result": None, "trace": text}
        return about | failed | {"error_class": "RuntimeError", "error_text": text}
    return about | {"status": "done", "result": made}


def result(
    kind: str,
    spec: Result,
    workspace: Workspace,
    rng: np.random.Generator,
    *,
    seconds: float,
    failing: float,
) -> Result:
    """Return what a task of a kind might have found in so many seconds.

    ``failing`` is the share of failed labels.
    """
    if kind == "prepare":
        return _prepare(spec, workspace, rng)
    if kind == "label":
        each = seconds / len(spec["frames"])
        return {"labels": [_label(frame, rng, each, failing) for frame in spec["frames"]]}
    if kind == "explore":
        return _explore(spec, workspace)
    if kind == "select":
        return _select(spec, rng)
    if kind == "train":
        sha256 = _artifact(workspace, "model", ".pt")
        return {"artifact": sha256, "metrics": {}, "atom_energies": {"1": -13.6, "6": -1030.0}}
    if kind == "evaluate":
        return {
            "evaluations": [_evaluation("validation"), _evaluation("audit")],
            "calibrations": [],
        }
    raise ValueError(f"no made-up result for a task of kind {kind!r}")


def _instant(seconds: float) -> str:
    return (BEGINNING + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def _artifact(workspace: Workspace, kind: str, suffix: str) -> str:
    """Name a file that nobody reads."""
    digest = hashlib.sha256(f"{kind} {workspace.key}".encode()).hexdigest()
    workspace.made.append({"sha256": digest, "suffix": suffix, "kind": kind, "bytes": 1})
    return digest


def _geometry(spec: Result, rng: np.random.Generator, n: int) -> np.ndarray:
    rest = np.array(spec["system"]["positions"])
    return rest + rng.normal(0.0, 0.1, (n, *rest.shape))


def _prepare(spec: Result, workspace: Workspace, rng: np.random.Generator) -> Result:
    initial = _geometry(spec, rng, len(spec["splits"]))
    artifact = workspace.add(
        "preparation", ".npz", lambda path: save_arrays(path, {"initial": initial})
    )
    splits = spec["splits"]
    return {"artifact": artifact, "sampler": "rattle", "splits": splits, "numbers": {}}


def _label(frame: Result, rng: np.random.Generator, seconds: float, failing: float) -> Result:
    about = {
        "frame_key": frame["frame_key"],
        "seconds": seconds,
        "program": "made up",
        "attempted_at": _instant(0.0),
    }
    if rng.random() < failing:
        reason = {"error_class": "scf", "error_text": "SCF not converged", "retryable": True}
        return about | reason | {"status": "failed"}
    forces = rng.normal(size=(len(frame["positions"]), 3)).tolist()
    return about | {"status": "done", "energy": float(rng.normal()), "forces": forces}


def _explore(spec: Result, workspace: Workspace) -> Result:
    ended = {"n_frames": 400, "n_stable": 400, "duration": 200.0, "reason": "completed"}
    return {
        "artifact": _artifact(workspace, "trajectory", ".h5"),
        "replicas": [replica | ended for replica in spec["replicas"]],
    }


def _select(spec: Result, rng: np.random.Generator) -> Result:
    replicas = [
        (replica, shard["route"]) for shard in spec["shards"] for replica in shard["replicas"]
    ]
    decisions = [
        _decision(*replicas[index % len(replicas)], index, positions, rng)
        for index, positions in enumerate(_geometry(spec, rng, spec["budget"]))
    ]
    return {"decisions": decisions, "numbers": {"frames": len(decisions), "counts": {}}}


def _decision(
    replica: Result, route: str, index: int, positions: np.ndarray, rng: np.random.Generator
) -> Result:
    split = replica["split"]
    return {
        "trajectory_id": replica["trajectory_id"],
        "step": index,
        "time": float(index),
        "positions": positions.tolist(),
        "route": route,
        "split": split,
        "action": "selected" if split == "train" else split,
        "rule": "made up",
        "numbers": {},
        "prediction": {
            "energy": 0.0,
            "forces": rng.normal(size=positions.shape).tolist(),
            "energy_spread": 0.1,
            "energy_spread_per_sqrt_atom": 0.03,
            "force_spread_max": 0.3,
            "force_spread_mean": 0.2,
            "force_bound": None,
        },
    }


def _evaluation(kind: str) -> Result:
    return {
        "kind": kind,
        "n_frames": 100,
        "n_groups": 10,
        "force_rmse": 0.2,
        "force_low": 0.1,
        "force_high": 0.3,
        "energy_rmse": 0.01,
        "confidence": 0.95,
        "coverage": None,
        "spearman": None,
    }
