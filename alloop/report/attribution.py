"""What decides about a coordinate, as a table for people and as plain values for programs."""

from __future__ import annotations

from typing import Any, Final

from alloop.report.spacetime_errors import aligned
from alloop.spacetime.judging.attribution import Attribution

N_SHOWN: Final = 12
"""Inputs in the table; the picture and the JSON have all."""


def unit_of(name: str) -> str:
    """Return the unit of a coordinate by its name, such as "bond C0-H3"."""
    return "rad" if name.split()[0] in ("angle", "dihedral") else "Å"


def attribution_values(found: Attribution, time: float, unit: str) -> dict[str, Any]:
    """Return an attribution as plain values; ``time`` in fs, ``unit`` that of the coordinate."""
    columns = (found.mean, found.member_spread, found.baseline_spread)
    rows = zip(found.names, *(column.tolist() for column in columns), strict=True)
    return {
        "coordinate": found.target,
        "time": time,
        "unit": unit,
        "n_networks": found.values.shape[0],
        "n_baselines": found.values.shape[1],
        "change": float(found.changes.mean()),
        "completeness_error": float(found.completeness_error.max()),
        "inputs": {
            name: {"mean": mean, "networks": networks, "baselines": baselines}
            for name, mean, networks, baselines in rows
        },
    }


def attribution_table(found: Attribution, time: float, unit: str) -> str:
    """Return the largest contributions with their spreads; ``time`` in fs."""
    values = attribution_values(found, time, unit)
    rows = [["", f"contribution, {unit}", "spread: networks", "baselines"]]
    for place in found.largest(N_SHOWN):
        name = found.names[place]
        mean, *spreads = values["inputs"][name].values()
        rows.append([name, f"{mean:+.5f}", *(f"{spread:.5f}" for spread in spreads)])
    head = (
        f"{found.target} after {time:g} fs, {values['n_networks']} networks,"
        f" {values['n_baselines']} baselines at rest: {values['change']:+.5f} {unit} more than"
        " from these"
    )
    tail = f"completeness error at most {values['completeness_error']:.1e} {unit}"
    left_out = len(found.names) - N_SHOWN
    more = f"; {left_out} smaller contributions are in the picture" if left_out > 0 else ""
    return "\n".join([head, aligned(rows), f"{tail}{more}"])
