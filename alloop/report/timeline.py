"""What ran when: the tasks of a campaign over wall time, from the ledger.

A campaign of a few tasks is shown task by task; of more, SQL sums their time in bins, so that a
million cost no more memory than a hundred.
"""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Engine

from alloop.report.running import Running
from alloop_db.queries import run

MOST_BARS: Final = 2000
"""Up to this many tasks each has a bar of its own."""
BINS: Final = 400

_SPAN: Final = """
SELECT
    86400.0 * (julianday(campaign.created_at) - 2440587.5) AS began,
    (SELECT count(*) FROM task WHERE seconds > 0.0) AS n,
    max(
        86400.0 * (julianday(campaign.created_at) - 2440587.5),
        coalesce((SELECT 86400.0 * (max(julianday(at)) - 2440587.5) FROM event), 0.0),
        coalesce((
            SELECT max(86400.0 * (julianday(started_at) - 2440587.5) + seconds)
            FROM task WHERE seconds > 0.0
        ), 0.0)
    ) AS ended
FROM campaign
"""
_BARS: Final = """
SELECT kind, 86400.0 * (julianday(started_at) - 2440587.5) - :began AS began, seconds
FROM task WHERE seconds > 0.0 ORDER BY began, task_id
"""
_BINS: Final = """
WITH moment AS (
    SELECT kind, 86400.0 * (julianday(started_at) - 2440587.5) - :began AS at, 1 AS change
    FROM task WHERE seconds > 0.0
    UNION ALL
    SELECT kind, 86400.0 * (julianday(started_at) - 2440587.5) - :began + seconds, -1
    FROM task WHERE seconds > 0.0
)
SELECT
    kind, max(0, min(:n - 1, CAST(at / :width AS INTEGER))) AS bin, sum(change), sum(change * at)
FROM moment GROUP BY 1, 2
"""
_LIVES: Final = """
SELECT
    kind, 86400.0 * (julianday(at) - 2440587.5) - :began AS at,
    json_extract(details, '$.slots') AS slots, json_extract(details, '$.seconds') AS seconds
FROM event WHERE kind IN ('start', 'workers') AND julianday(at) IS NOT NULL ORDER BY event_id
"""
_ORDER: Final = "SELECT kind FROM task GROUP BY kind ORDER BY min(task_id)"


@dataclass(frozen=True, slots=True)
class Bar:
    """A task: s since the campaign began, and in which row of its kind it has room."""

    began: float
    seconds: float
    row: int
    running: bool = False


@dataclass(frozen=True, slots=True)
class Life:
    """A driver's time with its workers: from when, s, and how many tasks it could run at once."""

    began: float
    slots: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """A campaign over wall time; all times are s since it began.

    Attributes
    ----------
    began : that instant, s since 1970.
    seconds : how long it has been.
    n_tasks : how many tasks have ended.
    bars : the tasks of each kind; None if they are too many.
    busy : workers at each kind of task, on average in each of BINS bins.
    lives : drivers that noted their workers, in their order.
    restarts : when a driver began to go on with the campaign.
    gaps : when nobody drove it, from and to, as far as known.

    """

    began: float
    seconds: float
    n_tasks: int
    bars: dict[str, list[Bar]] | None
    busy: dict[str, list[float]]
    lives: tuple[Life, ...]
    restarts: tuple[float, ...]
    gaps: tuple[tuple[float, float], ...]

    @property
    def width(self) -> float:
        """The width of a bin, s."""
        return self.seconds / BINS


