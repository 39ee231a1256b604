"""The resolved configuration: canonical, complete, comparable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ase.build import molecule
from ase.io import write

from alloop.config.load import LoadedCampaign, load_text
from alloop.config.resolved import check_changes, diff, digest, resolved, restore
from alloop.errors import ConfigError

TEXT = """\
schema: 1
campaign: {name: test}
systems:
  w: {structure: w.xyz}
tiers:
  - {id: gfn, method: {engine: tblite}, budget: {labels: 1000}}
committee:
  - {id: a, members: 2}
  - {id: b, members: 2}
explore:
  routes:
    - {id: warm, duration: 2 ps, temperature: 300 K}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("water")
    write(folder / "w.xyz", molecule("H2O"))
    return folder


def read(folder: Path, *changes: tuple[str, str]) -> LoadedCampaign:
    text = TEXT
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return load_text(text, folder / "c.yaml")


def test_it_reads_back_as_the_same_campaign(folder: Path) -> None:
    config = read(folder).config
    assert restore(resolved(config)) == config
    assert resolved(restore(resolved(config))) == resolved(config)


def test_every_default_is_in_it_and_quantities_carry_units(folder: Path) -> None:
    data = json.loads(resolved(read(folder).config))
    assert data["explore"]["routes"][0]["systems"] == ["w"]
    assert data["explore"]["routes"][0]["record_every"] == "5 fs"
    assert data["explore"]["routes"][0]["duration"] == "2000 fs"
    assert data["campaign"]["directory"] == "runs/test"
    assert data["train"]["epochs"] == 500


def test_files_that_mean_the_same_have_one_digest(folder: Path) -> None:
    same = read(
        folder,
        ("2 ps", "2000fs"),
        ("300 K", "[300.0 K]"),
        ("committee:", "site: local\nstop: {patience: 3}\ncommittee:"),
    )
    assert digest(resolved(same.config)) == digest(resolved(read(folder).config))
    method = "engine: ase, calculator: 'ase.calculators.emt:EMT', name: EMT, kwargs: {a: 1, b: 2}"
    one = read(folder, ("engine: tblite", method))
    two = read(folder, ("engine: tblite", method.replace("a: 1, b: 2", "b: 2, a: 1")))
    assert digest(resolved(one.config)) == digest(resolved(two.config))
    other = read(folder, ("2 ps", "2.0005 ps"))
    assert digest(resolved(other.config)) != digest(resolved(read(folder).config))


def test_changes_name_key_old_and_new(folder: Path) -> None:
    old = resolved(read(folder).config)
    new = read(
        folder,
        ("2 ps", "1 ps"),
        ("labels: 1000", "labels: 900"),
        ("{id: warm", "{id: cold}\n    - {id: warm"),
    )
    changes = {str(change) for change in diff(old, resolved(new.config))}
    assert 'explore.routes.warm.duration: "2000 fs" -> "1000 fs"' in changes
    assert "tiers.gfn.budget.labels: 1000 -> 900" in changes
    assert any(change.startswith("explore.routes.cold: nothing -> ") for change in changes)
    assert len(changes) == 3
    assert len(check_changes(old, new)) == 3
    assert check_changes(old, read(folder)) == []


def test_the_order_of_items_with_ids_is_no_change(folder: Path) -> None:
    new = read(folder, ("{id: a, members: 2}", "{id: c, members: 2}"), ("{id: b,", "{id: a,"))
    swapped = read(folder, ("id: a", "id: c"), ("id: b", "id: a"), ("id: c", "id: b"))
    assert diff(resolved(read(folder).config), resolved(swapped.config)) == []
    assert len(diff(resolved(read(folder).config), resolved(new.config))) == 2


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (("name: test", "name: best, directory: runs/test"), "2:12  campaign.name: cannot change"),
        (("name: test", "name: test, seed: 5"), "2:24  campaign.seed: cannot change in a campaign"
         " that has begun (was 1, is 5): set it back, or give another campaign.directory"),
        (("w.xyz}", "w.xyz, charge: 2}"), "4:25  systems.w.charge: cannot change"),
        (("w.xyz}", "w.xyz}\n  v: {structure: w.xyz}"), "5:3  systems.v: cannot change"),
        (("tblite", "tblite, model: GFN1-xTB"), "6:40  tiers.gfn.method.model: cannot change"),
        (("id: b, members: 2", "id: b, members: 3"), "9:13  committee.b.members: cannot change"),
        (("\n  - {id: b, members: 2}", "\n  - {id: a2, members: 2}"), "7:1  committee.b: cannot"),
    ],
)  # fmt: skip
def test_what_finished_work_depends_on_cannot_change(
    change: tuple[str, str], line: str, folder: Path
) -> None:
    old = resolved(read(folder).config)
    with pytest.raises(ConfigError) as caught:
        check_changes(old, read(folder, change))
    assert caught.value.problems[0].startswith(f"{folder / 'c.yaml'}:{line}")


def test_another_tier_is_another_method(folder: Path) -> None:
    old = resolved(read(folder).config)
    with pytest.raises(ConfigError, match=r"tiers\.gfn"):
        check_changes(old, read(folder, ("id: gfn", "id: other")))
    method = "engine: ase, calculator: 'ase.calculators.emt:EMT', name: EMT"
    with pytest.raises(ConfigError, match=r"tiers\.gfn\.method"):
        check_changes(old, read(folder, ("engine: tblite", method)))
