"""Errors of a 4D model as a table for people and as plain values for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alloop.artifacts import write_atomically
from alloop.units import EV_PER_KCAL_MOL

if TYPE_CHECKING:
    from alloop.spacetime.judging.accuracy import Assessment
    from alloop.spacetime.judging.held_out import EnergyChange
    from alloop.spacetime.propagation.courses import Course

_COLUMNS: Final = {"member": "one network", "ensemble": "ensemble", "ballistic": "uniform motion"}
"""What the scores of an assessment are of."""
_UNITS: Final = {"bond": "Å", "angle": "rad", "dihedral": "rad", "rmsd": "Å"}


def errors_table(assessment: Assessment, cutoff: float) -> str:
    """Return the errors, one column for each way to predict; ``cutoff`` in fs."""
    scores = {head: getattr(assessment, name) for name, head in _COLUMNS.items()}
    names = list(dict.fromkeys(name for column in scores.values() for name in column))
    rows = [["", *scores]]
    for name in sorted(names, key=_order):
        cells = [_number(column.get(name)) for column in scores.values()]
        rows.append([_words(name, cutoff), *cells])
    head = (
        f"errors on {assessment.n_trajectories} held-out trajectories,"
        f" {assessment.n_segments} segments of {cutoff:g} fs"
    )
    return f"{head}\n{aligned(rows)}"


def energy_words(change: EnergyChange) -> str:
    """Return in one line what a segment does to the total energy."""
    broken = f"; {change.n_broken} segments ended without an energy" if change.n_broken else ""
    return (
        f"change of the total energy over a segment: {change.rms / EV_PER_KCAL_MOL:.3f} kcal/mol"
        f" (root mean square), {change.largest / EV_PER_KCAL_MOL:.3f} at most{broken}"
    )


def course_values(course: Course, interval: float) -> dict[str, Any]:
    """Return how a replica went as plain values; times in fs, energies in eV."""
    return {
        "reached": max(course.n_frames - 1, 0) * interval,
        "ended_by": course.reason,
        "rollbacks": course.rollbacks,
        "rescues": course.n_rescues,
        "rms_energy_change": course.rms_error,
        "largest_energy_change": course.largest_error,
    }


def courses_table(courses: Sequence[Course], interval: float) -> str:
    """Return one row for each replica, whose frames are ``interval`` fs apart."""
    heads = ("replica", "reached, fs", "ended by", "rollbacks", "rescues")
    rows = [[*heads, "energy change, kcal/mol: rms", "largest"]]
    for replica, course in enumerate(courses):
        values = course_values(course, interval)
        changes = [values["rms_energy_change"], values["largest_energy_change"]]
        rows.append([
            str(replica),
            f"{values['reached']:g}",
            course.reason or "-",
            str(course.rollbacks),
            str(course.n_rescues),
            *(f"{x / EV_PER_KCAL_MOL:.3f}" if math.isfinite(x) else "-" for x in changes),
        ])  # fmt: skip
    return aligned(rows)


def plain(value: Any) -> Any:
    """Return dataclasses and mappings as plain values; null for what is not finite."""
    if hasattr(value, "__dataclass_fields__"):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_errors(path: Path, values: Mapping[str, Any]) -> None:
    """Write errors as JSON, whole or not at all."""
    text = json.dumps(plain(values), indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda temporary: _write(temporary, text))


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as text, the first column to the left and the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells[1:]]).rstrip())
    return "\n".join(lines)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _order(name: str) -> tuple[bool, bool]:
    """Sort all times before the cutoff, coordinates before rates."""
    return name.endswith("_end"), "_rate" in name


def _words(name: str, cutoff: float) -> str:
    kind = name.split("_")[0]
    unit = _UNITS.get(kind, "") + ("/fs" if "_rate" in name else "")
    words = [kind.upper() if kind == "rmsd" else kind]
    words += ["rate"] if "_rate" in name else []
    words += [f"at {cutoff:g} fs"] if name.endswith("_end") else []
    return f"{' '.join(words)}, {unit}"


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.5f}" if abs(value) < 1.0 else f"{value:.3f}"
