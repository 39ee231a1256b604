"""When a pool is given up, and what of a Parsl config is not taken over."""

from __future__ import annotations

import time
from dataclasses import replace

import psutil
import pytest
from parsl.config import Config
from parsl.dataflow.memoization import BasicMemoizer
from parsl.executors import ThreadPoolExecutor
from parsl.jobs.states import JobState, JobStatus

from alloop.errors import SiteError
from alloop.executors.cluster import breaker as breakers
from alloop.executors.cluster.blocks import BlockCare, failures_in_a_row, passes, reason_of
from alloop.executors.cluster.breaker import Breaker
from alloop.executors.cluster.executor import ClusterExecutor
from alloop.executors.cluster.life import Life, _only, check, slots_of
from alloop.executors.cluster.pools import ClusterPool, Flight
from alloop.executors.protocol import Outcome
from tests.cluster.small_pools import config, local_provider, pool, wait_for, wait_until


def statuses(*states):
    return {str(block): JobStatus(state) for block, state in enumerate(states)}


@pytest.mark.parametrize(
    ("states", "came_up", "row"),
    [
        ([], set(), 0),
        ([JobState.FAILED], set(), 1),
        ([JobState.MISSING, JobState.FAILED, JobState.PENDING], set(), 2),
        ([JobState.FAILED, JobState.FAILED, JobState.RUNNING, JobState.FAILED], {"2"}, 1),
        ([JobState.FAILED, JobState.COMPLETED], {"1"}, 0),
        ([JobState.FAILED] * 11, {"9"}, 1),  # by number: "10" comes after "9"
        ([JobState.FAILED, JobState.SCALED_IN, JobState.FAILED], set(), 2),
    ],
)
def test_failures_count_since_the_last_block_that_came_up(states, came_up, row):
    assert len(failures_in_a_row(statuses(*states), came_up)) == row


def test_the_latest_failure_comes_first():
    status = statuses(JobState.FAILED, JobState.FAILED)
    status["1"].message = "the latest"

    assert failures_in_a_row(status, set())[0].message == "the latest"


@pytest.mark.parametrize(
    ("message", "passing"),
    [
        ("sbatch: error: Unable to contact slurm controller (connect failure)", True),
        ("Socket timed out on send/recv operation", True),
        ("sbatch: error: invalid partition specified: nonsense", False),
        (None, False),
    ],
)
def test_troubles_of_the_scheduler_that_pass_are_known(message, passing):
    assert passes(JobStatus(JobState.FAILED, message)) is passing


def test_the_reason_is_what_the_block_said_last(tmp_path):
    errors = tmp_path / "stderr"
    errors.write_text("much noise\n" * 99 + "ModuleNotFoundError:\n No module named 'tblite'\n")
    status = JobStatus(JobState.MISSING, "no workers came", stderr_path=str(errors))

    assert reason_of(status).endswith("ModuleNotFoundError: No module named 'tblite'")
    assert reason_of(JobStatus(JobState.MISSING, "no workers\ncame")) == "no workers came"
    assert reason_of(JobStatus(JobState.FAILED)) == "FAILED"


def test_a_pool_that_dies_again_and_again_is_broken_off():
    circuit = Breaker(losses=10)
    for _ in range(breakers.DEATHS):
        circuit.died("the interchange has died")
        assert circuit.reason is None

    circuit.died("the interchange has died")

    assert circuit.reason == "the interchange has died, 4 times in a row"


def test_a_task_that_ends_forgives_all():
    circuit = Breaker(losses=3)
    for _ in range(9):
        circuit.died("died")
        circuit.lost("lost")
        circuit.lost("lost")
        circuit.worked()

    assert circuit.reason is None


def test_many_tasks_lost_in_a_row_are_the_pool_s_fault():
    circuit = Breaker(losses=3)
    circuit.lost("WorkerLost")
    circuit.lost("WorkerLost")
    assert circuit.reason is None

    circuit.lost("WorkerLost")

    assert circuit.reason == "3 tasks lost in a row; the last: WorkerLost"


def test_a_broken_pool_rests_longer_each_time_and_is_tried_again(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    circuit = Breaker(losses=3)
    assert not circuit.may_try(), "it is not broken"
    for rest in (600.0, 1200.0, 2400.0, 3600.0, 3600.0):
        circuit.died("no block comes up", for_good=True)
        now[0] += rest - 1
        assert not circuit.may_try()
        now[0] += 1
        assert circuit.may_try()
        assert circuit.reason is None


def test_a_strategy_that_cancels_waiting_blocks_is_refused():
    with pytest.raises(SiteError, match="htex_auto_scale"):
        check(Config(executors=[ThreadPoolExecutor()], strategy="htex_auto_scale"))


def test_a_pool_without_an_address_is_refused():
    """Made with one: Parsl asks the web service in the constructor."""
    made = pool("here", local_provider())
    made.address = None

    with pytest.raises(SiteError, match="pool here: no address"):
        check(config(made))


def test_nothing_that_remembers_or_reports_is_taken_over(tmp_path):
    given = Config(
        executors=[ThreadPoolExecutor(label="threads")],
        memoizer=BasicMemoizer(checkpoint_mode="task_exit"),
        retries=3,
        usage_tracking=3,
        project_name="mine",
        max_idletime=7.0,
    )

    made = _only(given, given.executors[0], tmp_path)

    assert (made.memoizer, made.retries, made.usage_tracking) == (None, 0, 0)
    assert made.initialize_logging is False
    assert made.run_dir == str(tmp_path)
    assert made.max_idletime == 7.0


def test_slots_are_those_of_all_blocks():
    provider = local_provider()
    provider.max_blocks, provider.nodes_per_block = 3, 2

    assert slots_of(pool("here", provider, workers=4)) == 24
    assert slots_of(ThreadPoolExecutor(max_threads=5)) == 5


def test_threads_are_a_pool_like_others(tmp_path):
    executor = ClusterExecutor(
        tmp_path,
        lambda: config(ThreadPoolExecutor(label="threads", max_threads=2)),
        lambda kind, spec: ("threads",),
    )
    try:
        executor.submit("nonsense", {}, "unheard of")
        outcome = wait_for(executor, {"unheard of"})["unheard of"]
        assert outcome.status == "failed"
        assert "no task of kind 'nonsense'" in outcome.reason
        assert executor.slots == 2
    finally:
        executor.close()


def test_what_a_former_life_says_of_a_task_means_nothing(tmp_path):
    def begin():
        given = config(ThreadPoolExecutor(label="threads"))
        return Life(tmp_path, given, given.executors[0])

    own = ClusterPool(tmp_path, "threads", 1, begin)
    try:
        own.take(Flight("nonsense", {}, "sent again"))
        own.tend()
        number, outcome = own.ended.get(timeout=60)

        assert own.settle(number - 1, Outcome("sent again", "lost", "late word")) is None
        assert own.settle(number, outcome) == replace(outcome, pool="threads")
        assert own.settle(number, outcome) is None, "once is enough"
    finally:
        own.close()


def test_whoever_made_a_config_its_pools_get_our_interchange_and_our_care(tmp_path):
    executor = pool("here", local_provider())
    life = Life(tmp_path, config(executor), executor)
    try:
        running = psutil.Process(executor.interchange_proc.pid)
        wait_until(lambda: "alloop.executors.cluster.interchange" in running.cmdline())
        assert isinstance(executor.block_error_handler, BlockCare)
    finally:
        life.close()
    assert not running.is_running()
