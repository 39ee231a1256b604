"""The report's section on tiers, and what programs say of the labels they made."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import Engine

from alloop.report.markup import paragraph, table
from alloop.report.words import approval_words, error_words, modes_words
from alloop_db.queries import run

Row = dict[str, Any]

_DIAGNOSTICS: Final = """
SELECT level_of_theory.name, diagnostic.key, diagnostic.value, label.frame_id
FROM label
JOIN level_of_theory USING (level_of_theory_id), json_each(label.diagnostics) AS diagnostic
WHERE label.status = 'done'
ORDER BY label.level_of_theory_id, diagnostic.key, label.label_id
"""
_NOT_JUDGED: Final = ("n_basis", "cpu_seconds")
"""What says nothing of the solution: size and price."""
_LEAST_IS_WORST: Final = ("gap", "stable")


def tiers(engine: Engine, summary: Row) -> str:
    """Return what each tier has cost, each round of promotions, and how the modes did."""
    parts = [paragraph(f"The campaign is in tier {summary['tier']}.")] if summary["tier"] else []
    if summary["approval"]:
        words = approval_words(summary["approval"])
        parts.append(paragraph(f"{words[0].upper()}{words[1:]}."))
    parts += [_costs(summary["tiers"]), *_rounds(engine), *_modes(engine, summary)]
    return "\n".join(parts)


def diagnostics(engine: Engine) -> str:
    """Return how what programs say of their labels is distributed; nothing if they say nothing."""
    values: dict[tuple[str, str], list[tuple[float, int]]] = defaultdict(list)
    for level, name, value, frame in run(engine, _DIAGNOSTICS).rows:
        if name not in _NOT_JUDGED and isinstance(value, int | float):
            values[level, name].append((value, frame))
    if not values:
        return ""
    rows = [(*key, *_spread(key[1], found)) for key, found in values.items()]
    heads = (
        "level of theory", "diagnostic", "frames", "least", "median", "largest", "worst frame",
    )  # fmt: skip
    caption = (
        "What programs say of their solutions: spin contamination is <S²> minus its exact value,"
        " gap that of the orbitals in eV, t1 the T1 diagnostic of coupled cluster."
    )
    return table(heads, rows, caption)


def _spread(name: str, found: list[tuple[float, int]]) -> tuple[float | int | None, ...]:
    numbers = [value for value, _ in found]
    least, largest = min(numbers), max(numbers)
    worst = min(found) if name in _LEAST_IS_WORST else max(found)
    where = worst[1] if least < largest else None
    return len(found), least, statistics.median(numbers), largest, where


def _costs(known: list[Row]) -> str:
    heads = (
        "tier", "level of theory", "labels", "given up", "to go", "budget", "core-hours",
        "budget, core-hours", "s a label", "audit error", "target",
    )  # fmt: skip
    rows = [
        (
            *(tier[name] for name in ("tier", "level_of_theory", "done", "failed", "to_go")),
            *(tier[name] for name in ("budget_labels", "core_hours", "budget_core_hours")),
            tier["seconds_per_label"],
            tier["audit"] and error_words(tier["audit"]),
            _target(tier["target"]),
        )
        for tier in known
    ]
    return table(heads, rows, "Labels and their price, failures included.")


def _target(target: dict[str, float | None]) -> str | None:
    force, energy = target["force_rmse"], target["energy_rmse"]
    words = [] if force is None else [f"{force:.3f} eV/Å"]
    words += [] if energy is None else [f"{1e3 * energy:.2f} meV/atom"]
    return ", ".join(words) or None


def _rounds(engine: Engine) -> Iterator[str]:
    found = _records(engine, "promotions")
    if not found:
        yield paragraph("No frame has been promoted to a higher tier yet.")
        return
    heads = (
        "generation", "to tier", "policy", "candidates", "promoted", "labels", "given up",
        "core-hours expected", "core-hours paid", "difference left", "error before", "error after",
    )  # fmt: skip
    names = ("generation", "tier", "policy", "n_candidates", "n_promoted", "n_done", "n_failed")
    rows = [
        (
            *(row[name] for name in names),
            _expected(row),
            row["core_hours_paid"],
            row["expected_ratio"],
            _error(row, "before"),
            _error(row, "after"),
        )
        for row in found
    ]
    caption = (
        "Rounds of promotion. The price is what the policy said beforehand, with its interval; the"
        " difference left is the part of the tiers' difference that it expected to stay"
        " unexplained; errors are those on the audit frames of the time."
    )
    yield table(heads, rows, caption)
    last = {row["tier"]: row for row in found}
    yield from (paragraph(words) for row in last.values() if (words := _bought(row)))


def _expected(row: Row) -> str | None:
    if row["core_hours_expected"] is None:
        return None
    low, high = row["core_hours_low"], row["core_hours_high"]
    between = "" if low is None or high is None else f" [{low:.3g}, {high:.3g}]"
    return f"{row['core_hours_expected']:.3g}{between}"


def _error(row: Row, when: str) -> str | None:
    force, energy = row[f"audit_force_{when}"], row[f"audit_energy_{when}"]
    if force is not None:
        return f"{1e3 * force:.1f} meV/Å"
    return None if energy is None else f"{1e3 * energy:.2f} meV/atom"


def _bought(row: Row) -> str | None:
    """Return what a core-hour of the last round brought, in words; None where it is not known."""
    kind, unit = ("force", "meV/Å") if row["audit_force_after"] is not None else (
        "energy", "meV/atom",
    )  # fmt: skip
    before, after = row[f"audit_{kind}_before"], row[f"audit_{kind}_after"]
    if before is None or after is None or not row["core_hours_paid"]:
        return None
    change = 1e3 * (before - after)
    what = f"{row['n_done']} labels at {row['level_of_theory']} ({row['core_hours_paid']:.3g}"
    if not change > 0.0:
        return f"In the last round {what} core-hours) bought nothing: the audit {kind} error rose."
    rate = change / row["core_hours_paid"]
    return (
        f"In the last round {what} core-hours) bought {rate:.3g} {unit} per core-hour: the audit"
        f" {kind} error fell from {1e3 * before:.3g} to {1e3 * after:.3g} {unit}."
    )


def _modes(engine: Engine, summary: Row) -> Iterator[str]:
    found = _records(engine, "mode_scores")
    if not found:
        return
    words = modes_words(summary["modes"])
    yield paragraph(f"{words[0].upper()}{words[1:]}.")
    heads = (
        "generation", "tier", "mode", "kept", "times the least error", "force RMSE / eV/Å",
        "energy RMSE / eV/atom", "judged on",
    )  # fmt: skip
    rows = [
        (
            row["generation"],
            row["tier"],
            row["mode"],
            bool(row["promoted"]),
            row["relative"],
            row["force_rmse"],
            row["energy_rmse"],
            f"{row['n_frames']} {row['split']} frames of {row['n_groups']} trajectories",
        )
        for row in found
    ]
    yield table(heads, rows, "Ways to learn from the tier below, on labels that none has seen.")


def _records(engine: Engine, query: str) -> list[Row]:
    result = run(engine, query)
    return [dict(zip(result.columns, row, strict=True)) for row in result.rows]
