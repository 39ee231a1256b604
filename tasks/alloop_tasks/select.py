"""Choose which of the explored frames are worth a label."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from alloop.acquisition.bands import Band, choose_band
from alloop.acquisition.calibration import Calibration
from alloop.acquisition.fingerprint import fingerprints
from alloop.acquisition.pool import Decision, Pool, SelectionSettings
from alloop.acquisition.selection import select, tally
from alloop.acquisition.uncertainty import energy_spread, energy_spread_per_sqrt_atom
from alloop.datasets import load_dataset
from alloop.trajectories import Shard, Trajectory
from alloop_tasks.predictions import rebuilt
from alloop_tasks.systems import frame_of
from alloop_tasks.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SPACING = 2.5
"""Frames closer in time than this, fs, are as good as equal: one of them enters the pool."""
MOST_RECORDED = 200
"""Frames that were considered and not chosen, kept for the record, at most this many of a pool."""


class _Explored:
    """The pool of one system: where each frame came from, and its numbers."""

    def __init__(self, spec: dict[str, Any], workspace: Workspace) -> None:
        replicas = [
            (replica, shard["route"], shard["sha256"])
            for shard in spec["shards"]
            for replica in shard["replicas"]
        ]
        # By route and seed, which do not depend on the order in which tasks came back.
        self.replicas = sorted(replicas, key=lambda item: (item[1], int(item[0]["seed"])))
        opened = {sha: Shard(workspace.input(sha, ".h5")) for _, _, sha in self.replicas}
        self.trajectories = [
            _thinned(opened[sha].read(replica["replica"])) for replica, _, sha in self.replicas
        ]
        self.frames = [
            (number, index)
            for number, trajectory in enumerate(self.trajectories)
            for index in range(trajectory.n_frames)
        ]
        for number, trajectory in enumerate(self.trajectories):
            workspace.progress(number, len(self.trajectories), f"{trajectory.n_frames} frames")

    def gather(self, name: str) -> NDArray[Any]:
        """Return an array by frame of all trajectories, one after the other."""
        return np.concatenate([getattr(trajectory, name) for trajectory in self.trajectories])

    @property
    def splits(self) -> dict[int, Any]:
        """The split of each trajectory by its place in the sorted order."""
        return {number: item[0]["split"] for number, item in enumerate(self.replicas)}


def run(spec: dict[str, Any], workspace: Workspace) -> dict[str, Any]:
    """Apply the spec's policy to everything that one committee explored of one system.

    Returns ``decisions``, one for each frame that is to be labelled and for a bounded number of
    the others, and ``numbers``: what the triage counted and the thresholds it used.
    """
    frame = frame_of(spec["system"])
    explored = _Explored(spec, workspace)
    spread = _spread(spec, explored)
    pool = Pool(
        trajectory=np.array([number for number, _ in explored.frames], dtype=np.int64),
        step=explored.gather("steps"),
        time=explored.gather("times"),
        spread=spread,
        fingerprint=fingerprints(frame.numbers, explored.gather("positions")),
        healthy=np.ones(len(spread), dtype=bool),
        splits=explored.splits,
    )
    calibration = rebuilt(spec["calibration"])
    training = pool.members("train")
    band = choose_band(
        spread[training],
        spec["target"],
        calibration if spec["measure"] == "force" else None,
        upper_floor=spec["max_force_spread"] if spec["measure"] == "force" else 0.0,
    )
    settings = SelectionSettings(
        budget=spec["budget"],
        seed=spec["seed"],
        policy=spec["policy"],
        audit_fraction=spec["audit_fraction"],
        validation_fraction=spec["validation_fraction"],
        gap=spec["thinning"],
        tolerance=spec["duplicate_tolerance"],
        trajectory_cap=spec["per_trajectory"],
    )
    decisions = select(pool, _known(spec, workspace, frame.numbers), band, settings)
    return {
        "decisions": [
            _record(decision, explored, calibration) for decision in _worth_keeping(decisions)
        ],
        "numbers": _numbers(decisions, band),
    }


def _thinned(trajectory: Trajectory) -> Trajectory:
    """Return a trajectory with its frames at least SPACING apart, its last frame among them."""
    if trajectory.n_frames < 2:
        return trajectory
    interval = (trajectory.times[-1] - trajectory.times[0]) / (trajectory.n_frames - 1)
    stride = max(1, round(SPACING / interval))
    keep = slice((trajectory.n_frames - 1) % stride, None, stride)
    arrays = {
        item.name: getattr(trajectory, item.name)
        for item in fields(trajectory)
        if item.name not in ("system", "about")
    }
    chosen = {name: values[keep] for name, values in arrays.items()}
    return Trajectory(trajectory.system, trajectory.about, **chosen)


def _spread(spec: dict[str, Any], explored: _Explored) -> NDArray[np.float64]:
    if spec["measure"] == "force":
        return explored.gather("max_force_spread")
    energies = explored.gather("member_energies")
    return energy_spread_per_sqrt_atom(energies.T, len(spec["system"]["numbers"]))


def _known(
    spec: dict[str, Any], workspace: Workspace, numbers: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the fingerprints of the frames that are trained on already."""
    data = load_dataset(workspace.input(spec["snapshot"], ".npz"))
    mine = data.where(system=spec["system"]["name"])
    return fingerprints(numbers, np.array([frame.positions for frame in mine.frames]))


def _worth_keeping(decisions: Sequence[Decision]) -> list[Decision]:
    """Return the decisions that get a row: all that lead to a label, the strongest of the rest."""
    chosen = [d for d in decisions if d.action in ("selected", "audit", "validation")]
    others = [d for d in decisions if d.action in ("rejected", "duplicate", "broken")]
    others.sort(key=lambda d: (-d.numbers.get("spread", np.inf), d.index))
    return chosen + others[:MOST_RECORDED]


def _record(
    decision: Decision, explored: _Explored, calibration: Calibration | None
) -> dict[str, Any]:
    number, index = explored.frames[decision.index]
    trajectory = explored.trajectories[number]
    replica, route, _ = explored.replicas[number]
    energies = trajectory.member_energies[index][:, None]
    largest = float(trajectory.max_force_spread[index])
    bound = None if calibration is None else float(calibration.bound(np.array([largest]))[0])
    return {
        "trajectory_id": replica["trajectory_id"],
        "step": int(trajectory.steps[index]),
        "time": float(trajectory.times[index]),
        "positions": trajectory.positions[index].tolist(),
        "route": route,
        "split": replica["split"],
        "action": decision.action,
        "rule": decision.rule,
        "numbers": decision.numbers,
        "prediction": {
            "energy": float(trajectory.potential[index]),
            "forces": trajectory.forces[index].astype(np.float64).tolist(),
            "energy_spread": float(energy_spread(energies)[0]),
            "energy_spread_per_sqrt_atom": float(
                energy_spread_per_sqrt_atom(energies, trajectory.forces.shape[1])[0]
            ),
            "force_spread_max": largest,
            "force_spread_mean": float(trajectory.mean_force_spread[index]),
            "force_bound": bound if bound is not None and np.isfinite(bound) else None,
        },
    }


def _numbers(decisions: Sequence[Decision], band: Band) -> dict[str, Any]:
    counts = {f"{action} ({rule})": n for (action, rule), n in sorted(tally(decisions).items())}
    return {
        "frames": len(decisions),
        "counts": counts,
        "threshold_low": band.lower,
        "threshold_high": band.upper if np.isfinite(band.upper) else None,
        "threshold_rule": band.rule,
    }
