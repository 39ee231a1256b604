"""What the end of a block's wall time costs on a real Slurm: nothing, or what was under way."""

from __future__ import annotations

import textwrap
import time
from pathlib import Path

import psutil
import pytest

from alloop.executors.cluster.providers import Patient
from alloop.executors.site import build_executor, load_site
from alloop.executors.sites import compile
from alloop_tasks.workspace import Workspace
from tests.cluster.slurm_campaigns import (
    Run,
    check_nothing_is_left,
    end_of,
    energies,
    labelled_frames,
    losses,
    own_jobs,
)
from tests.cluster.small_pools import ODD, odd, wait_for, wait_until
from tests.small_campaigns import check_sound, rows, write_campaign

pytestmark = pytest.mark.timeout(600)

NEAR_ITS_END = f"""
kind: cluster
address: 127.0.0.1
heartbeat_period: 1 s
heartbeat_threshold: 4 s
pools:
  nodes:
    type: slurm
    partition: cpu
    walltime: 4 min
    longest_task: 100 s
    workers: 1
    env: {{vars: {{PYTHONPATH: {ODD}}}}}
"""
"""Blocks that take tasks for 4 min - 100 s - 2 min = 20 s."""


def test_a_block_near_its_end_takes_no_task(slurm, tmp_path, monkeypatch):
    """It ends the one that it has, and goes; the next one has a new block's whole time."""
    monkeypatch.setattr(compile, "STRATEGY_PERIOD_S", 1)
    monkeypatch.setattr(Patient, "poll_s", 2)
    (tmp_path / "site.yaml").write_text(NEAR_ITS_END)
    executor = build_executor(load_site("site.yaml", tmp_path), tmp_path / "run")
    try:
        executor.submit("label", odd(seconds=25.0), "begun in time")
        executor.submit("label", odd(seconds=3.0), "too late")

        first = job_of(executor, tmp_path / "run", "begun in time")
        second = job_of(executor, tmp_path / "run", "too late")

        assert wait_for(executor, {"too late"})["too late"].status == "done"
        assert Workspace(tmp_path / "run", "begun in time").result_path.exists()
        assert first != second
        assert wait_until(lambda: end_of(first, slurm)) == "COMPLETED"
    finally:
        executor.close()


def job_of(executor, directory: Path, key: str) -> str:
    """Wait until a worker has a task; return the job of Slurm that it runs in."""
    workspace = Workspace(directory, key)

    def worker() -> int | None:
        assert all(outcome.status == "done" for outcome in executor.wait(0.1))
        return workspace.running_on

    return psutil.Process(wait_until(worker)).environ()["SLURM_JOB_ID"]


CONFIG = """
schema: 1
campaign: {{name: water, seed: 7, directory: run}}
systems:
  water: {{structure: water.xyz}}
target: {{force_rmse: 0.001 eV/A}}
tiers:
  - id: slow
    method:
      engine: ase
      name: slow GFN2-xTB
      calculator: "tests.cluster.slow_calculator:Slow"
      kwargs: {{folder: {folder}}}
    budget: {{labels: 500}}
committee: [{{id: ani, members: 3}}]
train: {{epochs: 5}}
explore:
  initial: {{frames: 10}}
  routes:
    - {{id: warm, temperature: 300 K, duration: 20 fs, replicas: 3, batch: 3}}
select: {{per_generation: 4}}
stop: {{max_generations: 1}}
site: {site}
"""
MINUTE = """
kind: cluster
python: blocks_of_a_minute:config
roles: {explore: nodes, label: nodes, train: nodes}
"""
BLOCKS = """
    from pathlib import Path

    from tests.cluster import small_pools

    def config():
        provider = small_pools.slurm_provider(Path("{directory}"), walltime="00:01:00")
        return small_pools.config(small_pools.pool("nodes", provider))
"""


def campaign(folder: Path, site: str) -> Path:
    config = write_campaign(folder, CONFIG.format(site=site, folder=folder.parent))
    (folder / "site.yaml").write_text(MINUTE)
    blocks = textwrap.dedent(BLOCKS).format(directory=folder / "run")
    (folder / "blocks_of_a_minute.py").write_text(blocks)
    return config


def test_a_campaign_goes_on_after_a_block_s_wall_time(slurm, tmp_path):
    """Labels that take longer than the block lives: what was done of them is not done again."""
    run = Run(campaign(tmp_path / "campaign", "site.yaml"))
    config = run.directory.parent / "config.yaml"
    began = time.monotonic()
    worker = wait_until(lambda: labelling(run.directory, config))
    job = psutil.Process(worker).environ()["SLURM_JOB_ID"]
    (tmp_path / "slow").write_text(job)

    wait_until(lambda: end_of(job, slurm))
    assert end_of(job, slurm) == "TIMEOUT"
    assert time.monotonic() - began >= 55.0
    output = run.finish()

    assert "start again" not in output
    assert len(losses(config)) == 1, losses(config)
    assert "label" in losses(config)[0]
    check_sound(config)
    assert rows(config, "SELECT COUNT(*) FROM task WHERE status != 'done'") == [(0,)]
    computed = [line.split() for line in (tmp_path / "computed").read_text().splitlines()]
    before = {frame for in_job, frame in computed if in_job == job}
    assert len(before) >= 3
    assert not before & {frame for in_job, frame in computed if in_job != job}
    assert own_jobs(run.directory) == []
    check_nothing_is_left(run.directory)

    undisturbed = campaign(tmp_path / "undisturbed", "inprocess")
    Run(undisturbed).finish()
    assert labelled_frames(config) == labelled_frames(undisturbed)
    assert energies(config) == pytest.approx(energies(undisturbed), abs=1e-9)


def labelling(directory: Path, config: Path) -> int | None:
    """Return the worker that makes labels, once there is one."""
    if not (directory / "outbox").is_dir():
        return None
    keys = rows(config, "SELECT key FROM task WHERE kind = 'label' AND status = 'running'")
    workers = (Workspace(directory, key).running_on for (key,) in keys)
    return next((worker for worker in workers if worker is not None), None)
