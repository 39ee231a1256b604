"""Accuracies as a table for people and as plain values for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alloop.acquisition.accuracy import Accuracy
from alloop.artifacts import write_atomically


def accuracy_table(accuracies: Mapping[str, Accuracy]) -> str:
    """Return one column for each accuracy, by name, and one line for each measure."""
    columns = [_column(accuracy) for accuracy in accuracies.values()]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [["", *accuracies]]
    rows += [[name, *(column.get(name, "-") for column in columns)] for name in names]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def accuracy_values(accuracy: Accuracy) -> dict[str, Any]:
    """Return an accuracy as plain values; null for what is not finite."""
    values: dict[str, Any] = _finite(asdict(accuracy))
    return values


def write_accuracies(path: Path, accuracies: Mapping[str, Accuracy]) -> None:
    """Write accuracies by name as JSON."""
    values = {name: accuracy_values(accuracy) for name, accuracy in accuracies.items()}
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda temporary: _write(temporary, text))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _column(accuracy: Accuracy) -> dict[str, str]:
    column = {
        "frames": str(accuracy.n_frames),
        "energy MAE, meV": _number(1e3 * accuracy.energy_mae),
        "energy RMSE, meV": _number(1e3 * accuracy.energy_rmse),
        "energy MAE, meV/atom": _number(1e3 * accuracy.energy_mae_per_atom),
        "energy RMSE, meV/atom": _number(1e3 * accuracy.energy_rmse_per_atom),
        "energy offset, meV/atom": _number(1e3 * accuracy.energy_offset),
        "force MAE, meV/Å": _number(1e3 * accuracy.force_mae),
        "force RMSE, meV/Å": _number(1e3 * accuracy.force_rmse),
        "force MEPA, meV/Å": _number(1e3 * accuracy.mepa),
        "force R²": f"{accuracy.force_r2:.5f}",
    }
    for symbol, error in accuracy.elements.items():
        column[f"force MAE of {symbol}, meV/Å"] = _number(1e3 * error.mae)
    if accuracy.reliability is not None:
        rank = accuracy.reliability.spearman
        column["rank correlation of spread and error"] = "-" if rank is None else f"{rank:.2f}"
        column["force error by spread"] = f"{accuracy.reliability.force_factor:.2f}"
        column["energy error by spread"] = f"{accuracy.reliability.energy_factor:.2f}"
    return column


def _number(value: float) -> str:
    """Return a number with three digits or more that count."""
    if not math.isfinite(value):
        return str(value)
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:.{min(max(digits, 0), 6)}f}"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
