"""What the report and ``alloop status`` say of a campaign with several tiers, and of one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alloop.report import plots
from alloop_db.ledger import open_ledger
from tests.ledger_sample import write_sample
from tests.ledger_tiers import PAID, add_tier
from tests.report_pages import UNTESTED, Page, alloop_says, change, close, number, read


def two_tiers(folder: Path, *, forces: bool = True) -> Path:
    """Return the sample with a whole second tier, whose price somebody is to approve."""
    tiers = [
        {"id": "xtb", "budget": {"labels": 100, "core_time": None}, "target": None},
        {
            "id": "dft",
            "budget": {"labels": 20, "core_time": "2 h"},
            "target": {"force_rmse": "50 meV/A", "energy_rmse": "2 meV/atom"},
            "escalate": {"approve": True},
        },
    ]
    resolved = {"target": {"force_rmse": "0.25 eV/A", "energy_rmse": None}, "tiers": tiers}
    engine = open_ledger(write_sample(folder), create=False)
    add_tier(engine, forces=forces)
    engine.dispose()
    change(
        folder,
        ("UPDATE config_version SET resolved = ?", (json.dumps(resolved),)),
        ("UPDATE campaign SET state = 'paused'", ()),
        *UNTESTED,
    )
    return folder


@pytest.fixture(scope="module")
def laddered(tmp_path_factory) -> tuple[Path, Page, list[tuple[object, ...]]]:
    """Return a campaign with two tiers, its page, and what its learning curves were drawn from."""
    return drawn(two_tiers(tmp_path_factory.mktemp("ladder")))


def drawn(folder: Path) -> tuple[Path, Page, list[tuple[object, ...]]]:
    given, draw = [], plots.learning_curve
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "learning_curve", lambda *all_: given.append(all_) or draw(*all_))
        return folder, read(folder), given


def test_one_tier_is_not_told_apart(tmp_path):
    folder = write_sample(tmp_path)
    change(
        folder,
        ("DELETE FROM promotion", ()),
        ("DELETE FROM mode_score", ()),
        ("DELETE FROM level_of_theory WHERE level_of_theory_id = 2", ()),
        *UNTESTED,
    )
    page = read(folder)
    assert "Tiers" not in page.text
    for table in page.tables:
        if "audit force rmse" in table[0] or "example" in table[0] or "estimator" in table[0]:
            assert not {"tier", "mode", "level of theory"} & set(table[0])
    assert "tier" not in page.table("generation", "audit force RMSE")[0]
    words = status_words(folder)
    assert "tier" not in words
    assert "best mode" not in words


def test_each_tier_has_its_curve_and_target(laddered):
    _, page, given = laddered
    (lower, lower_target), (upper, upper_target) = given
    assert (lower_target, upper_target) == (0.25, 0.05)
    assert [point.error for point in lower["audit: frames drawn at random"]] == [0.4, 0.2]
    (points,) = upper.values()
    assert points == [plots.Point(3, e, 0.9 * e, 1.1 * e) for e in (0.1, 0.04)]
    assert "Tier dft, wB97X/6-31G*. Root-mean-square error of a force component" in page.text
    assert len(page.pictures()) == 5  # learning, spread and error, for each tier; the timeline
    assert "Tier dft, wB97X/6-31G*: 1 frames that were predicted" in page.text
    assert "Tier xtb, GFN2-xTB: 5 frames that were predicted" in page.text


def test_tiers_have_their_price_rounds_and_modes(laddered):
    page = laddered[1]
    lower, upper = page.table("s a label", "target")
    assert (lower["labels"], lower["given up"], lower["budget"]) == ("9", "1", "100")
    assert (upper["labels"], upper["given up"], upper["budget"]) == ("4", "1", "20")
    assert number(upper["s a label"]) == close(5 * PAID / 4)
    assert number(upper["core-hours"]) == close(5 * PAID / 3600)
    assert upper["budget, core-hours"] == "2"
    assert upper["audit error"] == "0.040 [0.036, 0.044] eV/Å"
    assert upper["target"] == "0.050 eV/Å, 2.00 meV/atom"
    first, second = page.table("to tier", "core-hours paid")
    assert (first["core-hours expected"], first["error before"]) == ("–", "–")
    assert second["core-hours expected"] == "0.0111 [0.00833, 0.0153]"
    assert (second["error before"], second["error after"]) == ("100.0 meV/Å", "40.0 meV/Å")
    bought = (
        "1 labels at wB97X/6-31G* (0.01 core-hours) bought 6e+03 meV/Å per core-hour: the audit"
        " force error fell from 100 to 40 meV/Å."
    )
    assert bought in page.text
    modes = page.table("mode", "kept")
    assert [(row["generation"], row["mode"], row["kept"]) for row in modes] == [
        ("2", "delta", "yes"), ("2", "finetune", "no"), ("3", "delta", "yes"),
        ("3", "finetune", "no"),
    ]  # fmt: skip
    assert "Best mode in generation 3: delta, 40.0 meV/Å on 2 audit frames" in page.text


def test_what_programs_say_of_labels_has_its_worst_frame(laddered):
    gap, t1 = laddered[1].table("diagnostic", "worst frame")
    assert (gap["diagnostic"], gap["frames"], gap["worst frame"]) == ("gap", "4", "11")
    assert (gap["least"], gap["median"], gap["largest"]) == ("-1", "3.5", "9")
    assert (t1["diagnostic"], t1["worst frame"], t1["largest"]) == ("t1", "11", "0.011")


def test_a_method_without_forces_is_judged_by_energies(tmp_path):
    folder, page, given = drawn(two_tiers(tmp_path, forces=False))
    curves, target, quantity = given[-1]
    assert (target, quantity) == (2.0, "energy RMSE / meV/atom")
    (points,) = curves.values()
    assert [point.error for point in points] == pytest.approx([4 / 3, 1.0])
    assert page.table("s a label", "target")[1]["audit error"] == "1.00 meV/atom"
    assert "the audit energy error fell from 1.33 to 1 meV/atom" in page.text
    assert "1.00 meV/atom, target 2.00 meV/atom" in status_words(folder)


def status_words(folder: Path) -> str:
    outcome = alloop_says("status", "-c", folder)
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


def test_status_tells_each_tier(laddered):
    words = status_words(laddered[0]).splitlines()
    for line in (
        "generation 3 of tier dft, 120 s of wall time",
        "  xtb (GFN2-xTB): 9 done, 1 failed, 0 to go of 100; 0.0035 core-hours (1.4 s a label);"
        " audit 0.200 [0.160, 0.240] eV/Å, target 0.250 eV/Å",
        "  dft (wB97X/6-31G*): 4 done, 1 failed, 0 to go of 20; 0.05 of 2 core-hours (45 s a"
        " label); audit 0.040 [0.036, 0.044] eV/Å, target 0.050 eV/Å",
        "best mode in generation 3: delta, 40.0 meV/Å on 2 audit frames; errors of the others as"
        " multiples of that: finetune 1.5",
    ):
        assert line in words
    table = [line.split() for line in words if line.startswith("         ")]
    # Trained on: labels of the generation's own tier.
    assert [(row[3], row[-1]) for row in table] == [
        ("4", "xtb"), ("7", "xtb"), ("3", "dft"), ("3", "dft"),
    ]  # fmt: skip
    assert not any("waiting" in line for line in words)  # no label is pending


def test_status_asks_for_approval_until_it_is_given(tmp_path):
    folder = two_tiers(tmp_path)
    pending = (
        "INSERT INTO label (frame_id, level_of_theory_id, generation_id, status, tries)"
        " VALUES (?, 2, 4, 'pending', 0)"
    )
    change(folder, (pending, (2,)), (pending, (3,)))
    asked = "waiting for approval: 2 labels of tier dft for about 0.0111 [0.00833, 0.0153] core-"
    assert asked in status_words(folder)
    assert asked[1:] in read(folder).text
    told = json.loads(alloop_says("status", "-c", folder, "--json").output)
    assert (told["approval"]["tier"], told["approval"]["labels"]) == ("dft", 2)
    assert told["tier"] == "dft"
    assert [tier["to_go"] for tier in told["tiers"]] == [0, 2]
    assert told["modes"][0]["mode"] == "delta"

    change(folder, ("UPDATE campaign SET state = 'running'", ()))
    assert "waiting" not in status_words(folder)
    approved = "INSERT INTO event (at, kind, text, details) VALUES ('x', 'approval', 'x', ?)"
    change(
        folder,
        ("UPDATE campaign SET state = 'paused'", ()),
        (approved, (json.dumps({"generation": 2}),)),  # of another round
    )
    assert asked in status_words(folder)
    change(folder, (approved, (json.dumps({"generation": 3}),)))
    assert "waiting" not in status_words(folder)


def test_a_price_that_was_unknown_is_that_of_the_labels_made(tmp_path):
    folder = two_tiers(tmp_path)
    change(
        folder,
        ("DROP TRIGGER promotion_update", ()),
        ("UPDATE promotion SET seconds = NULL, seconds_low = NULL, seconds_high = NULL", ()),
        (
            "INSERT INTO label (frame_id, level_of_theory_id, generation_id, status, tries)"
            " VALUES (2, 2, 4, 'pending', 0)",
            (),
        ),
    )
    assert "1 labels of tier dft for about 0.0125 core-hours" in status_words(folder)  # 45 s
