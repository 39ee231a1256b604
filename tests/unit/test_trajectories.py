import multiprocessing
import os
import pickle
import signal
import time
from dataclasses import replace

import h5py
import numpy as np
import pytest

from alloop import trajectories
from alloop.artifacts import ArtifactStore
from alloop.errors import ArtifactError, DynamicsError
from alloop.trajectories import ARRAYS, About, Shard, System, Trajectory, write_shard

WATER = System(np.array([8, 1, 1]), np.array([15.999, 1.008, 1.008]))
BOX = System(WATER.numbers, WATER.masses, np.diag([9.0, 9.0, 10.0]))


def trajectory(seed=0, n_frames=20, system=WATER, tags=None):
    rng = np.random.default_rng(seed)
    return Trajectory(
        system,
        About("nvt", 0.5, 300.0, 0.01, seed, "contact", 97, tags or {}),
        np.arange(n_frames) * 5,
        rng.normal(size=(n_frames, 3, 3)),
        rng.normal(size=(n_frames, 3, 3)),
        rng.normal(size=(n_frames, 3, 3)).astype(np.float32),
        rng.normal(size=(n_frames, 4)) - 2e4,
        rng.normal(size=n_frames),
        rng.normal(size=n_frames),
        rng.normal(size=n_frames),
        np.arange(n_frames) >= n_frames - 3,
    )


def assert_equal(left, right):
    assert left.about == right.about
    assert left.system.same_as(right.system)
    for name, (kind, _) in ARRAYS.items():
        assert getattr(right, name).dtype == np.dtype(kind)
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


@pytest.mark.parametrize("system", [WATER, BOX], ids=["molecule", "cell"])
def test_what_is_written_is_read_to_the_last_bit(tmp_path, system):
    tags = {"system": "h₂o", "charge": 1, "share": 0.1, "audit": False, "note": None}
    written = [
        trajectory(1, 20, system, tags),
        trajectory(2**62, 0, system),
        trajectory(3, 7000, system),
    ]
    path = tmp_path / "new" / "shard.h5"
    write_shard(path, written)
    shard = Shard(path)
    assert len(shard) == 3
    assert shard.system.same_as(system)
    assert [about.seed for about in shard.about] == [1, 2**62, 3]
    for before, after in zip(written, shard, strict=True):
        assert_equal(before, after)
    assert_equal(written[2], shard.read(-1))
    with pytest.raises(IndexError):
        shard.read(3)


def test_only_the_trajectory_that_is_asked_for_is_read(tmp_path, monkeypatch):
    path = tmp_path / "shard.h5"
    write_shard(path, [trajectory(i) for i in range(3)])
    shard, opened = Shard(path), []
    real = trajectories._array
    monkeypatch.setattr(
        trajectories, "_array", lambda g, n, k: (opened.append(g.name), real(g, n, k))[1]
    )
    shard.read(1)
    assert set(opened) == {"/replicas/00001"}


def test_times_and_potential():
    one = trajectory(4)
    np.testing.assert_allclose(one.times, np.arange(20) * 2.5)
    np.testing.assert_allclose(one.potential, one.member_energies.mean(axis=1))
    assert one.n_frames == 20
    assert (one.positions.dtype, one.forces.dtype) == (np.float64, np.float32)


def test_arrays_cannot_be_changed_and_survive_pickling():
    one = trajectory()
    with pytest.raises(ValueError, match="read-only"):
        one.positions[0] = 0.0
    assert_equal(one, pickle.loads(pickle.dumps(one)))


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(DynamicsError, match=r"velocities have shape \(19, 3, 3\)"):
        replace(trajectory(), velocities=np.zeros((19, 3, 3)))
    with pytest.raises(DynamicsError, match="masses"):
        System(np.array([1, 1]), np.array([1.0]))
    with pytest.raises(DynamicsError, match="cell"):
        System(np.array([1]), np.array([1.0]), np.eye(2))


def test_a_shard_holds_replicas_of_one_system(tmp_path):
    path = tmp_path / "shard.h5"
    with pytest.raises(DynamicsError, match="at least one"):
        write_shard(path, [])
    heavy = System(WATER.numbers, np.array([15.999, 2.014, 2.014]))
    for other in (heavy, BOX):
        with pytest.raises(DynamicsError, match="trajectory 1 is of another system"):
            write_shard(path, [trajectory(), trajectory(system=other)])
    assert not path.exists()


