"""Whatever a task does, the driver gets a short plain answer and a file that it can read."""

from __future__ import annotations

import json
import math
import os
import pickle
import sys
import threading
from types import ModuleType

import pytest

from alloop.errors import LabelError, TaskError
from alloop_tasks import boundary
from alloop_tasks.workspace import Workspace, canonical, read_json, task_key, write_json

KEY = "0" * 64


class UnpicklableError(Exception):
    """Its ``__init__`` does not take its own ``args``: unpickling it raises TypeError."""

    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"{code}: {reason}")


class WordlessError(Exception):
    def __str__(self) -> str:
        return "half a character: \udcff"


@pytest.fixture
def task(monkeypatch):
    """Put a function in the place of the label task."""

    def put(function):
        module = ModuleType("alloop_tasks.label")
        module.run = function
        monkeypatch.setitem(sys.modules, "alloop_tasks.label", module)

    return put


def run(directory, key=KEY, kind="label", spec=None):
    return boundary.run(kind, spec or {}, str(directory), key)


def envelope(directory, key=KEY):
    return read_json(Workspace(directory, key).result_path)


def raise_foreign(spec, workspace):
    raise ZeroDivisionError("one by nought")


def raise_unpicklable(spec, workspace):
    raise UnpicklableError(7, reason="keyword only")


def raise_from_unpicklable(spec, workspace):
    try:
        raise_unpicklable(spec, workspace)
    except UnpicklableError as error:
        raise LabelError("f" * 64, "GFN2-xTB", "clash", "too close", "drop it") from error


def raise_wordless(spec, workspace):
    raise WordlessError


def leave(spec, workspace):
    sys.exit(3)


def give_nan(spec, workspace):
    return {"energy": math.nan}


def give_lock(spec, workspace):
    return {"lock": threading.Lock()}


@pytest.mark.parametrize(
    ("function", "error_class"),
    [
        (raise_foreign, "ZeroDivisionError"),
        (raise_unpicklable, "UnpicklableError"),
        (raise_from_unpicklable, "LabelError"),
        (raise_wordless, "WordlessError"),
        (leave, "SystemExit"),
        (give_nan, "ValueError"),
        (give_lock, "TypeError"),
    ],
)
def test_whatever_goes_wrong_becomes_a_record(tmp_path, task, function, error_class):
    task(function)

    report = run(tmp_path)

    record = envelope(tmp_path)
    assert record["status"] == report["status"] == "failed"
    assert record["error_class"] == report["error_class"] == error_class
    assert record["result"] is None
    assert "Traceback" in record["trace"]
    record["error_text"].encode("utf-8")
    assert pickle.loads(pickle.dumps(report)) == report
    assert json.loads(canonical(report)) == report


def test_a_healthy_task_after_a_sick_one_is_fine(tmp_path, task):
    task(raise_from_unpicklable)
    run(tmp_path, key="1" * 64)
    task(lambda spec, workspace: {"twice": 2 * spec["number"]})

    report = run(tmp_path, key="2" * 64, spec={"number": 21})

    assert (report["key"], report["status"]) == ("2" * 64, "done")
    assert envelope(tmp_path, "2" * 64)["result"] == {"twice": 42}


def test_the_words_of_our_own_errors_are_kept_and_those_of_others_named(tmp_path, task):
    task(raise_from_unpicklable)
    assert run(tmp_path, key="1" * 64)["error_text"].startswith("frame ffffffffffff: GFN2-xTB")
    task(raise_foreign)
    assert run(tmp_path, key="2" * 64)["error_text"] == "ZeroDivisionError: one by nought"


def test_an_endless_text_is_cut(tmp_path, task):
    def shout(spec, workspace):
        raise ValueError("a" * 10_000_000)

    task(shout)

    assert len(run(tmp_path)["error_text"]) == boundary.LONGEST_TEXT
    assert len(envelope(tmp_path)["trace"]) == boundary.LONGEST_TRACE


def test_an_unknown_kind_is_a_failure_that_says_so(tmp_path):
    report = run(tmp_path, kind="environment")  # a module of the package, but no task

    assert report["status"] == "failed"
    assert "no task of kind 'environment'" in report["error_text"]


def test_a_finished_task_is_not_run_again(tmp_path, task):
    calls = []
    task(lambda spec, workspace: calls.append(1) or {})

    first = run(tmp_path)

    assert first == run(tmp_path)
    assert (first["key"], first["status"]) == (KEY, "done")
    assert len(calls) == 1


def test_a_failed_task_is_run_again(tmp_path, task):
    task(raise_foreign)
    assert run(tmp_path)["status"] == "failed"
    task(lambda spec, workspace: {})
    assert run(tmp_path)["status"] == "done"
    assert envelope(tmp_path)["status"] == "done"


@pytest.mark.parametrize("half", ["", '{"status": "do', "\0\0\0\0"])
def test_half_a_result_file_counts_as_none(tmp_path, task, half):
    path = Workspace(tmp_path, KEY).result_path
    path.parent.mkdir()
    path.write_text(half)
    task(lambda spec, workspace: {"ran": True})

    assert run(tmp_path)["status"] == "done"
    assert envelope(tmp_path)["result"] == {"ran": True}


def test_what_cannot_be_written_travels_as_a_task_error(tmp_path, task):
    (tmp_path / "outbox").write_text("a file where a folder should be")
    task(lambda spec, workspace: {})

    with pytest.raises(TaskError, match=r"label 000000000000: .*Error") as caught:
        run(tmp_path)

    assert caught.value.__cause__ is None
    assert vars(pickle.loads(pickle.dumps(caught.value))) == vars(caught.value)


def test_a_task_is_marked_as_taken_while_it_runs(tmp_path, task):
    seen = []

    def look(spec, workspace):
        workspace.progress(1, 2, "half way")
        seen.append((workspace.running_on, read_json(workspace.progress_path)["text"]))
        return {}

    task(look)
    run(tmp_path)

    assert seen == [(os.getpid(), "half way")]
    assert {path.name for path in (tmp_path / "outbox").iterdir()} == {f"{KEY}.json"}


def test_a_failed_task_leaves_no_mark_either(tmp_path, task):
    task(raise_foreign)
    run(tmp_path)

    assert {path.name for path in (tmp_path / "outbox").iterdir()} == {f"{KEY}.json"}


def test_the_record_says_what_was_made_and_with_what(tmp_path, task):
    def make(spec, workspace):
        digest = workspace.add("thing", ".txt", lambda path: path.write_text("hello"))
        return {"thing": workspace.input(digest, ".txt").read_text()}

    task(make)
    run(tmp_path)

    record = envelope(tmp_path)
    (artifact,) = record["artifacts"]
    assert (artifact["kind"], artifact["bytes"], artifact["suffix"]) == ("thing", 5, ".txt")
    assert record["result"] == {"thing": "hello"}
    assert record["kind"] == "label"
    assert record["seconds"] >= 0
    assert record["environment"]["packages"]["numpy"]
    assert record["started_at"] <= record["finished_at"]


def test_one_key_for_one_piece_of_work():
    spec = {"a": 1, "b": [1.5, None]}

    assert task_key("label", spec) == task_key("label", dict(reversed(spec.items())))
    assert len({task_key("label", spec), task_key("train", spec), task_key("label", {})}) == 3
    with pytest.raises(ValueError, match="JSON"):
        task_key("label", {"a": math.nan})


def test_json_is_never_half_written(tmp_path):
    path = tmp_path / "content.json"
    write_json(path, {"old": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"new": math.inf})

    assert read_json(path) == {"old": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["content.json"]
