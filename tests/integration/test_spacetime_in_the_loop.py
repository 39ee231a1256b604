"""The 4D model in the loop: fitted, judged, probed, and refitted to what its probe has found.

One small campaign on water is killed as its first 4D fit begins; from there it is finished once
undisturbed and once with further kills, and every task is run again on its own.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from alloop.artifacts import ArtifactStore
from alloop.cli.main import app
from alloop.trajectories import Shard
from alloop_tasks import fit_spacetime, probe_spacetime
from alloop_tasks.workspace import Workspace
from tests.small_campaigns import CONVERGED, SPENT, rows, write_campaign

pytestmark = pytest.mark.timeout(300)

CONFIG = """
schema: 1
campaign: {name: water, seed: 3, directory: run}
systems:
  water: {structure: water.xyz}
target: {force_rmse: 0.001 eV/A}
tiers:
  - {id: xtb, method: {engine: tblite, model: GFN2-xTB}, budget: {labels: 500}}
committee: [{id: ani, members: 3}]
train: {max_steps: 200, warm_steps: 100}
explore:
  initial: {frames: 20}
  routes:
    - {id: warm, temperature: 300 K, duration: 50 fs, replicas: 3}
    - {id: free, ensemble: nve, duration: 60 fs, replicas: 6, start: thermal}
select: {per_generation: 10}
spacetime:
  cutoff: 5 fs
  steps: 200
  hidden: [32, 32]
  windows: 2000
  gate_tolerance: 10
  probe: {replicas: 6, duration: 60 fs, max_segments: 4, quantile: 0.6}
