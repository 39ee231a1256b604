"""A status in plain text."""

from __future__ import annotations

from typing import Any


def status_text(summary: dict[str, Any]) -> str:
    """Return a status summary as lines for people."""
    lines = [
        f"{summary['name']}: {summary['state']}"
        + (f", driven by {summary['driver']}" if summary["driver"] else ", nobody drives it"),
    ]
    if summary["verdict"]:
        lines.append(summary["verdict"])
    lines += [
        f"generation {summary['generation']}, {summary['wall_seconds']:.0f} s of wall time",
        "labels: " + _listed(summary["labels"]),
    ]
    if summary["label_failures"]:
        lines.append("failed attempts by reason: " + _listed(summary["label_failures"]))
    lines.append("trajectories: " + _listed(summary["trajectories"]))
    for kind, states in summary["tasks"].items():
        lines.append(f"  {kind}: {_listed(states)}")
    if summary["losses"]:
        lines.append(f"tasks lost with their worker or driver and repeated: {summary['losses']}")
    lines += ["", *_table(summary["generations"])]
    lines += [_spacetime(model) for model in summary["spacetime_models"]]
    return "\n".join(lines)


def _table(generations: list[dict[str, Any]]) -> list[str]:
    heads = ("generation", "labels", "failed", "trained on", "audit force RMSE", "blind", "audit n")
    rows = [heads]
    for entry in generations:
        audit, blind = entry["errors"].get("audit"), entry["errors"].get("prospective")
        rows.append(
            (
                str(entry["generation"]),
                str(entry["labels"]),
                str(entry["failed"]),
                _or_dash(entry["training_labels"]),
                _error(audit),
                _error(blind),
                _or_dash(audit["n_frames"] if audit else None),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    return ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]


def _spacetime(model: dict[str, Any]) -> str:
    head = (
        f"4D model of {model['system']} after generation {model['generation']}"
        f" (to {model['cutoff_fs']:g} fs, {model['sha256'][:12]})"
    )
    test = model["metrics"].get("test")
    if test is None:
        return f"{head}: no trajectory was left to test it on"
    units = {"bond": "Å", "angle": "rad", "dihedral": "rad"}
    errors = ", ".join(
        f"{name} {test['ensemble'][name]:.4f} {unit} (ballistic {test['ballistic'][name]:.3f})"
        for name, unit in units.items()
        if name in test["ensemble"]
    )
    return (
        f"{head}: on {test['n_segments']} segments of {test['n_trajectories']} trajectories it has"
        f" not seen, {errors}"
    )


def _error(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "-"
    interval = ""
    if entry["force_low"] is not None and entry["force_high"] is not None:
        interval = f" [{entry['force_low']:.3f}, {entry['force_high']:.3f}]"
    return f"{entry['force_rmse']:.3f}{interval} eV/Å"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"


def _or_dash(value: Any) -> str:
    return "-" if value is None else str(value)
