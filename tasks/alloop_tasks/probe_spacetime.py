"""Find motion that a 4D model cannot do, and run the committee from there."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ase.data import atomic_masses
from torch import Tensor

from alloop import seeds
from alloop.acquisition.splits import split_frames
from alloop.dynamics.health import HealthLimits
from alloop.dynamics.md import MdSettings, run_md
from alloop.errors import SpacetimeError
from alloop.potentials.committee import load_committee
from alloop.spacetime.files import load_model
from alloop.spacetime.judging.disagreement import Signals, Thresholds, flag, signals
from alloop.spacetime.propagation.energy_rules import PropagationSettings
from alloop.spacetime.propagation.propagate import propagate
from alloop.spacetime.surface import CommitteeSurface
from alloop.trajectories import Trajectory, write_shard
from alloop_tasks import deadlines
from alloop_tasks.explore import draw_starts, how_it_ended
from alloop_tasks.systems import frame_of
from alloop_tasks.workspace import Workspace, without_nan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alloop.potentials.evaluation import Committee
    from alloop.spacetime.model import SpacetimeModel

APART = 5
"""Segments of one replica that are nearer than this to each other are much the same motion."""
QUANTILES = (0.5, 0.9, 0.99, 1.0)
"""Of each signal, for people."""


@dataclass(frozen=True, slots=True, eq=False)
class _Segments:
    """Starts of segments that a 4D model has come to, by replica and time.

    Attributes
    ----------
    positions, velocities : (n, n_atoms, 3) float64, Å and Å/fs.
    places : of each the replica and which segment of it.
    last : of each why its replica ended within it, None where it did not.
    ended : how many replicas ended how.

    """

    positions: Tensor
    velocities: Tensor
    places: list[tuple[int, int]]
    last: list[str | None]
    ended: dict[str, int]


def run(spec: dict[str, Any], workspace: Workspace) -> dict[str, Any]:
    """Propagate replicas with the 4D model and begin trajectories at the worst flagged segments.

    A replica that ends early is a finding, not a fault: the segment that it ended in is flagged.
    """
    model = load_model(workspace.input(spec["model"], ".pt"))
    committee = load_committee([workspace.input(sha256, ".pt") for sha256 in spec["committee"]])
    surface = CommitteeSurface(committee, np.array(spec["system"]["numbers"]))
    thresholds = Thresholds(**spec["thresholds"])
    positions, velocities = (torch.as_tensor(part) for part in draw_starts(spec, workspace))
    segments = _propagate(spec, model, surface, positions, velocities, workspace)
    found = signals(model, segments.positions, segments.velocities, surface)
    flagged = flag(found, thresholds).flagged | torch.tensor([r is not None for r in segments.last])
    excess = _excess(found, thresholds, segments)
    chosen = _choose(excess, flagged, segments.places, spec["reference"]["most"])
    replicas = _replicas(spec, [segments.places[i][0] for i in chosen])
    artifact = None
    if chosen:
        trajectories = _run_reference(spec, workspace, model, committee, segments, chosen, replicas)
        artifact = workspace.add("trajectory", ".h5", lambda path: write_shard(path, trajectories))
        replicas = [r | how_it_ended(t) for r, t in zip(replicas, trajectories, strict=True)]
    numbers = {"ended": segments.ended, "quantiles": _quantiles(found)}
    return {
        "artifact": artifact,
        "replicas": replicas,
        "n_replicas": len(spec["replicas"]),
        "n_segments": len(segments.places),
        "n_flagged": int(flagged.sum()),
        "flagged": _counts(found, thresholds, segments),
        "numbers": without_nan(numbers),
        "segments": [
            without_nan(_record(i, segments, found, excess, model.cutoff)) for i in chosen
        ],
    }


def _propagate(
    spec: dict[str, Any],
    model: SpacetimeModel,
    surface: CommitteeSurface,
    positions: Tensor,
    velocities: Tensor,
    workspace: Workspace,
) -> _Segments:
    """Follow the replicas on the shell of their energy; collect where their segments start."""
    n_segments = spec["segments"]
    if spec["duration"] is not None:
        n_segments = max(1, math.floor(spec["duration"] / model.cutoff + 1e-9))
    motion = propagate(
        model,
        positions,
        velocities,
        model.cutoff * torch.arange(n_segments + 1, dtype=torch.float64),
        surface=surface,
        settings=PropagationSettings(rule="shell"),
        on_progress=lambda done, total, going: workspace.progress(
            int(done), int(total), f"{going} of {len(positions)} replicas"
        ),
    )
    sound = [min(n, n_segments) for n in motion.n_frames.tolist()]
    places = [(replica, k) for replica, n in enumerate(sound) for k in range(n)]
    if not places:
        why = ", ".join(sorted({str(reason) for reason in motion.reasons}))
        raise SpacetimeError(
            f"4D probe: none of {len(sound)} starts is sound ({why}); let the nve route start"
            " elsewhere"
        )
    last = [motion.reasons[r] if k == sound[r] - 1 else None for r, k in places]
    rows, columns = torch.tensor(places).T
    return _Segments(
        motion.positions[rows, columns],
        motion.velocities[rows, columns],
        places,
        last,
        dict(Counter(reason or "completed" for reason in motion.reasons)),
    )


def _excess(found: Signals, thresholds: Thresholds, segments: _Segments) -> Tensor:
    """Return (n,) the largest signal over its limit; infinite where one is none or motion ended."""
    parts = [
        values.nan_to_num(nan=math.inf) / max(thresholds.limits[name], 1e-300)
        for name, values in found.by_name().items()
        if name in thresholds.limits
    ]
    worst = torch.stack(parts).amax(dim=0)
    ended = torch.tensor([reason is not None for reason in segments.last])
    return torch.where(ended, math.inf, worst)


def _choose(excess: Tensor, flagged: Tensor, places: list[tuple[int, int]], most: int) -> list[int]:
    """Return flagged segments: of each replica the worst, then its second, those well apart."""
    chosen: list[int] = []
    left = sorted(
        torch.nonzero(flagged).flatten().tolist(), key=lambda i: (-float(excess[i]), places[i])
    )
    while left and len(chosen) < most:
        taken = Counter(places[i][0] for i in chosen)
        best = min(left, key=lambda i: taken[places[i][0]])  # the first: they are sorted
        chosen.append(best)
        replica, segment = places[best]
        left = [i for i in left if places[i][0] != replica or abs(places[i][1] - segment) >= APART]
    return chosen


def _replicas(spec: dict[str, Any], probed: list[int]) -> list[dict[str, Any]]:
    """Return split, temperature and seed of the trajectories to begin, by the replica of each.

    Those of one replica share its split: they may pass through the same motion.
    """
    generator = seeds.generator(spec["seed"], "split")
    splits = split_frames([str(replica) for replica in probed], spec["fractions"], generator)
    return [
        {
            "replica": index,
            "split": splits[index],
            "temperature": spec["replicas"][replica]["temperature"],
            "seed": str(seeds.integer(spec["seed"], "reference", index)),
        }
        for index, replica in enumerate(probed)
    ]


def _run_reference(
    spec: dict[str, Any],
    workspace: Workspace,
    model: SpacetimeModel,
    committee: Committee,
    segments: _Segments,
    chosen: list[int],
    replicas: list[dict[str, Any]],
) -> list[Trajectory]:
    frame, reference = frame_of(spec["system"]), spec["reference"]
    interval = reference["timestep"] * reference["record_every"]
    n_records = math.ceil(reference["segments"] * model.cutoff / interval - 1e-6)
    settings = MdSettings(
        ensemble="nve",
        timestep=reference["timestep"],
        n_steps=n_records * reference["record_every"],
        record_every=reference["record_every"],
        temperatures=tuple(replica["temperature"] for replica in replicas),
        seeds=tuple(int(replica["seed"]) for replica in replicas),
    )
    limits = spec["health"] | ({} if spec["bonds_hold"] else {"max_stretch": None})
    return run_md(
        committee,
        frame.numbers,
        segments.positions[chosen],
        segments.velocities[chosen],
        atomic_masses[frame.numbers],
        settings,
        HealthLimits(**limits),
        reference=frame.positions,
        on_progress=lambda step, alive: workspace.progress(
            step, settings.n_steps, f"{alive} of {len(replicas)} reference trajectories"
        ),
        checkpoint=workspace.checkpoint,
        lay_down_at=deadlines.deadline(),
    )


def _counts(found: Signals, thresholds: Thresholds, segments: _Segments) -> dict[str, int]:
    """Return how many segments each signal flags; a segment may be flagged by several."""
    counts = {
        name: int((~(values <= thresholds.limits[name])).sum())
        for name, values in found.by_name().items()
        if name in thresholds.limits
    }
    return counts | {"ended": sum(reason is not None for reason in segments.last)}


def _quantiles(found: Signals) -> dict[str, dict[str, float]]:
    return {
        name: dict(zip(map(str, QUANTILES), _finite_quantiles(values), strict=True))
        for name, values in found.by_name().items()
    }


def _finite_quantiles(values: Tensor) -> Iterator[float]:
    known = values[torch.isfinite(values)].numpy()
    for level in QUANTILES:
        yield float(np.quantile(known, level)) if len(known) else math.nan


def _record(
    i: int, segments: _Segments, found: Signals, excess: Tensor, cutoff: float
) -> dict[str, Any]:
    """Return where a trajectory begins and why."""
    replica, segment = segments.places[i]
    return {
        "replica": replica,
        "time": segment * cutoff,
        "ended": segments.last[i],
        "excess": float(excess[i]),
        "signals": {name: float(values[i]) for name, values in found.by_name().items()},
    }
