"""Training sets of the ledger: read in columns, they are the files that objects would give."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from alloop.artifacts import ArtifactStore
from alloop.datasets import load_dataset, save_dataset
from alloop.frames import Frame
from alloop_db import schema as t
from alloop_db.arrays import floats_to_blob
from alloop_db.columns import read_columns
from alloop_db.frame_rows import add_frames, request_labels
from alloop_db.ledger import open_ledger
from alloop_db.sessions import transaction
from alloop_db.sets import dataset_of
from alloop_db.store import Store
from tests.ledger_sample import write_sample

WATER = Frame([8, 1, 1], [[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.0, -0.76, -0.48]])
CATION = Frame([8, 1], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.03]], charge=1, multiplicity=3)
CRYSTAL = Frame(
    [3, 1],
    [[0.0, 0.0, 0.0], [2.0, 2.0, 2.0]],
    cell=np.diag([4.0, 4.1, 4.2]),
    pbc=(True, True, False),
)
SYSTEMS = {"water": WATER, "cation": CATION, "crystal": CRYSTAL}
SPLITS = ("train", "train", "validation", "audit")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return a ledger with labels of three systems, every third without forces, one pending."""
    opened = Store(open_ledger(tmp_path, create=True), ArtifactStore(tmp_path / "artifacts"))
    opened.create("sets", 1, "0", SYSTEMS, {"first": {"model": "GFN2-xTB"}})
    rng = np.random.default_rng(1)
    with transaction(opened.engine) as session:
        for system in session.scalars(select(t.System)).all():
            rest = SYSTEMS[system.name].positions
            geometries = rest + rng.normal(0.0, 0.1, (8, *rest.shape))
            found = [{"generation_id": 1, "source": "rattle", "split": s} for s in SPLITS * 2]
            request_labels(session, add_frames(session, system, geometries, found), 1, [1])
        for label in session.scalars(select(t.LabelRow)).all()[:-1]:
            n_atoms = session.get_one(t.FrameRow, label.frame_id).n_atoms
            forces = floats_to_blob(rng.normal(size=(n_atoms, 3)))
            label.status, label.energy = "done", float(rng.normal())
            label.forces = forces if label.label_id % 3 else None
    yield opened
    opened.engine.dispose()


def rows_of(session: Session, *, audit: bool) -> list:
    return session.execute(
        select(t.LabelRow, t.FrameRow, t.System, t.LevelOfTheory.name, t.Trajectory.seed)
        .join(t.FrameRow, t.FrameRow.frame_id == t.LabelRow.frame_id)
        .join(t.System, t.System.system_id == t.FrameRow.system_id)
        .join(t.LevelOfTheory, t.LevelOfTheory.level_of_theory_id == t.LabelRow.level_of_theory_id)
        .join(t.Trajectory, t.Trajectory.trajectory_id == t.FrameRow.trajectory_id, isouter=True)
        .where(t.LabelRow.status == "done", (t.FrameRow.split == "audit") == audit)
        .order_by(t.FrameRow.key)
    ).all()


@pytest.fixture
def sample(tmp_path: Path) -> Iterator[Engine]:
    """Return a ledger with frames of trajectories."""
    opened = open_ledger(write_sample(tmp_path / "sample"), create=False)
    yield opened
    opened.dispose()


@pytest.mark.parametrize("which", ["several systems", "trajectories"])
def test_columns_are_the_file_that_objects_would_give(which, store, sample, tmp_path):
    with transaction(sample if which == "trajectories" else store.engine) as session:
        read = read_columns(session, 1, "GFN2-xTB")
        for columns, audit in zip(read, (False, True), strict=True):
            save_dataset(tmp_path / "objects.npz", dataset_of(rows_of(session, audit=audit)))
            with np.load(tmp_path / "objects.npz") as wanted:
                found = columns.arrays()
                assert list(found) == list(wanted)
                for name, values in wanted.items():
                    assert found[name].dtype == values.dtype, name
                    np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_a_sealed_set_has_the_members_of_its_file(store):
    assert store.seal(0) == {"first": 18}

    with transaction(store.engine) as session:
        snapshot = session.scalars(select(t.Snapshot)).one()
        splits = session.execute(
            select(t.SnapshotMember.split, t.FrameRow.split)
            .join(t.LabelRow, t.LabelRow.label_id == t.SnapshotMember.label_id)
            .join(t.FrameRow, t.FrameRow.frame_id == t.LabelRow.frame_id)
        ).all()
        file = session.get_one(t.Artifact, snapshot.artifact_id).sha256
        held_out, n_labels = snapshot.held_out, snapshot.n_labels
    assert len(splits) == n_labels == 18
    assert all(own == of_frame != "audit" for own, of_frame in splits)
    assert len(load_dataset(store.artifacts.path(file, ".npz"))) == 18
    assert set(load_dataset(store.artifacts.path(held_out, ".npz")).splits) == {"audit"}
    assert store.seal(0) == {"first": 18}  # again: nothing new


def test_a_geometry_is_added_once_and_its_double_is_told(store):
    with transaction(store.engine) as session:
        water = session.scalars(select(t.System).where(t.System.name == "water")).one()
        before = session.scalars(select(t.FrameRow.frame_id)).all()
        fresh = WATER.positions + 0.01
        about = {"generation_id": 1, "source": "rattle", "split": "train"}
        geometries = [fresh, fresh, fresh + 0.01]

        ids = add_frames(session, water, geometries, [about] * 3)
        again = add_frames(session, water, geometries[:1], [about])

        assert ids == [max(before) + 1, None, max(before) + 2]
        assert again == [None]
