"""Nodes whose clocks are wrong: what is noticed, and when their tasks are said to have begun."""

from __future__ import annotations

import time
from datetime import datetime

import pytest

from alloop.campaign.clocks import TOLERANCE_S, Clocks
from alloop_tasks import boundary
from alloop_tasks.workspace import Workspace, read_json

SENT = 1_000_000.0


def envelope(ended: float, seconds: float = 10.0, host: str = "node1") -> dict:
    began = datetime.fromtimestamp(ended - seconds).astimezone()
    return {
        "clock": ended,
        "seconds": seconds,
        "started_at": began.isoformat(timespec="milliseconds"),
        "environment": {"host": host},
    }


def began(report: dict) -> float:
    return datetime.fromisoformat(report["started_at"]).timestamp()


@pytest.mark.parametrize("ended", [SENT + 10.0, SENT + 100.0, SENT + 60.0])
def test_what_can_be_is_believed(ended):
    report = envelope(ended)

    assert Clocks().correct(report, SENT, SENT + 100.0) is None
    assert began(report) == pytest.approx(ended - 10.0)


@pytest.mark.parametrize("ahead", [-3600.0, -120.0, 30.0, 86400.0])
def test_a_wrong_clock_is_told_of_once_and_put_right_always(ahead):
    clocks, first, second = Clocks(), envelope(SENT + 20.0 + ahead), envelope(SENT + 50.0 + ahead)

    assert clocks.correct(first, SENT, SENT + 20.0) == pytest.approx(ahead)
    assert clocks.correct(second, SENT, SENT + 50.0) is None
    assert began(first) == pytest.approx(SENT + 10.0)
    assert began(second) == pytest.approx(SENT + 40.0)


def test_a_task_cannot_have_ended_sooner_than_it_took():
    """Behind by 8 s: it would have ended after it was sent, but begun before that."""
    report = envelope(SENT + 10.0 - 8.0)

    assert Clocks().correct(report, SENT, SENT + 10.0) == pytest.approx(-8.0)
    assert began(report) == pytest.approx(SENT)


def test_a_clock_that_is_behind_is_put_right_where_its_results_could_be(tmp_path):
    """A task that waited for a worker for longer than the clock is behind shows nothing."""
    clocks = Clocks()
    assert clocks.correct(envelope(SENT + 10.0 - 20.0), SENT, SENT + 10.0) == pytest.approx(-20.0)
    late = envelope(SENT + 100.0 - 20.0)

    clocks.correct(late, SENT, SENT + 100.0)

    assert began(late) == pytest.approx(SENT + 90.0)


def test_the_result_that_lay_the_shortest_tells_best():
    """One that lay waiting for a driver makes a clock look later than it is."""
    clocks = Clocks()
    clocks.correct(envelope(SENT + 10.0 - 300.0), SENT, SENT + 10.0 + 60.0)
    prompt = envelope(SENT + 50.0 - 300.0)
    clocks.correct(prompt, SENT, SENT + 50.0)
    assert began(prompt) == pytest.approx(SENT + 40.0)
    waited = envelope(SENT + 50.0 - 300.0)

    clocks.correct(waited, SENT, SENT + 50.0 + 40.0)

    assert began(waited) == pytest.approx(SENT + 40.0), "and it is remembered"


def test_a_clock_that_was_set_right_is_believed_again():
    clocks = Clocks()
    clocks.correct(envelope(SENT + 1000.0), SENT, SENT + 10.0)
    sound = envelope(SENT + 30.0)

    clocks.correct(sound, SENT, SENT + 30.0)

    assert began(sound) == pytest.approx(SENT + 20.0)


def test_other_hosts_are_left_alone():
    clocks = Clocks()
    clocks.correct(envelope(SENT + 1000.0), SENT, SENT + 10.0)
    other = envelope(SENT + 10.0, host="node2")

    assert clocks.correct(other, SENT, SENT + 10.0) is None
    assert began(other) == pytest.approx(SENT)


@pytest.mark.parametrize("ahead", [None, -50.0, 70.0])
def test_a_worker_tells_the_time_of_its_own_clock(tmp_path, monkeypatch, ahead):
    """A real task; with a clock that was shifted."""
    sent = time.time()
    if ahead is not None:
        monkeypatch.setattr(boundary, "_clock", lambda: time.time() + ahead)
    boundary.run("nonsense", {}, str(tmp_path), "key")
    report = read_json(Workspace(tmp_path, "key").result_path)

    found = Clocks().correct(report, sent, time.time())

    assert found == (None if ahead is None else pytest.approx(ahead, abs=1.0))
    assert began(report) == pytest.approx(sent, abs=TOLERANCE_S)
