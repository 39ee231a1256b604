"""Queries and histories keep levels of theory apart, and say what a tier has cost and brought."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine

from alloop_db.arrays import blob_to_vectors
from alloop_db.export import write_extxyz
from alloop_db.ledger import open_ledger, open_readonly
from alloop_db.lineage import lineage
from alloop_db.provenance import why
from alloop_db.queries import run
from tests.ledger_rows import STIFFER, digest
from tests.ledger_sample import write_sample
from tests.ledger_tiers import OFF, PAID, PROMOTED, add_tier


def ledger_of(folder: Path, *, forces: bool = True) -> Engine:
    directory = write_sample(folder)
    writer = open_ledger(directory, create=False)
    add_tier(writer, forces=forces)
    writer.dispose()
    return open_readonly(directory)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = ledger_of(tmp_path_factory.mktemp("two tiers"))
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def energies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Return a ledger whose second tier has no forces."""
    engine = ledger_of(tmp_path_factory.mktemp("energies"), forces=False)
    yield engine
    engine.dispose()


def ask(engine: Engine, query: str, **parameters: object) -> list[dict[str, Any]]:
    result = run(engine, query, parameters)
    return [dict(zip(result.columns, row, strict=True)) for row in result.rows]


def test_predictions_are_held_against_labels_of_their_own_level(reader: Engine) -> None:
    rows = {(row["frame_id"], row["committee_id"]): row for row in ask(reader, "spread_and_error")}
    # Frame 12, of which committee 3 spoke too, has no label of its level.
    assert set(rows) == {(5, 1), (7, 1), (8, 1), (9, 1), (11, 1), (11, 3)}
    for (frame, committee), off in (((11, 1), STIFFER), ((11, 3), OFF)):
        level = 1 if committee == 1 else 2
        ((forces,),) = run(
            reader,
            "SELECT forces FROM label WHERE frame_id = :f AND level_of_theory_id = :l",
            {"f": frame, "l": level},
        ).rows
        size = np.sqrt(np.mean(blob_to_vectors(forces) ** 2))
        assert rows[frame, committee]["force_rmse"] == pytest.approx(off * size, rel=1e-12)
        assert rows[frame, committee]["tier"] == ("xtb" if level == 1 else "dft")
    worst = ask(reader, "worst_predictions")
    assert len(worst) == len(rows)
    assert [row["action"] for row in worst if row["frame_id"] == 11] == ["audit", "promoted"]


def test_sets_are_of_one_level(reader: Engine) -> None:
    assert [row["label_id"] for row in ask(reader, "training_set")] == [101, 105, 108]
    lower = ask(reader, "training_set", tier="xtb")
    assert [row["label_id"] for row in lower] == [1, 2]
    assert {row["level_of_theory"] for row in lower} == {"GFN2-xTB"}
    assert [row["label_id"] for row in ask(reader, "audit_set")] == [111]
    assert [row["label_id"] for row in ask(reader, "audit_set", tier="xtb")] == [7, 11]


def test_a_set_written_as_a_file_has_no_labels_of_another_level(reader: Engine) -> None:
    stream = io.StringIO()
    assert write_extxyz(reader, run(reader, "training_set"), stream) == 3
    assert stream.getvalue().count("wB97X/6-31G*") == 3
    assert "GFN2-xTB" not in stream.getvalue()
    whole = io.StringIO()
    frames = run(reader, "SELECT DISTINCT frame_id FROM label WHERE label_id IN (1, 2)")
    assert write_extxyz(reader, frames, whole) == 3  # frame 1 at both levels


def test_failures_name_the_tier(reader: Engine) -> None:
    rows = {(row["kind"], row["tier"]): row for row in ask(reader, "failures")}
    assert rows["label", "xtb"]["n"] == 4
    assert rows["label", "dft"]["n"] == 1
    assert rows["label", "dft"]["example"] == "SCF not converged in 50 cycles"


def test_curves_and_calibrations_name_the_tier(reader: Engine) -> None:
    curve = [(row["tier"], row["mode"], row["n_labels"]) for row in ask(reader, "learning_curve")]
    dft = ("dft", "delta", 3)
    assert curve == [("xtb", "plain", 4), ("xtb", "plain", 7), dft, dft]
    assert {row["tier"] for row in ask(reader, "calibration")} == {"xtb"}
    assert {row["tier"] for row in ask(reader, "trajectories")} == {"xtb"}
    assert {row["tier"] for row in ask(reader, "spacetime_models")} == {"xtb"}


def test_rounds_of_promotion_have_price_and_gain(reader: Engine) -> None:
    first, second = ask(reader, "promotions")
    assert (first["generation"], first["tier"], first["n_promoted"]) == (2, "dft", 4)
    assert (first["n_done"], first["n_failed"]) == (3, 1)
    assert first["core_hours_paid"] == pytest.approx(4 * PAID / 3600.0)
    assert first["core_hours_expected"] is None
    assert (first["audit_force_before"], first["audit_force_after"]) == (None, 0.1)
    assert second["core_hours_paid"] == pytest.approx(PAID / 3600.0)
    expected = [second[f"core_hours_{name}"] for name in ("expected", "low", "high")]
    assert expected == pytest.approx([40 / 3600, 30 / 3600, 55 / 3600])
    # Before: of the same tier, not of the latest committee below it (0.2).
    assert (second["audit_force_before"], second["audit_force_after"]) == (0.1, 0.04)


