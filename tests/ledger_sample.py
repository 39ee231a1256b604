"""A small but complete ledger of a made-up campaign on water, for tests of SQL.

Reference: harmonic springs to a rest geometry; predictions: the same with a spring too stiff by
a known part, so that every error in the ledger has a value that can be worked out by hand.
``python -m tests.ledger_sample PATH`` writes it to a file, for tests/regression/ledgers/.
"""

from __future__ import annotations

import hashlib
import sqlite3
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine, insert

from alloop.frames import Frame
from alloop_db import schema as t
from alloop_db.arrays import floats_to_blob, integers_to_blob
from alloop_db.ledger import LEDGER, open_ledger

NUMBERS = np.array([8, 1, 1])
REST = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
SPRING = 30.0
"""Stiffness of the reference, eV/Å²."""
STIFFER = 0.1
"""By which part the committee's spring is too stiff: its force error is this part of the force."""
OFFSET = -2000.0
"""Energy of the rest geometry, eV."""
WEIGHTS = tuple(f"weights of model {model}".encode() for model in range(1, 7))
"""The bytes of the weight files of models 1 to 6."""


def digest(*words: object) -> str:
    """Return a hash that stands for a file or a set."""
    return hashlib.sha256(" ".join(str(word) for word in words).encode()).hexdigest()


def instant(minute: int) -> str:
    """Return a fixed instant, so that the sample is the same each time."""
    return f"2026-01-01T{10 + minute // 60:02d}:{minute % 60:02d}:00.000+00:00"


def reference(positions: Any, stiffer: float = 0.0) -> tuple[float, Any]:
    """Return energy, eV, and forces, eV/Å, of the springs."""
    displacement = positions - REST
    spring = SPRING * (1.0 + stiffer)
    return OFFSET + 0.5 * spring * float((displacement**2).sum()), -spring * displacement


class _Filler:
    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.rng = np.random.default_rng(7)

    def add(self, table: type[t.Base], *rows: dict[str, Any]) -> None:
        self.connection.execute(insert(table), list(rows))

    def task(self, task_id: int, kind: str, generation: int, **more: Any) -> None:
        self.add(
            t.Task,
            {
                "task_id": task_id,
                "key": digest("task", task_id),
                "kind": kind,
                "generation": generation,
                "spec": {"kind": kind},
                "priority": generation,
                "status": "done",
                "tries": 0,
                "losses": 0,
                "epoch": 1,
                "created_at": instant(task_id),
                "submitted_at": instant(task_id),
                "started_at": instant(task_id),
                "finished_at": instant(task_id + 1),
                "seconds": 10.0,
                "cpu_seconds": 9.0,
                "host": "node1",
                "environment_id": 1,
                "error_class": None,
                "error_text": None,
            }
            | more,
        )

    def artifact(self, artifact_id: int, kind: str, suffix: str, task_id: int, sha: str) -> None:
        self.add(
            t.Artifact,
            {
                "artifact_id": artifact_id,
                "sha256": sha,
                "suffix": suffix,
                "kind": kind,
                "bytes": 100 * artifact_id,
                "created_at": instant(task_id),
                "task_id": task_id,
            },
        )

    def geometry(self) -> tuple[str, Any]:
        positions = REST + self.rng.normal(0.0, 0.05, REST.shape)
        return Frame(numbers=NUMBERS, positions=positions).key, positions

    def frame(self, frame_id: int, **more: Any) -> Any:
        key, positions = self.geometry()
        row = {
            "frame_id": frame_id,
            "key": key,
            "system_id": 1,
            "trajectory_id": None,
            "step": None,
            "time": None,
            "n_atoms": 3,
            "positions": floats_to_blob(positions),
            "cell": None,
        }
        self.add(t.FrameRow, row | more)
        return positions

    def decide(self, frame_id: int, generation_id: int, task_id: int, action: str) -> None:
        self.add(
            t.Decision,
            {
                "frame_id": frame_id,
                "generation_id": generation_id,
                "task_id": task_id,
                "action": action,
                "rule": "wigner" if action == "initial" else "band",
                "numbers": {"value": 0.4, "low": 0.1, "high": 1.5},
            },
        )

    def label(self, label_id: int, positions: Any, generation_id: int, failures: int = 0) -> None:
        """Add a label of the frame with the same number; ``failures`` of 3 are for good."""
        energy, forces = reference(positions)
        done = failures < 3
        self.add(
            t.LabelRow,
            {
                "label_id": label_id,
                "frame_id": label_id,
                "level_of_theory_id": 1,
                "generation_id": generation_id,
                "status": "done" if done else "failed",
                "tries": failures,
                "task_id": None,
                "energy": energy if done else None,
                "forces": floats_to_blob(forces) if done else None,
                "done_at": instant(label_id) if done else None,
            },
        )
        tries = failures + done
        for number in range(1, tries + 1):
            good = done and number == tries
            self.add(
                t.LabelAttempt,
                {
                    "label_id": label_id,
                    "number": number,
                    "status": "done" if good else "failed",
                    "error_class": None if good else "scf_not_converged",
                    "error_text": None if good else "no convergence in 250 iterations",
                    "seconds": 0.5 if good else 2.0,
                    "host": "node1",
                    "program": "tblite 0.8.0",
                    "environment_id": 1,
                    "task_id": 2 if generation_id == 1 else 8,
                    "attempted_at": instant(label_id),
                },
            )

    def snapshot(self, snapshot_id: int, labels: list[tuple[int, str]], artifact_id: int) -> None:
        self.add(
            t.Snapshot,
            {
                "snapshot_id": snapshot_id,
                "sha256": digest("snapshot", snapshot_id),
                "level_of_theory_id": 1,
                "generation_id": snapshot_id,
                "artifact_id": artifact_id,
                "held_out": None,
                "n_labels": len(labels),
                "sealed_at": None,
            },
        )
        self.add(
            t.SnapshotMember,
            *(
                {"snapshot_id": snapshot_id, "label_id": label, "split": split}
                for label, split in labels
            ),
        )
        self.connection.exec_driver_sql(
            "UPDATE snapshot SET sealed_at = ? WHERE snapshot_id = ?",
            (instant(30 * snapshot_id), snapshot_id),
        )

    def model(self, model_id: int, generation_id: int, parent: int | None, task_id: int) -> None:
        sha = hashlib.sha256(WEIGHTS[model_id - 1]).hexdigest()
        self.artifact(10 + model_id, "model", ".pt", task_id, sha)
        self.add(
            t.Model,
            {
                "model_id": model_id,
                "artifact_id": 10 + model_id,
                "snapshot_id": generation_id,
                "parent_model_id": parent,
                "generation_id": generation_id,
                "task_id": task_id,
                "member": f"ani/{(model_id - 1) % 3}",
                "kind": "ani",
                "architecture": {"kind": "ani", "size": "small"},
                "seed": 100 + model_id,
                "metrics": {"force_rmse": 0.2},
            },
        )

    def committee(self, committee_id: int, models: tuple[int, ...]) -> None:
        self.add(
            t.Committee,
            {
                "committee_id": committee_id,
                "sha256": digest("committee", *models),
                "generation_id": committee_id,
                "level_of_theory_id": 1,
                "created_at": instant(35 * committee_id),
            },
        )
        self.add(
            t.CommitteeMember,
            *(
                {"committee_id": committee_id, "position": place, "model_id": model}
                for place, model in enumerate(models)
            ),
        )

    def judge(self, committee_id: int, force_rmse: float) -> None:
        common = {
            "committee_id": committee_id,
            "generation_id": committee_id,
            "n_frames": 5,
            "n_groups": 2,
            "energy_rmse": 0.002,
            "confidence": 0.95,
        }
        self.add(
            t.Evaluation,
            *(
                common
                | {
                    "kind": kind,
                    "force_rmse": force_rmse * factor,
                    "force_low": 0.8 * force_rmse * factor,
                    "force_high": 1.2 * force_rmse * factor,
                    "coverage": 0.93,
                    "spearman": 0.6,
                }
                for kind, factor in (("audit", 1.0), ("prospective", 1.5), ("validation", 0.7))
            ),
        )
        self.add(
            t.Calibration,
            {
                "committee_id": committee_id,
                "measure": "force",
                "estimator": "small-committee",
                "n_members": 3,
                "alpha": 1.6,
                "alpha_low": 1.2,
                "alpha_high": 2.1,
                "quantile": 3.0,
                "level": 0.95,
                "confidence": 0.95,
                "n": 5,
                "n_groups": 2,
            },
        )


