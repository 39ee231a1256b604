"""What several tiers must agree on, each with its one line at the key that can mend it."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase.build import molecule
from ase.io import write

from alloop.config.load import load_text
from alloop.config.resolved import check_changes, resolved
from alloop.errors import ConfigError

START = """\
schema: 1
campaign: {name: test}
systems:
  w: {structure: water.xyz}
"""
FIRST = "{id: low, method: {engine: tblite, model: GFN1-xTB}}"
SECOND = "{id: high, method: {engine: tblite}}"
PYSCF = "engine: pyscf, theory: HF, basis: STO-3G"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("structures")
    write(folder / "water.xyz", molecule("H2O"))
    write(folder / "oh.xyz", molecule("OH"))
    return folder


def text(*tiers: str, more: str = "") -> str:
    return START + "tiers:\n" + "".join(f"  - {tier}\n" for tier in tiers) + more


def complaints(content: str, folder: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_text(content, folder / "c.yaml")
    return [line.removeprefix(f"{folder / 'c.yaml'}:") for line in caught.value.problems]


def complaint(content: str, folder: Path) -> str:
    (line,) = complaints(content, folder)
    return line


def warnings(content: str, folder: Path) -> tuple[str, ...]:
    loaded = load_text(content, folder / "c.yaml")
    return tuple(line.removeprefix(f"{folder / 'c.yaml'}:") for line in loaded.warnings)


def test_two_tiers_need_nothing_else(folder):
    loaded = load_text(text(FIRST, SECOND), folder / "c.yaml")

    assert loaded.warnings == ()
    assert [tier.escalate.per_round for tier in loaded.config.tiers] == [25, 25]
    assert loaded.config.transfer.modes == ("finetune", "delta")


def test_nothing_climbs_to_the_first_tier(folder):
    first = "{id: low, method: {engine: tblite}, escalate: {per_round: 20}}"

    assert complaint(text(first), folder) == (
        "6:41  tiers.low.escalate: has no effect in the first tier, to which nothing climbs:"
        " leave it out"
    )


@pytest.mark.parametrize(
    ("one", "other", "level"),
    [
        ("engine: tblite", "engine: tblite, model: GFN2-xTB", "GFN2-xTB"),
        (PYSCF, f"{PYSCF}, memory: 1 GB, max_time: 5 min", "HF/STO-3G"),
        (
            "engine: ase, calculator: 'ase.calculators.emt:EMT', name: emt",
            "engine: external, name: emt",
            "emt",
        ),
    ],
)
def test_each_level_of_theory_is_one_tier(folder, one, other, level):
    line = complaint(
        text(f"{{id: low, method: {{{one}}}}}", f"{{id: high, method: {{{other}}}}}"), folder
    )

    assert line.startswith("7:16  tiers.high.method: ")
    assert line.endswith(f"{level} is that of tier 'low': want another level of theory")


def test_two_programs_for_one_level_are_the_same_level(folder):
    """Labels of both would be mixed under one name; xtb need not be installed to hear it."""
    second = "{id: high, method: {engine: xtb, model: GFN1-xTB}}"

    lines = complaints(text(FIRST, second), folder)

    assert any("GFN1-xTB is that of tier 'low'" in line for line in lines)


def test_a_third_tier_is_held_against_both(folder):
    third = "{id: top, method: {engine: tblite, model: GFN1-xTB}}"

    line = complaint(text(FIRST, SECOND, third), folder)

    assert line.startswith("8:15  tiers.top.method: GFN1-xTB is that of tier 'low'")


def test_transfer_needs_a_tier_to_transfer_to(folder):
    line = complaint(text(FIRST, more="transfer: {max_steps: 100}\n"), folder)

    assert line == "7:1  transfer: has no effect with one tier: leave it out, or add a tier"
    assert load_text(text(FIRST, SECOND, more="transfer: {max_steps: 100}\n"), folder / "c.yaml")


@pytest.mark.parametrize("tier", ["low", "high"])
def test_the_4d_model_may_follow_any_tier(folder, tier):
    route = "explore: {routes: [{id: free, ensemble: nve}]}\n"
    more = route + f"spacetime: {{tier: {tier}}}\n"

    assert load_text(text(FIRST, SECOND, more=more), folder / "c.yaml").config.spacetime.tier == (
        tier
    )


def test_a_tier_that_is_not_there_is_named_with_the_nearest(folder):
    route = "explore: {routes: [{id: free, ensemble: nve}]}\n"

    line = complaint(text(FIRST, SECOND, more=route + "spacetime: {tier: hihg}\n"), folder)

    assert line == (
        "9:13  spacetime.tier: there is no tier 'hihg', only low, high; did you mean 'high'?"
    )


def test_a_round_leaves_frames_to_train_on(folder):
    second = SECOND.replace("}}", "}, escalate: {per_round: 8}}")
    assert load_text(text(FIRST, second), folder / "c.yaml")
    lasts = text(FIRST, second, more="select: {audit_fraction: 0.4}\n")
    assert load_text(lasts, folder / "c.yaml")

    line = complaint(text(FIRST, second, more="select: {audit_fraction: 0.5}\n"), folder)

    assert line == (
        "7:53  tiers.high.escalate.per_round: 8, less 0.5 of them for audit and 0.1 for"
        " validation, leave 3 to train on, want 4 or more"
    )


def test_a_budget_lasts_for_one_round(folder):
    second = SECOND.replace("}}", "}, budget: {labels: 20}, escalate: {per_round: 21}}")

    line = complaint(text(FIRST, second), folder)

    assert line == ("7:51  tiers.high.budget.labels: 20 labels do not last for one round of 21")
    lasts = second.replace("per_round: 21", "per_round: 20")
    assert load_text(text(FIRST, lasts), folder / "c.yaml")


def test_the_first_tier_makes_its_labels_by_program(folder):
    first = "{id: low, method: {engine: external, name: by hand}}"

    line = complaint(text(first, SECOND), folder)

    assert line.startswith("6:24  tiers.low.method.engine: the first tier explores")
    assert load_text(text(FIRST, first.replace("low", "hand")), folder / "c.yaml")


def test_the_first_tier_has_forces(folder):
    energies = f"{{id: low, method: {{{PYSCF}, forces: none}}}}"

    line = complaint(text(energies, SECOND), folder)

    assert line.startswith("6:15  tiers.low.method: HF/STO-3G")
    assert "no forces" in line
    above = energies.replace("low", "high")
    assert load_text(text(FIRST, above), folder / "c.yaml")


def test_forces_of_the_first_tier_are_those_of_every_system(folder):
    """CCSD(T) has a gradient for closed shells only."""
    first = "{id: low, method: {engine: pyscf, theory: CCSD(T), basis: STO-3G}}"
    closed = text(first)
    assert load_text(closed, folder / "c.yaml")
    open_shell = closed.replace(
        "  w: {structure: water.xyz}",
        "  w: {structure: water.xyz}\n  oh: {structure: oh.xyz, multiplicity: 2}",
    )

    assert "no forces" in complaint(open_shell, folder)


ENERGIES = f"{{id: high, method: {{{PYSCF}, forces: none}}}}"
BY_HAND = "{id: high, method: {engine: external, name: by hand, forces: false}}"


@pytest.mark.parametrize(("tier", "level"), [(ENERGIES, "HF/STO-3G"), (BY_HAND, "by hand")])
def test_energies_alone_want_a_target_of_their_own(folder, tier, level):
    with_forces = tier.replace("forces: none", "forces: analytic").replace("false", "true")
    assert warnings(text(FIRST, with_forces), folder) == ()

    (line,) = warnings(text(FIRST, tier), folder)

    assert line == (
        f"7:5  tiers.high.target.energy_rmse: labels of {level} are energies alone: without this"
        " target the tier cannot converge, and ends with its budget or without progress"
    )
    of_all = "target: {energy_rmse: 1 meV/atom}\n"
    assert warnings(text(FIRST, tier, more=of_all), folder) == ()
    own = tier.replace("}}", "}, target: {energy_rmse: 1 meV/atom}}")
    assert warnings(text(FIRST, own), folder) == ()
    other = tier.replace("}}", "}, target: {force_rmse: 1 eV/A}}")
    assert len(warnings(text(FIRST, other, more=of_all), folder)) == 1
    assert warnings(text(FIRST, tier, more="stop: {when: [stable]}\n"), folder) == ()


def test_energies_of_one_system_are_energies_of_its_tier(folder):
    """CCSD(T) has a gradient for closed shells only."""
    closed = text(FIRST, "{id: high, method: {engine: pyscf, theory: CCSD(T), basis: STO-3G}}")
    assert warnings(closed, folder) == ()
    open_shell = closed.replace("  w:", "  oh: {structure: oh.xyz, multiplicity: 2}\n  w:")

    (line,) = warnings(open_shell, folder)

    assert "tiers.high.target.energy_rmse: " in line


# -- tiers of a campaign that has begun ------------------------------------------------------------

THIRD = "{id: top, method: {engine: external, name: by hand}}"


def changed(old: str, new: str, folder: Path) -> list[str]:
    """Return what is refused when a campaign goes on with another file."""
    before = resolved(load_text(old, folder / "c.yaml").config)
    loaded = load_text(new, folder / "c.yaml")
    try:
        check_changes(before, loaded)
    except ConfigError as error:
        return [line.removeprefix(f"{folder / 'c.yaml'}:") for line in error.problems]
    return []


def test_tiers_may_be_appended(folder):
    assert changed(text(FIRST), text(FIRST, SECOND), folder) == []
    assert changed(text(FIRST), text(FIRST, SECOND, THIRD), folder) == []
    assert changed(text(FIRST, SECOND), text(FIRST, SECOND, THIRD), folder) == []


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ((FIRST, SECOND), (FIRST, THIRD, SECOND), "tiers.top"),
        ((FIRST,), (SECOND, FIRST), "tiers.high"),
        ((FIRST, SECOND), (SECOND, FIRST), "tiers.high"),
        ((FIRST, SECOND), (FIRST,), "tiers.high"),
        ((FIRST, SECOND, THIRD), (FIRST, THIRD), "tiers.high"),
    ],
)
def test_no_other_change_of_tiers_is_taken(folder, old, new, place):
    (line,) = changed(text(*old), text(*new), folder)

    assert f"{place}: " in line


def test_a_tier_keeps_its_method_and_may_change_its_price(folder):
    other = FIRST.replace("GFN1", "GFN2")
    (line,) = changed(text(FIRST), text(other), folder)
    assert "tiers.low.method.model: cannot change" in line

    more = SECOND.replace("}}", "}, budget: {labels: 99}, escalate: {approve: true}}")
    assert changed(text(FIRST, SECOND), text(FIRST, more), folder) == []
