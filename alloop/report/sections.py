"""The sections of a campaign's report, each made from the ledger; 4D models have a module apart."""

from __future__ import annotations

import json
import textwrap
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import Engine

from alloop.report import plots
from alloop.report.faults import losses_words
from alloop.report.markup import paragraph, picture, table
from alloop.report.tier_sections import diagnostics
from alloop.report.words import error_words
from alloop_db.queries import Result, run

_CURVES: Final = {
    "audit": "audit: frames drawn at random",
    "prospective": "blind: frames the committee chose",
}
_POINTS: Final = """
SELECT tier, kind, n_labels, force_rmse, force_low, force_high, energy_rmse
FROM v_learning_curve JOIN evaluation USING (committee_id)
WHERE n_labels IS NOT NULL
ORDER BY v_learning_curve.generation
"""
_OF_TIERS: Final = ("tier", "level_of_theory", "mode")
"""Columns that tell tiers apart: a campaign with one tier has no use for them."""
_MACHINES: Final = """
SELECT
    environment.environment_id, host, platform, python, environment.threads,
    coalesce(git, '') AS git, n, packages
FROM environment
LEFT JOIN (SELECT environment_id, count(*) AS n FROM task GROUP BY environment_id)
    USING (environment_id)
ORDER BY environment.environment_id
"""


def learning(engine: Engine, tiers: list[dict[str, Any]]) -> str:
    """Return the learning curve of each tier: errors on unseen frames against labels."""
    rows, several = run(engine, _POINTS).rows, len(tiers) > 1
    parts = []
    for tier in tiers:
        own = [row[1:] for row in rows if row[0] == tier["tier"] and row[1] in _CURVES]
        if own:
            name = f"Tier {tier['tier']}, {tier['level_of_theory']}. " if several else ""
            parts.append(_curve(own, tier["target"], name))
    if not parts:
        return paragraph("No committee has been judged on frames that it had not seen yet.")
    caption = "One row for each committee; forces in eV/Å, energies in eV/atom."
    return "".join(parts) + _result_table(run(engine, "learning_curve"), caption, several)


def _curve(rows: list[tuple[Any, ...]], target: dict[str, float | None], name: str) -> str:
    """Return a picture of (kind, labels, force error, its interval, energy error)."""
    forces = any(row[2] is not None for row in rows)
    curves: dict[str, list[plots.Point]] = defaultdict(list)
    for kind in _CURVES:
        for _, labels, force, low, high, energy in (row for row in rows if row[0] == kind):
            if not forces:
                curves[_CURVES[kind]].append(plots.Point(labels, 1e3 * energy, None, None))
            elif force is not None:
                curves[_CURVES[kind]].append(plots.Point(labels, force, low, high))
    if forces:
        figure = plots.learning_curve(curves, target["force_rmse"])
        what = "Root-mean-square error of a force component, with confidence intervals."
    else:
        wanted = target["energy_rmse"]
        limit = None if wanted is None else 1e3 * wanted
        figure = plots.learning_curve(curves, limit, "energy RMSE / meV/atom")
        what = "Root-mean-square error of the energy per atom; the method has no forces."
    words = (
        f"{name}{what} Audit errors are"
        " those measured at the time, on the audit frames there were; blind errors are those of"
        " predictions made before the frames were labelled, which are harder than the average."
    )
    title = f"{name}{'Force' if forces else 'Energy'} error against labels"
    return picture(plots.png(figure), title, words)


def generations(engine: Engine, summary: dict[str, Any]) -> str:
    """Return what each generation asked for and how well its committee does."""
    heads = (
        "generation", "labels", "failed", "trained on", "audit force RMSE",
        "audit frames", "audit trajectories", "blind force RMSE", "within the bound",
        "rank correlation", "tier",
    )  # fmt: skip
    shown = len(heads) if len(summary["tiers"]) > 1 else -1
    rows = []
    for entry in summary["generations"]:
        errors = entry["errors"]
        audit, blind = errors.get("audit"), errors.get("prospective")
        rows.append(
            (
                entry["generation"],
                entry["labels"],
                entry["failed"],
                entry["training_labels"],
                audit and error_words(audit),
                audit and audit["n_frames"],
                audit and audit["n_groups"],
                blind and error_words(blind),
                blind and blind["coverage"],
                blind and blind["spearman"],
                entry["tier"],
            )
        )
    if not rows:
        return paragraph("None has begun yet.")
    words = (
        "Blind: the frames that a generation chose, predicted by the committee before it; the share"
        " of them whose error lay within the bound given in advance; rank correlation of spread"
        " and error."
    )
    return table(heads[:shown], [row[:shown] for row in rows], words) + _decisions(engine)


def labels(engine: Engine, summary: dict[str, Any]) -> str:
    """Return how many labels there are, what they cost, and what failed for which reason."""
    counts = ", ".join(f"{count} {state}" for state, count in summary["labels"].items()) or "none"
    parts = [paragraph(f"Labels: {counts}.")]
    cost = run(engine, "label_cost")
    if cost.rows:
        parts.append(_result_table(cost, "What labels cost; times in s."))
    parts.append(diagnostics(engine))
    failed = run(engine, "failures")
    if failed.rows:
        rows = [
            tuple(textwrap.shorten(v, 300) if isinstance(v, str) else v for v in row)
            for row in failed.rows
        ]
        caption = "Failures by reason; resolved are those that a later try made good."
        short = Result(failed.columns, tuple(rows))
        parts.append(_result_table(short, caption, len(summary["tiers"]) > 1))
    else:
        parts.append(paragraph("Nothing failed."))
    if summary["losses"]:
        parts.append(paragraph(losses_words(summary)))
    return "\n".join(parts)


