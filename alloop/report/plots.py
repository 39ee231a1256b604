"""The pictures of a campaign, drawn so that they can be read on paper and without colour."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

DPI: Final = 150
_STYLES: Final = (
    ("o", "-", "#1b4965"),
    ("s", "--", "#b5531c"),
    ("^", ":", "#555555"),
    ("D", "-.", "#2e7d4f"),
)
"""Marker, dashes and colour of the first series, the second, ...; then from the start again."""


@dataclass(frozen=True, slots=True)
class Point:
    """An error after training on ``labels`` labels, and its interval if known, in one unit."""

    labels: int
    error: float
    low: float | None
    high: float | None

    @property
    def bounded(self) -> bool:
        """Whether both ends of the interval are known and finite."""
        ends = (self.low, self.high)
        return all(end is not None and math.isfinite(end) for end in ends)


@dataclass(frozen=True, slots=True)
class Blind:
    """A frame predicted before it was labelled: the committee's spread and its error, eV/Å."""

    spread: float
    error: float
    random: bool

    @property
    def drawable(self) -> bool:
        """Whether it has a place on logarithmic axes."""
        return positive(self.spread) and positive(self.error)


def learning_curve(
    curves: Mapping[str, Sequence[Point]],
    target: float | None = None,
    quantity: str = "force RMSE / eV/Å",
) -> Figure:
    """Return errors against numbers of labels, one curve for each name.

    Points without an interval have open markers; ``target`` is a horizontal line; ``quantity`` says
    what the errors are, with their unit. A bar far longer than the rest leaves the picture.
    """
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = _logarithmic(figure)
    # First, lest a bar that ends at 1e300 is counted in.
    axes.set_ylim(*_limits([point for points in curves.values() for point in points], target))
    for i, (name, points) in enumerate(curves.items()):
        _draw_curve(axes, name, [point for point in points if positive(point.error)], i)
    if target is not None:
        axes.axhline(target, color="black", linewidth=0.8, linestyle=(0, (6, 3)), label="target")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="labels trained on", ylabel=quantity)
    axes.legend()
    return figure


def calibration(
    frames: Sequence[Blind], expected: float | None = None, bound: float | None = None
) -> Figure:
    """Return error against spread of blind predictions.

    ``expected`` and ``bound`` are the factors from a spread to the error to expect and to the
    bound on it.
    """
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = _logarithmic(figure)
    axes.set_xscale("log")
    _mark(axes.xaxis)
    drawn = [frame for frame in frames if frame.drawable]
    for random, name, marker in ((False, "chosen", "."), (True, "drawn at random", "x")):
        some = [frame for frame in drawn if frame.random is random]
        axes.plot(
            [frame.spread for frame in some],
            [frame.error for frame in some],
            marker,
            color="black" if random else "#7a9eb5",
            markersize=5,
            label=f"{name} ({len(some)})",
        )
    ends = [min(frame.spread for frame in drawn), max(frame.spread for frame in drawn)]
    for factor, name, dashes in ((expected, "error to expect", "-"), (bound, "bound", "--")):
        if factor is not None and positive(factor):
            heights = [factor * end for end in ends]
            axes.plot(ends, heights, dashes, color="black", linewidth=1.0, label=name)
    axes.set(xlabel="largest force spread of an atom / eV/Å", ylabel="force RMSE / eV/Å")
    axes.legend()
    return figure


def spacetime_errors(
    generations: Sequence[int], panels: Mapping[str, Mapping[str, Sequence[float | None]]]
) -> Figure:
    """Return errors of a 4D model against the generation: a panel for each title, with its series.

    A title names what is shown and its unit; a series has one value for each generation.
    """
    figure = Figure(figsize=(3.0 * max(len(panels), 2), 3.2), layout="constrained")
    for place, (title, series) in enumerate(panels.items(), start=1):
        axes = _logarithmic(figure, (1, len(panels), place))
        for i, (name, values) in enumerate(series.items()):
            marker, dashes, colour = _STYLES[i % len(_STYLES)]
            heights = [value if value and positive(value) else math.nan for value in values]
            axes.plot(generations, heights, marker + dashes, color=colour, label=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(title=title, xlabel="generation")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def spacetime_growth(
    times: Sequence[float], panels: Mapping[str, Mapping[str, Sequence[float]]]
) -> Figure:
    """Return errors of a 4D model against the time after a start, fs: a panel for each title."""
    figure = Figure(figsize=(3.0 * max(len(panels), 2), 3.2), layout="constrained")
    for place, (title, series) in enumerate(panels.items(), start=1):
        axes = _logarithmic(figure, (1, len(panels), place))
        for i, (name, values) in enumerate(series.items()):
            _, dashes, colour = _STYLES[i % len(_STYLES)]
            heights = [value if positive(value) else math.nan for value in values]
            axes.plot(times, heights, dashes, color=colour, label=name)
        axes.set(title=title, xlabel="time after the start / fs")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG file."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI)
    return stream.getvalue()


def positive(value: float) -> bool:
    """Return whether a value has a place on a logarithmic axis."""
    return math.isfinite(value) and value > 0.0


def _limits(points: Sequence[Point], target: float | None) -> tuple[float | None, float | None]:
    """Return what shows all errors, and their intervals as far as these leave errors visible."""
    heights = [point.error for point in points if positive(point.error)]
    heights += [] if target is None else [target]
    if not heights:
        return None, None
    ends = [end for point in points for end in (point.low, point.high) if end and positive(end)]
    low, high = min(heights), max(heights)
    bottom, top = (
        max(min(ends, default=low), low / 100.0),
        min(max(ends, default=high), high * 100.0),
    )
    return min(bottom, low) / 1.3, max(top, high) * 1.3


class _Ticks(LogLocator):
    """Ticks at 1, 2, 5, 10, ...; on a long axis at powers of ten only."""

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        """Return the ticks of an axis from ``vmin`` to ``vmax``."""
        self.set_params(subs=(1.0, 2.0, 5.0) if vmax < 1e4 * vmin else (1.0,))
        return super().tick_values(vmin, vmax)


def _draw_curve(axes: Axes, name: str, points: Sequence[Point], place: int) -> None:
    marker, dashes, colour = _STYLES[place % len(_STYLES)]
    labels, errors = [p.labels for p in points], [p.error for p in points]
    axes.plot(labels, errors, marker + dashes, color=colour, label=name)
    alone = [p for p in points if not p.bounded]
    axes.plot(
        [p.labels for p in alone], [p.error for p in alone], marker, color=colour, mfc="white"
    )
    bounded = [p for p in points if p.bounded]
    axes.errorbar(
        [p.labels for p in bounded],
        [p.error for p in bounded],
        yerr=(
            [max(p.error - (p.low or 0.0), 0.0) for p in bounded],
            [max((p.high or 0.0) - p.error, 0.0) for p in bounded],
        ),
        fmt="none",
        ecolor=colour,
        capsize=3,
    )


def _logarithmic(figure: Figure, place: tuple[int, int, int] = (1, 1, 1)) -> Axes:
    axes = figure.add_subplot(*place)
    axes.set_yscale("log")
    _mark(axes.yaxis)
    axes.grid(visible=True, alpha=0.3)
    return axes


def _mark(axis: Axis) -> None:
    """Write plain numbers along a logarithmic axis."""
    axis.set_major_locator(_Ticks(numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
