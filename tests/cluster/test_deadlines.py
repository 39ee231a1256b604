"""Blocks that end: what they have begun goes on in the next one."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from alloop.executors.cluster.executor import ClusterExecutor
from alloop.executors.cluster.providers import Patient
from alloop.executors.durations import pace_file
from alloop.executors.inprocess import InProcessExecutor
from alloop.executors.protocol import Outcome
from alloop.executors.site import build_executor, load_site
from alloop.executors.sites import checks, compile, script
from alloop.training.settings import TrainSettings
from alloop_tasks.workspace import Workspace, read_json
from tests.cluster.small_pools import (
    PATIENCE_S,
    config,
    jobs,
    local_provider,
    odd,
    pool,
)
from tests.tier_tasks import ABOVE, BELOW, Bench, chosen, labelled, member

pytestmark = pytest.mark.timeout(900)

MINUTE = """
kind: cluster
address: 127.0.0.1
heartbeat_period: 1 s
heartbeat_threshold: 4 s
pools:
  nodes: {type: slurm, partition: cpu, walltime: 1 min, longest_task: 10 s, workers: 1}
"""
LONG_S = 50.0
"""CPU seconds of a fit that no block of a minute has time for."""


def carry_through(executor: Any, kind: str, spec: dict[str, Any], key: str) -> list[Outcome]:
    """Send a task, again whenever it was handed back, as the driver does; return all outcomes."""
    outcomes: list[Outcome] = []
    deadline = time.monotonic() + 3 * PATIENCE_S
    while not outcomes or outcomes[-1].status == "handed_back":
        if outcomes:
            rested = time.monotonic() + outcomes[-1].wait
            while time.monotonic() < rested:
                assert executor.wait(0.2) == []
        executor.submit(kind, spec, key)
        while not (ended := executor.wait(0.2)):
            assert time.monotonic() < deadline, executor.conditions()
        outcomes += ended
    return outcomes


def several(n: int, seconds: float) -> dict[str, Any]:
    """Return a task of several labels."""
    spec = odd(seconds=seconds)
    (frame,) = spec["frames"]
    positions = np.array(frame["positions"])
    return spec | {
        "frames": [
            frame | {"frame_key": f"{i:064x}", "positions": (positions * (1 + 0.01 * i)).tolist()}
            for i in range(n)
        ]
    }


def test_what_is_handed_back_goes_on_in_a_new_block_before_the_old_one_ends(tmp_path):
    """Blocks that say they last 34 s: after half of that they are too short for another label."""
    shells = tmp_path / "shells"
    init = f'export ALLOOP_BLOCK_DEADLINE=$(( $(date +%s) + 34 )); echo "$$" >> {shells}'
    executor = ClusterExecutor(
        tmp_path / "run",
        lambda: config(pool("nodes", local_provider(init))),
        lambda kind, spec: ("nodes",),
    )
    spec = several(8, 2.0)
    try:
        outcomes = carry_through(executor, "label", spec, "labels")
        first, *others = map(int, shells.read_text().split())
        assert others
        assert not psutil.pid_exists(first)
    finally:
        executor.close()
    assert outcomes[-1].status == "done"
    assert len({outcome.block for outcome in outcomes}) == len(outcomes) >= 2
    assert all(outcome.advanced and outcome.wait <= 5.0 for outcome in outcomes[:-1])
    labels = read_json(Workspace(tmp_path / "run", "labels").result_path)["result"]["labels"]
    assert [label["frame_key"] for label in labels] == [one["frame_key"] for one in spec["frames"]]
    assert sum(outcome.seconds for outcome in outcomes) < 16.0 + 6.0  # none was made twice


def fit_of(folder: Path, epochs: int) -> dict[str, Any]:
    """Return a task that fits a member from random weights."""
    bench = Bench(folder)
    (parent,) = bench.members([member(BELOW, 0)])
    settings = TrainSettings(epochs=epochs, max_steps=None, patience=epochs, batch_size=4)
    return {
        "mode": "scratch",
        "member": "ani/0",
        "freeze": ["auto"],
        "settings": asdict(settings),
        "level": ABOVE,
        "lower_level": BELOW,
        "snapshot": "5" * 64,
        "data": bench.data(chosen(labelled("water", ABOVE, 48), "train", "validation")),
        "lower": bench.data(chosen(labelled("water", BELOW, 12), "train", "validation")),
        "parent": parent,
        "teachers": [],
        "seed": 3,
    }


def undisturbed(folder: Path, epochs: int) -> dict[str, Any]:
    """Carry out a fit here; return its envelope."""
    here = InProcessExecutor(folder)
    here.submit("transfer", fit_of(folder, epochs), f"{epochs} epochs")
    (outcome,) = here.wait(0.0)
    assert outcome.status == "done", outcome.reason
    return read_json(Workspace(folder, outcome.key).result_path)


def test_a_training_longer_than_a_block_gives_the_same_model(slurm, tmp_path, monkeypatch):
    monkeypatch.setattr(compile, "STRATEGY_PERIOD_S", 1)
    monkeypatch.setattr(Patient, "poll_s", 2)
    for module in (checks, compile, script):
        monkeypatch.setattr(module, "MARGIN_S", 5.0)
    undisturbed(tmp_path / "here", 2)  # imports take their time
    some = undisturbed(tmp_path / "here", 200)
    epochs = round(200 * LONG_S / some["cpu_seconds"])
    expected = undisturbed(tmp_path / "here", epochs)
    (tmp_path / "site.yaml").write_text(MINUTE)
    directory = tmp_path / "run"
    spec = fit_of(directory, epochs)

    executor = build_executor(load_site("site.yaml", tmp_path), directory)
    try:
        outcomes = carry_through(executor, "transfer", spec, "fit")
        assert pace_file(directory, "nodes").read_text() == "120\n"
    finally:
        executor.close()
    result = read_json(Workspace(directory, "fit").result_path)["result"]
    assert outcomes[-1].status == "done"
    assert all(outcome.advanced for outcome in outcomes[:-1])
    assert len({outcome.block for outcome in outcomes}) == len(outcomes) >= 2
    assert result["metrics"]["checkpoint"].startswith("went on after epoch")
    assert result["artifact"] == expected["result"]["artifact"]
    assert jobs() == []
