"""A small but complete ledger of a made-up campaign on water, for tests of SQL.

Reference: harmonic springs to a rest geometry; predictions: the same with a spring too stiff by
a known part, so that every error in the ledger has a value that can be worked out by hand.
``python -m tests.ledger_sample PATH`` writes it to a file, for tests/regression/ledgers/.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from alloop_db import schema as t
from alloop_db.arrays import floats_to_blob, integers_to_blob
from alloop_db.ledger import LEDGER, open_ledger
from tests.ledger_rows import NUMBERS, REST, STIFFER, Rows, digest, instant, reference


def fill(engine: Engine, n_frames: int = 8) -> None:
    """Write the sample: 4 initial frames, ``n_frames`` found by committee 1, a 4D model, its probe.

    Of the frames found, every fourth is rejected, every fourth audited; the last selected one
    never converges, and the one before needed two tries.
    """
    with engine.begin() as connection:
        filler = Rows(connection)
        _begin(filler)
        _generation_zero(filler)
        _generation_one(filler, n_frames)


def _begin(filler: Rows) -> None:
    filler.add(
        t.CampaignRow,
        {
            "campaign_id": 1,
            "name": "water",
            "seed": 7,
            "created_at": instant(0),
            "alloop_version": "0.1.0",
            "state": "converged",
            "exit_code": 0,
            "verdict": "converged: audit force RMSE below target",
            "epoch": 1,
            "seconds": 120.0,
        },
    )
    filler.add(
        t.ConfigVersion,
        {
            "sha256": digest("config"),
            "source": "schema: 1\n",
            "resolved": {"schema": 1},
            "changes": None,
            "created_at": instant(0),
        },
    )
    filler.add(
        t.Environment,
        {
            "environment_id": 1,
            "sha256": digest("environment"),
            "host": "node1",
            "python": "3.11.7",
            "platform": "Linux x86_64",
            "packages": {"tblite": "0.8.0", "torch": "2.13.0"},
            "git": "0123abc",
            "threads": 1,
        },
    )
    filler.add(
        t.LevelOfTheory,
        {
            "level_of_theory_id": 1,
            "name": "GFN2-xTB",
            "tier": "xtb",
            "method": {"engine": "tblite", "model": "GFN2-xTB"},
        },
    )
    filler.task(1, "prepare", 0)
    filler.artifact(1, "preparation", ".npz", 1, digest("preparation"))
    filler.add(
        t.System,
        {
            "system_id": 1,
            "name": "water",
            "formula": "H2O",
            "n_atoms": 3,
            "charge": 0,
            "multiplicity": 1,
            "numbers": integers_to_blob(NUMBERS),
            "positions": floats_to_blob(REST),
            "cell": None,
            "pbc": "FFF",
            "artifact_id": 1,
        },
    )
    filler.add(
        t.Event,
        {"at": instant(0), "kind": "start", "text": "campaign water begins", "details": None},
    )


def _generation_zero(filler: Rows) -> None:
    filler.add(
        t.Generation,
        {
            "generation_id": 1,
            "number": 0,
            "level_of_theory_id": 1,
            "state": "closed",
            "committee_id": None,
            "numbers": {},
            "opened_at": instant(1),
            "closed_at": instant(40),
        },
    )
    filler.task(2, "label", 0)
    for frame_id in range(1, 5):
        split = "validation" if frame_id == 4 else "train"
        positions = filler.frame(frame_id, generation_id=1, source="wigner", split=split)
        filler.decide(frame_id, 1, 1, "initial")
        filler.label(frame_id, positions, 1)
    filler.task(3, "train", 0)
    filler.artifact(2, "snapshot", ".npz", 2, digest("dataset 1"))
    filler.snapshot(1, [(1, "train"), (2, "train"), (3, "train"), (4, "validation")], 2)
    for model_id in (1, 2, 3):
        filler.model(model_id, 1, None, 3)
    filler.add(
        t.AtomEnergy,
        {"level_of_theory_id": 1, "snapshot_id": 1, "number": 1, "energy": -10.7},
        {"level_of_theory_id": 1, "snapshot_id": 1, "number": 8, "energy": -102.6},
    )
    filler.committee(1, (1, 2, 3))
    filler.judge(1, 0.4)


def _generation_one(filler: Rows, n_frames: int) -> None:
    filler.add(
        t.Generation,
        {
            "generation_id": 2,
            "number": 1,
            "level_of_theory_id": 1,
            "state": "open",
            "committee_id": 1,
            "numbers": {"water": {"considered": n_frames}},
            "opened_at": instant(40),
            "closed_at": None,
        },
    )
    filler.task(6, "explore", 1)
    filler.task(7, "select", 1)
    filler.task(8, "label", 1, tries=1, error_class="TaskError", error_text="node1 went away")
    filler.artifact(3, "trajectory", ".h5", 6, digest("shard"))
    _trajectories(filler)
    positions = _found_frames(filler, n_frames)
    chosen = [frame for frame in positions if frame % 4 != 2]
    selected = [frame for frame in chosen if frame % 4 != 3]
    failures = dict.fromkeys(chosen, 0) | {selected[-1]: 3, selected[-2]: 1}
    for frame_id in chosen:
        filler.label(frame_id, positions[frame_id], 2, failures[frame_id])
    members = [(1, "train"), (2, "train"), (3, "train"), (4, "validation")]
    members += [(frame, "train") for frame in selected[:-1]]
    filler.task(9, "train", 1)
    filler.artifact(4, "snapshot", ".npz", 8, digest("dataset 2"))
    filler.snapshot(2, members, 4)
    for model_id in (4, 5, 6):
        filler.model(model_id, 2, model_id - 3, 9)
    filler.committee(2, (4, 5, 6))
    filler.judge(2, 0.2)
    _second_tier(filler)
    filler.task(10, "fit_spacetime", 1)
    filler.artifact(5, "spacetime_model", ".pt", 10, digest("spacetime"))
    filler.add(
        t.SpacetimeModel,
        {
            "spacetime_model_id": 1,
            "artifact_id": 5,
            "system_id": 1,
            "committee_id": 1,
            "generation_id": 2,
            "task_id": 10,
            "cutoff": 10.0,
            "seed": 5,
            "metrics": {"rmsd": 0.02, "test": {"ensemble": {"bond": 0.002}}},
            "status": "promoted",
            "reason": "the first of its system",
            "parent_spacetime_model_id": None,
        },
    )
    filler.add(
        t.SpacetimeTrajectory,
        {"spacetime_model_id": 1, "trajectory_id": 1, "split": "train"},
        {"spacetime_model_id": 1, "trajectory_id": 2, "split": "audit"},
    )
    _probe(filler)


def _second_tier(filler: Rows) -> None:
    """Choose two frames for a better method, and score two ways to learn from them."""
    filler.add(
        t.LevelOfTheory,
        {
            "level_of_theory_id": 2,
            "name": "wB97X/6-31G*",
            "tier": "dft",
            "method": {"engine": "pyscf", "model": "wB97X/6-31G*"},
        },
    )
    filler.task(13, "promote", 1)
    filler.add(
        t.Promotion,
        {
            "generation_id": 2,
            "level_of_theory_id": 2,
            "task_id": 13,
            "policy": "value_per_cost",
            "n_candidates": 8,
            "n_promoted": 2,
            "seconds": 40.0,
            "seconds_low": 30.0,
            "seconds_high": 55.0,
            "expected_ratio": 0.6,
            "numbers": {"cost_exponent": 3.0},
        },
    )
    filler.task(14, "score", 1)
    score = {
        "generation_id": 2,
        "task_id": 14,
        "split": "audit",
        "n_frames": 2,
        "n_groups": 1,
    }
    filler.add(
        t.ModeScore,
        score
        | {"mode": "finetune", "force_rmse": 0.1, "energy_rmse": 0.002}
        | {"relative": 1.0, "promoted": True},
        score
        | {"mode": "scratch", "force_rmse": 0.3, "energy_rmse": 0.006}
        | {"relative": 3.0, "promoted": False},
    )


def _trajectories(filler: Rows) -> None:
    for replica, (split, reason) in enumerate((("train", "completed"), ("audit", "contact"))):
        _trajectory(
            filler,
            trajectory_id=replica + 1,
            artifact_id=3,
            replica=replica,
            task_id=6,
            route="warm",
            split=split,
            n_stable=400 if reason == "completed" else 250,
            reason=reason,
        )


def _trajectory(filler: Rows, **more: Any) -> None:
    row = {
        "replica": 0,
        "system_id": 1,
        "generation_id": 2,
        "committee_id": 1,
        "ensemble": "nve",
        "temperature": 300.0,
        "timestep": 0.5,
        "seed": str(499 + more["trajectory_id"]),
        "split": "train",
        "n_frames": 400,
        "n_stable": 400,
        "duration": 200.0,
        "reason": "completed",
    }
    filler.add(t.Trajectory, row | more)


def _probe(filler: Rows) -> None:
    """Probe the 4D model, begin a trajectory at one of two flagged segments, and refit."""
    filler.task(11, "probe_spacetime", 1)
    filler.artifact(6, "trajectory", ".h5", 11, digest("probe"))
    filler.add(
        t.SpacetimeProbe,
        {
            "spacetime_probe_id": 1,
            "spacetime_model_id": 1,
            "committee_id": 1,
            "generation_id": 2,
            "task_id": 11,
            "artifact_id": 6,
            "n_replicas": 4,
            "n_segments": 40,
            "n_flagged": 2,
            "flagged": {"spread": 2, "round_trip": 1},
            "thresholds": {"limits": {"spread": 0.01}},
            "numbers": {"ended": {"completed": 4}},
            "segments": [{"replica": 2, "time": 50.0}],
        },
    )
    _trajectory(filler, trajectory_id=3, artifact_id=6, task_id=11, route="4d")
    filler.task(12, "fit_spacetime", 1)
    filler.artifact(7, "spacetime_model", ".pt", 12, digest("refitted"))
    filler.add(
        t.SpacetimeModel,
        {
            "spacetime_model_id": 2,
            "artifact_id": 7,
            "system_id": 1,
            "committee_id": 1,
            "generation_id": 2,
            "task_id": 12,
            "cutoff": 10.0,
            "seed": 6,
            "metrics": {"test": {"ensemble": {"bond": 0.003}}},
            "status": "held_back",
            "reason": "bond 0.0030 Å against 0.0020 Å",
            "parent_spacetime_model_id": 1,
        },
    )
    filler.add(
        t.SpacetimeTrajectory,
        {"spacetime_model_id": 2, "trajectory_id": 1, "split": "train"},
        {"spacetime_model_id": 2, "trajectory_id": 3, "split": "train"},
    )
    filler.add(
        t.SpacetimeExclusion, {"spacetime_model_id": 2, "trajectory_id": 2, "reason": "contact"}
    )


def _found_frames(filler: Rows, n_frames: int) -> dict[int, Any]:
    positions = {}
    for frame_id in range(5, 5 + n_frames):
        audit = frame_id % 4 == 3
        positions[frame_id] = filler.frame(
            frame_id,
            generation_id=2,
            trajectory_id=2 if audit else 1,
            step=10 * frame_id,
            time=5.0 * frame_id,
            source="warm",
            split="audit" if audit else "train",
        )
        energy, forces = reference(positions[frame_id], STIFFER)
        filler.add(
            t.Prediction,
            {
                "frame_id": frame_id,
                "committee_id": 1,
                "energy": energy,
                "forces": floats_to_blob(forces),
                "energy_spread": 0.03,
                "energy_spread_per_sqrt_atom": 0.03 / 3**0.5,
                "force_spread_max": 0.3 + 0.01 * frame_id,
                "force_spread_mean": 0.2,
                "force_bound": 0.9,
            },
        )
        action = "audit" if audit else "rejected" if frame_id % 4 == 2 else "selected"
        filler.decide(frame_id, 2, 7, action)
    return positions


def compact(target: Path) -> None:
    """Write the sample as one small file."""
    with tempfile.TemporaryDirectory() as folder:
        engine = open_ledger(Path(folder), create=True)
        fill(engine)
        engine.dispose()
        source = sqlite3.connect(Path(folder) / LEDGER)
        source.execute("PRAGMA journal_mode=DELETE")
        source.execute("PRAGMA page_size=512")  # 80 tables and indexes, few rows in each
        source.execute("VACUUM INTO ?", (str(target),))
        source.close()


@cache
def _content() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        compact(Path(folder) / LEDGER)
        return (Path(folder) / LEDGER).read_bytes()


def write_sample(directory: Path) -> Path:
    """Write the sample as the ledger of a campaign directory and return the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / LEDGER).write_bytes(_content())
    return directory


if __name__ == "__main__":
    Path(sys.argv[1]).unlink(missing_ok=True)
    compact(Path(sys.argv[1]))
