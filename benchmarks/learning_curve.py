"""The learning curve of one or several campaigns, from their ledgers, as a table and a picture.

    python benchmarks/learning_curve.py CAMPAIGN_DIRECTORY ... [-o learning_curve.png]

Audit frames are drawn at random from trajectories that no committee is trained on. ``then`` is
the error that the campaign itself measured, on the audit frames it had at the time; ``now`` is the
error of the same committee on the audit frames of the whole campaign, so that all points of a curve
are judged by the same frames.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alloop.artifacts import ArtifactStore
from alloop.datasets import Dataset, load_dataset
from alloop.report.plots import Point, learning_curve
from alloop.report.status import status
from alloop_db.ledger import open_readonly
from alloop_tasks.evaluate import frame_errors, judge


def main() -> None:
    """Print the table and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("campaigns", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    curves = {path: _curve(path) for path in options.campaigns}
    for path, points in curves.items():
        print(f"{path}: audit force RMSE / eV/Å")
        print("  generation  labels        now              interval      then  frames then")
        for p in points:
            now, then = p["now"], p["then"] or {"force_rmse": math.nan, "n_frames": 0}
            interval = f"[{_number(now['force_low'])}, {_number(now['force_high'])}]"
            print(
                f"  {p['generation']:10d}  {p['labels']:6d}  {now['force_rmse']:9.4f}"
                f"  {interval:>20}  {then['force_rmse']:8.4f}  {then['n_frames']:11d}"
            )
    if options.output:
        drawn = {f"{path}, audit frames": _points(curve) for path, curve in curves.items()}
        learning_curve(drawn).savefig(options.output, dpi=120)
        print(f"wrote {options.output}")


def _curve(directory: Path) -> list[dict[str, Any]]:
    audit = _last_audit(directory)
    return [
        {
            "generation": entry["generation"],
            "labels": entry["training_labels"],
            "then": entry["errors"].get("audit"),
            "now": judge(_members(directory, entry["generation"]), audit),
        }
        for entry in status(open_readonly(directory))["generations"]
        if entry["training_labels"]
    ]


def errors_of_last(judged: Path, judge: Path) -> NDArray[np.float64]:
    """Return the errors of a campaign's last committee on the audit frames of a campaign."""
    last = status(open_readonly(judged))["generation"]
    return frame_errors(_members(judged, last), _last_audit(judge))


def _members(directory: Path, generation: int) -> list[Path]:
    sql = (
        "SELECT a.sha256 FROM committee_member JOIN model USING (model_id)"
        " JOIN artifact a ON a.artifact_id = model.artifact_id"
        " JOIN committee USING (committee_id)"
        " JOIN generation ON generation.generation_id = committee.generation_id"
        f" WHERE generation.number = {generation:d} ORDER BY position"
    )
    return _paths(directory, sql, ".pt")


def _last_audit(directory: Path) -> Dataset:
    sql = "SELECT held_out FROM snapshot ORDER BY snapshot_id DESC LIMIT 1"
    return load_dataset(_paths(directory, sql, ".npz")[0])


def _paths(directory: Path, sql: str, suffix: str) -> list[Path]:
    with open_readonly(directory).connect() as connection:
        digests = connection.exec_driver_sql(sql).scalars().all()
    store = ArtifactStore(directory / "artifacts")
    return [store.get(digest, suffix) for digest in digests]


def _points(curve: list[dict[str, Any]]) -> list[Point]:
    return [
        Point(p["labels"], p["now"]["force_rmse"], p["now"]["force_low"], p["now"]["force_high"])
        for p in curve
    ]


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    main()
