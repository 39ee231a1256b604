"""What ran when, who was busy, what it cost: numbers that can be worked out by hand."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from sqlalchemy import Engine

from alloop.artifacts import ArtifactStore
from alloop.errors import LedgerError
from alloop.frames import Frame
from alloop.report import timeline_plot, watch
from alloop.report.running import Running, count_running, progress_of, read_running
from alloop.report.status import status
from alloop.report.timeline import BINS, Bar, read_timeline
from alloop.report.usage import read_usage, usage_words
from alloop.report.words import status_text
from alloop_db.ledger import LEDGER, open_ledger
from alloop_db.queries import FOLDER, run
from alloop_db.store import Store
from alloop_tasks.workspace import Workspace
from tests.ledger_rows import NUMBERS, REST, Rows, digest

BEGAN = 1_800_000_000.0
"""When the campaign of these tests began, s since 1970."""


def at(seconds: float) -> str:
    return datetime.fromtimestamp(BEGAN + seconds, UTC).isoformat(timespec="milliseconds")


@cache
def _empty() -> bytes:
    """Return a ledger without a row: migrations take half a second."""
    with tempfile.TemporaryDirectory() as folder:
        open_ledger(Path(folder), create=True).dispose()
        return (Path(folder) / LEDGER).read_bytes()


class Made:
    """A campaign of two tiers with a driven time of 100 s, whose tasks a test adds."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / LEDGER).write_bytes(_empty())
        self.engine: Engine = open_ledger(directory, create=False)
        self.store = Store(self.engine, ArtifactStore(directory / "artifacts"))
        self.store.create(
            name="made",
            seed=1,
            version="0.1.0",
            systems={"water": Frame(numbers=NUMBERS, positions=REST)},
            methods={
                "low": {"engine": "tblite", "model": "GFN1-xTB"},
                "high": {"engine": "tblite", "model": "GFN2-xTB"},
            },
        )
        self.sql("UPDATE campaign SET created_at = ?, seconds = 100", at(0))
        self.sql(
            "INSERT INTO generation (number, level_of_theory_id, state, numbers, opened_at)"
            " VALUES (1, 2, 'open', '{}', ?)",
            at(50),
        )
        for threads in (1, 4):
            self.sql(
                "INSERT INTO environment VALUES (?, ?, 'node', '3.11', 'Linux', '{}', NULL, ?)",
                *(threads, digest("threads", threads), threads),
            )
        self.n_tasks = 0

    def sql(self, statement: str, *values: object) -> None:
        with self.engine.begin() as connection:
            connection.exec_driver_sql(statement, values)

    def task(
        self,
        kind: str,
        began: float,
        seconds: float | None,
        *,
        generation: int = 0,
        threads: int = 1,
        wait: float = 0.0,
        **more: object,
    ) -> int:
        self.n_tasks += 1
        given = {
            "submitted_at": at(began - wait),
            "started_at": at(began),
            # The commit: long after the work where the driver was away.
            "finished_at": at(began + (seconds or 0.0) + 500.0),
            "seconds": seconds,
            "environment_id": threads,
        }
        with self.engine.begin() as connection:
            Rows(connection).task(self.n_tasks, kind, generation, **given | more)
        return self.n_tasks

    def driver(self, began: float, slots: int, driven: float) -> None:
        """Note a driver that begins after ``driven`` seconds of wall time of those before it."""
        details = json.dumps({"slots": slots, "seconds": driven})
        self.sql("INSERT INTO event (at, kind, text, details) VALUES (?, 'workers', 'x', ?)",
                 at(began), details)  # fmt: skip

    def rows(self) -> list[dict[str, object]]:
        result = run(self.engine, "utilisation")
        return [dict(zip(result.columns, row, strict=True)) for row in result.rows]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    campaign = Made(tmp_path)
    yield campaign
    campaign.engine.dispose()


def test_core_hours_are_those_of_the_tier_and_count_threads(made: Made) -> None:
    made.task("train", 0.0, 36.0)
    made.task("train", 40.0, 36.0, generation=1, threads=4)
    below = made.task("label", 50.0, 18.0, generation=1)  # of a frame found in the upper tier
    made.task("label", 60.0, 3.6, generation=1)
    made.task("label", 60.0, None, generation=1, status="running")
    with made.engine.begin() as connection:
        Rows(connection).frame(1, generation_id=2, source="x", split="train")
    made.sql(
        "INSERT INTO label (frame_id, level_of_theory_id, generation_id, task_id, status, tries)"
        " VALUES (1, 1, 2, ?, 'pending', 1)",
        below,
    )
    assert read_usage(made.engine)["core_hours"] == {
        "train": {"low": pytest.approx(0.01), "high": pytest.approx(0.04)},
        "label": {"low": pytest.approx(0.005), "high": pytest.approx(0.001)},
    }
    words = status_text(status(made.engine) | {"driver": None}).splitlines()
    assert "  train: 2 done; 0.05 core-hours (low 0.01, high 0.04)" in words
    assert "  label: 2 done, 1 running; 0.006 core-hours (low 0.005, high 0.001)" in words


