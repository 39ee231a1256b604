"""Fit a 4D model to the NVE trajectories of a committee."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import atomic_masses

from alloop.spacetime.files import load_model, save_model
from alloop.spacetime.fit import FittedModel, fit
from alloop.spacetime.model import SpacetimeModel
from alloop.spacetime.settings import FitSettings
from alloop.spacetime.trajectories import TrajectorySet
from alloop.trajectories import Shard, Trajectory
from alloop_tasks.workspace import Workspace, without_nan

if TYPE_CHECKING:
    from collections.abc import Sequence

SPLITS = {"train": "train", "validation": "validation", "audit": "test"}
"""What each split of the campaign is to the 4D model: audit trajectories only measure it."""

Seen = tuple[dict[str, Any], Trajectory]


def run(spec: dict[str, Any], workspace: Workspace) -> dict[str, Any]:
    """Fit to the trajectories that came to their end; those that broke are left out and counted."""
    everything = _read(spec, workspace)
    whole = [item for item in everything if item[1].about.ended == "completed"]
    left_out = Counter(t.about.ended for _, t in everything if t.about.ended != "completed")
    settings = FitSettings(
        cutoff=spec["settings"]["cutoff"],
        members=spec["settings"]["networks"],
        hidden=tuple(spec["settings"]["hidden"]),
        steps=spec["settings"]["steps"],
    )
    fitted = fit(
        _trajectory_set(spec, whole),
        settings,
        spec["seed"],
        initial=_initial(spec, workspace, settings),
        on_progress=lambda done, total, loss: workspace.progress(done, total, f"loss {loss:.4f}"),
    )
    artifact = workspace.add("spacetime_model", ".pt", lambda path: save_model(fitted.model, path))
    return {
        "artifact": artifact,
        "metrics": without_nan(_metrics(fitted) | {"left_out": dict(left_out)}),
        "trajectories": [
            {"trajectory_id": replica["trajectory_id"], "split": replica["split"]}
            for replica, _ in whole
        ],
    }


def _read(spec: dict[str, Any], workspace: Workspace) -> list[Seen]:
    """Return all trajectories in an order that does not depend on when their tasks came back."""
    found = []
    for shard in spec["shards"]:
        opened = Shard(workspace.input(shard["sha256"], ".h5"))
        found += [(replica, opened.read(replica["replica"])) for replica in shard["replicas"]]
    return sorted(found, key=lambda item: int(item[0]["seed"]))


def _trajectory_set(spec: dict[str, Any], seen: Sequence[Seen]) -> TrajectorySet:
    numbers = np.array(spec["system"]["numbers"])
    return TrajectorySet(
        numbers=numbers,
        masses=atomic_masses[numbers],
        timestep=spec["settings"]["interval"],
        positions=tuple(trajectory.positions for _, trajectory in seen),
        velocities=tuple(trajectory.velocities for _, trajectory in seen),
        splits=tuple(SPLITS[replica["split"]] for replica, _ in seen),
        ids=tuple(f"{replica['trajectory_id']}" for replica, _ in seen),
    )


def _initial(
    spec: dict[str, Any], workspace: Workspace, settings: FitSettings
) -> SpacetimeModel | None:
    """Return the last model to go on from, unless the settings have changed since."""
    if spec["parent"] is None:
        return None
    model = load_model(workspace.input(spec["parent"], ".pt"))
    hidden = tuple(weight.shape[-1] for weight in model.weights[:-1])
    has = (model.cutoff, model.n_members, hidden)
    return model if has == (settings.cutoff, settings.members, settings.hidden) else None


def _metrics(fitted: FittedModel) -> dict[str, Any]:
    """Return the errors on trajectories the fit has not seen, and how the fit went."""
    held_out = {"test": fitted.test, "validation": fitted.validation}
    return {name: asdict(scores) for name, scores in held_out.items() if scores} | {
        "course": dict(fitted.course)
    }
