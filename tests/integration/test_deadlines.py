"""Blocks that end: tasks are laid down in time, rest, and go on to what they would have come to."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from alloop.campaign import start as starting
from alloop.executors.inprocess import InProcessExecutor
from alloop.executors.protocol import Outcome
from alloop.frames import Frame
from alloop_tasks import boundary, deadlines
from alloop_tasks.systems import system_record
from alloop_tasks.workspace import Workspace, read_json
from tests.small_campaigns import SPENT, STALLED, alloop, check_sound, rows, write_campaign

pytestmark = pytest.mark.timeout(600)

RESERVE_S = 0.2
CONFIG = """
schema: 1
campaign: {name: water, seed: 5, directory: run}
systems:
  water: {structure: water.xyz}
target: {force_rmse: 0.001 eV/A}
tiers:
  - {id: xtb, method: {engine: tblite, model: GFN2-xTB}, budget: {labels: 500}}
committee: [{id: ani, members: 3}]
train: {epochs: 150}
explore:
  initial: {frames: 20}
  routes:
    - {id: warm, temperature: 300 K, duration: 600 fs, replicas: 4, batch: 4}
    - {id: free, ensemble: nve, duration: 600 fs, replicas: 4, batch: 4, start: thermal}
select: {per_generation: 8}
spacetime: {cutoff: 5 fs, steps: 400, every: 1 generations, probe: off}
stop: {max_generations: 1}
site: inprocess
"""


class Blocks(InProcessExecutor):
    """Runs tasks here, in blocks that end so many seconds after the first task of each began.

    ``expected`` is how long a label is said to take.
    """

    def __init__(self, directory: Path, length: float, expected: float | None = None) -> None:
        super().__init__(directory)
        self._length, self._expected, self._ends = length, expected, 0.0
        self._longer: dict[str, float] = {}

    def wait(self, timeout: float) -> list[Outcome]:
        """Run the oldest queued task."""
        if not self._queue:
            time.sleep(timeout)
            return []
        kind, spec, key = self._queue.popleft()
        if time.time() >= self._ends or key in self._longer:
            self._ends = time.time() + self._longer.get(key, 1.0) * self._length
        os.environ[deadlines.BLOCK_DEADLINE] = str(self._ends)
        os.environ[deadlines.BLOCK_SECONDS] = str(self._length)
        expected = self._expected if kind == "label" else None
        report = boundary.run(kind, spec, str(self._directory), key, expected)
        if not report.get("advanced", True):  # a machine with much else to do
            self._longer[key] = 2.0 * self._longer.get(key, 1.0)
        return [Outcome.of(report)]


@pytest.fixture
def blocks(monkeypatch) -> Iterator[pytest.MonkeyPatch]:
    for name in (deadlines.BLOCK_DEADLINE, deadlines.BLOCK_SECONDS, deadlines.POOL):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(deadlines, "RESERVE_S", RESERVE_S)
    return monkeypatch


def artifacts(config: Path) -> set[tuple]:
    return set(rows(config, "SELECT kind, sha256 FROM artifact"))


def test_a_campaign_in_short_blocks_comes_to_the_same_bits(tmp_path, blocks):
    undisturbed = write_campaign(tmp_path / "undisturbed", CONFIG)
    assert alloop("start", undisturbed).exit_code == SPENT
    longest = dict(rows(undisturbed, "SELECT kind, MAX(seconds) FROM task GROUP BY kind"))
    length = 0.7 * min(longest["explore"], longest["train"]) + RESERVE_S
    blocks.setattr(starting, "build_executor", lambda _, path, *__: Blocks(path, length))
    config = write_campaign(tmp_path / "blocks", CONFIG)
    done = alloop("start", config)
    assert done.exit_code == SPENT, done.output

    check_sound(config)
    back = dict(rows(config, "SELECT kind, SUM(hand_backs) FROM task GROUP BY kind"))
    assert back["explore"] >= 1, back
    assert back["train"] >= 1, back
    assert rows(config, "SELECT COUNT(*) FROM task WHERE status != 'done'") == [(0,)]
    told = rows(config, "SELECT text FROM event WHERE kind = 'handed_back'")
    assert len(told) == sum(back.values())
    assert any("laid down in time, to go on later" in text for (text,) in told)
    assert artifacts(config) == artifacts(undisturbed)
    assert not list((config.parent / "run" / "outbox").iterdir())


def label_spec(n: int) -> dict:
    """Return a task of many labels, each of which takes some milliseconds."""
    at = np.array([[0.0, 0.0, 0.1173], [0.0, 0.7572, -0.4692], [0.0, -0.7572, -0.4692]])
    shaken = np.random.default_rng(1).normal(0.0, 0.02, (n, 3, 3))
    frames = [Frame(np.array([8, 1, 1]), at + shift) for shift in shaken]
    return {
        "method": {"engine": "tblite", "model": "GFN2-xTB", "options": {}},
        "system": system_record("water", frames[0]),
        "frames": [
            {"frame_key": frame.key, "positions": frame.positions.tolist(), "attempt": 0}
            for frame in frames
        ],
    }


def test_labels_are_handed_back_in_time_and_none_is_made_twice(tmp_path, blocks):
    spec = label_spec(200)
    boundary.run("label", label_spec(2), str(tmp_path), "imports take their time")
    workspace, made, reports, window = Workspace(tmp_path, "labels"), {}, [], 0.1
    while not reports or reports[-1]["status"] != "done":
        blocks.setenv(deadlines.BLOCK_DEADLINE, str(time.time() + RESERVE_S + 5.0 + window))
        reports.append(boundary.run("label", spec, str(tmp_path), "labels", 5.0))
        assert len(reports) < 100
        parts = [read_json(path) for path in workspace.parts.iterdir()]
        now = {part["frame_key"]: part for part in parts}
        assert made.items() <= now.items()  # untouched, with their instants
        if reports[-1]["status"] == "handed_back":
            assert reports[-1]["advanced"] == (len(now) > len(made))
            assert 0.0 < reports[-1]["wait"] < 5.0 + window + RESERVE_S
            window *= 1 if reports[-1]["advanced"] else 2
            said = "a label of GFN2-xTB takes about 5 s, its block ends in "
            assert reports[-1]["error_text"].startswith(said)
        made = now
    assert len(reports) >= 3
    result = read_json(workspace.result_path)["result"]
    assert result["labels"] == [made[frame["frame_key"]] for frame in spec["frames"]]


def test_the_longest_label_so_far_decides_where_nobody_knows(tmp_path, blocks):
    """The label of a slow program comes, then none that would take longer than is left."""
    blocks.syspath_prepend(str(Path(__file__).parent))
    options = {"calculator": "odd_calculators:Odd", "kwargs": {"seconds": 1.0}}
    spec = label_spec(4) | {"method": {"engine": "ase", "model": "odd", "options": options}}
    ends = time.time() + RESERVE_S + 2.5
    blocks.setenv(deadlines.BLOCK_DEADLINE, str(ends))
    report = boundary.run("label", spec, str(tmp_path), "labels")
    assert (report["status"], report["advanced"]) == ("handed_back", True)
    assert time.time() < ends
    assert len(list(Workspace(tmp_path, "labels").parts.iterdir())) in (1, 2)


def test_a_label_for_which_no_block_is_long_enough_fails_and_says_what_to_do(tmp_path, blocks):
    blocks.setenv(deadlines.POOL, "nodes")
    blocks.setattr(starting, "build_executor", lambda _, path, *__: Blocks(path, 3600.0, 4000.0))
    config = write_campaign(tmp_path / "blocks", CONFIG)
    done = alloop("start", config)
    assert done.exit_code == STALLED, done.output

    said = (
        "a label of GFN2-xTB takes about 67 min, and blocks of nodes end after 60 min: raise"
        " walltime of that pool in the site file"
    )
    assert said in " ".join(done.output.split())
    errors = "SELECT DISTINCT error_class, error_text FROM label_attempt"
    assert rows(config, errors) == [("SiteError", said)]
    assert rows(config, "SELECT COUNT(*) FROM task WHERE hand_backs > 0") == [(0,)]
