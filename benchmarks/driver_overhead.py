"""What the driver costs per task, and what planning costs when the ledger is large.

    python benchmarks/driver_overhead.py [--frames 100000] [--labels 1000000]

Real ledger, real planner, real commits; only the labels are made up, since nobody needs a
million xTB calculations to time SQL. Reference: the label itself, GFN2-xTB on ethanol, about
1 ms; a DFT label, seconds to minutes.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Engine, insert

from alloop.artifacts import ArtifactStore
from alloop.campaign.methods import method_of
from alloop.campaign.plan import plan
from alloop.config.load import load
from alloop.config.model import Campaign
from alloop.config.shipped import shipped
from alloop_db import schema as t
from alloop_db.arrays import floats_to_blob
from alloop_db.ledger import open_ledger
from alloop_db.store import Store
from alloop_tasks.environment import environment

CHUNK = 20_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--labels", type=int, default=1_000_000)
    sizes = parser.parse_args()
    loaded = load(shipped("configs") / "ethanol.yaml")
    print("   labels   plan / ms  commit / ms  ledger / MB   RSS / MB")
    for n in (1_000, sizes.frames, sizes.labels):
        with tempfile.TemporaryDirectory() as folder:
            store = _store(Path(folder), loaded.config, loaded.structures)
            _fill(store.engine, n, next(iter(loaded.structures.values())).n_atoms)
            planning = _time(lambda s=store: plan(s.state(), loaded.config, 2, 0.0), 20)
            committing = _cycle(store, loaded.config, 50)
            size = (Path(folder) / "ledger.sqlite").stat().st_size / 1e6
            store.engine.dispose()
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(f"{n:9d}  {planning:10.2f}  {committing:11.2f}  {size:11.1f}  {rss:9.0f}")
    print(
        "plan: read the state and plan once, median; commit: one label task through intent, claim"
        " and commit (three durable transactions), median"
    )


def _store(folder: Path, config: Campaign, structures: dict[str, Any]) -> Store:
    store = Store(open_ledger(folder, create=True), ArtifactStore(folder / "artifacts"))
    tier = config.tiers[0]
    store.create("bench", 1, "0", structures, {tier.id: method_of(config, tier)})
    return store


def _fill(engine: Engine, n: int, n_atoms: int) -> None:
    """Insert a prepared system and n frames, labelled but for the last 200."""
    forces = floats_to_blob(np.zeros((n_atoms, 3)))
    rng = np.random.default_rng(1)
    with engine.begin() as connection:
        connection.execute(
            insert(t.Artifact).values(
                sha256="0" * 64, suffix=".npz", kind="preparation", bytes=1, created_at=t.now()
            )
        )
    for first in range(0, n, CHUNK):
        numbers = range(first, min(first + CHUNK, n))
        frames = [
            {
                "frame_id": i + 1,
                "key": f"{i:064x}",
                "system_id": 1,
                "generation_id": 1,
                "source": "wigner",
                "split": "train",
                "n_atoms": n_atoms,
                "positions": floats_to_blob(rng.normal(size=(n_atoms, 3))),
            }
            for i in numbers
        ]
        labels = [
            {
                "label_id": i + 1,
                "frame_id": i + 1,
                "level_of_theory_id": 1,
                "generation_id": 1,
                "status": "done" if i < n - 200 else "pending",
                "tries": 0,
                "energy": -1.0 if i < n - 200 else None,
                "forces": forces if i < n - 200 else None,
            }
            for i in numbers
        ]
        with engine.begin() as connection:
            connection.execute(insert(t.FrameRow), frames)
            connection.execute(insert(t.LabelRow), labels)


def _time(action: Callable[[], Any], repeats: int) -> float:
    """Return the median duration of an action, ms."""
    action()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return 1e3 * statistics.median(times)


def _cycle(store: Store, config: Campaign, repeats: int) -> float:
    """Return the median duration of intent, claim and commit of a task of one label, ms."""
    from alloop.campaign import specs

    times = []
    for need in store.state().needs[:repeats]:
        spec = {"frames": [], "retries": 2, "method": method_of(config, config.tiers[0])}
        intent = specs.intent("label", spec | {"frame": need.frame_key}, 0, [need.label_id])
        result = {"labels": [_label(need.frame_key, len(need.positions))]}
        envelope = {
            "key": intent.key,
            "status": "done",
            "result": result,
            "started_at": t.now(),
            "seconds": 0.001,
            "cpu_seconds": 0.001,
            "environment": environment(),
            "artifacts": [],
        }
        began = time.perf_counter()
        store.tasks.add([intent])
        store.tasks.claim(1, 1)
        store.tasks.commit(envelope)
        times.append(time.perf_counter() - began)
    return 1e3 * statistics.median(times)


def _label(frame_key: str, n_atoms: int) -> dict[str, Any]:
    return {
        "frame_key": frame_key,
        "status": "done",
        "energy": -1.0,
        "forces": np.zeros((n_atoms, 3)).tolist(),
        "seconds": 0.001,
        "program": "none",
        "attempted_at": t.now(),
    }


if __name__ == "__main__":
    main()
