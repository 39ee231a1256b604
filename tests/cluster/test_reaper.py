"""Jobs that a driver has left behind are found and cancelled; those of others are not."""

from __future__ import annotations

import subprocess

import pytest

from alloop.executors.cluster import reaper
from tests.cluster.small_pools import jobs, wait_until

pytestmark = pytest.mark.timeout(60)


def hold(comment):
    """Submit a job that waits, and return it."""
    command = ["sbatch", "--parsable", "--hold", f"--comment={comment}", "--wrap", "true"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd="/tmp")
    return done.stdout.strip()


def test_only_this_campaign_s_jobs_are_cancelled(slurm, tmp_path):
    ours, theirs = reaper.campaign_of(tmp_path / "a"), reaper.campaign_of(tmp_path / "b" / "a")
    assert ours != theirs
    mine = {hold(reaper.tag_of(ours)), hold(reaper.tag_of(ours))}
    others = {hold(reaper.tag_of(theirs)), hold(reaper.tag_of(ours) + "0"), hold("alloop:")}

    assert set(reaper.reap(ours, ["slurm"]).jobs) == mine

    wait_until(lambda: not mine & set(jobs()))
    assert others <= set(jobs())
    assert reaper.reap(ours, ["slurm"]) == reaper.Reaped()
    subprocess.run(["scancel", *others], check=True)


def test_a_journal_s_jobs_are_cancelled(slurm, tmp_path):
    job, other = hold("mine"), hold("other")
    (tmp_path / "jobs").write_text(f"slurm 999999\nslurm {job}\nnowhere 1\n")

    reaper.cancel_listed(tmp_path / "jobs")

    wait_until(lambda: job not in jobs())
    assert other in jobs()
    subprocess.run(["scancel", other], check=True)


def test_a_scheduler_that_cannot_be_asked_is_said_and_survived(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    (problem,) = reaper.reap("any", ["slurm", "kubernetes"]).problems

    assert problem.startswith("slurm: ")
    assert "squeue" in problem


def test_a_scheduler_that_fails_is_not_taken_for_an_empty_one(monkeypatch, tmp_path):
    (tmp_path / "squeue").write_text("#!/bin/sh\necho 'cannot reach the controller' >&2; exit 1\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")

    assert reaper.reap("any", ["slurm"]).problems == ("slurm: cannot reach the controller",)


PBS = """Job Id: 12.server
    Job_Name = parsl.gpu.block-0
    Variable_List = PBS_O_HOME=/home/me,ALLOOP_TAG=alloop:run
\t-0123456789,PBS_O_LANG=C

Job Id: 13.server
    Variable_List = ALLOOP_TAG=alloop:run-01234567890,PBS_O_LANG=C

Job Id: 14.server
    Variable_List = PBS_O_LANG=C,ALLOOP_TAG=alloop:run-0123456789
"""


def test_tags_are_read_as_pbs_and_lsf_print_them():
    """From the formats of their manuals: neither runs here."""
    tag = "alloop:run-0123456789"

    assert reaper.SCHEDULERS["pbspro"].tagged(PBS, tag) == ["12.server", "14.server"]
    printed = f"7 {tag}\n8 -\n9 {tag}0\n10 {tag} \n"
    assert reaper.SCHEDULERS["lsf"].tagged(printed, tag) == ["7", "10"]