def read_timeline(
    engine: Engine, running: Sequence[Running] = (), most_bars: int = MOST_BARS
) -> Timeline | None:
    """Return what ran when; None before any task has begun.

    Tasks that are ``running`` go on until now.
    """
    ((began, n_tasks, ended),) = run(engine, _SPAN).rows
    at_work = [(task.kind, task.began) for task in running if task.began is not None]
    if not n_tasks and not at_work:
        return None
    if at_work:
        ended = max(ended, time.time())
    seconds = max(ended - began, 1e-3)
    going = [(kind, max(start - began, 0.0), max(ended - start, 0.0)) for kind, start in at_work]
    kinds = [kind for (kind,) in run(engine, _ORDER).rows]
    bars = _bars(engine, began, going, kinds) if n_tasks + len(going) <= most_bars else None
    lives, restarts, gaps = _lives(engine, began)
    busy = _busy(engine, began, seconds / BINS, going, kinds)
    return Timeline(began, seconds, n_tasks, bars, busy, lives, restarts, gaps)


def instant(seconds: float) -> str:
    """Return an instant, s since 1970, for people: UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _bars(
    engine: Engine, began: float, going: list[tuple[str, float, float]], kinds: list[str]
) -> dict[str, list[Bar]]:
    """Return the bars of each kind, each in the first row where it has room."""
    tasks = [(*row, False) for row in run(engine, _BARS, {"began": began}).rows]
    tasks += [(*task, True) for task in going]
    tasks.sort(key=lambda task: task[1])
    free: dict[str, list[float]] = defaultdict(list)
    bars: dict[str, list[Bar]] = {kind: [] for kind in kinds}
    for kind, start, seconds, at_work in tasks:
        ends = free[kind]
        # Instants are cut to 1 ms: without that margin two tasks in a row could overlap.
        row = next((i for i, end in enumerate(ends) if end <= start + 1e-3), len(ends))
        ends[row:] = [start + seconds, *ends[row + 1 :]]
        bars[kind].append(Bar(start, seconds, row, at_work))
    return {kind: found for kind, found in bars.items() if found}


def _busy(
    engine: Engine,
    began: float,
    width: float,
    going: list[tuple[str, float, float]],
    kinds: list[str],
) -> dict[str, list[float]]:
    """Return the average number of workers at each kind in each bin.

    In a bin, workers that begin at ``a`` and end at ``b`` add the sum of (end of the bin - a) minus
    the sum of (end of the bin - b) to those that came in from the bin before.
    """
    moments: dict[str, dict[int, list[float]]] = {
        kind: defaultdict(lambda: [0.0, 0.0]) for kind in kinds
    }
    values = {"began": began, "width": width, "n": BINS}
    for kind, place, change, at in run(engine, _BINS, values).rows:
        moments[kind][place] = [change, at]
    for kind, start, seconds in going:
        for at, change in ((start, 1), (start + seconds, -1)):
            cell = moments[kind][max(0, min(BINS - 1, int(at / width)))]
            cell[0] += change
            cell[1] += change * at
    return {kind: _averages(cells, width) for kind, cells in moments.items() if cells}


def _averages(cells: dict[int, list[float]], width: float) -> list[float]:
    averages, inside = [], 0.0
    for place in range(BINS):
        change, at = cells.get(place, (0.0, 0.0))
        time_in_bin = inside * width + change * (place + 1) * width - at
        averages.append(max(time_in_bin / width, 0.0))
        inside += change
    return averages


def _lives(
    engine: Engine, began: float
) -> tuple[tuple[Life, ...], tuple[float, ...], tuple[tuple[float, float], ...]]:
    events = run(engine, _LIVES, {"began": began}).rows
    noted: list[tuple[Any, ...]] = [row[1:] for row in events if row[0] == "workers"]
    lives = tuple(Life(at, slots) for at, slots, _ in noted)
    # The first driver begins the campaign; all others go on with it.
    restarts = tuple(row[1] for row in events if row[0] == "start" and row[1] > 0.0)
    gaps = []
    for (at, _, driven), (later, _, driven_then) in itertools.pairwise(noted):
        # Wall time is booked each second: what is shorter than two may be no gap at all.
        if (dark := (later - at) - (driven_then - driven)) > 2.0:
            gaps.append((later - dark, later))
    return lives, restarts, tuple(gaps)
