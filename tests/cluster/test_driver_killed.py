"""After kill -9 of the driver no job stays, neither one that runs nor one that waits."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from alloop.executors.cluster.executor import ClusterExecutor
from alloop.executors.cluster.reaper import campaign_of, tag_of
from alloop.executors.processes import of_campaign
from tests.cluster.small_pools import config, pool, slurm_provider, wait_until

pytestmark = pytest.mark.timeout(400)

DRIVER = """
    import sys
    from pathlib import Path
    from alloop.executors.cluster.executor import ClusterExecutor
    from tests.cluster.small_pools import config, odd, pool, slurm_provider

    directory = Path(sys.argv[1])

    def configure():
        later = "#SBATCH --begin=now+3600"
        waits = slurm_provider(directory, options=later)
        return config(pool("runs", slurm_provider(directory)), pool("waits", waits))

    executor = ClusterExecutor(directory, configure, lambda kind, spec: (spec["pool"],))
    for name in ("runs", "waits"):
        executor.submit("label", odd(seconds=600.0) | {"pool": name}, name)
    while True:
        executor.wait(1.0)
"""


def jobs_of(directory: Path, *options: str) -> set[str]:
    command = ["squeue", "--noheader", "--format=%i %k", *options]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    tag = tag_of(campaign_of(directory))
    return {line.split()[0] for line in done.stdout.splitlines() if line.split()[-1] == tag}


@pytest.fixture
def driver(slurm, tmp_path):
    """A driver with a job that runs a task and one that waits."""
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)])
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(DRIVER), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": path},
    )
    try:
        wait_until((tmp_path / "outbox" / "runs.running").exists)
        wait_until(lambda: jobs_of(tmp_path, "--states=pending"))
        yield process
    finally:
        process.kill()
        process.wait()


def interchanges(directory):
    return [one for one in of_campaign(directory) if "cluster.interchange" in str(one.cmdline())]


def test_the_interchange_cancels_what_its_driver_has_left(driver, tmp_path):
    assert len(jobs_of(tmp_path)) == 2

    driver.kill()

    wait_until(lambda: jobs_of(tmp_path) == set())
    wait_until(lambda: of_campaign(tmp_path) == [])


def test_without_interchange_blocks_end_and_the_next_start_cancels_the_rest(driver, tmp_path):
    (waits,) = jobs_of(tmp_path, "--states=pending")
    worker = int((tmp_path / "outbox" / "runs.running").read_text())
    for process in interchanges(tmp_path):
        process.suspend()  # it cannot do anything any more, whatever happens
    driver.kill()
    for process in interchanges(tmp_path):
        process.kill()

    wait_until(lambda: jobs_of(tmp_path) == {waits})  # for want of heartbeats
    wait_until(lambda: not psutil.pid_exists(worker))

    own = ClusterExecutor(
        tmp_path, lambda: config(pool("runs", slurm_provider(tmp_path))), lambda kind, spec: ()
    )
    try:
        wait_until(lambda: jobs_of(tmp_path) == set())
    finally:
        own.close()
