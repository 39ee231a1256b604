"""The sections of a campaign's report, each made from the ledger; 4D models have a module apart."""

from __future__ import annotations

import json
import textwrap
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import Engine

from alloop.config.quantities import FORCE, Quantity
from alloop.report import plots
from alloop.report.markup import paragraph, picture, table
from alloop.report.words import error_words
from alloop_db.queries import Result, run

_CURVES: Final = {
    "audit": "audit: frames drawn at random",
    "prospective": "blind: frames the committee chose",
}
_POINTS: Final = """
SELECT kind, n_labels, force_rmse, force_low, force_high
FROM v_learning_curve JOIN evaluation USING (committee_id)
WHERE n_labels IS NOT NULL
ORDER BY v_learning_curve.generation
"""
_TARGET: Final = """
SELECT json_extract(resolved, '$.target.force_rmse') FROM config_version
ORDER BY config_version_id DESC LIMIT 1
"""
_MACHINES: Final = """
SELECT
    environment.environment_id, host, platform, python, environment.threads,
    coalesce(git, '') AS git, n, packages
FROM environment
LEFT JOIN (SELECT environment_id, count(*) AS n FROM task GROUP BY environment_id)
    USING (environment_id)
ORDER BY environment.environment_id
"""


def learning(engine: Engine) -> str:
    """Return the learning curve: force errors on unseen frames against labels."""
    curves: dict[str, list[plots.Point]] = {name: [] for name in _CURVES}
    for kind, *values in run(engine, _POINTS).rows:
        if kind in curves:
            curves[kind].append(plots.Point(*values))
    drawn = {_CURVES[kind]: points for kind, points in curves.items() if points}
    if not drawn:
        return paragraph("No committee has been judged on frames that it had not seen yet.")
    words = (
        "Root-mean-square error of a force component, with confidence intervals. Audit errors are"
        " those measured at the time, on the audit frames there were; blind errors are those of"
        " predictions made before the frames were labelled, which are harder than the average."
    )
    figure = plots.learning_curve(drawn, _target(engine))
    result = run(engine, "learning_curve")
    return picture(plots.png(figure), "Force error against labels", words) + _result_table(
        result, "One row for each committee; forces in eV/Å, energies in eV/atom."
    )


def generations(engine: Engine, entries: list[dict[str, Any]]) -> str:
    """Return what each generation asked for and how well its committee does."""
    heads = (
        "generation", "labels", "failed", "trained on", "audit force RMSE",
        "audit frames", "audit trajectories", "blind force RMSE", "within the bound",
        "rank correlation",
    )  # fmt: skip
    rows = []
    for entry in entries:
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
            )
        )
    if not rows:
        return paragraph("None has begun yet.")
    words = (
        "Blind: the frames that a generation chose, predicted by the committee before it; the share"
        " of them whose error lay within the bound given in advance; rank correlation of spread"
        " and error."
    )
    return table(heads, rows, words) + _decisions(engine)


def labels(engine: Engine, summary: dict[str, Any]) -> str:
    """Return how many labels there are, what they cost, and what failed for which reason."""
    counts = ", ".join(f"{count} {state}" for state, count in summary["labels"].items()) or "none"
    parts = [paragraph(f"Labels: {counts}.")]
    cost = run(engine, "label_cost")
    if cost.rows:
        parts.append(_result_table(cost, "What labels cost; times in s."))
    failed = run(engine, "failures")
    if failed.rows:
        rows = [
            [textwrap.shorten(v, 300) if isinstance(v, str) else v for v in row]
            for row in failed.rows
        ]
        caption = "Failures by reason; resolved are those that a later try made good."
        parts.append(table(_heads(failed), rows, caption))
    else:
        parts.append(paragraph("Nothing failed."))
    if summary["losses"]:
        parts.append(paragraph(f"Tasks lost with their worker and repeated: {summary['losses']}."))
    return "\n".join(parts)


def calibration(engine: Engine) -> str:
    """Return the spread of committees against the error that they turned out to make."""
    found = run(engine, "calibration")
    seen = run(engine, "spread_and_error")
    rows = [dict(zip(seen.columns, row, strict=True)) for row in seen.rows]
    frames = [
        plots.Blind(row["force_spread_max"], row["force_rmse"], row["split"] == "audit")
        for row in rows
        if row["force_rmse"] is not None
    ]
    drawable = sum(frame.drawable for frame in frames)
    parts = []
    if drawable:
        last = [row for row in found.rows if row[found.columns.index("measure")] == "force"][-1:]
        factors = [row[found.columns.index(name)] for row in last for name in ("alpha", "quantile")]
        words = (
            f"{drawable} frames that were predicted before they were labelled."
            + (f" {len(frames) - drawable} others have no finite place." * (drawable < len(frames)))
            + (" Lines: what the last calibration makes of a spread." if last else "")
        )
        figure = plots.calibration(frames, *factors)
        parts.append(picture(plots.png(figure), "Error against spread", words))
    else:
        parts.append(paragraph("No frame was predicted before it was labelled yet."))
    if found.rows:
        words = "alpha: error to expect for a spread; quantile: the bound promised at that level."
        parts.append(_result_table(found, words))
    return "\n".join(parts)


def trajectories(engine: Engine) -> str:
    """Return how many trajectories were run, and how they ended."""
    result = run(engine, "trajectories")
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in result.rows:
        entry = dict(zip(result.columns, row, strict=True))
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
    result = run(engine, "time_by_stage")
    entries = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
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


def _target(engine: Engine) -> float | None:
    """Return the force error that the config asks for, eV/Å."""
    rows = run(engine, _TARGET).rows
    written = rows[0][0] if rows else None
    return None if written is None else float(Quantity(FORCE).parse(written))


def _result_table(result: Result, caption: str) -> str:
    return table(_heads(result), result.rows, caption)


def _heads(result: Result) -> list[str]:
    return [name.replace("_", " ") for name in result.columns]


def _sum(values: Iterable[float | None]) -> float:
    return sum(value for value in values if value is not None)


def _packages(text: str) -> str:
    return ", ".join(f"{name} {version}" for name, version in json.loads(text).items())
