"""Rows of a made-up campaign on water: what tests/ledger_sample.py is put together from."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from sqlalchemy import Connection, insert

from alloop.frames import Frame
from alloop_db import schema as t
from alloop_db.arrays import floats_to_blob

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


def frame_row(number: int) -> t.FrameRow:
    """Return a frame of generation 0, told apart from others by its number."""
    return t.FrameRow(
        key=f"{number:064x}",
        system_id=1,
        generation_id=1,
        source="wigner",
        split="train",
        n_atoms=3,
        positions=floats_to_blob(REST + number),
    )


class Rows:
    """Adds rows, with everything that a test does not care about filled in."""

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
                    "level_of_theory_id": 1,
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
                "mode": "plain",
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
