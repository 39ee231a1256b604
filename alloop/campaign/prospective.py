"""Every label is first a blind test of the committee that chose its frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from sqlalchemy import Engine, select

from alloop.acquisition.intervals import rmse_interval
from alloop.acquisition.ranking import rank_correlation
from alloop_db import schema as t
from alloop_db.arrays import blob_to_vectors
from alloop_tasks.workspace import without_nan


def prospective(engine: Engine, number: int, confidence: float) -> list[dict[str, Any]]:
    """Compare what was predicted in a generation with the labels that came.

    Returns rows of the table ``evaluation``: ``prospective`` for the frames chosen because the
    committee disagreed on them, ``prospective_audit`` for those drawn at random.
    """
    with engine.connect() as connection:
        rows = connection.execute(
            select(
                t.Prediction.energy,
                t.Prediction.forces,
                t.Prediction.force_spread_max,
                t.Prediction.force_bound,
                t.LabelRow.energy.label("true_energy"),
                t.LabelRow.forces.label("true_forces"),
                t.FrameRow.trajectory_id,
                t.FrameRow.n_atoms,
                t.Decision.action,
            )
            .join(t.FrameRow, t.FrameRow.frame_id == t.Prediction.frame_id)
            .join(t.LabelRow, t.LabelRow.frame_id == t.FrameRow.frame_id)
            .join(t.Decision, t.Decision.frame_id == t.FrameRow.frame_id)
            .join(t.Generation, t.Generation.generation_id == t.FrameRow.generation_id)
            .where(t.Generation.number == number, t.LabelRow.status == "done")
            .order_by(t.FrameRow.key)
        ).all()
    kinds = {"prospective": "selected", "prospective_audit": "audit"}
    return [
        without_nan(_compare(kind, chosen, confidence))
        for kind, action in kinds.items()
        if (chosen := [row for row in rows if row.action == action])
    ]


def _compare(kind: str, rows: list[Any], confidence: float) -> dict[str, Any]:
    squares = np.array(
        [
            np.mean((blob_to_vectors(row.forces) - blob_to_vectors(row.true_forces)) ** 2)
            for row in rows
        ]
    )
    interval = rmse_interval(squares, np.array([row.trajectory_id for row in rows]), confidence)
    energies = np.array([(row.energy - row.true_energy) / row.n_atoms for row in rows])
    errors = np.sqrt(squares)
    bounded = [(e, row.force_bound) for e, row in zip(errors, rows, strict=True) if row.force_bound]
    spreads = np.array([row.force_spread_max for row in rows])
    return {
        "kind": kind,
        "n_frames": interval.n,
        "n_groups": interval.n_groups,
        "force_rmse": interval.value,
        "force_low": interval.low,
        "force_high": interval.high,
        "energy_rmse": float(np.sqrt(np.mean(energies**2))),
        "confidence": confidence,
        "coverage": float(np.mean([e <= b for e, b in bounded])) if bounded else None,
        "spearman": rank_correlation(spreads, errors),
    }
