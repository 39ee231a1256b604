"""Laws that hold for every key of the format, also for those added later."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from alloop.config.anatomy import all_keys
from alloop.config.document import parse
from alloop.config.model import Campaign
from alloop.config.problems import report
from alloop.config.quantities import DIMENSIONS, Quantity
from alloop.config.resolved import resolved
from alloop.config.schema import _quantity
from alloop.config.validation import validate

Place = tuple[str | int, ...]

MINIMAL = {
    "schema": 1,
    "campaign": {"name": "water"},
    "systems": {"w": {"structure": "water.xyz"}},
    "tiers": [
        {
            "id": "x",
            "method": {"engine": "tblite"},
            "budget": {"core_time": "10 h"},
            "target": {"energy_rmse": "1 meV/atom"},
        },
        {"id": "y", "method": {"engine": "tblite", "model": "GFN1-xTB"}, "escalate": {}},
    ],
    "spacetime": {"tier": "y"},
    "stop": {"wall_clock": "1 h"},
}
REQUIRED = ("schema", "campaign", "systems", "tiers")
FULL: dict[str, Any] = json.loads(resolved(Campaign.model_validate(MINIMAL)))
ASE = {
    "engine": "ase",
    "calculator": "ase.calculators.emt:EMT",
    "kwargs": {},
    "info": {},
    "name": "EMT",
}
PYSCF = {
    "engine": "pyscf",
    "theory": "wB97X",
    "basis": "6-31G*",
    "dispersion": "d4",
    "density_fit": True,
    "grid": 4,
    "forces": "none",
    "memory": "1 GB",
    "max_time": "10 min",
    "conv_tol": "1e-8 Ha",
}
EXTERNAL = {"engine": "external", "name": "by hand", "forces": True}
QUANTITIES = {
    key.path: quantity
    for key in all_keys()
    if (quantity := _quantity(key.info.annotation, key.info.metadata)) is not None
}


def places(data: Any, path: Place = ()) -> Iterator[Place]:
    """Yield the place of every key."""
    items: Any = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in items:
        if isinstance(key, str):
            yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def named(place: Place) -> str:
    """Return the place as the table of keys calls it."""
    words = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in place]
    text = "".join(
        "[]" if isinstance(part, int) else word for part, word in zip(place, words, strict=True)
    )
    return text.removeprefix(".").replace("systems.w", "systems.<id>")


PLACES = [place for place in places(FULL) if place != ("systems", "w")]
WITH_UNIT = [place for place in PLACES if named(place) in QUANTITIES]


def complaints(data: Any) -> list[str]:
    _, problems, _ = validate(data)
    return list(report("c.yaml", problems, {}))


def in_file(data: Any) -> list[str]:
    document = parse(written(data))
    _, problems, _ = validate(document.data)
    return list(report("c.yaml", problems, document.marks))


def written(data: Any) -> str:
    return yaml.safe_dump(data, sort_keys=False)


def replaced(place: Place, value: Any) -> dict[str, Any]:
    data = copy.deepcopy(FULL)
    holder: Any = data
    for part in place[:-1]:
        holder = holder[part]
    holder[place[-1]] = value
    return data


def renamed(place: Place, name: str) -> dict[str, Any]:
    """Return the required sections and that of the place, with one key renamed."""
    data = copy.deepcopy({k: v for k, v in FULL.items() if k in (*REQUIRED, place[0])})
    holder: Any = data
    for part in place[:-1]:
        holder = holder[part]
    items = [(name if key == place[-1] else key, value) for key, value in holder.items()]
    holder.clear()
    holder.update(items)
    return data


def test_the_full_file_is_valid_and_holds_every_key() -> None:
    assert complaints(FULL) == []
    for method in (ASE, PYSCF, EXTERNAL):
        assert complaints(replaced(("tiers", 0, "method"), method)) == []
    known = {key.path for key in all_keys()} | {"systems.<id>"}
    others = {*ASE, *PYSCF, *EXTERNAL, "frozen_core"} - {"engine"}
    of_others = {f"tiers[].method.{key}" for key in others}
    assert {named(place) for place in PLACES} == known - of_others - {"systems.<id>"}


@pytest.mark.parametrize("place", PLACES, ids=named)
def test_a_typo_in_any_key_is_refused_at_its_line_with_the_key_meant(place: Place) -> None:
    key = str(place[-1])
    typo = f"{key[:-2]}{key[-1]}{key[-2]}q" if len(key) > 4 else f"{key}q"
    data = renamed(place, typo)
    lines = [line for line in in_file(data) if typo in line]
    if key == "engine":  # without it no other key of the section has a meaning
        assert lines[0].endswith(f"Is '{typo}' meant to be it?")
        return
    (number,) = [
        n
        for n, text in enumerate(written(data).splitlines(), 1)
        if text.strip(" -").startswith(typo)
    ]
    assert lines[0].startswith(f"c.yaml:{number}:")
    assert f"unknown key; did you mean '{key}'?" in lines[0]


@pytest.mark.parametrize("place", WITH_UNIT, ids=named)
def test_every_quantity_refuses_what_is_not_one(place: Place) -> None:
    quantity: Quantity = QUANTITIES[named(place)]
    unit = quantity.dimension.unit
    others = [other.unit for other in DIMENSIONS if other.unit not in quantity.dimension.factors]
    wrong: list[object] = [1, 0.5, "5", f"-1 {unit}", f".nan {unit}", f"nan {unit}", f".inf {unit}"]
    wrong += [f"1e999 {unit}", "5 parsec", "", True, {}, *(f"5 {other}" for other in others)]
    for value in wrong:
        found = complaints(replaced(place, value))
        assert len(found) == 1, value
        assert named(place).rpartition(".")[2] in found[0]


@pytest.mark.parametrize("place", [p for p in PLACES if named(p) not in QUANTITIES], ids=named)
def test_every_other_key_refuses_nan_and_wrong_types(place: Place) -> None:
    if named(place) in {"tiers[].method.kwargs", "site"}:
        return
    value: Any = FULL
    for part in place:
        value = value[part]
    wrong: list[object] = [[[]]] if isinstance(value, list) else [["x"]]
    if isinstance(value, int | float) and not isinstance(value, bool):
        wrong += ["1", True, "nan", float("nan"), float("inf"), 1e999]
        wrong += [] if place[-1] == "charge" else [-1]
    if isinstance(value, bool):
        wrong += [0, "true"]
    for one in wrong:
        assert complaints(replaced(place, one)), one


@pytest.mark.parametrize("place", PLACES, ids=named)
def test_any_key_can_be_empty_without_a_crash(place: Place) -> None:
    for value in (None, {}, [None], {"a": {}}, 10**400, "\U0001f600"):
        complaints(replaced(place, value))


def test_every_key_says_what_it_means() -> None:
    for key in all_keys():
        assert (key.info.description or "").endswith("."), key.path


def test_shapes_that_are_no_campaign_at_all() -> None:
    for data in ([], "text", 5, {"schema": 1}, {"systems": []}, {"tiers": {}}, {"tiers": [[]]}):
        assert complaints(data), data


def test_a_key_in_the_wrong_section_is_sent_home() -> None:
    (line,) = complaints(replaced(("select", "timestep"), "1 fs"))
    assert "'timestep' belongs to explore.routes[]" in line


def test_cutting_out_faulty_items_spares_the_sound_ones() -> None:
    data = replaced(("explore", "routes", 0, "temperature"), [300, 5, "400 K", 6])
    campaign, problems, _ = validate(data)
    assert len(problems) == 3
    assert campaign is not None
    assert campaign.explore.routes[0].temperature == (400.0,)


def test_nothing_of_a_campaign_can_be_changed() -> None:
    campaign = Campaign.model_validate(FULL)
    with pytest.raises(ValidationError, match="frozen"):
        campaign.site = "inprocess"
    with pytest.raises(ValidationError, match="frozen"):
        campaign.explore.routes[0].timestep = 1.0
    assert isinstance(campaign.tiers, tuple)


def test_case_and_hyphens_do_not_hide_what_was_meant() -> None:
    (line,) = complaints(replaced(("explore", "routes", 0, "ensemble"), "NVT"))
    assert "did you mean 'nvt'?" in line
    (line,) = complaints(replaced(("select", "PER-TRAJECTORY"), 4))
    assert "did you mean 'per_trajectory'?" in line


def test_one_structure() -> None:
    both = {"structure": "w.xyz", "smiles": "O"}
    for source in (both, {}):
        (line,) = complaints(replaced(("systems", "w"), source))
        assert "systems.w: needs exactly one of 'structure' (a file) and 'smiles'" in line


@pytest.mark.parametrize("key", ["memory", "max_time", "conv_tol"])
def test_quantities_of_pyscf_need_their_units(key: str) -> None:
    for wrong in (1, "5", "5 parsec", "0 MB", "0 s", "0 Ha", True):
        found = complaints(replaced(("tiers", 0, "method"), PYSCF | {key: wrong}))
        assert len(found) == 1, wrong
        assert f"method.{key}" in found[0]


@pytest.mark.parametrize(
    ("key", "wrong"),
    [("grid", 10), ("grid", 2.0), ("density_fit", 1), ("dispersion", "d3"), ("theory", 5),
     ("forces", True), ("frozen_core", "no")],
)  # fmt: skip
def test_other_keys_of_pyscf_refuse_wrong_values(key: str, wrong: object) -> None:
    assert complaints(replaced(("tiers", 0, "method"), PYSCF | {key: wrong}))
