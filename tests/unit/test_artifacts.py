"""Files named by their content: whole or not at all, and never taken for what they are not."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from alloop.artifacts import ArtifactStore, save_arrays, sha256, write_atomically
from alloop.errors import ArtifactError


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(tmp_path / "artifacts")


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def write(text):
    return lambda path: path.write_text(text)


def break_off(path):
    path.write_text("half")
    raise RuntimeError("the disk is full")


def test_an_artifact_is_named_by_its_content(store):
    digest = store.add(".txt", write("hello"))

    assert digest == hashlib.sha256(b"hello").hexdigest()
    assert store.get(digest, ".txt").read_text() == "hello"
    assert files(store.root) == [store.path(digest, ".txt")]


def test_the_same_content_is_stored_once(store):
    assert store.add(".txt", write("hello")) == store.add(".txt", write("hello"))
    assert len(files(store.root)) == 1


def test_artifacts_are_readable_by_the_group(store):
    path = store.path(store.add(".txt", write("hello")), ".txt")

    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_missing_artifact_is_named(store):
    with pytest.raises(ArtifactError, match=r"artifact 0000.*is missing from"):
        store.get("0" * 64, ".txt")


@pytest.mark.parametrize("damage", ["hell", "hellO", ""])
def test_a_damaged_artifact_is_never_given_out(store, damage):
    digest = store.add(".txt", write("hello"))
    store.path(digest, ".txt").write_text(damage)

    with pytest.raises(ArtifactError, match=r"damaged.*restore it from a backup"):
        store.get(digest, ".txt")


def test_a_failure_while_writing_leaves_nothing(store, tmp_path):
    with pytest.raises(RuntimeError, match="disk is full"):
        store.add(".txt", break_off)
    with pytest.raises(RuntimeError, match="disk is full"):
        write_atomically(tmp_path / "result.json", break_off)

    assert files(tmp_path) == []


def test_a_failure_while_writing_keeps_what_was_there(tmp_path):
    path = tmp_path / "deep" / "result.json"
    write_atomically(path, write("old"))
    with pytest.raises(RuntimeError, match="disk is full"):
        write_atomically(path, break_off)

    assert files(tmp_path) == [path]
    assert path.read_text() == "old"


KILLED = """
    import os, pathlib, signal, sys
    from alloop.artifacts import ArtifactStore, write_atomically

    def write(path):
        path.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)

    folder = pathlib.Path(sys.argv[1])
    if sys.argv[2] == "store":
        ArtifactStore(folder).add(".txt", write)
    write_atomically(folder / "result.json", write)
"""


@pytest.mark.parametrize("target", ["store", "file"])
def test_a_kill_while_writing_leaves_nothing_under_a_final_name(tmp_path, target):
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path), target]
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, check=False)

    assert done.returncode == -signal.SIGKILL
    assert all(path.name.startswith(".partial-") for path in files(tmp_path))


def test_equal_arrays_are_one_artifact(store):
    arrays = {"b": np.arange(6.0).reshape(2, 3), "a": np.array(["x", "yz"])}
    transposed = {"b": np.asfortranarray(arrays["b"]), "a": arrays["a"]}

    assert store.add(".npz", lambda path: save_arrays(path, arrays)) == store.add(
        ".npz", lambda path: save_arrays(path, transposed)
    )


def test_arrays_come_back_as_they_were(tmp_path):
    arrays = {
        "matrix": np.arange(6.0).reshape(2, 3),
        "strided": np.arange(12)[::2],
        "number": np.array(1.5),
        "text": np.array("GFN2-xTB"),
        "empty": np.zeros((0, 3)),
        "flags": np.array([True, False]),
    }
    save_arrays(tmp_path / "a.npz", arrays)

    with np.load(tmp_path / "a.npz", allow_pickle=False) as loaded:
        for name, array in arrays.items():
            assert loaded[name].shape == array.shape, name
            assert loaded[name].dtype == array.dtype, name
            assert np.array_equal(loaded[name], array), name


def test_objects_are_refused_because_reading_them_would_run_code(tmp_path):
    with pytest.raises(ValueError, match="Object arrays"):
        save_arrays(tmp_path / "a.npz", {"evil": np.array([print], dtype=object)})


def test_sha256_of_a_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")

    # The example of FIPS 180-4.
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
