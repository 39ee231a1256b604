"""Nodes that are full, broken or late, and pools of them: what ledger and status tell of it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from alloop.executors.sites import compile as sites
from alloop.report.status import status
from alloop.report.words import status_lines
from alloop_db.ledger import open_readonly
from alloop_tasks import boundary
from tests.small_campaigns import SPENT, alloop, rows, write_campaign
from tests.small_disks import fill, small_disk

pytestmark = pytest.mark.timeout(300)

CONFIG = """
schema: 1
campaign: {name: water, seed: 3, directory: run}
systems:
  water: {structure: water.xyz}
target: {force_rmse: 0.001 eV/A}
tiers:
  - id: odd
    method: {engine: ase, calculator: "odd_calculators:NeedsScratch", name: odd}
    budget: {labels: 500}
committee: [{id: ani, members: 3}]
train: {epochs: 5}
explore:
  initial: {sampler: rattle, frames: 12}
  routes: [{id: warm, temperature: 300 K, duration: 25 fs, replicas: 4}]
select: {per_generation: 8}
stop: {max_generations: 1}
site: site.yaml
"""
SITE = """
kind: cluster
pools:
  small: {type: local, workers: 1, env: {setup: [SETUP]}}
  large: {type: local, workers: 2, env: {vars: {TMPDIR: /tmp}}}
roles: {explore: large, train: large, label: small}
"""
LOST = 75


@pytest.fixture
def campaign(tmp_path, monkeypatch):
    """Return what starts a campaign whose label pool is set up with a line of shell."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setattr(sites, "STRATEGY_PERIOD_S", 1)

    def start(setup: str):
        (tmp_path / "site.yaml").write_text(SITE.replace("SETUP", json.dumps(setup)))
        return alloop("start", write_campaign(tmp_path, CONFIG))

    return start


def events(config: Path, kind: str) -> list[tuple[str, dict]]:
    sql = f"SELECT text, details FROM event WHERE kind = '{kind}' ORDER BY event_id"
    return [(text, json.loads(details)) for text, details in rows(config, sql)]


def test_a_full_node_costs_a_few_tasks_that_are_done_elsewhere(campaign, tmp_path):
    config = tmp_path / "config.yaml"
    with small_disk("64k") as scratch:
        fill(scratch)
        outcome = campaign(
            f"if mkdir {tmp_path}/seen; then export TMPDIR={scratch}; else export TMPDIR=/tmp; fi"
        )

    assert outcome.exit_code == SPENT, outcome.output
    assert rows(config, "SELECT DISTINCT status FROM label") == [("done",)]
    lost = [details for text, details in events(config, "loss") if "full scratch" in text]
    assert 3 <= len(lost) <= 5
    (host,) = {details["host"] for details in lost}
    assert {details["pool"] for details in lost} == {"small"}
    summary = status(open_readonly(config.parent / "run"))
    assert summary["losses"] == sum(place["n"] for place in summary["losses_by"]) >= len(lost)
    assert summary["pools"] == []
    lines = "\n".join(status_lines(summary | {"driver": None}))
    assert f" small on {host}" in lines


def test_where_a_task_ran_and_what_it_took_is_in_the_ledger(campaign, tmp_path):
    outcome = campaign("export TMPDIR=/tmp SLURM_JOB_ID=4711")

    assert outcome.exit_code == SPENT, outcome.output
    config = tmp_path / "config.yaml"
    where = rows(config, "SELECT DISTINCT kind = 'label', pool, job FROM task ORDER BY 1")
    assert where == [(0, "large", None), (1, "small", "4711")]
    ((least, most),) = rows(config, "SELECT min(peak_memory), max(peak_memory) FROM task")
    assert 20.0 < least < most < 20_000.0


def test_a_pool_that_never_comes_up_ends_it_with_the_reason(campaign, tmp_path):
    outcome = campaign("echo 'module: orca/6.1 not found' >&2; exit 1")

    assert outcome.exit_code == LOST, outcome.output
    config = tmp_path / "config.yaml"
    assert "pool small is broken off" in outcome.output
    told = [details for _, details in events(config, "pool") if details["pool"] == "small"]
    states = [details["state"] for details in told]
    assert states[-1] == "broken off"
    assert "module: orca/6.1 not found" in told[-1]["reason"]
    assert states.count("waiting for nodes") <= 4
    summary = status(open_readonly(config.parent / "run")) | {"driver": "somebody"}
    (line,) = (line for line in status_lines(summary) if line.startswith("pool small: "))
    assert "broken off since 20" in line
    assert "module: orca/6.1 not found" in line


def test_a_full_scratch_of_this_very_machine_stops_it_with_one_line(tmp_path, monkeypatch):
    """There is no other node to go to."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    with small_disk("64k") as scratch:
        fill(scratch)
        monkeypatch.setenv("TMPDIR", str(scratch))
        config = write_campaign(tmp_path, CONFIG.replace("site.yaml", "inprocess"))
        outcome = alloop("start", config)

    assert outcome.exit_code == 1, outcome.output
    words = str(outcome.exception)
    assert "a disk of this machine is full" in words
    assert f"whose scratch is {scratch}" in words
    assert rows(config, "SELECT DISTINCT status FROM label") == [("pending",)]


@pytest.mark.parametrize("ahead", [-300.0, 300.0])
def test_a_node_with_a_wrong_clock_is_told_of_and_its_tasks_begin_when_they_did(
    tmp_path, monkeypatch, ahead
):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(boundary, "_clock", lambda: time.time() + ahead)

    config = write_campaign(tmp_path, CONFIG.replace("site.yaml", "inprocess"))
    outcome = alloop("start", config)

    assert outcome.exit_code == SPENT, outcome.output
    ((words, details),) = events(config, "clock")
    assert details["seconds_ahead"] == pytest.approx(ahead, abs=2.0)
    assert words.endswith("300 s ahead" if ahead > 0 else "300 s behind")
    late = """SELECT count(*) FROM task WHERE abs(86400.0 * (julianday(finished_at)
        - julianday(started_at)) - seconds) > 2.0"""
    assert rows(config, late) == [(0,)]
