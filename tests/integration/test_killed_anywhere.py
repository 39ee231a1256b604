"""kill -9 at random moments: nothing lost, nothing twice, the same labels as undisturbed.

A real campaign on water: GFN2-xTB through tblite, a committee of ANI potentials, Parsl workers.
"""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from alloop.executors.processes import of_campaign
from tests.small_campaigns import SPENT, check_sound, finish, rows, start, write_campaign

pytestmark = pytest.mark.timeout(900)

CONFIG = """
schema: 1
campaign: {name: water, seed: 5, directory: run}
systems:
  water: {structure: water.xyz}
target: {force_rmse: 0.001 eV/A}
tiers:
  - {id: xtb, method: {engine: tblite, model: GFN2-xTB}, budget: {labels: 500}}
committee: [{id: ani, members: 3}]
train: {epochs: 20}
explore:
  initial: {frames: 20}
  routes:
    - {id: warm, temperature: 300 K, duration: 50 fs, replicas: 6, batch: 3}
    - {id: free, ensemble: nve, duration: 50 fs, replicas: 6, batch: 3, start: thermal}
select: {per_generation: 12}
spacetime: {cutoff: 5 fs, steps: 50, every: 1 generations}
stop: {max_generations: 2}
"""


def labelled_frames(config: Path) -> set[tuple]:
    sql = "SELECT key, split, status, energy FROM label JOIN frame USING (frame_id)"
    return set(rows(config, sql))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    config = write_campaign(tmp_path_factory.mktemp("undisturbed") / "campaign", CONFIG)
    finish(config)
    return config


def check_ledger(config: Path, undisturbed: Path) -> None:
    check_sound(config)
    assert labelled_frames(config) == labelled_frames(undisturbed)
    assert rows(config, "SELECT COUNT(*) FROM label WHERE status IN ('pending')") == [(0,)]
    for table in ("model", "committee", "spacetime_model", "trajectory", "snapshot"):
        count = f"SELECT COUNT(*) FROM {table}"
        assert rows(config, count) == rows(undisturbed, count), table


def check_no_process_is_left(config: Path) -> None:
    deadline = time.monotonic() + 30
    while (left := of_campaign(config.parent / "run")) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not left


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_drivers_lose_nothing_and_do_nothing_twice(tmp_path, undisturbed, seed):
    config = write_campaign(tmp_path / "campaign", CONFIG)
    moments = random.Random(seed)
    kills = 0
    for _ in range(4):
        driver = start(config)
        try:
            driver.wait(timeout=moments.uniform(4, 16))
        except subprocess.TimeoutExpired:
            driver.send_signal(signal.SIGKILL)
            driver.wait()
            kills += 1
        assert driver.stdout is not None
        driver.stdout.close()
    assert kills, "the campaign was too quick to be killed: the test proves nothing"

    finish(config)

    check_ledger(config, undisturbed)
    check_no_process_is_left(config)


def test_killed_workers_cost_time_and_nothing_else(tmp_path, undisturbed):
    config = write_campaign(tmp_path / "campaign", CONFIG)
    moments = random.Random(3)
    driver = start(config)
    killed = 0
    while driver.poll() is None and killed < 4:
        time.sleep(moments.uniform(2, 6))
        workers = [p for p in of_campaign(config.parent / "run") if is_worker(p)]
        if workers:
            moments.choice(workers).kill()
            killed += 1
    output, _ = driver.communicate(timeout=600)
    if driver.returncode == 75:  # the pool itself died: the campaign says so and goes on
        output = finish(config)
    else:
        assert driver.returncode == SPENT, output

    assert killed
    check_ledger(config, undisturbed)
    check_no_process_is_left(config)


def is_worker(process: psutil.Process) -> bool:
    try:
        parent = process.parent()
        return parent is not None and "process_worker_pool" in " ".join(parent.cmdline())
    except psutil.Error:
        return False


def test_a_finished_campaign_does_nothing_and_ends_as_before(undisturbed):
    before = rows(undisturbed, "SELECT COUNT(*) FROM event"), labelled_frames(undisturbed)

    output = finish(undisturbed)

    assert "nothing to do" in output
    assert (rows(undisturbed, "SELECT COUNT(*) FROM event"), labelled_frames(undisturbed)) == before
