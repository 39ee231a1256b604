"""A status in plain text."""

from __future__ import annotations

from typing import Any

from alloop.report.faults import fault_lines
from alloop.report.usage import hours_words, usage_words


def status_text(summary: dict[str, Any]) -> str:
    """Return a status summary as lines for people."""
    several = len(summary["tiers"]) > 1
    lines = [*status_lines(summary), "", *error_table(summary["generations"], several)]
    for model in summary["spacetime_models"]:
        lines += _spacetime(model, several)
    return "\n".join(lines)


def status_lines(summary: dict[str, Any]) -> list[str]:
    """Return all that a status says before it comes to single generations."""
    lines = [
        f"{summary['name']}: {summary['state']}"
        + (f", driven by {summary['driver']}" if summary["driver"] else ", nobody drives it"),
    ]
    if summary["verdict"]:
        lines.append(summary["verdict"])
    several = len(summary["tiers"]) > 1
    of = f" of tier {summary['tier']}" if several else ""
    lines += [
        f"generation {summary['generation']}{of}, {summary['wall_seconds']:.0f} s of wall time",
        "labels: " + _listed(summary["labels"]),
    ]
    if several:
        lines += [tier_words(tier) for tier in summary["tiers"]]
    if summary["modes"]:
        lines.append(modes_words(summary["modes"]))
    if summary["approval"]:
        lines.append(approval_words(summary["approval"]))
    if summary["label_failures"]:
        lines.append("failed attempts by reason: " + _listed(summary["label_failures"]))
    lines.append("trajectories: " + _listed(summary["trajectories"]))
    lines += [_stage(summary, kind, several) for kind in summary["tasks"]]
    if summary["utilisation"]:
        lines.append(usage_words(summary["utilisation"]))
    return lines + fault_lines(summary)


def _stage(summary: dict[str, Any], kind: str, several: bool) -> str:
    """Return the tasks of a kind by state, who is at work, and what they took, in one line."""
    words = f"  {kind}: {_listed(summary['tasks'][kind])}"
    if running := summary["running"].get(kind):
        words += f" ({running['at_work']} at work, {running['waiting']} waiting for a worker)"
    if hours := summary["core_hours"].get(kind):
        words += f"; {hours_words(hours, several)}"
    return words


def tier_words(tier: dict[str, Any]) -> str:
    """Return what a tier has cost and how good its potential is, in one line."""
    budget = "" if tier["budget_labels"] is None else f" of {tier['budget_labels']}"
    hours = f"{tier['core_hours']:.2g}"
    if tier["budget_core_hours"] is not None:
        hours += f" of {tier['budget_core_hours']:.3g}"
    price = tier["seconds_per_label"]
    each = "" if price is None else f" ({price:.2g} s a label)"
    return (
        f"  {tier['tier']} ({tier['level_of_theory']}): {tier['done']} done, {tier['failed']}"
        f" failed, {tier['to_go']} to go{budget}; {hours} core-hours{each};"
        f" audit {error_words(tier['audit'])}{_target(tier)}"
    )


def modes_words(modes: list[dict[str, Any]]) -> str:
    """Return which way to learn from the tier below was best, and by how much, in one line."""
    best, *others = modes
    forces = best["force_rmse"] is not None
    error = f"{1e3 * best['force_rmse']:.1f} meV/Å" if forces else _per_atom(best["energy_rmse"])
    beside = ", ".join(f"{other['mode']} {other['relative']:.3g}" for other in others)
    against = f"; errors of the others as multiples of that: {beside}" if others else ""
    return (
        f"best mode in generation {best['generation']}: {best['mode']}, {error} on"
        f" {best['n_frames']} {best['split']} frames{against}"
    )


def approval_words(approval: dict[str, Any]) -> str:
    """Return what a campaign waits for, and its price, in one line."""
    labels = f"{approval['labels']} labels of tier {approval['tier']}"
    if approval["core_hours"] is None:
        return f"waiting for approval of {labels}, whose price is not known yet"
    between = ""
    if approval["core_hours_low"] is not None:
        between = f" [{approval['core_hours_low']:.3g}, {approval['core_hours_high']:.3g}]"
    return (
        f"waiting for approval: {labels} for about {approval['core_hours']:.3g}{between}"
        " core-hours; `alloop start --approve` goes on"
    )


def _target(tier: dict[str, Any]) -> str:
    wanted, audit = tier["target"], tier["audit"]
    if audit is not None and audit["force_rmse"] is None:
        energy = wanted["energy_rmse"]
        return "" if energy is None else f", target {_per_atom(energy)}"
    force = wanted["force_rmse"]
    return "" if force is None else f", target {force:.3f} eV/Å"


def error_table(generations: list[dict[str, Any]], several: bool) -> list[str]:
    """Return labels and errors of generations as the lines of a table."""
    heads = ("generation", "labels", "failed", "trained on", "audit force RMSE", "blind", "audit n")
    rows: list[tuple[str, ...]] = [(*heads, "tier")]
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
                entry["tier"],
            )
        )
    if not several:
        rows = [row[:-1] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]


def _spacetime(model: dict[str, Any], several: bool) -> list[str]:
    of = f", tier {model['tier']}" if several else ""
    head = (
        f"4D model of {model['system']} after generation {model['generation']}{of}"
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
    """Return a row of ``evaluation`` in words, such as ``0.123 [0.101, 0.150] eV/Å``.

    Without forces it is the energy's error, such as ``0.53 meV/atom``.
    """
    if entry is None:
        return "-"
    if entry["force_rmse"] is None:
        return _per_atom(entry["energy_rmse"])
    interval = ""
    if entry["force_low"] is not None and entry["force_high"] is not None:
        interval = f" [{entry['force_low']:.3f}, {entry['force_high']:.3f}]"
    return f"{entry['force_rmse']:.3f}{interval} eV/Å"


def _per_atom(energy: float) -> str:
    return f"{1e3 * energy:.2f} meV/atom"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"


def _or_dash(value: Any) -> str:
    return "-" if value is None else str(value)
