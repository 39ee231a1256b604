"""A real campaign on a real Slurm, to its verdict, with everything going wrong on the way.

Water, GFN2-xTB through tblite, a committee of ANI potentials; workers in Slurm jobs.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from alloop.executors.processes import of_campaign
from alloop_db.queue import MAX_SHARED_LOSSES
from tests.cluster.slurm_campaigns import (
    Run,
    at_work,
    check_nothing_is_left,
    end_of,
    energies,
    labelled_frames,
    losses,
    own_jobs,
)
from tests.cluster.small_pools import wait_until
from tests.small_campaigns import check_sound, rows, write_campaign

pytestmark = pytest.mark.timeout(600)

CONFIG = """
schema: 1
campaign: {{name: water, seed: 5, directory: run}}
systems:
  water: {{structure: water.xyz}}
target: {{force_rmse: 0.001 eV/A}}
tiers:
  - {{id: xtb, method: {{engine: tblite, model: GFN2-xTB}}, budget: {{labels: 500}}}}
committee: [{{id: ani, members: 3}}]
train: {{epochs: 15}}
explore:
  initial: {{frames: 20}}
  routes:
    - {{id: warm, temperature: 300 K, duration: 50 fs, replicas: 4, batch: 2}}
select: {{per_generation: 8}}
stop: {{max_generations: 2}}
site: {site}
"""
SITE = """
kind: cluster
address: 127.0.0.1
heartbeat_period: 1 s
heartbeat_threshold: 4 s
pools:
  nodes:
    type: slurm
    partition: cpu
    walltime: 30 min
    longest_task: 5 min
    workers: 1
    max_blocks: 2
"""


def campaign(folder: Path, site: str) -> Path:
    config = write_campaign(folder, CONFIG.format(site=site))
    (folder / "site.yaml").write_text(SITE)
    return config


def cancel_until_a_task_is_lost(run: Run, config: Path) -> None:
    """Cancel running blocks; a task may end just before its block does."""
    for _ in range(5):
        subprocess.run(["scancel", *at_work(run)], check=True)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if losses(config):
                return
            time.sleep(0.2)
    raise AssertionError(f"no task was lost with its block\n{run.output()}")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    config = campaign(tmp_path_factory.mktemp("undisturbed") / "campaign", "inprocess")
    Run(config).finish()
    return config


def test_a_campaign_survives_everything(slurm, tmp_path, undisturbed):
    config = campaign(tmp_path / "campaign", "site.yaml")
    run = Run(config)
    late = wait_until(lambda: own_jobs(run.directory, "--states=running"))[0]
    subprocess.run(["scontrol", "update", f"jobid={late}", "EndTime=now+1"], check=True)
    at_work(run)
    run.process.send_signal(signal.SIGSTOP)  # Slurm takes half a minute: work must be left
    wait_until(lambda: end_of(late, slurm))
    assert end_of(late, slurm) == "TIMEOUT", run.output()
    run.process.send_signal(signal.SIGCONT)

    cancel_until_a_task_is_lost(run, config)
    at_work(run)
    run.kill()
    # The interchange sees to it that no job stays behind, queued or running.
    wait_until(lambda: own_jobs(run.directory) == [])

    again = Run(config)
    at_work(again)
    left = own_jobs(again.directory)
    interchange = next(
        one for one in of_campaign(again.directory) if "cluster.interchange" in str(one.cmdline())
    )
    interchange.kill()  # nobody is left to cancel anything
    again.kill()
    assert set(own_jobs(again.directory)) & set(left)

    output = Run(config).finish()

    assert "resuming" in output
    check_ledger(config, undisturbed)
    check_nothing_is_left(run.directory)


def check_ledger(config: Path, undisturbed: Path) -> None:
    check_sound(config)
    assert labelled_frames(config) == labelled_frames(undisturbed)
    assert energies(config) == pytest.approx(energies(undisturbed), abs=1e-9)
    check_tasks(config)
    assert rows(config, "SELECT COUNT(*) FROM label WHERE status != 'done'") == [(0,)]
    for table in ("model", "committee", "trajectory", "snapshot"):
        count = f"SELECT COUNT(*) FROM {table}"
        assert rows(config, count) == rows(undisturbed, count), table
    assert losses(config)
    assert all("pool nodes: " in text for text in losses(config)), losses(config)


def check_tasks(config: Path) -> None:
    """All are done, but for those of several labels that were lost so often that they were split.

    Their frames are then made one by one, each by a task of its own.
    """
    undone = rows(config, "SELECT kind, status, losses, spec FROM task WHERE status != 'done'")
    for kind, status, lost, spec in undone:
        assert (kind, status, lost) == ("label", "failed", MAX_SHARED_LOSSES)
        assert len(json.loads(spec)["frames"]) > 1


def test_a_driver_that_is_told_to_stop_leaves_no_job(slurm, tmp_path):
    config = campaign(tmp_path / "campaign", "site.yaml")
    run = Run(config)
    at_work(run)

    run.process.send_signal(signal.SIGTERM)

    assert run.process.wait(timeout=60) == 5, run.output()
    assert "stopped by SIGTERM" in run.output()
    check_nothing_is_left(run.directory)
