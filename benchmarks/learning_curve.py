"""The learning curve of one or several campaigns, from their ledgers, as a table and a picture.

    python benchmarks/learning_curve.py CAMPAIGN_DIRECTORY ... [-o learning_curve.png]

The error is that of the audit: frames drawn at random from trajectories of the committee of the
time, which no committee was ever trained on. To compare policies fairly each campaign's final
committee can also be judged on the audit frames of all of them (--cross).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from alloop.artifacts import ArtifactStore
from alloop.datasets import Dataset, load_dataset
from alloop.report.status import status
from alloop_db.ledger import open_readonly
from alloop_tasks.evaluate import judge_audit


def main() -> None:
    """Print the table and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("campaigns", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--cross", action="store_true", help="judge all on the audits of all")
    options = parser.parse_args()
    curves = {path: _curve(path) for path in options.campaigns}
    for path, points in curves.items():
        print(f"{path}")
        print("  generation  labels  audit force RMSE / eV/Å [interval]  frames  trajectories")
        for p in points:
            interval = f"[{_number(p['force_low'])}, {_number(p['force_high'])}]"
            print(
                f"  {p['generation']:10d}  {p['labels']:6d}  {p['force_rmse']:8.4f} {interval:>20}"
                f"  {p['n_frames']:16d}  {p['n_groups']:12d}"
            )
    if options.output:
        _draw(curves, options.output)
        print(f"wrote {options.output}")
    if options.cross:
        _cross(options.campaigns)


def _curve(directory: Path) -> list[dict[str, Any]]:
    points = []
    for entry in status(open_readonly(directory))["generations"]:
        if audit := entry["errors"].get("audit"):
            head = {"generation": entry["generation"], "labels": entry["training_labels"]}
            points.append(head | audit)
    return points


def _cross(directories: list[Path]) -> None:
    """Judge the last committee of each campaign on the audit frames of every campaign."""
    for judged in directories:
        for judge in directories:
            error = judge_last(judged, judge)
            print(
                f"{judged} on the audit of {judge}: {error['force_rmse']:.4f}"
                f" [{_number(error['force_low'])}, {_number(error['force_high'])}] eV/Å"
                f" ({error['n_frames']} frames)"
            )


def judge_last(judged: Path, judge: Path) -> dict[str, Any]:
    """Return the error of a campaign's last committee on the audit frames of a campaign."""
    return judge_audit(_last_members(judged), _last_audit(judge))


def _last_members(directory: Path) -> list[Path]:
    sql = (
        "SELECT a.sha256 FROM committee_member JOIN model USING (model_id)"
        " JOIN artifact a ON a.artifact_id = model.artifact_id WHERE committee_id ="
        " (SELECT MAX(committee_id) FROM committee) ORDER BY position"
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


def _draw(curves: dict[Path, list[dict[str, Any]]], output: Path) -> None:
    mpl.use("Agg")
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for path, points in curves.items():
        x = [p["labels"] for p in points]
        y = [p["force_rmse"] for p in points]
        low = [p["force_rmse"] - (p["force_low"] or p["force_rmse"]) for p in points]
        high = [(p["force_high"] or p["force_rmse"]) - p["force_rmse"] for p in points]
        axes.errorbar(x, y, yerr=(low, high), marker="o", capsize=3, label=path.name)
    axes.set(
        xlabel="labels trained on",
        ylabel="audit force RMSE / eV/Å",
        yscale="log",
    )
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(output, dpi=120)


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    main()
