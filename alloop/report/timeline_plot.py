"""The picture of a timeline, and its part of the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sqlalchemy import Engine

from alloop.report.markup import picture, table
from alloop.report.plots import png
from alloop.report.running import Running
from alloop.report.timeline import BINS, Timeline, instant, read_timeline
from alloop_db.queries import run

_UNITS: Final = ((172800.0, 86400.0, "days"), (7200.0, 3600.0, "hours"), (180.0, 60.0, "minutes"))
"""From how many seconds on which unit is used, and its length, s."""
_INK: Final = "#1b4965"
_PALE: Final = "#b8c9d6"


def timeline(engine: Engine, running: Sequence[Running] = ()) -> str:
    """Return what ran when, and how busy the workers were; nothing before any task has begun."""
    known = read_timeline(engine, running)
    if known is None:
        return ""
    parts = [picture(png(draw(known)), "Tasks over wall time", _words(known))]
    result = run(engine, "utilisation")
    if result.rows:
        columns = result.columns[: result.columns.index("workers")]
        heads = [name.replace("_", " ") for name in columns]
        rows = [row[: len(columns)] for row in result.rows]
        workers, counted = result.rows[0][len(columns) :]
        many = "" if workers is None else f" {workers:g} ({counted})"
        caption = (
            f"Time of all workers,{many}, by tier and task; times in s, waiting for a worker on"
            " average. Tasks that still run are not counted."
        )
        parts.append(table(heads, rows, caption))
    return "\n".join(parts)


def draw(known: Timeline) -> Figure:
    """Return the workers that were busy, above the tasks of each kind, over wall time."""
    rows = {kind: _rows(known, kind) for kind in known.busy}
    height = 2.4 + 0.3 * len(rows) + 0.05 * sum(rows.values())
    figure = Figure(figsize=(8.0, min(height, 12.0)), layout="constrained")
    ratios = [1.6, max(height - 2.4, 0.6)]
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=ratios)
    _draw_busy(upper, known)
    if known.bars is None:
        _draw_bins(lower, known)
    else:
        _draw_bars(lower, known, rows)
    for axes in (upper, lower):
        _draw_drivers(axes, known)
    lower.set(xlabel=f"wall time since {instant(known.began)} / {_unit(known)[1]}")
    lower.set_xlim(0.0, known.seconds / _unit(known)[0])
    upper.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize="small")
    return figure


def _draw_busy(axes: Axes, known: Timeline) -> None:
    length = _unit(known)[0]
    edges = [known.width * i / length for i in range(BINS + 1)]
    total = [sum(column) for column in zip(*known.busy.values(), strict=True)]
    axes.stairs(total, edges, fill=True, color=_PALE, label="busy")
    if known.lives:
        times = [life.began / length for life in known.lives] + [known.seconds / length]
        slots = [life.slots for life in known.lives]
        axes.stairs(slots, times, baseline=None, color="black", linestyle="--",
                    label="can run at once")  # fmt: skip
    axes.set(ylabel="workers", ylim=(0.0, None))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True, alpha=0.3)


def _draw_bars(axes: Axes, known: Timeline, rows: dict[str, int]) -> None:
    """Give each kind a lane, and each task a bar in a row of it, wide enough to be seen."""
    length, least = _unit(known)[0], known.seconds / 500.0
    top, ticks, bars = 0.0, [], known.bars or {}
    for kind, found in bars.items():
        n = rows[kind]
        for running, colour in ((False, _INK), (True, _PALE)):
            for row in range(n):
                spans = [
                    (bar.began / length, max(bar.seconds, least) / length)
                    for bar in found
                    if bar.row == row and bar.running is running
                ]
                place = (top + row / n * 0.8 + 0.1, 0.8 / n)
                axes.broken_barh(spans, place, facecolor=colour, edgecolor="white", linewidth=0.3)
        ticks.append(top + 0.5)
        top += 1.0
    _label(axes, ticks, list(bars))


def _draw_bins(axes: Axes, known: Timeline) -> None:
    """Give each kind a lane, filled to the part of its busiest moment."""
    length = _unit(known)[0]
    edges = [known.width * i / length for i in range(BINS + 1)]
    ticks, names = [], []
    for place, (kind, busy) in enumerate(known.busy.items()):
        most = max(busy)
        heights = [place + 0.9 - 0.8 * value / most if most else place + 0.9 for value in busy]
        axes.stairs(heights, edges, baseline=place + 0.9, fill=True, color=_INK)
        ticks.append(place + 0.5)
        names.append(f"{kind} (to {most:.3g})")
    _label(axes, ticks, names)


def _label(axes: Axes, ticks: list[float], names: list[str]) -> None:
    axes.set_yticks(ticks, names)
    axes.set_ylim(len(names), 0.0)
    axes.hlines(range(1, len(names)), 0.0, 1.0, transform=axes.get_yaxis_transform(),
                color="#dddddd", linewidth=0.6)  # fmt: skip


def _draw_drivers(axes: Axes, known: Timeline) -> None:
    length = _unit(known)[0]
    for i, (began, ended) in enumerate(known.gaps):
        name = "no driver" if i == 0 else None
        axes.axvspan(began / length, ended / length, facecolor="none", edgecolor="#999999",
                     hatch="///", linewidth=0.0, label=name)  # fmt: skip
    for i, at in enumerate(known.restarts):
        name = "driver restarted" if i == 0 else None
        axes.axvline(at / length, color="#b5531c", linewidth=1.0, linestyle=":", label=name)


def _rows(known: Timeline, kind: str) -> int:
    if known.bars is None or kind not in known.bars:
        return 1
    return max(bar.row for bar in known.bars[kind]) + 1


def _unit(known: Timeline) -> tuple[float, str]:
    for least, length, name in _UNITS:
        if known.seconds >= least:
            return length, name
    return 1.0, "s"


def _words(known: Timeline) -> str:
    counts = f"{known.n_tasks} tasks"
    if known.bars is None:
        how = (
            f"{counts}, summed in {BINS} bins: each lane shows workers at one kind of task, as a"
            " part of the most there were."
        )
    else:
        how = f"{counts}, a bar for each (the last try of it); pale ones still run."
    again = len(known.restarts)
    drivers = f" The driver was started again {again} times." if again else ""
    return f"{how} White above the busy workers is idle time.{drivers}"