def test_attempts_that_were_laid_down_with_their_block_are_paid_too(made: Made) -> None:
    made.driver(0.0, 2, 0.0)
    made.task("train", 0.0, 36.0, earlier_seconds=72.0, hand_backs=2)
    running = {"status": "running", "earlier_seconds": 36.0, "started_at": None}
    made.task("train", 0.0, None, environment_id=None, **running)

    used = read_usage(made.engine)

    assert used["core_hours"]["train"]["low"] == pytest.approx((36.0 + 72.0 + 36.0) / 3600.0)
    assert used["utilisation"]["busy_seconds"] == 144.0
    assert used["utilisation"]["all_seconds"] == 200.0  # two workers over 100 s
    ((n, seconds, hand_backs),) = run(
        made.engine, "SELECT n, seconds, hand_backs FROM (" + shipped("time_by_stage") + ")"
    ).rows
    assert (n, seconds, hand_backs) == (1, 108.0, 2)


def shipped(name: str) -> str:
    return (FOLDER / f"{name}.sql").read_text().rstrip().removesuffix(";")


def test_utilisation_is_against_the_slots_that_drivers_noted(made: Made) -> None:
    made.driver(0.0, 2, 0.0)
    made.driver(1000.0, 4, 30.0)  # 970 s without a driver cost no worker's time
    made.task("train", 0.0, 20.0, wait=3.0)
    made.task("train", 0.0, 30.0, wait=5.0)
    made.task("label", 1000.0, 33.0)
    rows = made.rows()
    assert [row["kind"] for row in rows] == ["train", "label", "idle"]
    assert [row["seconds"] for row in rows] == pytest.approx([50.0, 33.0, 340.0 - 83.0])
    assert [row["percent"] for row in rows] == pytest.approx([14.71, 9.71, 75.59])
    assert rows[0]["wait_seconds"] == pytest.approx(4.0, abs=1e-3)
    assert {row["workers"] for row in rows} == {3.4}
    assert {row["workers_are"] for row in rows} == {"slots"}
    used = read_usage(made.engine)["utilisation"]
    assert (used["busy_seconds"], used["all_seconds"]) == (83.0, 340.0)
    assert usage_words(used) == "workers: 3.4 (slots), 24 % of their time busy"


def test_without_slots_workers_are_the_most_tasks_at_once(made: Made) -> None:
    for place in range(3):  # one after the other without a pause: instants are cut to 1 ms
        made.task("label", 10.0 + 1.0005 * place, 1.0004)
    assert made.rows()[0]["workers"] == 1.0
    made.task("train", 30.0, 5.0)
    made.task("train", 34.0, 5.0)
    (row, *_) = made.rows()
    assert (row["workers"], row["workers_are"]) == (2.0, "most at once")
    made.driver(50.0, 8, 90.0)  # a newer driver: its last 10 s are known
    (row, *_) = made.rows()
    assert row["workers"] == pytest.approx((2 * 90 + 8 * 10) / 100)
    assert row["workers_are"] == "slots; at first the most at once"


def test_workers_never_did_more_than_all_they_could(made: Made) -> None:
    made.driver(0.0, 1, 0.0)
    made.task("label", 0.0, 150.0)
    (label, idle) = made.rows()
    assert (label["percent"], idle["seconds"]) == (100.0, 0.0)


def test_a_campaign_without_tasks_has_no_utilisation(made: Made) -> None:
    assert made.rows() == []
    assert read_usage(made.engine) == {"core_hours": {}, "utilisation": None}
    assert read_timeline(made.engine) is None
    assert timeline_plot.timeline(made.engine) == ""


