"""What is known of how long work takes, and what workers and nodes are told of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from alloop.executors.durations import Durations, Pace, pace_file
from alloop_db import schema as t
from alloop_db.durations import LATEST, longest_tasks
from alloop_db.ledger import open_ledger
from alloop_db.sessions import transaction

LABEL = {"tier": "dft", "frames": [{}, {}, {}, {}]}


@pytest.fixture
def file(tmp_path) -> Path:
    return pace_file(tmp_path, "nodes")


def told(file: Path) -> int | None:
    return int(file.read_text()) if file.exists() else None


def test_for_a_label_of_which_nothing_is_known_there_must_be_what_the_site_says(file):
    pace = Pace(Durations(), file, 7200.0)
    pace.begin()
    assert told(file) is None  # nodes go by what the site says
    assert pace.expect("label", LABEL) is None  # a block that has taken it may try
    assert told(file) == 7200


def test_one_label_counts_not_the_task_and_the_longest_not_the_last(file):
    pace = Pace(Durations(), file, 7200.0)
    pace.expect("label", LABEL)
    pace.note("label", LABEL, 400.0)
    assert (pace.expect("label", LABEL), told(file)) == (100.0, 150)
    pace.note("label", LABEL, 300.0)
    assert (pace.expect("label", LABEL), told(file)) == (100.0, 150)
    # Another tier is another matter.
    assert pace.expect("label", LABEL | {"tier": "ccsdt"}) is None
    assert told(file) == 7200


@pytest.mark.parametrize("kind", ["explore", "train", "transfer", "fit_spacetime"])
def test_what_can_be_laid_down_needs_little_time_however_long_it_takes(file, kind):
    pace = Pace(Durations([(kind, None, 90_000.0)]), file, 7200.0)
    assert pace.expect(kind, {}) is None
    assert told(file) == 120


def test_what_cannot_be_laid_down_must_end(file):
    pace = Pace(Durations([("evaluate", None, 3.0)]), file, 7200.0)
    assert pace.expect("evaluate", {}) == 3.0
    assert told(file) == 60  # never less
    assert pace.expect("select", {}) is None
    assert told(file) == 600  # it may take a while
    pace.note("select", {}, 100.0)
    assert (pace.expect("select", {}), told(file)) == (100.0, 150)
    assert Pace(Durations(), file, 30.0, ["select"]).needed() == 60.0


def test_the_file_is_written_when_it_matters(file):
    pace = Pace(Durations([("label", "dft", 100.0)]), file, 7200.0, ["label.dft"])
    pace.begin()
    assert told(file) == 150
    before = file.stat().st_ino
    pace.note("label", LABEL, 4 * 119.0)
    assert (told(file), file.stat().st_ino) == (150, before)
    pace.note("label", LABEL, 4 * 121.0)
    assert told(file) == 182
    file.unlink()
    pace.tell()
    assert told(file) is None
    pace.begin()  # a new life of the pool has a new folder
    assert told(file) == 182
    assert [path.name for path in file.parent.iterdir()] == ["longest"]


def test_a_file_that_cannot_be_written_is_no_obstacle(tmp_path):
    (tmp_path / "parsl").write_text("no folder")
    pace = Pace(Durations([("label", "dft", 9.0)]), pace_file(tmp_path, "nodes"), 7200.0)
    assert pace.expect("label", LABEL) == 9.0


def record(tmp_path, *tasks):
    """Put finished tasks into a ledger: kind, spec, seconds and the seconds before."""
    engine = open_ledger(tmp_path, create=True)
    with transaction(engine) as session:
        for number, (kind, spec, seconds, earlier) in enumerate(tasks):
            session.add(
                t.Task(
                    key=f"{number:064x}",
                    kind=kind,
                    generation=0,
                    spec=spec,
                    priority=1,
                    status="pending" if seconds is None else "done",
                    tries=0,
                    losses=0,
                    hand_backs=0,
                    earlier_seconds=earlier,
                    created_at=t.now(),
                    seconds=seconds,
                )
            )
    return engine


def test_the_ledger_knows_the_longest_of_each_kind_and_tier(tmp_path):
    engine = record(
        tmp_path,
        ("label", LABEL, 400.0, 0.0),
        ("label", LABEL, 100.0, 340.0),  # handed back on the way
        ("label", {"tier": "xtb", "frames": [{}]}, 1.0, 0.0),
        ("evaluate", {"frames": [{}, {}]}, 7.0, 0.0),
        ("evaluate", {}, 5.0, 0.0),
        ("select", {}, None, 0.0),
        ("import", {}, 9000.0, 0.0),
    )
    found = set(longest_tasks(engine))
    assert found == {("label", "dft", 110.0), ("label", "xtb", 1.0), ("evaluate", None, 7.0)}
    durations = Durations(found)
    assert durations.roles == {"label.dft", "label.xtb", "evaluate"}
    assert durations.of("label.dft") == 110.0


def test_only_the_latest_tasks_count(tmp_path):
    old = ("evaluate", {}, 500.0, 0.0)
    engine = record(tmp_path, old, *[("evaluate", {}, 5.0, 0.0)] * LATEST)
    assert longest_tasks(engine) == [("evaluate", None, 5.0)]
    assert longest_tasks(open_ledger(tmp_path / "new", create=True)) == []
