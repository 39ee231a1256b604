"""Out of memory: more of it for the label, and a pool whose workers have more."""

from __future__ import annotations

import numpy as np
import psutil
import pytest

from alloop.artifacts import ArtifactStore
from alloop.executors.cluster.memory import climb, times_short
from alloop.executors.sites.load import load_site
from alloop.executors.sites.roles import memory_of
from alloop.frames import Frame
from alloop.reference.failures import may_retry
from alloop.reference.method import MethodSpec
from alloop.reference.pyscf.options import PyscfOptions
from alloop_db import schema as t
from alloop_db.arrays import floats_to_blob
from alloop_db.ledger import open_ledger
from alloop_db.queue import TaskIntent
from alloop_db.sessions import transaction
from alloop_db.store import Store
from alloop_tasks import label

WATER = Frame(np.array([8, 1, 1]), np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]))
MEMORY = {"cpu": 4000.0, "spare": 4000.0, "big": 64_000.0, "huge": 512_000.0}


@pytest.mark.parametrize(
    ("names", "rung", "order"),
    [
        ("cpu big huge", 0, "cpu big huge"),
        ("cpu big huge", 1, "big huge cpu"),
        ("cpu big huge", 2, "huge cpu big"),
        ("cpu big huge", 9, "huge cpu big"),
        ("cpu huge spare big", 1, "big huge cpu spare"),
        ("cpu spare", 3, "cpu spare"),
        ("big cpu", 1, "big cpu"),  # no other has more
        ("cpu unknown", 1, "cpu unknown"),
        ("unknown big", 1, "unknown big"),  # nobody knows that it is more
        ("cpu", 5, "cpu"),
    ],
)
def test_each_rung_is_the_next_larger_memory(names, rung, order):
    assert " ".join(climb(names.split(), MEMORY, rung)) == order


def test_a_label_climbs_by_what_it_was_short_of_other_tasks_by_losses_without_progress():
    assert times_short({}, 0) == times_short({}, 1) == 0
    assert times_short({}, 2) == 1
    assert times_short({"frames": [{"attempt": 4}, {"attempt": 4}]}, 0) == 0
    assert times_short({"frames": [{"attempt": 4}, {"short_of_memory": 2}]}, 0) == 2
    assert times_short({"frames": [{"short_of_memory": 1}]}, 4) == 3


def test_the_memory_of_pools_is_what_the_site_says(tmp_path):
    (tmp_path / "site.yaml").write_text(
        """kind: cluster
pools:
  cpu: {type: local, memory_per_worker: 4 GB}
  big: {type: local, memory_per_worker: 64 GB}
  here: {type: local}
  threads: {type: threads}
roles: {explore: threads, train: here, label: [cpu, big]}
"""
    )
    assert memory_of(load_site("site.yaml", tmp_path)) == {"cpu": 4000.0, "big": 64_000.0}


def pyscf(memory: float) -> MethodSpec:
    return MethodSpec("pyscf", options={"theory": "HF", "basis": "STO-3G", "memory": memory})


@pytest.mark.parametrize(
    ("memory", "times", "most", "given"),
    [
        (1000.0, 0, 9000.0, 1000.0),
        (1000.0, 1, 9000.0, 2000.0),
        (1000.0, 3, 9000.0, 8000.0),
        (1000.0, 4, 9000.0, 9000.0),
        (1000.0, 2, 500.0, 1000.0),
    ],
)
def test_memory_is_doubled_up_to_what_there_is_and_the_level_of_theory_stays(
    memory, times, most, given
):
    method = pyscf(memory)

    more = method.with_more_memory(times, most)

    assert more.options["memory"] == given
    assert more.level_of_theory(1) == method.level_of_theory(1)
    assert PyscfOptions.from_mapping(more.options).name == method.model


def test_methods_without_a_limit_are_left_alone():
    method = MethodSpec("tblite", "GFN2-xTB")

    assert method.with_more_memory(3, 9000.0) == method


def test_what_a_worker_has_is_what_its_pool_says_or_half_of_the_machine(monkeypatch):
    monkeypatch.delenv("ALLOOP_WORKER_MEMORY_MB", raising=False)
    assert label._memory() == pytest.approx(psutil.virtual_memory().total / 2e6)
    monkeypatch.setenv("ALLOOP_WORKER_MEMORY_MB", "8000")
    assert label._memory() == pytest.approx(0.9 * 8000.0)


def test_it_is_worth_three_more_tries():
    assert [may_retry("out_of_memory", n) for n in range(1, 6)] == [True] * 3 + [False] * 2


def test_a_pending_label_knows_how_often_memory_ran_out(tmp_path):
    store = Store(open_ledger(tmp_path, create=True), ArtifactStore(tmp_path / "artifacts"))
    store.create(
        "water", 1, "0", {"water": WATER}, {"xtb": {"engine": "tblite", "model": "GFN2-xTB"}}
    )
    store.tasks.add([TaskIntent("key", "label", {}, 0, 3)])
    codes = [[], ["timeout"], ["out_of_memory"], ["out_of_memory", "timeout", "out_of_memory"]]
    with transaction(store.engine) as session:
        level = {"level_of_theory_id": 1}
        for number, tries in enumerate(codes):
            frame = t.FrameRow(
                key=f"{number:064x}", system_id=1, generation_id=1, source="wigner", split="train",
                n_atoms=3, positions=floats_to_blob(WATER.positions + number),
            )  # fmt: skip
            session.add(frame)
            session.flush()
            row = t.LabelRow(
                frame_id=frame.frame_id,
                generation_id=1,
                status="pending",
                tries=len(tries),
                **level,
            )
            session.add(row)
            session.flush()
            session.add_all(
                t.LabelAttempt(
                    label_id=row.label_id, number=n + 1, status="failed", error_class=code,
                    seconds=1.0, program="PySCF", attempted_at=t.now(), **level, task_id=1,
                )
                for n, code in enumerate(tries)
            )  # fmt: skip

    assert [need.short_of_memory for need in store.state().needs] == [0, 0, 1, 2]
