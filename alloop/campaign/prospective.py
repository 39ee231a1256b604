"""Every label is first a blind test of the committee that chose its frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, select

from alloop.acquisition.intervals import rmse_interval
from alloop.acquisition.ranking import rank_correlation
from alloop_db import schema as t
from alloop_db.arrays import blob_to_vectors
from alloop_tasks.workspace import without_nan

_AUDIT = ("audit",)
KINDS = {"prospective": ("selected",), "prospective_audit": _AUDIT}
"""Evaluation -> the decisions whose frames it is about, in the first tier."""
KINDS_ABOVE = {"prospective": ("value_per_cost", "random"), "prospective_audit": _AUDIT}
"""The same in a higher tier, by the rules of its promotions."""


def prospective(
    engine: Engine, number: int, committee_id: int, confidence: float, *, promoted: bool
) -> list[dict[str, Any]]:
    """Compare what a committee predicted in a generation with the labels that came.

    Returns rows of the table ``evaluation``: ``prospective`` for the frames chosen for what they
    teach, ``prospective_audit`` for those drawn at random. With ``promoted`` those of a higher
    tier, which were promoted. Only labels of the committee's own level of theory count.
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
                t.FrameRow.key,
                t.Decision.action,
                t.Decision.rule,
            )
            .join(t.FrameRow, t.FrameRow.frame_id == t.Prediction.frame_id)
            .join(t.Committee, t.Committee.committee_id == t.Prediction.committee_id)
            .join(
                t.LabelRow,
                (t.LabelRow.frame_id == t.FrameRow.frame_id)
                & (t.LabelRow.level_of_theory_id == t.Committee.level_of_theory_id),
            )
            .join(t.Decision, t.Decision.frame_id == t.FrameRow.frame_id)
            .join(t.Generation, t.Generation.generation_id == t.Decision.generation_id)
            .where(
                t.Generation.number == number,
                t.Committee.committee_id == committee_id,
                t.LabelRow.status == "done",
                (t.Decision.action == "promoted") == promoted,
            )
            .order_by(t.FrameRow.key)
        ).all()
    evaluations = []
    for kind, meant in (KINDS_ABOVE if promoted else KINDS).items():
        chosen = [row for row in rows if (row.rule if promoted else row.action) in meant]
        if chosen:
            evaluations.append(without_nan(_compare(kind, chosen, confidence)))
    return evaluations


def _compare(kind: str, rows: list[Any], confidence: float) -> dict[str, Any]:
    energies = np.array([(row.energy - row.true_energy) / row.n_atoms for row in rows])
    # Frames of the initial set are of no trajectory, and groups of their own.
    groups = np.array([str(row.trajectory_id or f"frame {row.key}") for row in rows])
    about = {"kind": kind, "confidence": confidence, **dict.fromkeys(_OF_FORCES)}
    about["energy_rmse"] = float(np.sqrt(np.mean(energies**2)))
    about |= {"n_frames": len(rows), "n_groups": len(set(groups))}
    with_forces = [row.true_forces is not None for row in rows]
    if all(with_forces):
        about |= _of_forces(rows, groups, confidence)
    return about


_OF_FORCES = ("force_rmse", "force_low", "force_high", "coverage", "spearman")


def _of_forces(rows: list[Any], groups: NDArray[np.str_], confidence: float) -> dict[str, Any]:
    squares = np.array(
        [
            np.mean((blob_to_vectors(row.forces) - blob_to_vectors(row.true_forces)) ** 2)
            for row in rows
        ]
    )
    interval = rmse_interval(squares, np.unique(groups, return_inverse=True)[1], confidence)
    errors = np.sqrt(squares)
    bounded = [(e, row.force_bound) for e, row in zip(errors, rows, strict=True) if row.force_bound]
    spreads = np.array([row.force_spread_max for row in rows])
    return {
        "force_rmse": interval.value,
        "force_low": interval.low,
        "force_high": interval.high,
        "coverage": float(np.mean([e <= b for e, b in bounded])) if bounded else None,
        "spearman": rank_correlation(spreads, errors),
    }
