"""The wheel, installed into an environment of its own and used outside the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import textwrap
import zipfile
from pathlib import Path

import pytest

import alloop

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
WATER = """3

O 0.0000 0.0000 0.1173
H 0.0000 0.7572 -0.4692
H 0.0000 -0.7572 -0.4692
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    (wheel,) = folder.glob("alloop-*.whl")
    return wheel


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """A fresh environment with the wheel; what it depends on is borrowed from this one.

    Paths that a .pth file adds are not searched for further .pth files, so the checkout, which
    this environment may know by one, stays out of reach.
    """
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    install = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", str(wheel)]
    subprocess.run([python, *install], check=True, env=clean_environment())
    (site,) = (folder / "lib").glob("python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "water.xyz").write_text(WATER)
    return folder


def clean_environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return kept | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}


@pytest.fixture
def run(environment, elsewhere):
    def run(program: str, *arguments: str) -> str:
        done = subprocess.run(
            [environment / "bin" / program, *arguments],
            cwd=elsewhere,
            env=clean_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def python(run):
    def python(code: str) -> object:
        """Run code that prints JSON."""
        return json.loads(run("python", "-c", textwrap.dedent(code)))

    return python


def test_the_wheel_holds_what_is_needed_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}

    assert tops == {"alloop", "alloop_db", "alloop_tasks", f"alloop-{alloop.__version__}.dist-info"}
    assert not [name for name in names if "__pycache__" in name or "/tests/" in name]
    for suffix in ("licenses/LICENSE", "alloop/py.typed", "alloop_db/py.typed", "entry_points.txt"):
        assert any(name.endswith(suffix) for name in names), suffix


def test_the_packages_are_those_of_the_wheel(python, environment):
    found = python("""
        import json, alloop, alloop_db, alloop_tasks, torch
        modules = alloop, alloop_db, alloop_tasks, torch
        print(json.dumps([module.__file__ for module in modules]))
    """)
    *ours, borrowed = [Path(path) for path in found]

    assert all(path.is_relative_to(environment) for path in ours)
    assert not borrowed.is_relative_to(environment)


def test_the_command_says_its_version(run):
    assert run("alloop", "--version").strip() == f"alloop {alloop.__version__}"


def test_a_campaign_can_be_written_and_checked(run, elsewhere):
    run("alloop", "init", "water.xyz", "-o", "config.yaml")
    (elsewhere / "config.yaml").stat()

    assert "is sound" in run("alloop", "validate", "config.yaml")


def test_the_schema_of_the_config_is_there(run):
    assert "properties" in json.loads(run("alloop", "schema"))


def test_a_ledger_is_made_by_the_migrations_of_the_wheel(python, environment):
    found = python("""
        import json, pathlib, sqlite3
        from alloop_db import ledger

        directory = pathlib.Path("campaign")
        ledger.open_ledger(directory, create=True).dispose()
        connection = sqlite3.connect(directory / "ledger.sqlite")
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
        print(json.dumps({"tables": tables, "migrations": str(ledger.MIGRATIONS)}))
    """)

    assert {"frame", "label", "snapshot", "v_lineage"} <= set(found["tables"])
    assert Path(found["migrations"]).is_relative_to(environment)


def test_shipped_queries_configs_and_sites_come_along(python, environment):
    found = python("""
        import json, pathlib
        from alloop.config.shipped import shipped
        from alloop.executors.site import load_site
        from alloop_db import queries

        folders = {name: str(shipped(name)) for name in ("configs", "deploy")}
        sites = [load_site(name, pathlib.Path()).kind for name in ("local", "inprocess")]
        sql = [queries.describe(name).sql for name in queries.names()]
        print(json.dumps({"folders": folders, "sites": sites, "queries": len(sql)}))
    """)

    shipped = sorted((ROOT / "db" / "alloop_db" / "queries").glob("*.sql"))
    assert found["queries"] == len(shipped) > 0
    assert found["sites"] == ["local", "inprocess"]
    for name, folder in found["folders"].items():
        assert Path(folder).is_relative_to(environment)
        there = {path.name for path in Path(folder).iterdir()}
        assert there == {path.name for path in (ROOT / name).iterdir()}


def test_workers_find_the_tasks_of_the_wheel(python):
    outcome = python("""
        import json, pathlib
        from alloop.executors.local import LocalExecutor
        from alloop_tasks.workspace import Workspace, read_json

        water = [[0.0, 0.0, 0.1173], [0.0, 0.7572, -0.4692], [0.0, -0.7572, -0.4692]]
        system = dict(name="water", numbers=[8, 1, 1], positions=water, charge=0,
                      multiplicity=1, cell=None, pbc=[False, False, False])
        frames = [dict(frame_key="water", positions=water, attempt=0)]
        method = dict(engine="tblite", model="GFN2-xTB", options={})
        if __name__ == "__main__":
            directory = pathlib.Path("campaign")
            executor = LocalExecutor(directory, 1)
            spec = dict(method=method, system=system, frames=frames)
            executor.submit("label", spec, "key")
            while not (outcomes := executor.wait(0.5)):
                pass
            executor.close()
            result = read_json(Workspace(directory, "key").result_path)["result"]
            print(json.dumps([outcomes[0].status, result["labels"][0]["status"]]))
    """)

    assert outcome == ["done", "done"]
