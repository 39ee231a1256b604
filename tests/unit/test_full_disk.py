"""How a full disk is known, whoever says it, and that it is no failure of the task it met."""

from __future__ import annotations

import errno
import os
import tempfile

import numpy as np
import pytest

from alloop.frames import Frame
from alloop_tasks import boundary, full_disk, label, prepare
from alloop_tasks.systems import system_record
from alloop_tasks.workspace import Workspace, read_json
from tests.small_disks import fill, small_disk

WATER = Frame(np.array([8, 1, 1]), np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_it_is_known_behind_other_exceptions(code):
    error = RuntimeError("the archive could not be written")
    error.__context__ = OSError(code, "in other words")

    assert full_disk.caused(error)
    assert full_disk.caused(RuntimeError(f"PySCF ended with status 1; {os.strerror(code)}"))
    assert not full_disk.caused(OSError(errno.EACCES, "Permission denied"))
    assert not full_disk.caused(RuntimeError("SCF did not converge"))


def test_a_folder_has_room_or_has_not(tmp_path):
    assert full_disk.has_room(tmp_path)
    with small_disk("2m") as small:
        assert full_disk.has_room(small)
        assert list(small.iterdir()) == []
        fill(small)
        assert not full_disk.has_room(small)


def test_without_any_scratch_python_s_own_words_are_known(monkeypatch):
    """The last resort of tempfile is the folder that the process stands in."""
    with small_disk("64k") as small:
        fill(small)
        monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(small)])
        monkeypatch.setattr(tempfile, "tempdir", None)
        with pytest.raises(FileNotFoundError) as caught:
            tempfile.gettempdir()

    assert full_disk.caused(caught.value)


def test_a_task_that_finds_one_full_is_not_a_failure(tmp_path, monkeypatch):
    def run(spec, workspace):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "integrals.dat")

    monkeypatch.setattr(prepare, "run", run)
    monkeypatch.setenv("PARSL_WORKER_BLOCK_ID", "7")
    monkeypatch.setenv("TMPDIR", "/scratch/job")

    report = boundary.run("prepare", {}, str(tmp_path), "key")

    assert (report["status"], report["key"], report["block"]) == ("full", "key", "7")
    assert "integrals.dat" in report["error_text"]
    assert f"(on {report['host']}, whose scratch is /scratch/job)" in report["error_text"]
    workspace = Workspace(tmp_path, "key")
    assert read_json(workspace.result_path) is None
    assert not workspace.running_path.exists()


def test_a_result_that_cannot_be_written_is_told_of(monkeypatch):
    with small_disk("256k") as campaign:
        (campaign / "outbox").mkdir()
        monkeypatch.setattr(prepare, "run", lambda *_: {"numbers": list(range(500_000))})

        report = boundary.run("prepare", {}, str(campaign), "key")

    assert report["status"] == "full"
    assert os.strerror(errno.ENOSPC) in report["error_text"]


def test_a_label_whose_program_finds_one_full_is_not_tried_and_given_up(tmp_path, monkeypatch):
    """It would be counted against its frame, and every frame that came to that node lost."""

    class Full:
        name = program = "orca"

        def label(self, frame, attempt):
            raise label_error(f"ORCA ended with status 1; {os.strerror(errno.ENOSPC)}")

    monkeypatch.setattr(label, "build_reference", lambda *_: Full())
    frame = {"frame_key": WATER.key, "positions": WATER.positions.tolist(), "attempt": 0}
    method = {"engine": "tblite", "model": "GFN2-xTB", "options": {}}
    spec = {"method": method, "system": system_record("water", WATER), "frames": [frame]}

    report = boundary.run("label", spec, str(tmp_path), "key")

    assert report["status"] == "full"
    assert "ORCA ended" in report["error_text"]


def label_error(words):
    from alloop.reference import failures

    return failures.label_error("key", "orca", words, failures.FailureCode.ENGINE_ERROR)