def test_what_runs_counts_as_busy_since_it_was_taken(made: Made, monkeypatch) -> None:
    monkeypatch.setattr("time.time", lambda: BEGAN + 90.0)
    made.driver(0.0, 2, 0.0)
    made.task("train", 0.0, 20.0)
    going = made.task("label", 0.0, None, status="running", submitted_at=at(40.0), generation=1)
    stale = made.task("label", 0.0, None, status="running", submitted_at=at(80.0))
    made.task("label", 0.0, None, status="running", spec={"member": "ani/0"})
    for number, taken in ((going, 50.0), (stale, 3.0)):  # the second by a worker that was killed
        path = Workspace(made.directory, digest("task", number)).running_path
        path.parent.mkdir(exist_ok=True)
        path.write_text("1")
        os.utime(path, (BEGAN + taken, BEGAN + taken))
    running = read_running(made.engine, made.directory)
    assert [task.began and task.began - BEGAN for task in running] == [50.0, 80.0, None]
    assert [task.name for task in running] == ["", "", "ani/0"]
    assert count_running(running) == {"label": {"at_work": 2, "waiting": 1}}
    known = status(made.engine, running)
    assert known["utilisation"]["busy_seconds"] == 20.0 + 40.0 + 10.0
    assert known["running"] == {"label": {"at_work": 2, "waiting": 1}}
    timeline = read_timeline(made.engine, running)
    assert timeline is not None
    assert timeline.bars is not None
    assert timeline.bars["label"] == [
        Bar(pytest.approx(50.0, abs=1e-3), 40.0, 0, True),
        Bar(pytest.approx(80.0, abs=1e-3), 10.0, 1, True),
    ]
    assert sum(timeline.busy["label"]) * timeline.width == pytest.approx(50.0)


def test_bars_share_a_row_only_where_there_is_room(made: Made) -> None:
    for began, seconds in ((0.0, 10.0), (5.0, 10.0), (10.0, 5.0), (12.0, 1.0)):
        made.task("label", began, seconds)
    made.task("train", 2.0, 1.0)
    timeline = read_timeline(made.engine)
    assert timeline is not None
    assert timeline.bars is not None
    assert list(timeline.bars) == ["label", "train"]
    assert [bar.row for bar in timeline.bars["label"]] == [0, 1, 0, 2]
    assert [bar.began for bar in timeline.bars["label"]] == pytest.approx([0, 5, 10, 12], abs=1e-3)
    assert timeline.seconds == pytest.approx(15.0, abs=1e-3)  # work, not the commit 500 s later


def test_bins_hold_the_time_of_every_task(made: Made) -> None:
    rng = np.random.default_rng(3)
    truth = np.zeros(BINS)
    made.sql("INSERT INTO event (at, kind, text) VALUES (?, 'verdict', 'x')", at(200.0))
    for began, seconds in zip(
        rng.uniform(0, 150, 60).round(3), rng.exponential(8, 60), strict=True
    ):
        made.task("label", float(began), float(min(seconds, 190 - began)))
        edges = np.linspace(0.0, 200.0, BINS + 1)
        inside = np.clip(edges, began, began + min(seconds, 190 - began))
        truth += np.diff(inside) / 0.5
    timeline = read_timeline(made.engine, most_bars=59)
    assert timeline is not None
    assert timeline.bars is None
    assert timeline.n_tasks == 60
    # Instants of SQLite are good to 0.1 ms.
    np.testing.assert_allclose(timeline.busy["label"], truth, atol=0.01)
    with_bars = read_timeline(made.engine, most_bars=60)
    assert with_bars is not None
    assert with_bars.bars is not None
    assert len(with_bars.bars["label"]) == 60


def test_restarts_and_the_time_without_a_driver_are_marked(made: Made) -> None:
    made.driver(1.0, 2, 0.0)
    made.driver(60.0, 3, 20.0)  # the first drove 20 s: from 21 s to 60 s nobody did
    made.driver(100.5, 3, 60.0)  # half a second: no gap, wall time is booked each second
    for began in (0.0, 60.0, 100.5):
        made.sql("INSERT INTO event (at, kind, text) VALUES (?, 'start', 'x')", at(began))
    made.task("label", 5.0, 100.0)
    timeline = read_timeline(made.engine)
    assert timeline is not None
    assert timeline.restarts == pytest.approx((60.0, 100.5), abs=1e-3)
    ((began, ended),) = timeline.gaps
    assert (began, ended) == pytest.approx((21.0, 60.0), abs=1e-3)
    assert [life.slots for life in timeline.lives] == [2, 3, 3]
    figure = timeline_plot.draw(timeline)
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert labels == ["busy", "can run at once", "no driver", "driver restarted"]


