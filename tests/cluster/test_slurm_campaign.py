"""A real campaign on a real Slurm, to its verdict, with everything going wrong on the way.

Water, GFN2-xTB through tblite, a committee of ANI potentials; workers in Slurm jobs.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from alloop.executors.cluster.reaper import campaign_of, tag_of
from alloop.executors.processes import of_campaign
from alloop_tasks.workspace import read_json
from tests.cluster.small_pools import wait_until

pytestmark = pytest.mark.timeout(600)

WATER = "3\nwater\nO 0 0 0.1173\nH 0 0.7572 -0.4692\nH 0 -0.7572 -0.4692\n"
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
DRIVER = """
    import sys
    from alloop.executors.cluster.providers import Patient
    from alloop.executors.sites import compile

    # A busy cluster must not be asked so often.
    compile.STRATEGY_PERIOD_S = Patient.poll_s = Patient.first_pause_s = 2
    from alloop.cli.main import main

    main()
"""
BUDGET_SPENT = 3


def campaign(folder: Path, site: str) -> Path:
    folder.mkdir()
    (folder / "water.xyz").write_text(WATER)
    (folder / "site.yaml").write_text(SITE)
    (folder / "config.yaml").write_text(CONFIG.format(site=site))
    return folder / "config.yaml"


class Run:
    """A driver of a campaign, in a process of its own."""

    def __init__(self, config: Path) -> None:
        self.directory = config.parent / "run"
        self.log = config.parent / "log.txt"
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(DRIVER), "start", str(config)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )

    def finish(self) -> str:
        code = self.process.wait(timeout=300)
        output = self.output()
        assert code == BUDGET_SPENT, output
        return output

    def kill(self) -> None:
        assert self.process.poll() is None, f"too quick: the test proves nothing\n{self.output()}"
        self.process.kill()
        self.process.wait()

    def output(self) -> str:
        return self.log.read_text()


def rows(config: Path, sql: str) -> list[tuple]:
    ledger = f"file:{config.parent}/run/ledger.sqlite?mode=ro"
    with closing(sqlite3.connect(ledger, uri=True)) as connection:
        return connection.execute(sql).fetchall()


def labelled_frames(config: Path) -> set[tuple]:
    return set(rows(config, "SELECT key, split, status FROM label JOIN frame USING (frame_id)"))


def energies(config: Path) -> dict[str, float]:
    return dict(rows(config, "SELECT key, energy FROM label JOIN frame USING (frame_id)"))


def own_jobs(directory: Path, *options: str) -> list[str]:
    """Return the jobs of a campaign that Slurm has."""
    command = ["squeue", "--noheader", "--format=%i %k", *options]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    tag = tag_of(campaign_of(directory))
    return [line.split()[0] for line in lines if line.split()[-1] == tag]


def at_work(run: Run) -> list[str]:
    """Wait until a task of the campaign runs; return the jobs that run."""

    def working() -> list[str]:
        assert run.process.poll() is None, f"too quick: the test proves nothing\n{run.output()}"
        begun = (read_json(path) for path in (run.directory / "outbox").glob("*.running"))
        alive = any(worker is not None and psutil.pid_exists(worker) for worker in begun)
        return own_jobs(run.directory, "--states=running") if alive else []

    return wait_until(working)


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


def losses(config: Path) -> list[str]:
    """Return what the ledger says of tasks that were lost."""
    return [text for (text,) in rows(config, "SELECT text FROM event WHERE kind = 'loss'")]


def end_of(job: str, slurm: Path) -> str:
    """Return how Slurm says that a job has ended; empty while it has not."""
    record = slurm / "log" / "jobs.txt"
    lines = record.read_text().splitlines() if record.exists() else []
    fields = (dict(part.split("=", 1) for part in line.split() if "=" in part) for line in lines)
    return next((one["JobState"] for one in fields if one["JobId"] == job), "")


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
    assert rows(config, "PRAGMA integrity_check") == [("ok",)]
    assert labelled_frames(config) == labelled_frames(undisturbed)
    assert energies(config) == pytest.approx(energies(undisturbed), abs=1e-9)
    twice = "SELECT label_id FROM label_attempt WHERE status='done' GROUP BY 1 HAVING COUNT(*) > 1"
    assert rows(config, twice) == []
    # A batch of labels that is lost twice is given up for one task for each of its frames.
    undone = rows(
        config, "SELECT DISTINCT kind, status, error_class FROM task WHERE status != 'done'"
    )
    assert set(undone) <= {("label", "failed", "Lost")}
    assert rows(config, "SELECT COUNT(*) FROM label WHERE status != 'done'") == [(0,)]
    for table in ("model", "committee", "trajectory", "snapshot"):
        count = f"SELECT COUNT(*) FROM {table}"
        assert rows(config, count) == rows(undisturbed, count), table
    assert losses(config)
    assert all("pool nodes: " in text for text in losses(config)), losses(config)


def check_nothing_is_left(directory: Path) -> None:
    wait_until(lambda: own_jobs(directory) == [])
    wait_until(lambda: of_campaign(directory) == [])
    assert not [one for one in psutil.process_iter() if str(directory) in command_of(one)]


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_a_driver_that_is_told_to_stop_leaves_no_job(slurm, tmp_path):
    config = campaign(tmp_path / "campaign", "site.yaml")
    run = Run(config)
    at_work(run)

    run.process.send_signal(signal.SIGTERM)

    assert run.process.wait(timeout=60) == 5, run.output()
    assert "stopped by SIGTERM" in run.output()
    check_nothing_is_left(run.directory)
