"""Pools of workers in a real Slurm and here: what is lost with a block, and what is not."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import psutil
import pytest

from alloop.executors.cluster import blocks
from alloop.executors.cluster.executor import ClusterExecutor
from alloop.executors.processes import of_campaign
from alloop_tasks.workspace import Workspace, read_json
from tests.cluster.small_pools import (
    PATIENCE_S,
    Lingering,
    config,
    jobs,
    local_provider,
    odd,
    pool,
    slurm_provider,
    wait_for,
    wait_until,
)

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("campaign")


@pytest.fixture(scope="module")
def executor(slurm, directory):
    made = ClusterExecutor(
        directory,
        lambda: config(pool("nodes", slurm_provider(directory), workers=2)),
        lambda kind, spec: ("nodes",),
    )
    try:
        yield made
    finally:
        made.close()


def begin(executor, directory, key, **kwargs):
    """Submit a label and wait until a worker has it."""
    workspace = Workspace(directory, key)
    executor.submit("label", odd(**kwargs), key)
    wait_until(lambda: executor.wait(0.1) == [] and workspace.running_on)
    return workspace


def htex(executor, name="nodes"):
    return executor._pools[name]._life._executor


def managers(directory):
    """Return the processes that manage workers, whoever started them."""
    found = []
    for process in psutil.process_iter():
        try:
            command = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if "process_worker_pool" in command and str(directory) in command:
            found.append(process)
    return found


def test_tasks_run_in_a_job_that_carries_the_campaign_s_tag(executor, directory):
    executor.submit("label", odd(), "healthy")
    executor.submit("nonsense", {}, "unheard of")

    outcomes = wait_for(executor, {"healthy", "unheard of"})

    assert outcomes["healthy"].status == "done"
    assert outcomes["unheard of"].status == "failed"
    assert read_json(Workspace(directory, "healthy").result_path)["job"] in jobs()
    comments = subprocess.run(
        ["squeue", "-h", "-o", "%k"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert any(comment.startswith(f"alloop:{directory.name}-") for comment in comments)
    assert executor.slots == 2


def test_nothing_is_remembered_by_parsl(executor, directory):
    """The same task again is done again, if its result is not there: no memo, no checkpoint."""
    executor.submit("label", odd(), "healthy")
    wait_for(executor, {"healthy"})
    Workspace(directory, "healthy").result_path.unlink()

    executor.submit("label", odd(), "healthy")

    assert wait_for(executor, {"healthy"})["healthy"].status == "done"
    assert Workspace(directory, "healthy").result_path.exists()
    assert not list(directory.rglob("tasks.pkl"))


def test_a_cancelled_block_costs_what_it_had_begun(executor, directory):
    begun = begin(executor, directory, "begun", seconds=60.0)
    (job,) = jobs("--states=running")

    subprocess.run(["scancel", job], check=True)

    outcome = wait_for(executor, {"begun"})["begun"]
    assert outcome.status == "lost"
    assert outcome.reason.startswith("pool nodes: ManagerLost")
    assert not begun.result_path.exists()
    executor.submit("label", odd(), "on another block")
    assert wait_for(executor, {"on another block"})["on another block"].status == "done"
    assert job not in jobs()


def test_a_cancelled_block_that_waited_is_asked_for_again(slurm, tmp_path):
    """Parsl's own handler gives up the pool with the first such block."""
    provider = slurm_provider(tmp_path, options="#SBATCH --begin=now+3600")
    own = ClusterExecutor(
        tmp_path, lambda: config(pool("nodes", provider)), lambda kind, spec: ("nodes",)
    )
    try:
        own.submit("label", odd(), "waits")
        first = wait_until(lambda: own.wait(0.1) == [] and jobs("--states=pending"))
        subprocess.run(["scancel", *first], check=True)
        second = wait_until(
            lambda: own.wait(0.1) == [] and set(jobs("--states=pending")) - set(first)
        )
        assert own.failure() is None
        assert "the last block did not come up" in own.conditions()["nodes"].reason
    finally:
        own.close()
    wait_until(lambda: not second & set(jobs()))


