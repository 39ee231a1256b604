"""The sample ledger grown by a whole second tier, whose every number can be worked out by hand.

Level 2 is the sample's springs made stiffer by GROWTH; its committee predicts these exactly but
for OFF, so its errors against labels of its own level differ from those against level 1.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine

from alloop_db import schema as t
from alloop_db.arrays import blob_to_vectors, floats_to_blob
from tests.ledger_rows import Rows, digest, instant, reference

GROWTH = 0.5
"""By which part the springs of level 2 are stiffer than those of level 1."""
OFF = 0.02
"""By which part the committee of level 2 makes them too stiff."""
PROMOTED = (1, 5, 8, 11)
"""Frames with a label of level 2: training, training, training, audit; another one failed."""
FAILED = 9
PAID = 36.0
"""Seconds of each done label of level 2 in generation 2; the failed one took PAID in vain."""


def add_tier(engine: Engine, *, forces: bool = True) -> None:
    """Add generations 2 and 3, turns of tier dft: promoted, labelled, learnt, judged.

    Without ``forces`` the labels of level 2 are energies alone, and so are the errors.
    """
    with engine.begin() as connection:
        filler = Rows(connection)
        connection.exec_driver_sql("UPDATE generation SET state = 'closed'")
        connection.exec_driver_sql("DELETE FROM promotion")
        connection.exec_driver_sql("DELETE FROM mode_score")
        for number, start in ((2, 50), (3, 60)):
            _generation(filler, number, start)
        _labels(filler, forces)
        _learn(filler, generation=3, committee=3, error=0.1 if forces else None, start=50)
        _learn(filler, generation=4, committee=4, error=0.04 if forces else None, start=60)
        for frame_id in (11, 12):
            _prediction(filler, frame_id)


def _generation(filler: Rows, number: int, start: int) -> None:
    filler.add(
        t.Generation,
        {
            "generation_id": number + 1,
            "number": number,
            "level_of_theory_id": 2,
            "state": "closed" if number == 2 else "open",
            "committee_id": 2 if number == 2 else None,
            "numbers": {},
            "opened_at": instant(start),
            "closed_at": instant(start + 9) if number == 2 else None,
        },
    )
    filler.task(start, "promote", number)
    filler.task(start + 1, "label", number)
    filler.task(start + 2, "transfer", number)
    filler.task(start + 3, "score", number)
    first = number == 2
    filler.add(
        t.Promotion,
        {
            "generation_id": number + 1,
            "level_of_theory_id": 2,
            "task_id": start,
            "policy": "value_per_cost",
            "n_candidates": 9 if first else 5,
            "n_promoted": 4 if first else 1,
            "seconds": None if first else 40.0,
            "seconds_low": None if first else 30.0,
            "seconds_high": None if first else 55.0,
            "expected_ratio": None if first else 0.6,
            "numbers": {},
        },
    )


def _labels(filler: Rows, forces: bool) -> None:
    for frame_id in (*PROMOTED, FAILED):
        generation = 4 if frame_id == 11 else 3
        task = 60 if generation == 4 else 50
        filler.add(
            t.Decision,
            {
                "frame_id": frame_id,
                "generation_id": generation,
                "task_id": task,
                "action": "promoted",
                "rule": "audit" if frame_id == 11 else "value_per_cost",
                "numbers": {"spread": 0.25, "reduction": 0.5, "value": 2.0, "tier": "dft"},
            },
        )
        positions = _positions(filler.connection, frame_id)
        energy, forces_here = reference(positions, GROWTH)
        done = frame_id != FAILED
        filler.add(
            t.LabelRow,
            {
                "label_id": 100 + frame_id,
                "frame_id": frame_id,
                "level_of_theory_id": 2,
                "generation_id": generation,
                "status": "done" if done else "failed",
                "tries": 0 if done else 1,
                "task_id": None,
                "energy": energy if done else None,
                "forces": floats_to_blob(forces_here) if done and forces else None,
                "diagnostics": (
                    {"gap": 10.0 - frame_id, "t1": 0.001 * frame_id, "n_basis": 25.0}
                    if done
                    else None
                ),
                "done_at": instant(task + 2) if done else None,
            },
        )
        filler.add(
            t.LabelAttempt,
            {
                "label_id": 100 + frame_id,
                "level_of_theory_id": 2,
                "number": 1,
                "status": "done" if done else "failed",
                "error_class": None if done else "scf_not_converged",
                "error_text": None if done else "SCF not converged in 50 cycles",
                "seconds": PAID,
                "host": "node1",
                "program": "pyscf 2.14",
                "environment_id": 1,
                "task_id": task + 1,
                "attempted_at": instant(task + 1),
            },
        )


def _learn(
    filler: Rows, *, generation: int, committee: int, error: float | None, start: int
) -> None:
    """Seal a training set, fit two modes of one member each, seat the one called delta."""
    snapshot = 10 * committee
    _seal(filler, generation, snapshot - 1, 1, (1, 2))  # what frames were promoted from
    _seal(filler, generation, snapshot, 2, (101, 105, 108))
    for place, mode in enumerate(("delta", "finetune")):
        model = 10 * committee + place
        filler.artifact(start + 1 + place, "model", ".pt", start + 2, digest(mode, committee))
        filler.add(
            t.Model,
            {
                "model_id": model,
                "artifact_id": start + 1 + place,
                "snapshot_id": snapshot,
                "parent_model_id": 4,
                "generation_id": generation,
                "task_id": start + 2,
                "member": "ani/0",
                "mode": mode,
                "kind": "ani",
                "architecture": {},
                "seed": 1000 * committee + place,
                "metrics": {},
            },
        )
        _score(filler, generation, start, mode, error)
    filler.add(
        t.Committee,
        {
            "committee_id": committee,
            "sha256": digest("committee", committee),
            "generation_id": generation,
            "level_of_theory_id": 2,
            "created_at": instant(start + 4),
        },
    )
    filler.add(
        t.CommitteeMember,
        {"committee_id": committee, "position": 0, "model_id": 10 * committee},
    )
    filler.add(t.Evaluation, _audit(committee, generation, error))


def _seal(
    filler: Rows, generation: int, snapshot: int, level: int, labels: tuple[int, ...]
) -> None:
    filler.artifact(100 + snapshot, "snapshot", ".npz", 9, digest("dataset", snapshot))
    filler.add(
        t.Snapshot,
        {
            "snapshot_id": snapshot,
            "sha256": digest("snapshot", snapshot),
            "level_of_theory_id": level,
            "generation_id": generation,
            "artifact_id": 100 + snapshot,
            "held_out": None,
            "n_labels": len(labels),
            "sealed_at": None,
        },
    )
    filler.add(
        t.SnapshotMember,
        *({"snapshot_id": snapshot, "label_id": label, "split": "train"} for label in labels),
    )


def _score(filler: Rows, generation: int, start: int, mode: str, error: float | None) -> None:
    worse = 1.0 if mode == "delta" else 1.5
    filler.add(
        t.ModeScore,
        {
            "generation_id": generation,
            "task_id": start + 3,
            "mode": mode,
            "split": "audit",
            "n_frames": 2,
            "n_groups": 1,
            "force_rmse": None if error is None else worse * error,
            "energy_rmse": worse * 0.001,
            "relative": worse,
            "promoted": mode == "delta",
        },
    )


def _audit(committee: int, generation: int, error: float | None) -> dict[str, Any]:
    return {
        "committee_id": committee,
        "generation_id": generation,
        "kind": "audit",
        "n_frames": 2,
        "n_groups": 1,
        "force_rmse": error,
        "force_low": None if error is None else 0.9 * error,
        "force_high": None if error is None else 1.1 * error,
        "energy_rmse": 0.004 / committee,
        "confidence": 0.95,
        "coverage": None,
        "spearman": None,
    }


def _prediction(filler: Rows, frame_id: int) -> None:
    """Let committee 3 speak of a frame: of level 2, which only the first of them has a label of."""
    positions = _positions(filler.connection, frame_id)
    energy, forces = reference(positions, (1.0 + GROWTH) * (1.0 + OFF) - 1.0)
    filler.add(
        t.Prediction,
        {
            "frame_id": frame_id,
            "committee_id": 3,
            "energy": energy,
            "forces": floats_to_blob(forces),
            "energy_spread": 0.01,
            "energy_spread_per_sqrt_atom": 0.01,
            "force_spread_max": 0.05,
            "force_spread_mean": 0.04,
            "force_bound": None,
        },
    )


def _positions(connection: Connection, frame_id: int) -> Any:
    found = connection.exec_driver_sql(
        "SELECT positions FROM frame WHERE frame_id = ?", (frame_id,)
    )
    return blob_to_vectors(found.scalar_one())