def fill(engine: Engine, n_frames: int = 8) -> None:
    """Write the sample: 4 initial frames, ``n_frames`` found by committee 1, a 4D model.

    Of the frames found, every fourth is rejected, every fourth audited; the last selected one
    never converges, and the one before needed two tries.
    """
    with engine.begin() as connection:
        filler = _Filler(connection)
        _begin(filler)
        _generation_zero(filler)
        _generation_one(filler, n_frames)


def _begin(filler: _Filler) -> None:
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


def _generation_zero(filler: _Filler) -> None:
    filler.add(
        t.Generation,
        {
            "generation_id": 1,
            "number": 0,
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


def _generation_one(filler: _Filler, n_frames: int) -> None:
    filler.add(
        t.Generation,
        {
            "generation_id": 2,
            "number": 1,
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
            "metrics": {"rmsd": 0.02},
        },
    )
    filler.add(
        t.SpacetimeTrajectory,
        {"spacetime_model_id": 1, "trajectory_id": 1, "split": "train"},
        {"spacetime_model_id": 1, "trajectory_id": 2, "split": "audit"},
    )


def _trajectories(filler: _Filler) -> None:
    for replica, (split, reason) in enumerate((("train", "complete"), ("audit", "contact"))):
        filler.add(
            t.Trajectory,
            {
                "trajectory_id": replica + 1,
                "artifact_id": 3,
                "replica": replica,
                "system_id": 1,
                "generation_id": 2,
                "committee_id": 1,
                "task_id": 6,
                "route": "warm",
                "ensemble": "nve",
                "temperature": 300.0,
                "timestep": 0.5,
                "seed": str(500 + replica),
                "split": split,
                "n_frames": 400,
                "n_stable": 400 if reason == "complete" else 250,
                "duration": 200.0,
                "reason": reason,
            },
        )


def _found_frames(filler: _Filler, n_frames: int) -> dict[int, Any]:
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
                "energy_spread_per_sqrt_atom": 0.03 / np.sqrt(3),
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