def test_a_killed_interchange_is_replaced_and_waiting_tasks_go_on(executor, directory):
    """Parsl waits for ever for it, also when it is asked to clean up."""
    keys = [f"at work {n}" for n in range(2)]
    for key in keys:
        begin(executor, directory, key, seconds=60.0)
    executor.submit("label", odd(), "waiting")
    executor.wait(0.1)
    before = jobs()

    htex(executor).interchange_proc.kill()

    outcomes = wait_for(executor, {*keys, "waiting"})
    assert {key: outcome.status for key, outcome in outcomes.items()} == {
        "at work 0": "lost", "at work 1": "lost", "waiting": "done",
    }  # fmt: skip
    assert "interchange" in outcomes["at work 0"].reason
    wait_until(lambda: not set(before) & set(jobs()))


def test_a_job_that_slurm_ends_for_its_wall_time_is_replaced(executor, directory):
    begin(executor, directory, "too long", seconds=100.0)
    (job,) = jobs("--states=running")
    subprocess.run(["scontrol", "update", f"jobid={job}", "EndTime=now+1"], check=True)

    outcome = wait_for(executor, {"too long"})["too long"]

    assert outcome.status == "lost"
    record = (directory.parent / "slurm0" / "log" / "jobs.txt").read_text().splitlines()
    assert any(f"JobId={job} " in line and "JobState=TIMEOUT" in line for line in record)
    executor.submit("label", odd(), "after it")
    assert wait_for(executor, {"after it"})["after it"].status == "done"


def test_no_more_tasks_are_handed_over_than_a_pool_can_soon_begin(executor, directory):
    keys = {f"many {n}" for n in range(9)}
    for key in keys:
        executor.submit("label", odd(seconds=0.5), key)
    executor.wait(0.1)

    assert htex(executor).outstanding() <= 4
    assert {one.status for one in wait_for(executor, keys).values()} == {"done"}


def test_a_block_whose_workers_vanished_is_ended_and_replaced(tmp_path, monkeypatch):
    """Its job runs on, so that the scheduler calls it healthy: Parsl would wait for ever."""
    monkeypatch.setattr(blocks, "GRACE_S", 2.0)
    own = ClusterExecutor(
        tmp_path,
        lambda: config(pool("here", local_provider(launcher=Lingering()))),
        lambda kind, spec: ("here",),
    )
    try:
        begin(own, tmp_path, "begun", seconds=60.0)
        (manager,) = managers(tmp_path)
        for process in [manager, *manager.children(recursive=True)]:
            process.kill()
        own.submit("label", odd(), "next")

        outcomes = wait_for(own, {"begun", "next"})

        assert outcomes["begun"].status == "lost"
        assert outcomes["next"].status == "done"
    finally:
        own.close()
    assert of_campaign(tmp_path) == []


def test_a_pool_whose_blocks_never_come_up_says_why_and_its_tasks_go_elsewhere(slurm, tmp_path):
    """A node without the program: the check in its worker_init fails each block."""
    init = "echo 'orca: command not found' >&2; exit 1"
    where = {"label": ("bad", "good"), "nonsense": ("bad",)}
    own = ClusterExecutor(
        tmp_path,
        lambda: config(
            pool("bad", slurm_provider(tmp_path, init=init)), pool("good", local_provider())
        ),
        lambda kind, spec: where[kind],
        give_up_after=2,
    )
    try:
        own.submit("label", odd(), "can move")
        own.submit("nonsense", {}, "cannot")
        assert wait_for(own, {"can move"})["can move"].status == "done"
        reason = wait_until(lambda: own.wait(0.1) == [] and own.failure())
        assert reason.startswith("pool bad is broken off: ")
        assert "orca: command not found" in reason
        assert own.conditions()["bad"].state == "broken off"
        own.submit("label", odd(seconds=4.0), "comes later")
        own.wait(0.1)
        assert own.failure() is None, "another pool has work: go on"
        assert wait_for_any(own, "comes later").status == "done"
    finally:
        own.close()


def wait_for_any(executor, key):
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for outcome in executor.wait(0.2):
            if outcome.key == key:
                return outcome
    raise AssertionError(f"no outcome for {key}")


def test_after_close_neither_job_nor_process_is_left(slurm, tmp_path):
    own = ClusterExecutor(
        tmp_path,
        lambda: config(pool("nodes", slurm_provider(tmp_path))),
        lambda kind, spec: ("nodes",),
    )
    begin(own, tmp_path, "endless", seconds=600.0)
    before = set(jobs())
    os.kill(htex(own).interchange_proc.pid, signal.SIGSTOP)  # even if it does not answer

    own.close()

    wait_until(lambda: len(before - set(jobs())) == 1)
    wait_until(lambda: managers(tmp_path) == [] and of_campaign(tmp_path) == [])
