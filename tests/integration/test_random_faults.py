"""Workers, their manager, the interchange and the driver killed at random: nothing else changes.

A real campaign on water with Parsl's local workers: GFN2-xTB through tblite, a committee of ANI
potentials. Each round has a schedule of kill -9 drawn from its seed. Twenty rounds:

    python -m pytest tests/integration/test_random_faults.py

The first two of them belong to ``make test``, the others to ``make test-slow``.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from alloop.executors.processes import of_campaign
from tests.small_campaigns import SPENT, check_sound, rows, write_campaign

pytestmark = pytest.mark.timeout(600)

ROUNDS = 20
ALWAYS = 2
"""Rounds that are not slow."""
FAULTS = 6
"""Moments of a round at which something is killed; after them it may end in peace."""
FEWEST = 3
"""Fewer than these prove too little."""
LONGEST_S = 3.0
"""Most time from one of them to the next, once the next victim is there."""
AT_WORK = 0.6
"""Share of the moments that come when tasks are under way; the others may as well in a start."""
BOTH = 0.2
"""Share of the moments at which the driver is killed, too."""
ROLES = ("worker", "manager", "interchange", "driver")
START_ME_AGAIN, KILLED = 75, -9

CONFIG = """
schema: 1
campaign: {name: water, seed: 5, directory: run}
systems:
  water: {structure: water.xyz}
target: {force_rmse: 0.001 eV/A}
tiers:
  - {id: xtb, method: {engine: tblite, model: GFN2-xTB}, budget: {labels: 500}}
committee: [{id: ani, members: 3}]
train: {epochs: 15}
explore:
  initial: {frames: 20}
  routes:
    - {id: warm, temperature: 300 K, duration: 50 fs, replicas: 6, batch: 3}
select: {per_generation: 12}
stop: {max_generations: 2}
site: site.yaml
"""
SITE = "kind: local\nworkers: 2\n"


class Round:
    """A campaign and whoever drives it; what happens to it is written down."""

    def __init__(self, folder: Path) -> None:
        self.config, self.directory = write_campaign(folder, CONFIG), folder / "run"
        (folder / "site.yaml").write_text(SITE)
        self.log = folder / "log.txt"
        self.starts = 0
        self.killed: list[str] = []
        self.driver = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        with self.log.open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "alloop", "start", str(self.config)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )

    def goes_on(self) -> bool:
        """Start a driver again that was killed, or that asks for it; False after the verdict."""
        code = self.driver.poll()
        if code in (KILLED, START_ME_AGAIN):
            self.note(f"start {self.starts + 1} after exit code {code}")
            self.driver = self._start()
        return self.driver.poll() is None

    def rest(self, seconds: float) -> None:
        """Let the campaign go on for a while."""
        until = time.monotonic() + seconds
        while self.goes_on() and time.monotonic() < until:
            time.sleep(0.05)

    def finish(self) -> None:
        """Let the campaign go on to its verdict."""
        self.rest(300.0)
        assert self.driver.poll() == SPENT, self.log.read_text()

    def kill(self, role: str, which: float, delay: float = 0.0, *, busy: bool = False) -> None:
        """Kill one of those with a role ``delay`` seconds after there is one.

        ``which``, from [0, 1), says which of them; ``busy``: wait until tasks are under way.
        """
        while self.goes_on() and not (self.processes()[role] and (self.is_busy() or not busy)):
            time.sleep(0.1)
        self.rest(delay)
        if living := self.processes()[role]:
            self.note(f"kills {role}{' at work' * self.is_busy()}")
            with suppress(psutil.NoSuchProcess):  # it was just going to end
                living[int(which * len(living))].kill()
            self.killed.append(role)
            if role == "driver":
                self.driver.wait()

    def processes(self) -> dict[str, list[psutil.Process]]:
        """Return who lives, by role."""
        found: dict[str, list[psutil.Process]] = {role: [] for role in ROLES}
        for process in of_campaign(self.directory):
            if role := role_of(process):
                found[role].append(process)
        if self.driver.poll() is None:
            found["driver"].append(psutil.Process(self.driver.pid))
        return found

    def is_busy(self) -> bool:
        """Return whether workers have taken tasks."""
        return any((self.directory / "outbox").glob("*.running"))

    def note(self, text: str) -> None:
        with self.log.open("a") as log:
            log.write(f"--- {text}\n")

    def end(self) -> None:
        """Kill the driver if the test did not get to its end."""
        self.driver.kill()
        self.driver.wait()

    def labelled(self) -> list[tuple]:
        """Return all that is known of labels, whoever made them."""
        sql = (
            "SELECT key, split, status, energy, forces, rule FROM label JOIN frame USING (frame_id)"
            " LEFT JOIN decision USING (frame_id) ORDER BY key, rule"
        )
        return rows(self.config, sql)


def role_of(process: psutil.Process) -> str | None:
    try:
        command, parent = " ".join(process.cmdline()), process.parent()
        above = " ".join(parent.cmdline()) if parent else ""
    except psutil.Error:
        return None
    if "alloop.executors.interchange" in command:
        return "interchange"
    if "process_worker_pool" in above:
        return "worker"  # or one of the two that Python needs beside them
    return "manager" if "process_worker_pool" in command else None


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Round:
    one = Round(tmp_path_factory.mktemp("undisturbed") / "campaign")
    try:
        one.finish()
    finally:
        one.end()
    return one


def seeds() -> list:
    slow = [pytest.param(seed, marks=pytest.mark.slow) for seed in range(ALWAYS, ROUNDS)]
    return [*range(ALWAYS), *slow]


@pytest.mark.parametrize("seed", seeds())
def test_random_faults_change_nothing(tmp_path, undisturbed, seed):
    moments = random.Random(seed)
    one = Round(tmp_path / "campaign")
    try:
        for _ in range(FAULTS):
            role, which, delay = moments.choice(ROLES), moments.random(), moments.random()
            one.kill(role, which, LONGEST_S * delay, busy=moments.random() < AT_WORK)
            if moments.random() < BOTH:
                one.kill("driver", which)
        one.finish()
    finally:
        one.end()

    assert len(one.killed) >= FEWEST, f"too quick: the round proves little\n{one.log.read_text()}"
    assert one.labelled() == undisturbed.labelled()
    check_ledger(one, undisturbed)
    check_nothing_is_left(one)


def check_ledger(one: Round, undisturbed: Round) -> None:
    check_sound(one.config)
    # A task of several labels that is lost twice is given up for one for each of its frames.
    undone = set(rows(one.config, "SELECT kind, status FROM task WHERE status != 'done'"))
    assert undone <= {("label", "failed")}
    for table in ("model", "committee", "trajectory", "snapshot"):
        count = f"SELECT COUNT(*) FROM {table}"
        assert rows(one.config, count) == rows(undisturbed.config, count), table


def check_nothing_is_left(one: Round) -> None:
    assert list((one.directory / "outbox").iterdir()) == []
    until = time.monotonic() + 30
    while (left := of_campaign(one.directory)) and time.monotonic() < until:
        time.sleep(0.5)
    assert not left
