"""Labelled frames as one file: what comes back is what went in, and nothing is executed."""

from __future__ import annotations

import pickle
import random

import numpy as np
import pytest

from alloop.artifacts import sha256
from alloop.datasets import Dataset, load_dataset, save_dataset
from alloop.errors import ArtifactError
from alloop.frames import Frame


@pytest.fixture
def data():
    """Molecules of several sizes: neutral, charged, open-shell and periodic ones."""
    rng = np.random.default_rng(7)
    frames = (
        Frame(np.array([8, 1, 1]), rng.normal(size=(3, 3))),
        Frame(np.array([7, 1, 1, 1, 1]), rng.normal(size=(5, 3)), charge=1),
        Frame(np.array([8, 8]), rng.normal(size=(2, 3)), multiplicity=3),
        Frame(
            np.array([11, 17]),
            rng.normal(size=(2, 3)),
            cell=np.eye(3) * 5 + 0.1,
            pbc=(True, True, False),
        ),
        Frame(np.array([8, 1, 1]), rng.normal(size=(3, 3))),
    )
    return Dataset(
        frames=frames,
        energies=rng.normal(size=5),
        forces=tuple(rng.normal(size=(frame.n_atoms, 3)) for frame in frames),
        splits=("train", "validation", "audit", "train", "train"),
        systems=("water", "ammonium", "oxygen", "salt", "water"),
        groups=("a", "b", "c", "", "a"),
        level_of_theory="spGFN2-xTB",
    )


def check_equal(got: Dataset, want: Dataset) -> None:
    assert [frame.key for frame in got.frames] == [frame.key for frame in want.frames]
    assert np.array_equal(got.energies, want.energies)
    for mine, theirs in zip(got.forces, want.forces, strict=True):
        assert np.array_equal(mine, theirs)
    for name in ("splits", "systems", "groups", "level_of_theory"):
        assert getattr(got, name) == getattr(want, name)


def test_a_dataset_comes_back_to_the_last_bit(tmp_path, data):
    save_dataset(tmp_path / "data.npz", data)

    check_equal(load_dataset(tmp_path / "data.npz"), data)


def test_the_same_dataset_is_the_same_file(tmp_path, data):
    save_dataset(tmp_path / "one.npz", data)
    save_dataset(tmp_path / "two.npz", load_dataset(tmp_path / "one.npz"))

    assert sha256(tmp_path / "one.npz") == sha256(tmp_path / "two.npz")


def test_subsets_keep_what_belongs_together(data):
    chosen = data.subset(np.array([False, True, False, True, False]))

    assert len(chosen) == 2
    assert chosen.systems == ("ammonium", "salt")
    assert [frame.n_atoms for frame in chosen.frames] == [5, 2]
    assert np.array_equal(chosen.energies, data.energies[[1, 3]])
    assert np.array_equal(chosen.forces[0], data.forces[1])
    assert chosen.groups == ("b", "")
    assert chosen.level_of_theory == data.level_of_theory


def test_frames_are_found_by_split_and_system(data):
    assert data.where(split="train").systems == ("water", "salt", "water")
    assert len(data.where(system="water")) == 2
    assert data.where(split="train", system="water").groups == ("a", "a")
    assert len(data.where(split="audit", system="water")) == 0
    assert len(data.where()) == len(data)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"not a dataset", b"PK\x03\x04"])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "data.npz"
    path.write_bytes(content)

    with pytest.raises(ArtifactError, match="is not a dataset"):
        load_dataset(path)


def test_a_pickle_is_refused_and_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "run"), "w"))

    path = tmp_path / "data.npz"
    path.write_bytes(pickle.dumps(Evil()))

    with pytest.raises(ArtifactError, match="is not a dataset"):
        load_dataset(path)
    assert not (tmp_path / "run").exists()


def test_a_truncated_file_is_refused(tmp_path, data):
    path = tmp_path / "data.npz"
    save_dataset(path, data)
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.9, 0.99):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ArtifactError):
            load_dataset(path)


def test_flipped_bits_never_go_unseen(tmp_path, data):
    """Either the file is refused, or the flip hit what carries no data."""
    path = tmp_path / "data.npz"
    save_dataset(path, data)
    whole = path.read_bytes()
    places = random.Random(1)
    refused = 0
    for _ in range(200):
        place = places.randrange(len(whole))
        broken = bytearray(whole)
        broken[place] ^= 1 << places.randrange(8)
        path.write_bytes(broken)
        try:
            loaded = load_dataset(path)
        except ArtifactError:
            refused += 1
        else:
            check_equal(loaded, data)

    assert refused > 100


def test_a_file_that_misses_an_array_is_refused(tmp_path, data):
    path = tmp_path / "data.npz"
    np.savez(path, energies=data.energies)

    with pytest.raises(ArtifactError, match="is not a dataset"):
        load_dataset(path)
