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
    for model in summary["spacetime_models"]:
        lines += _spacetime(model)
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
                error_words(audit),
                error_words(blind),
                _or_dash(audit["n_frames"] if audit else None),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    return ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]


def _spacetime(model: dict[str, Any]) -> list[str]:
    head = (
        f"4D model of {model['system']} after generation {model['generation']}"
        f" (to {model['cutoff_fs']:g} fs, {model['sha256'][:12]})"
    )
    lines = [
        f"{head}: {_spacetime_errors(model['metrics'].get('test'))}",
        f"  {model['status'].replace('_', ' ')}: {model['reason']}",
    ]
    if model["probe"]:
        lines.append(
            "  probed: {n_flagged} of {n_segments} segments flagged, {n_begun} reference"
            " trajectories begun there".format(**model["probe"])
        )
    return lines


def _spacetime_errors(test: dict[str, Any] | None) -> str:
    if test is None:
        return "no trajectory was left to test it on"
    units = {"bond": "Å", "angle": "rad", "dihedral": "rad"}
    errors = ", ".join(
        f"{name} {test['ensemble'][name]:.4f} {unit} (ballistic {test['ballistic'][name]:.3f})"
        for name, unit in units.items()
        if name in test["ensemble"]
    )
    return (
        f"on {test['n_segments']} segments of {test['n_trajectories']} trajectories it has not"
        f" seen, {errors}"
    )


def error_words(entry: dict[str, Any] | None) -> str:
    """Return a row of ``evaluation`` in words, such as ``0.123 [0.101, 0.150] eV/Å``."""
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
