"""Pools of local workers: how much each takes, what it tells of itself, and a node that is full."""

from __future__ import annotations

import time

import pytest
from parsl.executors import ThreadPoolExecutor

from alloop.executors.cluster import pools
from alloop.executors.cluster.executor import ClusterExecutor
from alloop.executors.protocol import Condition
from tests.cluster.small_pools import config, local_provider, odd, pool, wait_for, wait_until
from tests.small_disks import fill, small_disk

pytestmark = pytest.mark.timeout(300)

BAD_NODE = "echo 'orca: command not found' >&2; exit 1"
WORK = {("label", "low"), ("label", "high"), ("train", None), ("explore", None)}


@pytest.fixture
def opened():
    """Make executors that are closed at the end."""
    made = []

    def make(*arguments, **more):
        made.append(ClusterExecutor(*arguments, **more))
        return made[-1]

    yield make
    for executor in made:
        executor.close()


def test_each_pool_takes_twice_as_many_tasks_as_it_has_workers(opened, tmp_path):
    small = ThreadPoolExecutor(label="small", max_threads=1)
    large = ThreadPoolExecutor(label="large", max_threads=3)
    executor = opened(
        tmp_path,
        lambda: config(small, large),
        lambda kind, spec: ("small",) if spec.get("tier") == "high" else ("large",),
    )
    high, rest = frozenset({("label", "high")}), frozenset(WORK - {("label", "high")})
    assert executor.room(WORK) == {high: 2, rest: 6}

    executor.submit("label", odd() | {"tier": "high"}, "first")
    executor.submit("label", odd() | {"tier": "low"}, "other")

    assert executor.room(WORK) == {high: 1, rest: 5}
    executor.wait(0.0)  # handing over changes nothing
    executor.submit("label", odd() | {"tier": "high"}, "second")
    assert executor.room(WORK)[high] <= 1
    wait_for(executor, {"first", "second", "other"})
    assert executor.room(WORK) == {high: 2, rest: 6}


def test_of_a_pool_that_is_broken_off_one_task_tells(opened, tmp_path):
    """Without it nobody would learn that nothing else can come; more of them would lie there."""
    executor = opened(
        tmp_path,
        lambda: config(pool("bad", local_provider(BAD_NODE)), pool("good", local_provider())),
        lambda kind, spec: ("bad",) if kind == "label" else ("good",),
        give_up_after=1,
    )
    labels = frozenset({("label", "low"), ("label", "high")})
    assert executor.conditions() == {"bad": Condition("ok"), "good": Condition("ok")}
    executor.submit("label", odd(), "first")
    executor.wait(0.0)
    assert executor.conditions()["bad"].state == "waiting for nodes"
    wait_until(lambda: executor.wait(0.1) == [] and executor.failure())
    assert executor.room(WORK)[labels] == 0, "one waits there"
    condition = executor.conditions()["bad"]
    assert condition.state == "broken off"
    assert "orca: command not found" in condition.reason

    executor._pools["bad"].give_back()

    assert executor.room(WORK)[labels] == 1
    assert executor.failure() is None
    executor.submit("label", odd(), "another")
    assert "orca: command not found" in executor.failure()
    executor.submit("explore", {}, "goes on")
    assert executor.failure() is None
    assert wait_for(executor, {"goes on"})["goes on"].status == "failed"  # it has no spec


def test_a_label_that_ran_out_of_memory_goes_where_there_is_more(opened, tmp_path):
    """And comes back to the first pool if the larger one is broken off."""
    executor = opened(
        tmp_path,
        lambda: config(ThreadPoolExecutor(label="small"), pool("large", local_provider(BAD_NODE))),
        lambda kind, spec: ("small", "large"),
        give_up_after=1,
        memory={"small": 4000.0, "large": 64_000.0},
    )
    short = odd()
    short["frames"][0]["short_of_memory"] = 1
    executor.submit("label", odd(), "first", losses=1)
    executor.submit("label", short, "again")
    executor.submit("label", odd(), "killed twice", losses=2)
    executor.wait(0.0)

    assert set(executor._pools["large"]._flying) == {"again", "killed twice"}

    outcomes = wait_for(executor, {"first", "again", "killed twice"})
    assert {one.pool for one in outcomes.values()} == {"small"}
    assert "orca" in executor.conditions()["large"].reason


def scratch_task():
    spec = odd()
    options = {"calculator": "odd_calculators:NeedsScratch", "kwargs": {}}
    return spec | {"method": {"engine": "ase", "model": "scratch", "options": options}}


def settle_all(executor, keys, limit=120.0):
    """Send again what found a disk full; return how often that happened."""
    found, deadline = [], time.monotonic() + limit
    for key in keys:
        executor.submit("label", scratch_task(), key)
    while keys:
        assert time.monotonic() < deadline, (keys, executor.conditions())
        for outcome in executor.wait(0.2):
            if outcome.status == "full":
                found.append(outcome)
                executor.submit("label", scratch_task(), outcome.key)
            elif outcome.status == "lost":  # it lay in the block that was ended
                executor.submit("label", scratch_task(), outcome.key)
            else:
                assert outcome.status == "done", outcome
                keys.remove(outcome.key)
    return found


def test_a_block_on_a_node_whose_scratch_is_full_is_given_back(opened, tmp_path):
    with small_disk("64k") as scratch:
        fill(scratch)
        full = f"export TMPDIR={scratch}"
        first = f"if mkdir {tmp_path}/seen; then {full}; else export TMPDIR=/tmp; fi"
        executor = opened(
            tmp_path, lambda: config(pool("here", local_provider(first))), lambda *_: ("here",)
        )

        found = settle_all(executor, {f"task {n}" for n in range(8)})

    assert pools.STRIKES <= len(found) <= pools.STRIKES + 2, "it ate them one by one"
    assert {(one.pool, one.block) for one in found} == {("here", "0")}
    assert all("No space left" in one.reason for one in found)
    assert all(f"(on {one.host}, whose scratch is {scratch})" in one.reason for one in found)
    assert executor.conditions()["here"] == Condition("ok")


def test_a_pool_all_of_whose_nodes_are_full_is_broken_off(opened, tmp_path):
    with small_disk("64k") as scratch:
        fill(scratch)
        provider = local_provider(f"export TMPDIR={scratch}")
        executor = opened(tmp_path, lambda: config(pool("here", provider)), lambda *_: ("here",))
        executor.submit("label", scratch_task(), "0")
        number, blocks = 0, set()
        while executor.failure() is None:
            for outcome in executor.wait(0.2):
                blocks |= {outcome.block} - {""}
                number += 1
                executor.submit("label", scratch_task(), str(number))

    assert blocks == {"0", "1", "2"}
    assert "3 blocks in a row were given back" in executor.failure()
    assert "No space left" in executor.conditions()["here"].reason
