"""Bad input and faults of the world: one clear line, the right exit code, nothing lost."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alloop.executors.processes import of_campaign
from tests.small_campaigns import PAUSED, SPENT, WATER, rows, write_campaign
from tests.small_disks import small_disk

pytestmark = pytest.mark.timeout(600)

CONFIG = """schema: 1
campaign: {name: water, seed: 11, directory: run}
systems:
  water: {structure: water.xyz}
target: {force_rmse: 0.001 eV/A}
tiers:
  - {id: xtb, method: {engine: tblite, model: GFN2-xTB}, budget: {labels: 500}}
committee: [{id: ani, members: 3}]
train: {epochs: 10}
explore:
  initial: {frames: 20}
  routes:
    - {id: warm, temperature: 300 K, duration: 50 fs, replicas: 6, batch: 3}
select: {per_generation: 12}
stop: {max_generations: 1}
site: inprocess
"""


@pytest.fixture
def config(tmp_path) -> Path:
    return write_campaign(tmp_path, CONFIG)


def command(*words) -> list[str]:
    return [sys.executable, "-m", "alloop", *map(str, words)]


def alloop(*words) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command(*words), capture_output=True, text=True, env=environment, timeout=300
    )


def one_line(outcome: subprocess.CompletedProcess[str], code: int) -> str:
    assert outcome.returncode == code, outcome.stdout + outcome.stderr
    assert "Traceback" not in outcome.stderr
    lines = outcome.stderr.strip().splitlines()
    assert len(lines) == 1, outcome.stderr
    return lines[0]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("frames: 20", "frmaes: 20", ["config.yaml:11:13", "did you mean 'frames'"]),
        ("0.001 eV/A", "0.001 eV", ["config.yaml:5:10", "eV/A"]),
        ("structure: water.xyz}", "structure: water.xyz, multiplicity: 2}", ["10 electrons"]),
        ("members: 3", "members: 2", ["committee", "3"]),
        ("duration: 50 fs", "duration: 50 fs, timestep: 5 fs", ["timestep", "hydrogen"]),
        ("id: warm,", "id: warm, systems: [steam],", ["steam"]),
        ("site: inprocess", "site: nowhere", ["nowhere"]),
    ],
)
def test_a_wrong_config_is_one_line_with_its_place(config, old, new, words):
    config.write_text(CONFIG.replace(old, new))

    for verb in ("validate", "start"):
        line = one_line(alloop(verb, config), 2)
        assert all(word in line for word in words), line
    assert not (config.parent / "run").exists()


def test_all_errors_come_at_once(config):
    config.write_text(CONFIG.replace("seed", "sede").replace("members: 3", "members: 2"))

    outcome = alloop("validate", config)

    assert outcome.returncode == 2
    assert len(outcome.stderr.strip().splitlines()) == 2


def test_a_truncated_structure_is_one_line(config):
    (config.parent / "water.xyz").write_text(WATER[:40])

    assert "water.xyz" in one_line(alloop("start", config), 2)


def test_a_directory_that_cannot_be_made_is_one_line(config):
    (config.parent / "run").write_text("a file is in the way")

    assert "run" in one_line(alloop("start", config), 1)


def test_unknown_campaigns_and_frames_are_one_line(config):
    assert "ledger.sqlite" in one_line(alloop("status", "-c", config.parent), 1)


def test_a_full_disk_is_one_line_and_costs_nothing_that_was_finished(config):
    with small_disk("1200k") as folder:
        for name in ("water.xyz", "config.yaml"):
            shutil.copy(config.parent / name, folder)
        small = folder / "config.yaml"
        line = one_line(alloop("start", small), 1)
        assert "full" in line or "space" in line, line
        kept = set(rows(small, "SELECT label_id, energy FROM label WHERE status = 'done'"))
        assert rows(small, "PRAGMA integrity_check") == [("ok",)]

        subprocess.run(["mount", "-o", "remount,size=60m", str(folder)], check=True)
        outcome = alloop("start", small)

        assert outcome.returncode == SPENT, outcome.stdout + outcome.stderr
        after = set(rows(small, "SELECT label_id, energy FROM label WHERE status = 'done'"))
        assert kept <= after


@pytest.mark.skipif(shutil.which("mount") is None, reason="needs mount to make a read-only disk")
def test_a_read_only_directory_is_one_line(config):
    with small_disk("1m") as folder:
        for name in ("water.xyz", "config.yaml"):
            shutil.copy(config.parent / name, folder)
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        assert "ead-only" in one_line(alloop("start", folder / "config.yaml"), 1)


def has_begun(config: Path) -> bool:
    try:
        return bool(rows(config, "SELECT 1 FROM task WHERE status = 'done'"))
    except sqlite3.OperationalError:  # the driver has not made its ledger yet
        return False


@pytest.fixture
def running(config):
    """A campaign on Parsl that goes on for a while."""
    config.write_text(
        CONFIG.replace("site: inprocess", "site: local").replace("generations: 1", "generations: 9")
    )
    driver = subprocess.Popen(
        command("start", config), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        deadline = time.monotonic() + 120
        while not has_begun(config):
            assert driver.poll() is None, driver.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.5)
        yield config, driver
    finally:
        driver.kill()
        driver.communicate()


def test_a_second_driver_is_refused_and_told_by_whom(running):
    config, driver = running

    line = one_line(alloop("start", config), 1)

    assert str(driver.pid) in line
    assert driver.poll() is None


def test_status_reads_while_the_driver_writes(running):
    config, driver = running

    outcome = alloop("status", "-c", config)

    assert outcome.returncode == 0
    assert str(driver.pid) in outcome.stdout


def test_ctrl_c_ends_cleanly_and_leaves_no_process(running):
    config, driver = running

    driver.send_signal(signal.SIGINT)
    output, _ = driver.communicate(timeout=60)

    assert driver.returncode == PAUSED, output
    assert "start again to go on" in output
    assert "Traceback" not in output
    assert rows(config, "SELECT COUNT(*) FROM task WHERE status = 'running'") == [(0,)]
    assert not of_campaign(config.parent / "run")


def test_pause_lets_running_tasks_finish(running):
    config, driver = running

    assert alloop("pause", "-c", config).returncode == 0
    output, _ = driver.communicate(timeout=120)

    assert driver.returncode == PAUSED, output
    assert rows(config, "SELECT state FROM campaign") == [("paused",)]
    assert rows(config, "SELECT COUNT(*) FROM task WHERE status = 'running'") == [(0,)]
    assert rows(config, "SELECT COUNT(*) FROM event WHERE kind = 'loss'") == [(0,)]
