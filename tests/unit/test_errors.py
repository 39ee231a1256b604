"""Every error must cross process borders: one that does not unpickle stops Parsl for ever."""

from __future__ import annotations

import ast
import importlib
import inspect
import pickle
from pathlib import Path
from types import ModuleType

import dill
import pytest

import alloop
import alloop_db
import alloop_tasks
from alloop import errors
from alloop.errors import AlloopError

ERRORS = [
    cls
    for cls in vars(errors).values()
    if inspect.isclass(cls) and issubclass(cls, AlloopError) and cls.__module__ == errors.__name__
]


def example(cls: type[Exception]) -> Exception:
    if "__init__" not in vars(cls):
        return cls("got 3, want 4")
    names = list(inspect.signature(cls.__init__).parameters)[1:]
    return cls(*(("one", "two") if name == "problems" else f"<{name}>" for name in names))


def check_the_wire(cls: type[Exception], wire: ModuleType) -> None:
    sent = example(cls)

    got = wire.loads(wire.dumps(sent))

    assert (type(got), str(got), vars(got)) == (cls, str(sent), vars(sent))
    assert got.args == sent.args


@pytest.mark.parametrize("wire", [pickle, dill])
@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_every_error_survives_the_wire(cls, wire):
    check_the_wire(cls, wire)


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_every_fact_of_an_error_is_in_its_text(cls):
    error = example(cls)
    hidden = {"trace"}  # pages long: the ledger keeps it, the message does not repeat it
    for name, fact in vars(error).items():
        if name not in hidden:
            for word in fact if isinstance(fact, tuple) else (fact,):
                assert str(word)[:12] in str(error)


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_every_error_is_ours_and_python_s(cls):
    if cls is not AlloopError:
        assert issubclass(cls, (ValueError, RuntimeError, OSError))


def test_every_error_is_drawn_in_the_tree():
    lines = (errors.__doc__ or "").splitlines()
    drawn = {line.partition("(")[0].strip("│├└─ ").partition(" ")[0] for line in lines}

    assert {cls.__name__ for cls in ERRORS} <= drawn


def exceptions_outside_the_tree() -> list[tuple[str, str]]:
    """Return module and name of every exception class that is defined outside alloop.errors."""
    found = []
    for package in (alloop, alloop_db, alloop_tasks):
        root = Path(package.__file__).parent
        for path in root.rglob("*.py"):
            if path == Path(errors.__file__):
                continue
            parts = (package.__name__, *path.relative_to(root).with_suffix("").parts)
            for node in ast.walk(ast.parse(path.read_text())):
                bases = [ast.unparse(base) for base in getattr(node, "bases", [])]
                if any(base.endswith(("Error", "Exception")) for base in bases):
                    found.append((".".join(parts), node.name))
    return found


def test_exceptions_of_one_module_s_own_survive_too_and_are_no_errors_of_ours():
    for module, name in exceptions_outside_the_tree():
        cls = getattr(importlib.import_module(module), name)
        assert not issubclass(cls, AlloopError), f"{module}.{name} belongs into alloop.errors"
        for wire in (pickle, dill):
            check_the_wire(cls, wire)