def calibration(engine: Engine, tiers: list[dict[str, Any]]) -> str:
    """Return the spread of committees against the error that they turned out to make, by tier."""
    found, several = run(engine, "calibration"), len(tiers) > 1
    seen = _records(run(engine, "spread_and_error"))
    parts = []
    for tier in tiers:
        frames = [
            plots.Blind(row["force_spread_max"], row["force_rmse"], row["split"] == "audit")
            for row in seen
            if row["force_rmse"] is not None and row["tier"] == tier["tier"]
        ]
        if any(frame.drawable for frame in frames):
            of_force = [
                row
                for row in _records(found)
                if row["measure"] == "force" and row["tier"] == tier["tier"]
            ]
            name = f"Tier {tier['tier']}, {tier['level_of_theory']}: " if several else ""
            parts.append(_spread_and_error(frames, of_force[-1:], name))
    if not parts:
        parts.append(paragraph("No frame was predicted before it was labelled yet."))
    if found.rows:
        words = "alpha: error to expect for a spread; quantile: the bound promised at that level."
        parts.append(_result_table(found, words, several))
    return "\n".join(parts)


def _spread_and_error(frames: list[plots.Blind], last: list[dict[str, Any]], name: str) -> str:
    drawable = sum(frame.drawable for frame in frames)
    words = (
        f"{name}{drawable} frames that were predicted before they were labelled."
        + (f" {len(frames) - drawable} others have no finite place." * (drawable < len(frames)))
        + (" Lines: what the last calibration makes of a spread." if last else "")
    )
    factors = [row[factor] for row in last for factor in ("alpha", "quantile")]
    figure = plots.calibration(frames, *factors)
    return picture(plots.png(figure), f"{name}Error against spread", words)


def trajectories(engine: Engine) -> str:
    """Return how many trajectories were run, and how they ended."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for entry in _records(run(engine, "trajectories")):
        groups[entry["generation"], entry["route"], entry["ensemble"]].append(entry)
    if not groups:
        return paragraph("None has been run yet.")
    heads = (
        "generation", "route", "ensemble", "temperatures / K", "trajectories", "ps", "completed",
        "ended early",
    )  # fmt: skip
    return table(heads, [(*key, *_fate(entries)) for key, entries in groups.items()])


def stages(engine: Engine) -> str:
    """Return where the time went, by kind of task and by generation."""
    entries = _records(run(engine, "time_by_stage"))
    if not entries:
        return paragraph("No task has been finished yet.")
    kinds = list(dict.fromkeys(entry["kind"] for entry in entries))
    names = ("n", "seconds", "cpu_seconds", "percent", "failures", "losses")
    sums = {
        kind: [_sum(entry[name] for entry in entries if entry["kind"] == kind) for name in names]
        for kind in kinds
    }
    heads = ("task", "finished", "s", "processor s", "% of time", "failed tries", "lost tries")
    turns: dict[int, dict[str, Any]] = defaultdict(dict)
    for entry in entries:
        turns[entry["generation"]][entry["kind"]] = entry["seconds"]
    rows = [(turn, *(cells.get(kind) for kind in kinds)) for turn, cells in turns.items()]
    return table(heads, [(kind, *sums[kind]) for kind in kinds], "Time on workers.") + table(
        ("generation", *kinds), rows, "The same by generation, s."
    )


def machines(engine: Engine) -> str:
    """Return on which machines, with which software, tasks ran."""
    result = run(engine, _MACHINES)
    if not result.rows:
        return paragraph("No task has been finished yet.")
    heads = (
        "environment",
        "host",
        "platform",
        "Python",
        "threads a task",
        "source",
        "tasks",
        "packages",
    )
    rows = [(*row[:-1], _packages(row[-1])) for row in result.rows]
    return table(heads, rows)


def _decisions(engine: Engine) -> str:
    counts: dict[tuple[str, str], dict[int, int]] = defaultdict(dict)
    for turn, action, rule, n in run(engine, "decisions").rows:
        counts[action, rule][turn] = n
    turns = sorted({turn for cells in counts.values() for turn in cells})
    rows = [(*why, *(cells.get(turn) for turn in turns)) for why, cells in sorted(counts.items())]
    heads = ("decision", "rule", *(f"generation {turn}" for turn in turns))
    return table(heads, rows, "What became of frames, and by which rule.") if rows else ""


def _fate(entries: list[dict[str, Any]]) -> tuple[Any, ...]:
    ends: dict[str, int] = defaultdict(int)
    for entry in entries:
        ends[entry["reason"]] += entry["n"]
    early = ", ".join(f"{n} {reason}" for reason, n in ends.items() if reason != "completed")
    warmth = ", ".join(f"{t:g}" for t in sorted({entry["temperature"] for entry in entries}))
    total, picoseconds = sum(ends.values()), _sum(entry["picoseconds"] for entry in entries)
    return warmth, total, picoseconds, ends["completed"], early or None


def _result_table(result: Result, caption: str, several: bool = True) -> str:
    """Return a result as a table; without ``several`` tiers, without what tells them apart."""
    hidden = () if several else _OF_TIERS
    places = [i for i, name in enumerate(result.columns) if name not in hidden]
    heads = [result.columns[i].replace("_", " ") for i in places]
    return table(heads, [[row[i] for i in places] for row in result.rows], caption)


def _records(result: Result) -> list[dict[str, Any]]:
    return [dict(zip(result.columns, row, strict=True)) for row in result.rows]


def _sum(values: Iterable[float | None]) -> float:
    return sum(value for value in values if value is not None)


def _packages(text: str) -> str:
    return ", ".join(f"{name} {version}" for name, version in json.loads(text).items())
