"""Fit a 4D model to the NVE trajectories of a committee, and say whether it is to be used."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from alloop.errors import ModelError
from alloop.potentials.committee import load_committee
from alloop.spacetime.files import load_model, save_model
from alloop.spacetime.judging.disagreement import calibrate_thresholds
from alloop.spacetime.judging.gate import Gate, judge
from alloop.spacetime.learning.fit import FittedModel, can_go_on, fit
from alloop.spacetime.learning.settings import FitSettings
from alloop.spacetime.learning.sources import Source, gather
from alloop.spacetime.surface import CommitteeSurface
from alloop_tasks import deadlines
from alloop_tasks.workspace import Workspace, without_nan

if TYPE_CHECKING:
    from alloop.spacetime.learning.trajectories import TrajectorySet
    from alloop.spacetime.model import SpacetimeModel


def run(spec: dict[str, Any], workspace: Workspace) -> dict[str, Any]:
    """Fit to the trajectories that came to their end; the others are left out with their reason.

    The model is held against the one in use on trajectories that neither has learnt from, and
    limits for what a probe looks at are taken from such trajectories too. The fit leaves
    checkpoints: a task that is killed, or laid down because its block ends, goes on where it was.
    """
    replicas, twins = _distinct(spec)
    data, left_out = gather(
        _sources(spec, workspace, replicas),
        interval=spec["settings"]["interval"],
        shortest=spec["settings"]["cutoff"],
    )
    committee = load_committee([workspace.input(sha256, ".pt") for sha256 in spec["committee"]])
    surface = CommitteeSurface(committee, data.numbers)
    in_use, note = _in_use(spec, workspace)
    fitted = _fit(spec, workspace, data, in_use, surface)
    gate = _judge(fitted.model, in_use, data, spec["gate_tolerance"])
    metrics = _metrics(fitted) | {
        "gate": gate.numbers,
        "left_out": left_out.counts,
        "thresholds": _thresholds(spec, fitted.model, data, surface) if gate.promoted else None,
        "notes": [text for text in (note, fitted.note) if text],
    }
    artifact = workspace.add("spacetime_model", ".pt", lambda path: save_model(fitted.model, path))
    seen = [replicas[name.partition("@")[0]] for name in data.ids]
    return {
        "artifact": artifact,
        "status": "promoted" if gate.promoted else "held_back",
        "reason": gate.reason.partition(": ")[2],
        "metrics": without_nan(metrics),
        "trajectories": [{name: one[name] for name in ("trajectory_id", "split")} for one in seen],
        "excluded": [{"trajectory_id": twin, "reason": "same_start"} for twin in twins]
        + [
            {"trajectory_id": replicas[name]["trajectory_id"], "reason": reason}
            for name, reason in left_out.reasons
        ],
    }


def _distinct(spec: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], list[int]]:
    """Return replicas by their seeds, and the trajectory_id of those whose seed another has.

    Once the final committee of a campaign began where the one before it had begun.
    """
    replicas: dict[str, dict[str, Any]] = {}
    twins = []
    for shard in spec["shards"]:
        for one in shard["replicas"]:
            known = replicas.setdefault(one["seed"], one)
            if known is not one:
                twins.append(one["trajectory_id"])
    return replicas, twins


def _sources(
    spec: dict[str, Any], workspace: Workspace, replicas: dict[str, dict[str, Any]]
) -> list[Source]:
    """Return the trajectories in an order that does not depend on when their tasks came back.

    They are named by their seeds: their numbers in the ledger do depend on it.
    """
    found = []
    for shard in spec["shards"]:
        path = workspace.input(shard["sha256"], ".h5")
        found += [
            Source(path, one["replica"], one["seed"], one["split"])
            for one in shard["replicas"]
            if replicas[one["seed"]] is one
        ]
    return sorted(found, key=lambda source: int(source.name))


def _in_use(spec: dict[str, Any], workspace: Workspace) -> tuple[SpacetimeModel | None, str]:
    """Return the model in use, or None and why there is none to be had."""
    if spec["parent"] is None:
        return None, ""
    try:
        return load_model(workspace.input(spec["parent"], ".pt")), ""
    except ModelError as error:  # such as a file of an older alloop
        return None, f"began anew: {error}"


def _fit(
    spec: dict[str, Any],
    workspace: Workspace,
    data: TrajectorySet,
    in_use: SpacetimeModel | None,
    surface: CommitteeSurface,
) -> FittedModel:
    wanted = spec["settings"]
    settings = FitSettings(
        cutoff=wanted["cutoff"],
        members=wanted["networks"],
        hidden=tuple(wanted["hidden"]),
        steps=wanted["steps"],
        windows=wanted["windows"],
        energy_weight=wanted["energy_weight"],
    )
    # Settings may have changed since the model in use was made.
    same = in_use is not None and can_go_on(in_use, data.numbers, settings, data.timestep)
    return fit(
        data,
        settings,
        spec["seed"],
        initial=in_use if same else None,
        surface=surface,
        checkpoint=workspace.checkpoint,
        lay_down_at=deadlines.deadline(),
        on_progress=lambda done, total, loss: workspace.progress(done, total, f"loss {loss:.4f}"),
    )


def _judge(
    model: SpacetimeModel, in_use: SpacetimeModel | None, data: TrajectorySet, tolerance: float
) -> Gate:
    unseen = data.members("test")
    if not unseen:
        return Gate(True, "promoted: no trajectory was left to judge it by", {})
    return judge(model, in_use, data, unseen, tolerance)


def _thresholds(
    spec: dict[str, Any], model: SpacetimeModel, data: TrajectorySet, surface: CommitteeSurface
) -> dict[str, Any] | None:
    """Return the limits for a probe; None if none is wanted or there is nothing to tell them by."""
    unseen = data.members("test") or data.members("validation")
    if spec["quantile"] is None or not unseen:
        return None
    return asdict(calibrate_thresholds(model, data, unseen, surface, quantile=spec["quantile"]))


def _metrics(fitted: FittedModel) -> dict[str, Any]:
    """Return the errors on trajectories the fit has not seen, and how the fit went."""
    held_out = {"test": fitted.test, "validation": fitted.validation}
    return {name: asdict(scores) for name, scores in held_out.items() if scores} | {
        "course": dict(fitted.course)
    }