stop: {max_generations: 1}
site: inprocess
"""


def alloop(*words: object) -> str:
    outcome = CliRunner().invoke(app, [str(word) for word in words])
    assert outcome.exit_code in (CONVERGED, SPENT), outcome.output
    return outcome.output


def kill_in(config: Path, kind: str, delay: float) -> None:
    """Drive a campaign until a task of a kind has run for so long, s, and kill -9 it there."""
    driver = subprocess.Popen(
        [sys.executable, "-m", "alloop", "start", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        running = f"SELECT key FROM task WHERE kind = '{kind}' AND status = 'running'"
        while not (found := _rows_if_any(config, running)) or not _taken(config, found[0][0]):
            assert driver.poll() is None, "the campaign ended before it could be killed"
            time.sleep(0.01)
        time.sleep(delay)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    assert rows(config, running) == found, "the task was over: the test proves nothing"


def _taken(config: Path, key: str) -> bool:
    return Workspace(config.parent / "run", key).running_path.exists()


def _rows_if_any(config: Path, sql: str) -> list[tuple]:
    try:
        return rows(config, sql)
    except sqlite3.OperationalError:  # there is no ledger yet, or it is empty
        return []


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> Path:
    """Return a campaign whose driver was killed as its 4D fit had begun."""
    path = write_campaign(tmp_path_factory.mktemp("begun"), CONFIG)
    kill_in(path, "fit_spacetime", 0.0)
    return path


@pytest.fixture(scope="module")
def config(begun, tmp_path_factory) -> Path:
    """Return the campaign, finished without another kill."""
    folder = tmp_path_factory.mktemp("finished") / "campaign"
    shutil.copytree(begun.parent, folder)
    alloop("start", folder / "config.yaml")
    return folder / "config.yaml"


def outcome(config: Path) -> dict[str, list[tuple]]:
    """Return all that 4D models, probes and their trajectories are, keys and instants apart."""
    return {
        "models": rows(
            config,
            "SELECT status, reason, parent_spacetime_model_id, sha256 FROM spacetime_model"
            " JOIN artifact USING (artifact_id) ORDER BY spacetime_model_id",
        ),
        "probes": rows(
            config,
            "SELECT spacetime_model_id, n_replicas, n_segments, n_flagged, flagged, numbers,"
            " segments, sha256 FROM spacetime_probe JOIN artifact USING (artifact_id)"
            " ORDER BY spacetime_probe_id",
        ),
        "trajectories": rows(
            config,
            "SELECT route, seed, split, n_frames, duration, reason FROM trajectory ORDER BY seed",
        ),
        "seen": rows(
            config,
            "SELECT spacetime_model_id, seed, seen.split FROM spacetime_trajectory AS seen"
            " JOIN trajectory USING (trajectory_id) ORDER BY 1, 2",
        ),
    }


def test_fit_probe_and_refit_follow_each_other(config):
    kinds = rows(config, "SELECT kind FROM task WHERE kind LIKE '%spacetime' ORDER BY task_id")
    assert [kind for (kind,) in kinds] == ["fit_spacetime", "probe_spacetime"] * 2
    assert rows(config, "SELECT DISTINCT status FROM task") == [("done",)]
    models = rows(config, "SELECT status, parent_spacetime_model_id FROM spacetime_model")
    assert models == [("promoted", None), ("promoted", 1)]


def test_what_a_probe_finds_joins_the_store_and_the_refit_learns_from_it(config):
    probe = "SELECT task_id, n_flagged, n_segments, segments FROM spacetime_probe"
    task_id, flagged, judged, segments = rows(config, probe)[0]
    assert 0 < flagged <= judged <= 6 * 12
    begun = rows(
        config,
        "SELECT trajectory_id, split, n_frames, duration, reason, ensemble FROM trajectory"
        f" WHERE route = '4d' AND task_id = {task_id}",
    )
    assert len(begun) == len(json.loads(segments)) <= 4
    assert {one[2:] for one in begun} == {(101, 50.0, "completed", "nve")}
    seen = "SELECT trajectory_id, split FROM spacetime_trajectory WHERE spacetime_model_id = "
    assert {one[:2] for one in begun} <= set(rows(config, seen + "2"))
    assert {one[:2] for one in begun}.isdisjoint(rows(config, seen + "1"))


def test_there_is_a_trajectory_for_each_place_where_one_was_to_begin(config):
    (digest, segments), *_ = rows(
        config, "SELECT sha256, segments FROM spacetime_probe JOIN artifact USING (artifact_id)"
    )
    store = ArtifactStore(config.parent / "run" / "artifacts")
    assert len(Shard(store.get(digest, ".h5"))) == len(json.loads(segments))


def test_limits_and_judgement_come_from_trajectories_that_only_measure(config):
    metrics, reason = rows(config, "SELECT metrics, reason FROM spacetime_model")[1]
    (audit,) = rows(config, "SELECT count(*) FROM spacetime_trajectory"
                            " WHERE spacetime_model_id = 2 AND split = 'audit'")[0]  # fmt: skip
    assert audit > 1
    assert json.loads(metrics)["thresholds"]["n_trajectories"] == audit
    assert json.loads(metrics)["gate"]["n_trajectories"] == audit
    assert reason.endswith("the limit is 11.000")


def test_lineage_leads_from_a_trajectory_to_its_probe_and_model(config):
    (number,) = rows(config, "SELECT trajectory_id FROM trajectory WHERE route = '4d' LIMIT 1")[0]

    up = json.loads(alloop("lineage", f"trajectory:{number}", "--json", "-c", config))["up"]

    steps = {(link["from"], link["to"]) for link in up}
    assert (f"trajectory:{number}", "spacetime_probe:1") in steps
    assert ("spacetime_probe:1", "spacetime_model:1") in steps


def test_people_are_told(config):
    events = [text for (text,) in rows(config, "SELECT text FROM event ORDER BY event_id")]
    assert any(
        text.startswith("4D model of water after generation 1 promoted: ") for text in events
    )
    assert any("segments flagged" in text and "reference trajectories" in text for text in events)
    status = alloop("status", "-c", config)
    assert "  promoted: its error is" in status
    assert "segments flagged" in status
    assert "promoted" in alloop("query", "spacetime_models", "-c", config)


def test_kill_9_in_the_middle_of_fit_and_probe_changes_nothing(begun, config, tmp_path):
    copy = tmp_path / "campaign"
    shutil.copytree(begun.parent, copy)
    kill_in(copy / "config.yaml", "fit_spacetime", 0.3)
    kill_in(copy / "config.yaml", "probe_spacetime", 0.05)

    assert "interrupted tasks start again" in alloop("start", copy / "config.yaml")

    assert outcome(copy / "config.yaml") == outcome(config)
    assert rows(copy / "config.yaml", "PRAGMA foreign_key_check") == []


def task(config: Path, kind: str, tmp_path: Path) -> tuple[dict[str, Any], Workspace]:
    """Return the last task of a kind and a place to run it again."""
    key, spec = rows(
        config, f"SELECT key, spec FROM task WHERE kind = '{kind}' ORDER BY task_id DESC LIMIT 1"
    )[0]
    shutil.copytree(config.parent / "run" / "artifacts", tmp_path / "artifacts")
    return json.loads(spec), Workspace(tmp_path, key)


def test_a_killed_fit_goes_on_from_its_checkpoint_to_the_same_model(config, tmp_path, monkeypatch):
    spec, workspace = task(config, "fit_spacetime", tmp_path)
    first = []

    def keep_all(*given, on_progress, **options):
        def tell(done: int, total: int, loss: float) -> None:
            on_progress(done, total, loss)
            first.append(done)
            if len(first) == stop_after:
                raise KeyboardInterrupt

        return fit(*given, on_progress=tell, checkpoint_s=0.0, **options)

    fit = fit_spacetime.fit
    monkeypatch.setattr(fit_spacetime, "fit", keep_all)
    stop_after = 3
    with pytest.raises(KeyboardInterrupt):
        fit_spacetime.run(spec, workspace)
    killed_at, stop_after = first[-1], 0
    assert 0 < killed_at < 200
    first.clear()

    result = fit_spacetime.run(spec, workspace)

    assert first[0] >= killed_at
    assert result["artifact"] == outcome(config)["models"][-1][-1]
    stored = json.loads(rows(config, "SELECT metrics FROM spacetime_model")[1][0])
    assert result["metrics"] == stored
    assert stored["notes"] == []


def test_a_replica_that_the_4d_model_loses_is_a_find(config, tmp_path, monkeypatch):
    spec, workspace = task(config, "probe_spacetime", tmp_path)
    propagate = probe_spacetime.propagate

    def lose_the_first(*given, **options):
        motion = propagate(*given, **options)
        lost = replace(motion.courses[0], n_frames=3, reason="energy")
        return replace(motion, courses=(lost, *motion.courses[1:]))

    monkeypatch.setattr(probe_spacetime, "propagate", lose_the_first)

    result = probe_spacetime.run(spec, workspace)

    assert result["numbers"]["ended"] == {"energy": 1, "completed": 5}
    assert result["flagged"]["ended"] == 1
    worst = result["segments"][0]
    assert (worst["replica"], worst["time"], worst["ended"]) == (0, 10.0, "energy")
    assert worst["excess"] is None  # beyond any limit


def test_the_worst_of_each_replica_come_first_and_share_a_split(config, tmp_path):
    spec, workspace = task(config, "probe_spacetime", tmp_path)
    spec["reference"]["most"] = 50

    result = probe_spacetime.run(spec, workspace)

    segments = result["segments"]
    by_replica: dict[int, list[dict[str, Any]]] = {}
    splits: dict[int, set[str]] = {}
    for segment, trajectory in zip(segments, result["replicas"], strict=True):
        by_replica.setdefault(segment["replica"], []).append(segment)
        splits.setdefault(segment["replica"], set()).add(trajectory["split"])
    assert len(by_replica) > 2
    assert max(len(own) for own in by_replica.values()) > 1
    for own in by_replica.values():
        excess = [segment["excess"] for segment in own]
        assert excess == sorted(excess, reverse=True)
        times = sorted(segment["time"] for segment in own)
        assert all(b - a >= 25.0 for a, b in pairwise(times))
    firsts = [own[0]["excess"] for own in by_replica.values()]
    assert firsts == sorted(firsts, reverse=True)
    assert [segment["replica"] for segment in segments[: len(by_replica)]] == list(by_replica)
    assert all(len(own) == 1 for own in splits.values())
    assert set.union(*splits.values()) == {"train", "validation", "audit"}


def test_a_model_that_is_worse_is_held_back_and_gives_no_limits(config, tmp_path):
    spec, workspace = task(config, "fit_spacetime", tmp_path)
    spec |= {"gate_tolerance": -0.99, "settings": spec["settings"] | {"steps": 1}}

    result = fit_spacetime.run(spec, workspace)

    assert result["status"] == "held_back"
    assert result["reason"].endswith("the limit is 0.010")
    assert result["metrics"]["thresholds"] is None


def test_what_is_too_short_or_there_twice_is_left_out_with_its_reason(config, tmp_path):
    spec, workspace = task(config, "fit_spacetime", tmp_path)
    settings = spec["settings"] | {"steps": 1, "cutoff": 55.0}
    begun = [replica for shard in spec["shards"] if shard["route"] == "4d"
             for replica in shard["replicas"]]  # fmt: skip
    free = next(shard for shard in spec["shards"] if shard["route"] == "free")
    twin = free["replicas"][0] | {"trajectory_id": 99, "replica": 1}  # of the same seed
    spec["shards"].append(free | {"replicas": [twin]})

    result = fit_spacetime.run(spec | {"settings": settings, "quantile": None}, workspace)

    found = {(one["trajectory_id"], one["reason"]) for one in result["excluded"]}
    short = {(replica["trajectory_id"], "too_short") for replica in begun}
    assert found == short | {(99, "same_start")}
    assert len(result["trajectories"]) == 6
    assert "uniform motion" in result["reason"]  # the model in use spans another time
