"""Run molecular dynamics on a committee."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import atomic_masses

from alloop.datasets import Dataset, load_dataset
from alloop.dynamics.health import HealthLimits
from alloop.dynamics.initial import maxwell_boltzmann, thermal, wigner
from alloop.dynamics.md import MdSettings, run_md
from alloop.potentials.committee import load_committee
from alloop.trajectories import Trajectory, write_shard
from alloop.units import KB
from alloop_tasks import deadlines
from alloop_tasks.prepare import load_modes
from alloop_tasks.systems import frame_of
from alloop_tasks.workspace import Workspace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Starts = tuple[NDArray[np.float64], NDArray[np.float64]]


FEWEST_STARTS = 10
"""Starts to draw from, however hot they are."""


def run(spec: dict[str, Any], workspace: Workspace) -> dict[str, Any]:
    """Propagate the spec's replicas side by side and keep them in one shard.

    A replica that breaks costs that replica only; how each ended is in its row of ``replicas``.
    The dynamics leave checkpoints: a task that is killed, or laid down because its block ends,
    goes on where it was.
    """
    frame = frame_of(spec["system"])
    replicas = spec["replicas"]
    settings = MdSettings(
        ensemble=spec["ensemble"],
        timestep=spec["timestep"],
        n_steps=spec["n_steps"],
        record_every=spec["record_every"],
        temperatures=tuple(replica["temperature"] for replica in replicas),
        seeds=tuple(int(replica["seed"]) for replica in replicas),
        friction=spec["friction"] if spec["ensemble"] == "nvt" else None,
    )
    limits = spec["health"] | ({} if spec["bonds_hold"] else {"max_stretch": None})
    positions, velocities = draw_starts(spec, workspace)
    trajectories = run_md(
        load_committee([workspace.input(sha256, ".pt") for sha256 in spec["committee"]]),
        frame.numbers,
        positions,
        velocities,
        atomic_masses[frame.numbers],
        settings,
        HealthLimits(**limits),
        cell=frame.cell,
        reference=frame.positions,
        on_progress=lambda step, alive: workspace.progress(
            step, spec["n_steps"], f"{alive} of {len(replicas)} replicas"
        ),
        checkpoint=workspace.checkpoint,
        lay_down_at=deadlines.deadline(),
    )
    artifact = workspace.add("trajectory", ".h5", lambda path: write_shard(path, trajectories))
    rows = zip(replicas, trajectories, strict=True)
    return {
        "artifact": artifact,
        "replicas": [replica | how_it_ended(trajectory) for replica, trajectory in rows],
    }


def how_it_ended(trajectory: Trajectory) -> dict[str, Any]:
    """Return what the ledger keeps of a trajectory."""
    about = trajectory.about
    return {
        "n_frames": trajectory.n_frames,
        "n_stable": int(np.count_nonzero(~trajectory.pre_failure)),
        "duration": about.ended_step * about.timestep,
        "reason": about.ended,
    }


def draw_starts(spec: dict[str, Any], workspace: Workspace) -> Starts:
    """Draw the start of each replica from its own seed, whatever batch it runs in."""
    frame = frame_of(spec["system"])
    if spec["start"] == "frames":
        data = load_dataset(workspace.input(spec["snapshot"], ".npz"))
        known = data.where(split="train", system=spec["system"]["name"])
        draws = [_from_frames(known, replica) for replica in spec["replicas"]]
    else:
        modes = load_modes(workspace.input(spec["preparation"], ".npz"), frame)
        sampler = wigner if spec["start"] == "wigner" else thermal
        draws = [
            sampler(modes, replica["temperature"], 1, np.random.default_rng(int(replica["seed"])))
            for replica in spec["replicas"]
        ]
    return np.concatenate([d[0] for d in draws]), np.concatenate([d[1] for d in draws])


def _from_frames(known: Dataset, replica: dict[str, Any]) -> Starts:
    rng = np.random.default_rng(int(replica["seed"]))
    plausible = plausible_starts(known, replica["temperature"])
    start = known.frames[int(rng.choice(plausible))]
    masses = atomic_masses[start.numbers]
    velocities = maxwell_boltzmann(masses, replica["temperature"], 1, rng, start.positions)
    return start.positions[None], velocities


def plausible_starts(known: Dataset, temperature: float) -> NDArray[np.int64]:
    """Return the frames of one system in which a run at a temperature (K) may begin.

    Training sets are full of strained geometries, whose energy would heat a small molecule far
    beyond its thermostat. The potential energy of f harmonic degrees of freedom is f kT/2 with a
    standard deviation of sqrt(f/2) kT; what lies more than three of them above is left out,
    unless too few frames would be left.
    """
    freedom = max(1, 3 * known.frames[0].n_atoms - 6)
    limit = KB * temperature * (freedom / 2 + 3 * np.sqrt(freedom / 2))
    order = np.argsort(known.energies, kind="stable")
    within = np.count_nonzero(known.energies - known.energies.min() <= limit)
    return order[: max(within, FEWEST_STARTS)]
