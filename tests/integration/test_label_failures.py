"""Labels that fail: recorded with the program's own words, retried by rule, counted everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.small_campaigns import SPENT, STALLED, alloop, rows, write_campaign

pytestmark = pytest.mark.timeout(300)

CONFIG = """
schema: 1
campaign: {name: water, seed: 3, directory: run}
systems:
  water: {structure: water.xyz}
target: {force_rmse: 0.001 eV/A}
tiers:
  - id: odd
    method:
      engine: ase
      calculator: CALCULATOR
      kwargs: {folder: FOLDER}
      name: odd
    budget: {labels: 500}
    give_up_after: 12
committee: [{id: ani, members: 3}]
train: {epochs: 5}
explore:
  initial: {sampler: rattle, frames: 20}
  routes: [{id: warm, temperature: 300 K, duration: 25 fs, replicas: 4}]
select: {per_generation: 8}
stop: {max_generations: 1}
site: inprocess
"""


@pytest.fixture
def config(tmp_path) -> Path:
    return tmp_path / "config.yaml"


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))

    def start(calculator: str):
        text = CONFIG.replace("CALCULATOR", f"odd_calculators:{calculator}")
        return alloop("start", write_campaign(tmp_path, text.replace("FOLDER", str(tmp_path))))

    return start


def test_a_label_that_fails_once_is_tried_again_and_both_tries_are_kept(run, config):
    outcome = run("FailsOnce")
    assert outcome.exit_code == SPENT, outcome.output

    attempts = """SELECT a.status, a.error_class, a.error_text FROM label_attempt a
        JOIN label USING (label_id) WHERE label.tries = 1 ORDER BY label_id, a.number"""
    tried = rows(config, attempts)

    assert tried
    assert [status for status, _, _ in tried] == ["failed", "done"] * (len(tried) // 2)
    assert tried[0][1] == "scf_not_converged"
    assert "SCF did not converge after 3 cycles" in tried[0][2]
    assert rows(config, "SELECT DISTINCT status FROM label") == [("done",)]


def test_a_frame_that_cannot_be_labelled_costs_that_frame(run, config):
    outcome = run("SomeNeverWork")
    assert outcome.exit_code == SPENT, outcome.output

    (failed,) = rows(config, "SELECT COUNT(*) FROM label WHERE status = 'failed'")[0]
    (attempts,) = rows(config, "SELECT COUNT(*) FROM label_attempt WHERE status = 'failed'")[0]
    assert 0 < failed < 28
    assert attempts >= failed

    status = alloop("status", "--json", "-c", config)
    summary = json.loads(status.output)
    assert summary["labels"]["failed"] == failed
    assert sum(summary["label_failures"].values()) == attempts
    assert sum(entry["failed"] for entry in summary["generations"]) == failed
    trained = "SELECT COUNT(*) FROM snapshot_member JOIN label USING (label_id)"
    assert rows(config, trained + " WHERE status = 'failed'") == [(0,)]


def test_a_tier_that_only_fails_is_stopped_early_with_its_own_words(run, config):
    outcome = run("NeverWorks")

    assert outcome.exit_code == STALLED
    assert "SCF did not converge after 3 cycles" in outcome.output
    assert rows(config, "SELECT state FROM campaign") == [("stalled",)]
    (attempts,) = rows(config, "SELECT COUNT(*) FROM label_attempt")[0]
    assert 12 <= attempts < 40, "the breaker waits for the tasks in flight, not for all labels"


def test_a_tier_that_was_stopped_goes_on_once_it_is_mended(run, config):
    assert run("NeverWorks").exit_code == STALLED
    again = run("NeverWorks")
    assert again.exit_code == STALLED, "still broken: it tries, and stops again"
    config.with_name("mended").touch()

    outcome = run("NeverWorks")

    assert outcome.exit_code == SPENT, outcome.output
    assert "trying" in outcome.output
    assert rows(config, "SELECT DISTINCT status FROM label") == [("done",)]
    (failed,) = rows(config, "SELECT COUNT(*) FROM label_attempt WHERE status = 'failed'")[0]
    assert failed >= 24, "what was tried before stays on record"

    assert "nothing to do" in run("NeverWorks").output
