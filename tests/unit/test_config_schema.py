"""The format as JSON schema and as a table; examples and documentation that keep up with it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from alloop.config import schema
from alloop.config.load import load, load_text
from alloop.config.schema import json_schema, markdown_table, refresh
from alloop.config.shipped import shipped
from alloop.errors import ConfigError, SiteError

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "config.md"
EXAMPLES = sorted(shipped("configs").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_shipped_campaign_is_valid(path: Path) -> None:
    loaded = load(path)
    assert loaded.warnings == ()
    assert loaded.config.campaign.name == path.stem


def test_the_shipped_campaigns_show_what_there_is() -> None:
    loaded = [load(path) for path in EXAMPLES]
    assert {"ethanol", "water"} <= {one.config.campaign.name for one in loaded}
    assert any(frame.multiplicity > 1 for one in loaded for frame in one.structures.values())
    assert sum(one.config.spacetime is not None for one in loaded) > 2
    assert sum(len(one.config.tiers) > 1 for one in loaded) > 1


def test_the_documentation_has_the_present_table(tmp_path: Path) -> None:
    copy = tmp_path / "config.md"
    copy.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    assert not refresh(copy), "docs/config.md is stale: python -m alloop.config.schema"
    copy.write_text(
        copy.read_text(encoding="utf-8").replace("| `300 K` |", "| `301 K` |"), encoding="utf-8"
    )
    assert refresh(copy)
    assert copy.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")


def page_block(language: str, begins: str) -> str:
    text = PAGE.read_text(encoding="utf-8")
    (block,) = re.findall(rf"```{language}\n({begins}.*?)```", text, re.DOTALL)
    return str(block)


def test_the_example_of_the_documentation_is_valid() -> None:
    loaded = load_text(page_block("yaml", "schema: 1\n"), shipped("configs") / "example.yaml")
    assert loaded.config.campaign.name == "ethanol"
    assert loaded.warnings == ()


def test_the_errors_of_the_documentation_are_real() -> None:
    text = page_block("yaml", "schema: 1\n")
    for right, wrong in (
        ("charge: 0", "chrge: 0"),
        ("duration: 2 ps", "timestep: 2 fs"),
        ("temperature: 300 K, duration", "temperature: 300, duration"),
    ):
        assert right in text
        text = text.replace(right, wrong)
    path = shipped("configs") / "config.yaml"
    with pytest.raises(ConfigError) as caught:
        load_text(text, path)
    shown = [line.replace(str(path), path.name) for line in caught.value.problems]
    assert page_block("", "config.yaml:").splitlines() == shown


def test_the_table_says_unit_default_and_meaning() -> None:
    rows = {line.split("|")[1].strip(): line for line in markdown_table().splitlines()}
    assert "| time | `fs`, `ps`, `ns` | `0.5 fs` | Time step" in rows["`explore.routes[].timestep`"]
    assert "`tblite`, `xtb`, `ani`, `ase`" in rows["`tiers[].method.engine`"]
    assert "Engine `ase`: Import path" in rows["`tiers[].method.calculator`"]
    assert "**required**" in rows["`campaign.name`"]
    assert "| `[300 K]` |" in rows["`explore.routes[].temperature`"]
    assert len({line.count("|") for line in rows.values()}) == 1


def test_the_json_schema_knows_units_and_defaults() -> None:
    definitions = json_schema()["$defs"]
    timestep = definitions["Route"]["properties"]["timestep"]
    assert timestep["default"] == "0.5 fs"
    assert re.search(timestep["pattern"], "2.5e-1 ps")
    for wrong in ("0.5", "0.5 K", "x fs", ".nan fs"):
        assert not re.search(timestep["pattern"], wrong)
    assert all(not entry.get("additionalProperties", True) for entry in definitions.values()
               if "properties" in entry)  # fmt: skip
    assert json.loads(json.dumps(json_schema())) == json_schema()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_match_the_patterns_of_the_json_schema(path: Path) -> None:
    definitions = json_schema()["$defs"]
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    for route in data["explore"]["routes"]:
        for key, value in route.items():
            entry = definitions["Route"]["properties"][key]
            if "pattern" in entry:
                assert re.search(entry["pattern"], value), key


def test_shipped_folders_of_checkout_and_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shipped("deploy") == ROOT / "deploy"
    package = tmp_path / "alloop"
    (package / "shipped" / "configs").mkdir(parents=True)
    monkeypatch.setattr("alloop.__file__", str(package / "__init__.py"))
    assert shipped("configs") == package / "shipped" / "configs"
    with pytest.raises(SiteError, match="'deploy' is missing"):
        shipped("deploy")


def test_reading_a_campaign_needs_no_torch() -> None:
    """Start-up stays fast: what takes seconds to import is left to those who need it."""
    code = (
        "import sys; from pathlib import Path; from alloop.config.load import load;"
        f"load(Path({str(EXAMPLES[0])!r}));"
        "print([name for name in ('torch', 'parsl', 'sqlalchemy', 'rdkit') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_refresh_needs_its_marks(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("no marks")
    with pytest.raises(ValueError, match="substring"):
        refresh(tmp_path / "page.md")
    assert schema.BEGIN in PAGE.read_text(encoding="utf-8")