def test_smooth_trajectories_are_compressed_without_loss(tmp_path):
    path, one = tmp_path / "shard.h5", trajectory(0, 5000)
    t = np.arange(5000)[:, None, None] * 0.01
    smooth = replace(one, positions=np.sin(t + np.arange(9).reshape(3, 3)), steps=np.arange(5000))
    write_shard(path, [smooth])
    raw = sum(getattr(smooth, name).nbytes for name in ARRAYS)
    assert path.stat().st_size < 0.95 * raw
    assert_equal(smooth, Shard(path).read(0))


def test_nothing_in_the_file_needs_python_objects(tmp_path):
    path = tmp_path / "shard.h5"
    write_shard(path, [trajectory(tags={"a": "b"})])
    with h5py.File(path) as file:
        kinds = []
        file.visititems(lambda _, item: kinds.append(getattr(item, "dtype", np.dtype("i8")).kind))
    assert set(kinds) <= set("ifb")


def test_two_writes_of_the_same_trajectories_are_one_artifact(tmp_path):
    store = ArtifactStore(tmp_path)
    first = store.add(".h5", lambda path: write_shard(path, [trajectory()]))
    time.sleep(1.1)  # HDF5 can keep creation times, in seconds
    assert store.add(".h5", lambda path: write_shard(path, [trajectory()])) == first


def test_failed_write_leaves_nothing_and_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "shard.h5"
    write_shard(path, [trajectory(1)])

    def full(group, name, values):
        if name == "kinetic":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(trajectories, "_write_array", full)
    with pytest.raises(OSError, match="No space"):
        write_shard(path, [trajectory(2)])
    assert list(tmp_path.iterdir()) == [path]
    assert Shard(path).about[0].seed == 1


def _write_slowly(path, started):
    real = trajectories._write_array

    def slow(group, name, values):
        real(group, name, values)
        if name == "forces":
            group.file.flush()
            started.set()
            time.sleep(60.0)

    trajectories._write_array = slow
    write_shard(path, [trajectory()])


def test_killed_in_the_middle_of_a_write_the_name_does_not_exist(tmp_path):
    context = multiprocessing.get_context("fork")
    started = context.Event()
    writer = context.Process(target=_write_slowly, args=(tmp_path / "shard.h5", started))
    writer.start()
    assert started.wait(30.0)
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    assert not (tmp_path / "shard.h5").exists()
    assert all(left.name.startswith(".partial-") for left in tmp_path.iterdir())


def test_truncated_anywhere_it_is_refused_with_its_name(tmp_path):
    path = tmp_path / "whole.h5"
    write_shard(path, [trajectory(i) for i in range(2)])
    data = path.read_bytes()
    cut = tmp_path / "cut.h5"
    for size in [*range(0, len(data), max(1, len(data) // 60)), len(data) - 1]:
        cut.write_bytes(data[:size])
        with pytest.raises(ArtifactError, match=r"cut\.h5 cannot be read"):
            list(Shard(cut))


def test_missing_foreign_and_tampered_files_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match="missing"):
        Shard(tmp_path / "missing.h5")
    foreign = tmp_path / "foreign.h5"
    foreign.write_text("positions: 1 2 3")
    with pytest.raises(ArtifactError):
        Shard(foreign)
    with h5py.File(foreign, "w") as file:
        file["positions"] = np.zeros(3)
    with pytest.raises(ArtifactError):
        Shard(foreign)


@pytest.mark.parametrize(
    "tamper",
    [
        lambda file: file.attrs.modify("version", 2),
        lambda file: file.attrs.modify("format", "something else"),
        lambda file: file.__delitem__("replicas/00000"),
        lambda file: file.__delitem__("replicas/00001/kinetic"),
        lambda file: file["replicas/00001"].attrs.modify("about", '{"seed": 1}'),
        lambda file: file["replicas/00001"].attrs.modify("about", "not JSON"),
        lambda file: _swap(file, "kinetic", np.zeros(19)),
        lambda file: _swap(file, "kinetic", np.zeros(20, "f4")),
        lambda file: _swap(file, "kinetic", np.array([b"text"] * 20)),
        lambda file: _swap(file, "kinetic", h5py.ExternalLink("other.h5", "x")),
        lambda file: _swap(file, "kinetic", h5py.SoftLink("/replicas/00000/kinetic")),
    ],
)
def test_a_file_that_is_not_what_it_says_is_refused(tmp_path, tamper):
    path = tmp_path / "shard.h5"
    write_shard(path, [trajectory(i) for i in range(2)])
    with h5py.File(path, "r+") as file:
        tamper(file)
    with pytest.raises(ArtifactError, match="cannot be read as a trajectory shard"):
        list(Shard(path))


def _swap(file, name, value):
    del file[f"replicas/00001/{name}"]
    file[f"replicas/00001/{name}"] = value
