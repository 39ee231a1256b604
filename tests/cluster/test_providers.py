"""What Parsl's Slurm provider gets wrong, on a real Slurm: each test fails with Parsl's own."""

from __future__ import annotations

import os
import subprocess
import time

import psutil
import pytest
from parsl.jobs.states import JobState, JobStatus
from parsl.providers.errors import SubmitException

from tests.cluster.small_pools import jobs, slurm_provider, wait_until

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def provider(slurm, tmp_path):
    made = slurm_provider(tmp_path)
    made.script_dir = str(tmp_path)
    yield made
    made.cancel(list(made.resources))


def state(provider, job):
    return provider.status([job])[0].state


def remember(provider, job):
    """Have a provider believe that it once submitted a job."""
    paths = {"job_stdout_path": None, "job_stderr_path": None}
    provider.resources[job] = {"status": JobStatus(JobState.RUNNING), **paths}


def test_a_job_that_slurm_has_forgotten_is_over(provider):
    remember(provider, "999999")

    assert state(provider, "999999") is JobState.COMPLETED


def test_a_forgotten_job_does_not_hide_the_others(provider):
    living = provider.submit("sleep 60", 1)
    remember(provider, "999999")

    assert wait_until(lambda: state(provider, living) is JobState.RUNNING)
    assert state(provider, "999999") is JobState.COMPLETED
    assert state(provider, living) is JobState.RUNNING


def test_a_job_that_has_ended_stays_ended(provider):
    job = provider.submit("true", 1)
    wait_until(lambda: state(provider, job).name == "COMPLETED")
    provider.resources[job]["status"] = JobStatus(JobState.FAILED)  # as sacct would have said

    assert state(provider, job) is JobState.FAILED


def test_while_slurm_does_not_answer_nothing_changes(provider, monkeypatch):
    job = provider.submit("sleep 60", 1)
    wait_until(lambda: state(provider, job) is JobState.RUNNING)
    monkeypatch.setenv("SLURM_CONF", "/nonexistent/slurm.conf")  # its commands try for a minute
    monkeypatch.setattr(provider, "cmd_timeout", 1)

    assert state(provider, job) is JobState.RUNNING
    with pytest.raises(SubmitException, match="timed out after 1 s"):
        provider.submit("true", 1)
    running = [one.cmdline() for one in psutil.Process().children(recursive=True)]
    assert not [command for command in running if "squeue" in command or "sbatch" in command]


def test_accounts_that_lag_do_not_end_a_job(slurm, tmp_path, monkeypatch):
    """A sacct that knows nothing yet of what was just submitted."""
    (tmp_path / "sacct").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "sacct").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    provider = slurm_provider(tmp_path)
    provider.script_dir = str(tmp_path)
    assert provider._cmd.startswith("sacct")
    job = provider.submit("sleep 60", 1)
    try:
        assert wait_until(lambda: state(provider, job) is JobState.RUNNING)
    finally:
        provider.cancel([job])
    wait_until(lambda: job not in jobs())


def test_after_failures_no_block_is_asked_for_for_a_while(slurm, tmp_path):
    provider = slurm_provider(tmp_path, max_blocks=3)

    provider.hold_back(1)
    assert provider.max_blocks == 0
    time.sleep(1.1)
    assert provider.max_blocks == 3

    provider.hold_back(1)  # the same failure, seen again
    assert provider.max_blocks == 3
    provider.hold_back(2)
    time.sleep(1.1)
    assert provider.max_blocks == 0, "the second pause is longer"

    provider.hold_back(0)
    provider.first_pause_s = 1e9
    provider.hold_back(30)
    assert provider._not_before - time.monotonic() <= provider.longest_pause_s


def test_each_job_is_noted_where_it_can_be_cancelled_by_others(provider, tmp_path):
    provider.journal = tmp_path / "jobs"
    first, second = provider.submit("true", 1), provider.submit("true", 1)

    assert provider.journal.read_text() == f"slurm {first}\nslurm {second}\n"


def test_cancelling_what_is_gone_is_no_error(provider, monkeypatch):
    assert provider.cancel([]) == []
    monkeypatch.setattr(provider, "clusters", "'")  # the shell refuses the command
    remember(provider, "999999")

    assert provider.cancel(["999999"]) == [False]


def test_jobs_do_not_inherit_the_job_that_the_driver_runs_in(provider, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "31337")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "5")
    monkeypatch.setenv("SLURM_STEP_GPUS", "of the driver")
    monkeypatch.setenv("MY_OWN", "kept")

    provider.submit(f"env > {tmp_path}/environment.part; mv {tmp_path}/environment.part"
                    f" {tmp_path}/environment", 1)  # fmt: skip

    wait_until((tmp_path / "environment").exists)
    seen = dict(line.split("=", 1) for line in (tmp_path / "environment").read_text().split("\n")
                if "=" in line)  # fmt: skip
    assert seen["SLURM_JOB_ID"] != "31337"
    assert seen["SLURM_CPUS_PER_TASK"] == "1"
    assert "SLURM_STEP_GPUS" not in seen
    assert seen["MY_OWN"] == "kept"


def test_a_refused_job_says_what_slurm_said(slurm, tmp_path):
    provider = slurm_provider(tmp_path, partition="nonsense")
    provider.script_dir = str(tmp_path)

    with pytest.raises(SubmitException, match="invalid partition"):
        provider.submit("true", 1)


def test_slurm_gives_gpus_by_number(slurm, tmp_path):
    """The pretended GPUs of the cluster: what the tests of pools with GPUs rest on."""
    command = ["srun", "--partition=gpu", "--gpus-per-node=2", "printenv", "CUDA_VISIBLE_DEVICES"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.strip() == "0,1"
