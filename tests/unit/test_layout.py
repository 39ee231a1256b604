"""The rules of the tree: who may import whom, what importing may do, how large files get."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import alloop

ROOT = Path(__file__).parents[2]
PACKAGES = (ROOT / "alloop", ROOT / "db" / "alloop_db", ROOT / "tasks" / "alloop_tasks")
MODULES = sorted(path for package in PACKAGES for path in package.rglob("*.py"))
LONGEST = 500
HEAVY = {"torch", "torchani", "tblite", "parsl", "sqlalchemy", "pydantic", "matplotlib", "ase"}


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a fresh interpreter that finds the packages of this checkout."""
    path = os.pathsep.join(str(package.parent) for package in PACKAGES)
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_imports_point_one_way():
    """The contracts of import-linter in pyproject.toml hold."""
    code = (
        "import sys; from importlinter.cli import lint_imports_command;"
        "lint_imports_command(['--no-cache'])"
    )
    done = python("-c", code)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_nobody_imports_the_top_level_folders():
    """``import db`` finds a folder here, and somebody else's package after installation."""
    for path in [*MODULES, *sorted((ROOT / "tests").rglob("*.py"))]:
        for node in ast.walk(tree(path)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            tops = {name.partition(".")[0] for name in names}
            assert not tops & {"db", "tasks"}, f"{name_of(path)}:{node.lineno}"


def test_every_module_says_what_it_is():
    silent = [name_of(path) for path in MODULES if not ast.get_docstring(tree(path))]

    assert silent == []


def test_modules_have_one_subject():
    """One that passes this length usually holds two; tables in a row are one, however many."""
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in MODULES}
    del lengths["db/alloop_db/schema.py"]

    assert [name for name, length in lengths.items() if length > LONGEST] == []


def test_assertions_are_for_tests():
    """``python -O`` drops them: what they guard would go unguarded."""
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Assert)
    ]

    assert found == []


def test_public_names_exist():
    """What ``__all__`` promises and what the package gives lazily can be had."""
    code = "import alloop; print(*alloop.__all__); [getattr(alloop, n) for n in alloop.__all__]"
    done = python("-W", "ignore", "-c", code)

    assert done.returncode == 0, done.stderr
    assert "CommitteeCalculator" in done.stdout.split()


@pytest.mark.parametrize("statement", ["import alloop", "import alloop.cli.main"])
def test_importing_is_light(statement):
    done = python("-c", f"import json, sys; {statement}; print(json.dumps(list(sys.modules)))")

    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert not loaded & HEAVY


def test_help_comes_at_once():
    """Nothing heavy is loaded to print help, whatever ``alloop`` imports on the way."""
    code = (
        "import sys; from alloop.cli.main import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "print('LOADED', *{name.partition('.')[0] for name in sys.modules})"
    )
    done = python("-c", code)

    text, _, loaded = done.stdout.partition("LOADED")
    assert "validate" in text
    assert loaded.split()
    assert not set(loaded.split()) & HEAVY


def test_importing_has_no_effects(tmp_path):
    """Every module is imported: no file appears, no handler of a log, no other signal handler."""
    names = [
        ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")
        for package in PACKAGES
        for path in sorted(package.rglob("*.py"))
        if path.name not in {"__main__.py", "env.py"}
    ]
    code = f"""
import importlib, json, logging, os, pathlib, signal, sys, threading, warnings
warnings.simplefilter("ignore")
before = dict(os.environ), signal.getsignal(signal.SIGINT)
for name in {names!r}:
    importlib.import_module(name)
print(json.dumps({{
    "files": [str(path) for path in pathlib.Path().rglob("*")],
    "environment": sorted(set(os.environ) ^ set(before[0])),
    "signals": signal.getsignal(signal.SIGINT) is before[1],
    "handlers": len(logging.getLogger("alloop").handlers),
    "threads": threading.active_count(),
}}))
"""
    path = os.pathsep.join(str(package.parent) for package in PACKAGES)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    # KMP_INIT_AT_FORK is OpenMP's own, set when torch is loaded.
    environment = [name for name in found["environment"] if not name.startswith(("KMP_", "__KMP"))]
    assert found["files"] == environment == []
    assert found["signals"]
    assert (found["handlers"], found["threads"]) == (0, 1)


def test_one_version_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["version"] == alloop.__version__
    first = next(
        line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")
    )
    assert alloop.__version__ in first


def test_constraints_pin_what_the_project_needs_and_no_cuda():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(name for extra in extras for name in extra)]
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, separator, version = line.partition("==")
            assert separator, f"not an exact version: {line}"
            assert "+" not in version, f"a build for one kind of machine: {line}"
            pins[name] = version

    for requirement in wanted:
        name = requirement.lower().partition(";")[0]
        name = "".join(c if c.isalnum() or c == "-" else " " for c in name.replace("_", "-"))
        assert name.split()[0] in pins, f"{requirement} is not in constraints.txt"
    assert not [name for name in pins if name.startswith(("nvidia", "cuda", "triton"))]


def test_this_environment_is_the_pinned_one():
    """A note for whoever reads a failure elsewhere: versions differ from those tested."""
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
    for name in ("torch", "torchani", "parsl", "tblite", "sqlalchemy", "pydantic"):
        assert importlib.metadata.version(name).partition("+")[0] == pins[name], name


def test_links_between_pages_lead_somewhere():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("[a-z]*/README.md")]
    assert len(pages) > 8
    for page in pages:
        for target in links(page.read_text()):
            if not target.startswith(("http", "#", "mailto:")):
                assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target}"


def links(text: str) -> list[str]:
    return [part.partition(")")[0] for part in text.split("](")[1:]]