@pytest.mark.parametrize("most_bars", [0, 100])
def test_the_picture_has_a_lane_for_each_kind(made: Made, most_bars: int) -> None:
    made.task("train", 0.0, 3600.0)
    made.task("label", 3600.0, 7200.0)
    timeline = read_timeline(made.engine, most_bars=most_bars)
    assert timeline is not None
    upper, lower = timeline_plot.draw(timeline).axes
    names = [label.get_text() for label in lower.get_yticklabels()]
    assert names == (["train", "label"] if most_bars else ["train (to 1)", "label (to 1)"])
    assert lower.get_xlabel() == "wall time since 2027-01-15 08:00:00 UTC / hours"
    assert lower.get_xlim() == pytest.approx((0.0, 3.0))
    if most_bars:
        boxes = [bars.get_paths()[0].get_extents() for bars in lower.collections[:4] if
                 len(bars.get_paths())]  # fmt: skip
        spans = [(box.x0, box.x1) for box in boxes]
        assert spans == [pytest.approx((0.0, 1.0)), pytest.approx((1.0, 3.0))]
    values = upper.patches[0].get_data().values
    assert values == pytest.approx(np.ones(BINS), abs=1e-3)


def test_a_watcher_prints_a_line_when_something_has_changed(made: Made) -> None:
    console = Console(record=True, width=40, force_terminal=False)
    with watch.Watcher(made.directory, console) as watcher:
        assert not watcher.look(made.engine)
        assert not watcher.look(made.engine)
        made.task("label", 1.0, 10.0)
        made.sql("UPDATE campaign SET state = 'paused', verdict = '[bold]paused'")
        assert watcher.look(made.engine)
    first, second = console.export_text().splitlines()
    assert first.endswith(
        "made: running, nobody drives it; generation 1 of tier high; labels none yet;"
        " at work nothing"
    )
    assert second.endswith("workers 10 % busy; [bold]paused")


def test_a_watcher_outlives_a_ledger_that_is_away_but_not_a_missing_one(
    made: Made, tmp_path: Path
) -> None:
    console = Console(record=True, width=200, force_terminal=False)
    with watch.Watcher(made.directory, console) as watcher:
        watcher.look(made.engine)
        made.sql("CREATE TABLE away AS SELECT * FROM campaign")
        made.sql("DELETE FROM campaign")
        assert not watcher.look(made.engine)
        made.sql("INSERT INTO campaign SELECT * FROM away")
        assert not watcher.look(made.engine)
    said = console.export_text().splitlines()
    assert [("trying again" in line) for line in said] == [False, True, False]
    with pytest.raises(LedgerError, match="there is no ledger"):
        watch.watch(tmp_path / "nowhere", console, 1.0)


def test_the_picture_of_a_watcher_shows_what_runs(made: Made) -> None:
    made.task("train", 0.0, 20.0)
    tasks = tuple(
        Running(digest("task", i), "train", 1, f"ani/{i}", None if i == 14 else BEGAN)
        for i in range(15)
    )
    Workspace(made.directory, digest("task", 0)).running_path.parent.mkdir()
    Workspace(made.directory, digest("task", 0)).progress(1, 4, "epoch [1]")
    assert progress_of(made.directory, tasks[0])["total"] == 4
    assert progress_of(made.directory, tasks[1]) == {}
    console = Console(record=True, width=200)
    summary = status(made.engine, tasks) | {"driver": "host, process 7"}
    console.print(watch.picture(summary, tasks, made.directory))
    shown = console.export_text()
    assert "made: running, driven by host, process 7" in shown
    assert "train: 1 done (14 at work, 1 waiting for a worker); 0.0056 core-hours of low" in shown
    assert "ani/0" in shown
    assert " 25 %" in shown
    assert "epoch [1]" in shown
    assert "ani/11" in shown
    assert "ani/12" not in shown
    assert "and 2 others at work" in shown


def test_the_ledger_that_is_watched_is_not_changed(made: Made) -> None:
    made.task("label", 1.0, 10.0)
    made.engine.dispose()
    before = (made.directory / LEDGER).read_bytes()
    made.sql("UPDATE campaign SET verdict = 'over'")
    made.engine.dispose()
    after = (made.directory / LEDGER).read_bytes()
    assert before != after
    watch.watch(made.directory, Console(quiet=True), 1.0)
    assert (made.directory / LEDGER).read_bytes() == after


def test_the_kinds_of_tasks_keep_their_order(made: Made) -> None:
    made.task("prepare", 0.0, 1.0)
    made.task("label", 1.0, 1.0)
    made.task("explore", 2.0, 1.0, generation=1)
    made.task("label", 3.0, 1.0, generation=1)
    assert [(row["tier"], row["kind"]) for row in made.rows()] == [
        ("low", "prepare"), ("low", "label"), ("high", "explore"), ("high", "label"),
        (None, "idle"),
    ]  # fmt: skip
