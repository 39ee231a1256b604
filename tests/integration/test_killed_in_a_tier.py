"""kill -9 in every stage of a higher tier: the same promotions, labels, modes and models.

A campaign of one tier is run once; each test goes on with a copy of it and a second tier.
"""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.small_campaigns import (
    CONVERGED,
    check_sound,
    finish,
    reading,
    rows,
    start,
    write_campaign,
)

pytestmark = pytest.mark.timeout(600)

CONFIG = """
schema: 1
campaign: {name: water, seed: 11, directory: run}
systems:
  water: {structure: water.xyz}
target: {force_rmse: 0.001 eV/A}
tiers:
  - {id: gfn1, method: {engine: tblite, model: GFN1-xTB}, target: {force_rmse: 1e9 eV/A}}
committee: [{id: ani, members: 3}]
train: {epochs: 10}
explore:
  initial: {frames: 20}
  routes:
    - {id: warm, temperature: 300 K, duration: 60 fs, replicas: 8, batch: 8}
select: {per_generation: 15, thinning: 5 fs}
stop: {max_generations: 2, for_generations: 1}
site: inprocess
"""
UPPER = "  - {id: gfn2, method: {engine: tblite, model: GFN2-xTB}, escalate: {per_round: 14}}\n"
TRANSFER = "transfer: {modes: [finetune, delta], max_steps: 40}\n"
MOMENTS = (
    *((1, "promote", 0), (1, "label", 2), (1, "transfer", 1)),
    *((2, "promote", 0), (2, "score", 0)),
)
"""Turn of the upper tier, stage, and how many tasks of the stage are done when the driver dies."""


@pytest.fixture(scope="module")
def one_tier(tmp_path_factory) -> Path:
    config = write_campaign(tmp_path_factory.mktemp("one") / "campaign", CONFIG)
    finish(config, CONVERGED)
    return config.parent


def with_upper_tier(one_tier: Path, folder: Path) -> Path:
    shutil.copytree(one_tier, folder)
    text = CONFIG.replace("committee:", f"{UPPER}committee:") + TRANSFER
    (folder / "config.yaml").write_text(text)
    return folder / "config.yaml"


@pytest.fixture(scope="module")
def undisturbed(one_tier, tmp_path_factory) -> Path:
    config = with_upper_tier(one_tier, tmp_path_factory.mktemp("undisturbed") / "campaign")
    finish(config)
    return config


def outcome(config: Path) -> dict[str, set[tuple]]:
    """Return what must not depend on when a driver was killed."""
    queries = {
        "labels": "SELECT key, split, l.tier, g.number, status, energy, forces FROM label"
        " JOIN frame USING (frame_id) JOIN level_of_theory l USING (level_of_theory_id)"
        " JOIN generation g ON g.generation_id = label.generation_id",
        "promotions": "SELECT g.number, key, action, rule FROM decision JOIN frame USING (frame_id)"
        " JOIN generation g ON g.generation_id = decision.generation_id WHERE action = 'promoted'",
        "predictions": "SELECT key, committee_id, energy, force_bound FROM prediction"
        " JOIN frame USING (frame_id)",
        "scores": "SELECT generation_id, mode, split, force_rmse, relative, promoted"
        " FROM mode_score",
        "models": "SELECT generation_id, mode, member, sha256 FROM model"
        " JOIN artifact USING (artifact_id)",
        "committees": "SELECT generation_id, sha256 FROM committee",
        "snapshots": "SELECT generation_id, level_of_theory_id, sha256 FROM snapshot",
        "errors": "SELECT committee_id, kind, force_rmse, energy_rmse FROM evaluation",
    }
    return {name: set(rows(config, sql)) for name, sql in queries.items()}


def kill_at(config: Path, turn: int, stage: str, done: int) -> bool:
    """Kill a driver while a task of a stage runs; return False if it ended before that."""
    running = (
        "SELECT SUM(task.status = 'running'), SUM(task.status = 'done') FROM task"
        " JOIN generation g ON g.number = task.generation"
        " JOIN level_of_theory l USING (level_of_theory_id) WHERE l.tier = 'gfn2'"
        f" AND kind = '{stage}' AND g.number = (SELECT MIN(number) FROM generation JOIN"
        f" level_of_theory USING (level_of_theory_id) WHERE tier = 'gfn2') + {turn - 1}"
    )
    driver = start(config)
    try:
        with reading(config) as ledger:
            while driver.poll() is None:
                ((flying, finished),) = ledger.execute(running).fetchall()
                if flying and finished >= done:
                    driver.send_signal(signal.SIGKILL)
                    driver.wait()
                time.sleep(0.004)
        return driver.returncode == -signal.SIGKILL
    finally:
        driver.kill()
        driver.wait()
        assert driver.stdout is not None
        driver.stdout.close()


def test_a_driver_killed_in_every_stage_of_a_tier_ends_as_if_nothing_had_happened(
    tmp_path, one_tier, undisturbed
):
    config = with_upper_tier(one_tier, tmp_path / "campaign")
    for moment in MOMENTS:
        assert kill_at(config, *moment), f"it ended before {moment}: the test proves nothing"

    output = finish(config)

    assert "resuming" in output
    check_sound(config)
    here, there = outcome(config), outcome(undisturbed)
    for name, expected in there.items():
        assert expected, name
        assert here[name] == expected, name
    assert rows(config, "SELECT COUNT(*) FROM promotion") == [(2,)]
    assert not list((config.parent / "run" / "outbox").iterdir())