def test_what_a_core_hour_bought_in_each_tier(reader: Engine) -> None:
    lower, upper = ask(reader, "tier_cost")
    # What generation 1 paid took the error from 0.4 to 0.2: 12.5 s less the 2 s of generation 0.
    assert lower["core_hours"] == pytest.approx(12.5 / 3600)
    assert lower["force_rmse_per_core_hour"] == pytest.approx(0.2 / (10.5 / 3600))
    assert (upper["n_labels"], upper["n_done"], upper["n_failed"]) == (5, 4, 1)
    assert upper["seconds_per_label"] == pytest.approx(5 * PAID / 4)
    assert upper["force_rmse_per_core_hour"] == pytest.approx(0.06 / (PAID / 3600))
    assert upper["energy_rmse_per_core_hour"] == pytest.approx((0.004 / 3 - 0.001) / (PAID / 3600))


def test_modes_come_best_first(reader: Engine) -> None:
    rows = ask(reader, "mode_scores")
    assert [(row["generation"], row["mode"], row["relative"]) for row in rows] == [
        (2, "delta", 1.0), (2, "finetune", 1.5), (3, "delta", 1.0), (3, "finetune", 1.5),
    ]  # fmt: skip
    assert [row["promoted"] for row in rows] == [1, 0, 1, 0]
    assert {row["tier"] for row in rows} == {"dft"}


def test_a_method_without_forces_has_energies_to_show(energies: Engine) -> None:
    *_, upper = ask(energies, "tier_cost")
    assert upper["force_rmse_per_core_hour"] is None
    assert upper["energy_rmse_per_core_hour"] > 0.0
    *_, last = ask(energies, "promotions")
    assert last["audit_force_after"] is None
    assert last["audit_energy_after"] < last["audit_energy_before"]
    assert ask(energies, "worst_predictions")[-1]["force_rmse"] is None
    # The latest committee with a force error is of the lower tier.
    assert {row["relative_error"] for row in ask(energies, "nve_trajectories")} == {2.0}
    assert "committee 3 was off by +" in why(energies, 11).text()


def test_errors_of_two_levels_are_never_compared(reader: Engine) -> None:
    rows = ask(reader, "nve_trajectories")
    assert {(row["tier"], row["committee_error"]) for row in rows} == {("xtb", 0.4)}
    assert {row["relative_error"] for row in rows} == {None}
    rows = ask(reader, "nve_trajectories", committee=2)
    assert {row["relative_error"] for row in rows} == {2.0}


def test_a_promoted_frame_says_to_what_and_why(reader: Engine) -> None:
    text = why(reader, 5).text()
    for words in (
        "promoted to tier dft by rule value_per_cost in generation 2: spread 0.25, reduction 0.5,",
        "before any label of GFN2-xTB",
        "GFN2-xTB: try 1 gave energy",
        "wB97X/6-31G*: try 1 gave energy",
        "for train in snapshot 2 of GFN2-xTB: models 4, 5, 6 of committee 2",
        "snapshot 30 of wB97X/6-31G*: model 30 of committee 3 (mode delta); 1 of other modes",
    ):
        assert words in text
    failed = why(reader, 9).text()
    assert "SCF not converged in 50 cycles" in failed
    assert "given up" in failed


def test_each_prediction_of_a_frame_meets_the_label_of_its_level(reader: Engine) -> None:
    lower, upper = why(reader, 11).predictions
    for said, level in ((lower, 1), (upper, 2)):
        ((energy,),) = run(
            reader,
            "SELECT energy FROM label WHERE frame_id = 11 AND level_of_theory_id = :l",
            {"l": level},
        ).rows
        assert said["energy_error"] == pytest.approx(said["energy"] - energy, abs=1e-12)
    assert lower["level_of_theory"] == "GFN2-xTB"
    assert upper["force_rmse"] < 0.5 * lower["force_rmse"]


def test_the_history_of_a_promoted_frame_is_in_order(reader: Engine) -> None:
    rows = ask(reader, "why_frame", frame=5)
    assert [(row["event"], row["generation"], row["level_of_theory"]) for row in rows] == [
        ("found", 1, None),
        ("predicted", 1, "GFN2-xTB"),
        ("decided", 1, None),
        ("labelled", 1, "GFN2-xTB"),
        ("used", 1, "GFN2-xTB"),
        ("promoted", 2, "wB97X/6-31G*"),
        ("labelled", 2, "wB97X/6-31G*"),
        ("used", 2, "wB97X/6-31G*"),
        ("used", 3, "wB97X/6-31G*"),
    ]


def test_models_say_how_they_learnt_and_from_which_labels(reader: Engine) -> None:
    rows = ask(reader, "model_provenance", model=digest("delta", 3))
    own = [row for row in rows if row["depth"] == 0]
    assert {row["mode"] for row in own} == {"delta"}
    assert [row["label_id"] for row in own] == [101, 105, 108]
    assert {row["action"] for row in own} == {"promoted"}
    parent = [row for row in rows if row["depth"] == 1]
    assert {(row["model_id"], row["mode"], row["tier"]) for row in parent} == {(4, "plain", "xtb")}
    assert {row["action"] for row in parent} == {"initial", "selected"}
    text = lineage(reader, "model:30").text()
    assert "model 30 (ani/0, mode delta, seed" in text
    assert "started from the weights of model 4 (ani/0, seed" in text
    assert "committee 3 (1 models of wB97X/6-31G*, generation 2)" in text


def test_frames_of_the_second_tier_were_labelled_in_the_first(reader: Engine) -> None:
    for frame in PROMOTED:
        levels = {row["level_of_theory"] for row in why(reader, frame).labels}
        assert levels == {"GFN2-xTB", "wB97X/6-31G*"}
