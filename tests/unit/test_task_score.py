"""Which mode of learning is kept: real members against held-out labels of xTB."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alloop.errors import DataError, ModelError
from alloop.potentials.member import Member
from alloop_tasks import evaluate, score
from tests.tier_tasks import ABOVE, Bench, broken, chosen, energies_only, labelled, member

N = 48


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def quick(steps: int = 12) -> list[Member]:
    return [member(ABOVE, seed, steps) for seed in range(2)]


def run(bench: Bench, modes: dict[str, list[Member]], **changes: Any) -> dict[str, Any]:
    data = changes.pop("data", labelled("water", ABOVE, N))
    spec = {
        "modes": {mode: bench.members(members) for mode, members in modes.items()},
        "data": bench.data(chosen(data, "train", "validation")),
        "held_out": bench.data(chosen(data, "audit")) if "audit" in data.splits else None,
        "confidence": 0.95,
    }
    result = score.run(spec | changes, bench.workspace)
    json.dumps(result, allow_nan=False)
    return result


def best(result: dict[str, Any]) -> str:
    (mode,) = (row["mode"] for row in result["scores"] if row["promoted"])
    return str(mode)


@pytest.mark.parametrize("order", [("scratch", "finetune"), ("finetune", "scratch")])
def test_the_mode_with_the_least_force_error_is_kept_and_the_others_say_by_how_much(bench, order):
    members = {"scratch": quick(1), "finetune": quick(60)}

    result = run(bench, {mode: members[mode] for mode in order})

    rows = {row["mode"]: row for row in result["scores"]}
    assert best(result) == "finetune"
    assert rows["finetune"]["relative"] == 1.0
    ratio = rows["scratch"]["force_rmse"] / rows["finetune"]["force_rmse"]
    assert rows["scratch"]["relative"] == pytest.approx(ratio)
    assert ratio > 1.0
    assert result["text"].startswith("mode finetune is kept")
    assert "on 8 audit frames" in result["text"]


def test_a_score_is_the_error_that_the_evaluation_of_the_committee_will_say(bench):
    (row,) = run(bench, {"scratch": quick()})["scores"]

    paths = [bench.workspace.input(sha, ".pt") for sha in bench.members(quick())]
    held_out = chosen(labelled("water", ABOVE, N), "audit")
    told = evaluate.judge(paths, held_out)
    assert row["force_rmse"] == told["force_rmse"]
    assert (row["n_frames"], row["n_groups"]) == (told["n_frames"], told["n_groups"])


def test_without_audit_frames_those_of_validation_judge(bench):
    result = run(bench, {"scratch": quick(1), "finetune": quick(60)}, held_out=None)

    assert {row["split"] for row in result["scores"]} == {"validation"}
    assert {row["n_frames"] for row in result["scores"]} == {8}


def test_without_any_held_out_frame_there_is_no_score(bench):
    only = chosen(labelled("water", ABOVE, N), "train")

    with pytest.raises(DataError, match="no audit or validation frame"):
        run(bench, {"scratch": quick()}, data=only)


def test_energies_alone_are_judged_by_energies(bench):
    # Forces would choose the other one: its energies are off by as much as a constant.
    good = quick(60)
    shifted = [
        replace(m, atom_energies={z: e + 0.5 for z, e in m.atom_energies.items()}) for m in good
    ]
    modes = {"distil": quick(12), "finetune": shifted}

    by_forces = run(bench, modes)
    by_energies = run(bench, modes, data=energies_only(labelled("water", ABOVE, N)))

    assert best(by_forces) == "finetune"
    assert best(by_energies) == "distil"
    assert {row["force_rmse"] for row in by_energies["scores"]} == {None}
    assert "meV/atom" in by_energies["text"]


@pytest.mark.parametrize("without_forces", [False, True])
def test_a_mode_without_a_number_is_never_the_best(bench, without_forces):
    data = labelled("water", ABOVE, N)
    dead = [broken(member(ABOVE, 0)), member(ABOVE, 1)]

    result = run(
        bench,
        {"delta": dead, "scratch": quick(1)},
        data=energies_only(data) if without_forces else data,
    )

    assert [row["mode"] for row in result["scores"]] == ["scratch"]
    assert best(result) == "scratch"
    assert "delta no number" in result["text"]


@pytest.mark.parametrize(("force", "energy"), [(None, 1e-6), (1e-6, None)])
def test_half_an_answer_is_not_excused_by_the_other_half(bench, monkeypatch, force, energy):
    """A network whose gradient alone overflows: no such weights are at hand."""
    rows = iter(
        ({"force_rmse": force, "energy_rmse": energy}, {"force_rmse": 0.2, "energy_rmse": 1.0})
    )
    blank = {"n_frames": 8, "n_groups": 4}
    monkeypatch.setattr(score, "judge", lambda *_: blank | next(rows))

    assert best(run(bench, {"delta": quick(), "scratch": quick()})) == "scratch"


def test_no_number_at_all_is_an_error(bench):
    dead = [broken(member(ABOVE, seed)) for seed in range(2)]

    with pytest.raises(ModelError, match="no mode of delta, joint gives numbers"):
        run(bench, {"delta": dead, "joint": dead})


def test_a_committee_is_calibrated_and_judged_by_energies_where_there_are_no_forces(bench):
    data = energies_only(labelled("water", ABOVE, N))
    spec = {
        "committee": bench.members([member(ABOVE, seed) for seed in range(3)]),
        "committee_id": 1,
        "data": bench.data(chosen(data, "train", "validation")),
        "held_out": bench.data(chosen(data, "audit")),
        "confidence": 0.95,
    }

    result = evaluate.run(spec, bench.workspace)

    assert {row["kind"] for row in result["evaluations"]} == {"validation", "audit"}
    assert all(row["force_rmse"] is row["force_high"] is None for row in result["evaluations"])
    assert all(row["energy_rmse"] > 0.0 for row in result["evaluations"])
    assert [row["measure"] for row in result["calibrations"]] == ["energy"]
    assert np.isfinite(result["calibrations"][0]["alpha"])
