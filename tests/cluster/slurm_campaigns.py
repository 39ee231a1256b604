"""Drivers of campaigns whose workers are jobs of a real Slurm, and what Slurm and ledger say."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil

from alloop.executors.cluster.reaper import campaign_of, tag_of
from alloop.executors.processes import of_campaign
from alloop_tasks.workspace import read_json
from tests.cluster.small_pools import wait_until
from tests.small_campaigns import SPENT, rows

DRIVER = """
    import sys
    from alloop.executors.cluster.providers import Patient
    from alloop.executors.sites import compile

    # A busy cluster must not be asked so often.
    compile.STRATEGY_PERIOD_S = Patient.poll_s = Patient.first_pause_s = 2
    from alloop.cli.main import main

    main()
"""


class Run:
    """A driver of a campaign, in a process of its own."""

    def __init__(self, config: Path) -> None:
        self.directory = config.parent / "run"
        self.log = config.parent / "log.txt"
        path = os.pathsep.join([str(config.parent), *filter(None, sys.path)])
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(DRIVER), "start", str(config)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path},
            )

    def finish(self) -> str:
        code = self.process.wait(timeout=300)
        output = self.output()
        assert code == SPENT, output
        return output

    def kill(self) -> None:
        assert self.process.poll() is None, f"too quick: the test proves nothing\n{self.output()}"
        self.process.kill()
        self.process.wait()

    def output(self) -> str:
        return self.log.read_text()


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


def end_of(job: str, slurm: Path) -> str:
    """Return how Slurm says that a job has ended; empty while it has not."""
    record = slurm / "log" / "jobs.txt"
    lines = record.read_text().splitlines() if record.exists() else []
    fields = (dict(part.split("=", 1) for part in line.split() if "=" in part) for line in lines)
    return next((one["JobState"] for one in fields if one["JobId"] == job), "")


def losses(config: Path) -> list[str]:
    """Return what the ledger says of tasks that were lost."""
    return [text for (text,) in rows(config, "SELECT text FROM event WHERE kind = 'loss'")]


def labelled_frames(config: Path) -> set[tuple]:
    return set(rows(config, "SELECT key, split, status FROM label JOIN frame USING (frame_id)"))


def energies(config: Path) -> dict[str, float]:
    return dict(rows(config, "SELECT key, energy FROM label JOIN frame USING (frame_id)"))


def check_nothing_is_left(directory: Path) -> None:
    wait_until(lambda: own_jobs(directory) == [])
    wait_until(lambda: of_campaign(directory) == [])
    assert not [one for one in psutil.process_iter() if str(directory) in _command_of(one)]


def _command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
