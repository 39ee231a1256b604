"""Promotion as a worker does it: labels of two xTB Hamiltonians, committees of tiny networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alloop.datasets import joined
from alloop.potentials.committee import load_committee
from alloop_tasks import promote
from tests.tier_tasks import ABOVE, BELOW, Bench, broken, chosen, labelled, member

N = 60


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def members(level: str, n: int = 2) -> list[Any]:
    return [member(level, seed) for seed in range(n)]


def spec(bench: Bench, **changes: Any) -> dict[str, Any]:
    """What the first turn of a tier asks; with ``known`` frames labelled above, a later one."""
    lower = changes.pop("data", labelled("water", BELOW, N))
    known = changes.pop("known", None)
    calibration = {
        **{"measure": "force", "estimator": "variance ratio", "n_members": None, "n": 20},
        **{"n_groups": 5, "alpha": 2.0, "alpha_low": 1.0, "alpha_high": 4.0, "confidence": 0.95},
        **{"quantile": 3.0, "level": 0.9},
    }
    blank = {
        "tier": "gfn2",
        "level": ABOVE,
        "lower_level": BELOW,
        "lower": bench.data(chosen(lower, "train", "validation")),
        "lower_held_out": bench.data(chosen(lower, "audit")),
        "upper": bench.data(None if known is None else chosen(known, "train", "validation")),
        "asked": [] if known is None else sorted(frame.key for frame in known.frames),
        "below": bench.members(members(BELOW)),
        "committee_id": 7,
        "committee": None if known is None else bench.members(members(ABOVE)),
        "calibration": None if known is None else calibration,
        "labels": 20,
        "core_seconds": None,
        "policy": "value_per_cost",
        "audit_fraction": 0.1,
        "validation_fraction": 0.1,
        "attempts": [],
        "method": {"engine": "tblite", "model": ABOVE, "options": {}},
        "gives_forces": True,
        "seed": 5,
    }
    return blank | changes


def run(bench: Bench, **changes: Any) -> dict[str, Any]:
    result = promote.run(spec(bench, **changes), bench.workspace)
    json.dumps(result, allow_nan=False)  # what cannot travel is found here
    return result


def by_rule(result: dict[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for item in result["decisions"]:
        found.setdefault(item["rule"], []).append(item["frame_key"])
    return found


def splits_of(*systems: str) -> dict[str, str]:
    parts = [labelled(system, BELOW, N) for system in systems or ("water",)]
    return {
        frame.key: split
        for part in parts
        for frame, split in zip(part.frames, part.splits, strict=True)
    }


SPLITS_OF = ("train", "validation", "audit")


def some_known() -> Any:
    return chosen(labelled("water", ABOVE, N), *SPLITS_OF, first=3)


def test_a_round_is_drawn_from_what_is_labelled_below_and_keeps_the_splits(bench):
    result = run(bench)

    rules, splits = by_rule(result), splits_of()
    assert {rule: len(keys) for rule, keys in rules.items()} == {
        "audit": 2, "validation": 2, "value_per_cost": 16,
    }  # fmt: skip
    for rule, keys in rules.items():
        wanted = "train" if rule == "value_per_cost" else rule
        assert {splits[key] for key in keys} == {wanted}
    keys = [item["frame_key"] for item in result["decisions"]]
    assert len(set(keys)) == len(keys) == result["promotion"]["n_promoted"] == 20


def test_nothing_is_asked_for_twice(bench):
    known = some_known()
    result = run(bench, known=known, labels=51)

    asked = {frame.key for frame in known.frames}
    promoted = {item["frame_key"] for item in result["decisions"]}
    assert not asked & promoted
    assert len(promoted) > 30, "nearly all that is left"
    assert result["promotion"]["n_candidates"] == N - len(asked)


def test_the_same_question_has_the_same_answer_and_another_seed_draws_others(bench):
    first, again, other = run(bench), run(bench), run(bench, seed=6)

    assert first == again
    assert by_rule(first)["audit"] != by_rule(other)["audit"]


def test_random_is_drawn_blindly_and_the_policy_is_not(bench):
    drawn = run(bench, policy="random")
    assert len(by_rule(drawn)["random"]) == 16
    assert "value_per_cost" not in by_rule(drawn)

    policy, other = (by_rule(run(bench, seed=seed))["value_per_cost"] for seed in (1, 2))
    assert set(policy) == set(other), "value does not depend on the seed"
    drawn, other = (by_rule(run(bench, policy="random", seed=s))["random"] for s in (1, 2))
    assert set(drawn) != set(other)


def test_audit_and_validation_do_not_depend_on_the_policy(bench):
    one, other = by_rule(run(bench)), by_rule(run(bench, policy="random"))

    assert (one["audit"], one["validation"]) == (other["audit"], other["validation"])


def test_predictions_are_made_by_the_tier_s_own_committee_only(bench):
    assert {item["prediction"] for item in run(bench)["decisions"]} == {None}

    result = run(bench, known=some_known())
    rows = [item["prediction"] for item in result["decisions"]]
    assert all(rows)
    frames = {frame.key: frame for frame in labelled("water", BELOW, N).frames}
    committee = load_committee(
        [bench.workspace.input(sha, ".pt") for sha in bench.members(members(ABOVE))]
    )
    for item in result["decisions"][:3]:
        frame = frames[item["frame_key"]]
        answer = committee.evaluate(
            frame.numbers, torch.tensor(frame.positions[None]), forces="members"
        )
        said = item["prediction"]
        assert said["energy"] == pytest.approx(float(answer.energies.mean()), abs=1e-6)
        assert np.array(said["forces"]).shape == (3, 3)
        assert said["force_bound"] >= said["force_spread_max"] > 0.0


def test_frames_that_are_known_make_frames_like_them_less_worth(bench):
    result = run(bench, known=some_known())

    numbers = [i["numbers"] for i in result["decisions"] if i["rule"] == "value_per_cost"]
    assert [n["rank"] for n in numbers] == list(range(len(numbers)))
    assert all(n["spread"] > 0.0 for n in numbers)
    assert 0.0 < result["promotion"]["expected_ratio"] < 1.0
    assert result["promotion"]["numbers"]["n_known"] == 3, "of the training split"


def test_a_broken_member_promotes_nothing_by_policy_and_says_nothing(bench):
    dead = bench.members([member(ABOVE, 0), broken(member(ABOVE, 1))])

    result = run(bench, known=some_known(), committee=dead)

    assert set(by_rule(result)) == {"audit", "validation"}, "random draws need no model"
    assert {item["prediction"] for item in result["decisions"]} == {None}
    assert result["promotion"]["numbers"]["n_broken"] == 37


ATTEMPTS = [[3, None, 10.0, True], [3, None, 12.0, True], [3, None, 8.0, True]]


def test_the_price_follows_from_attempts_and_is_unknown_without(bench):
    assert run(bench)["promotion"]["seconds"] is None

    row = run(bench, attempts=ATTEMPTS)["promotion"]
    assert row["seconds"] == pytest.approx(20 * 10.0, rel=0.1)
    assert row["seconds_low"] < row["seconds"] < row["seconds_high"]

    half = [*ATTEMPTS, *([n, b, s, False] for n, b, s, _ in ATTEMPTS)]
    assert run(bench, attempts=half)["promotion"]["seconds"] > 1.5 * row["seconds"]


def test_attempts_lost_with_their_worker_do_not_count(bench):
    lost = [*ATTEMPTS, [3, None, 0.0, False]]

    assert run(bench, attempts=lost)["promotion"] == run(bench, attempts=ATTEMPTS)["promotion"]


def test_a_round_fits_into_the_core_seconds_that_are_left(bench):
    result = run(bench, attempts=ATTEMPTS, core_seconds=105.0)
    assert len(by_rule(result)["value_per_cost"]) == 6, "of ten, four are audit and validation"
    assert result["promotion"]["seconds"] <= 105.0

    spent = run(bench, attempts=ATTEMPTS, core_seconds=0.0)
    assert "value_per_cost" not in by_rule(spent)


def test_core_seconds_without_a_price_bind_nothing(bench):
    assert len(by_rule(run(bench, core_seconds=1.0))["value_per_cost"]) == 16


def test_nothing_left_to_spend_promotes_nothing(bench):
    result = run(bench, labels=0)

    assert result["decisions"] == []
    assert (result["promotion"]["n_promoted"], result["promotion"]["seconds"]) == (0, None)


def test_nothing_left_to_promote_is_an_answer(bench):
    everything = labelled("water", ABOVE, N)

    result = run(bench, known=everything)

    assert result["decisions"] == []
    assert result["promotion"]["n_candidates"] == 0


def test_two_systems_share_a_round(bench):
    both = joined(labelled("water", BELOW, N), labelled("peroxide", BELOW, N))
    known = joined(some_known(), chosen(labelled("peroxide", ABOVE, N), *SPLITS_OF, first=3))

    result = run(bench, data=both, known=known, labels=30)

    splits = splits_of("water", "peroxide")
    systems = {f.key: s for f, s in zip(both.frames, both.systems, strict=True)}
    promoted = [item["frame_key"] for item in result["decisions"]]
    assert len(promoted) == 30
    assert {systems[key] for key in promoted} == {"water", "peroxide"}
    assert all(
        splits[i["frame_key"]] == ("train" if i["rule"] == "value_per_cost" else i["rule"])
        for i in result["decisions"]
    )
    for item in result["decisions"]:
        n_atoms = 3 if systems[item["frame_key"]] == "water" else 4
        assert np.array(item["prediction"]["forces"]).shape == (n_atoms, 3)


def test_what_is_dear_must_be_worth_more(bench):
    both = joined(labelled("water", BELOW, N), labelled("peroxide", BELOW, N))
    dear = [[4, None, 1000.0, True]] * 5 + [[3, None, 1.0, True]] * 5
    cheap = [[4, None, 1.0, True]] * 5 + [[3, None, 1.0, True]] * 5

    def share(attempts: list[Any]) -> int:
        picks = by_rule(run(bench, data=both, attempts=attempts))["value_per_cost"]
        water = {frame.key for frame in labelled("water", BELOW, N).frames}
        return len(set(picks) - water)

    assert share(dear) < share(cheap)


def test_energies_alone_are_promoted_too(bench):
    result = run(bench, known=some_known(), gives_forces=False)

    assert len(by_rule(result)["value_per_cost"]) == 16
    spreads = [i["numbers"]["spread"] for i in result["decisions"] if i["numbers"]]
    forces = [
        i["numbers"]["spread"] for i in run(bench, known=some_known())["decisions"] if i["numbers"]
    ]
    assert max(spreads) < min(forces), "of energies per atom, not of forces"
