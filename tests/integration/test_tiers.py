"""A campaign that climbs from GFN1-xTB to GFN2-xTB: one tier first, a second one added, asked for.

Real labels, real MD, real fits in three modes, in one process.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from alloop.artifacts import ArtifactStore
from alloop.datasets import load_dataset
from alloop.errors import ConfigError
from alloop.potentials.files import load_member
from tests.small_campaigns import CONVERGED, PAUSED, SPENT, alloop, rows, write_campaign

pytestmark = pytest.mark.timeout(600)

BELOW = (
    "  - {id: gfn1, method: {engine: tblite, model: GFN1-xTB}, target: {force_rmse: 1e9 eV/A}}\n"
)
ABOVE = (
    "  - {id: gfn2, method: {engine: tblite, model: GFN2-xTB},"
    " escalate: {per_round: 14, approve: true}}\n"
)
CONFIG = """
schema: 1
campaign: {name: water, seed: 11, directory: run}
systems:
  water: {structure: water.xyz}
target: {force_rmse: 0.001 eV/A}
tiers:
%scommittee: [{id: ani, members: 3}]
train: {epochs: 15}
explore:
  initial: {frames: 20}
  routes:
    - {id: warm, temperature: 300 K, duration: 60 fs, replicas: 8, batch: 8}
select: {per_generation: 15, thinning: 5 fs}
stop: {max_generations: 2, for_generations: 1}
site: inprocess
"""
TRANSFER = "transfer: {modes: [scratch, finetune, delta], max_steps: 25}\n"
UPPER_TURNS = (3, 4)


class Climb(NamedTuple):
    """A finished campaign, and what it said and knew on the way."""

    config: Path
    one_tier: Any
    asked: Any
    asked_again: Any
    second_round: Any
    finished: Any
    before: set[tuple]
    """Labels of the campaign of one tier."""
    while_asked: tuple[list[tuple], list[tuple]]
    """Attempts and models when it was asked, and when it was asked again."""


def labels(config: Path) -> set[tuple]:
    return set(
        rows(
            config,
            "SELECT label_id, key, tier, energy, done_at FROM label JOIN frame USING (frame_id)"
            " JOIN level_of_theory USING (level_of_theory_id)",
        )
    )


def work(config: Path) -> list[tuple]:
    tables = ("label_attempt", "model", "trajectory", "promotion", "mode_score", "task")
    return [rows(config, f"SELECT COUNT(*) FROM {table}")[0] for table in tables]


@pytest.fixture(scope="module")
def climb(tmp_path_factory) -> Climb:
    config = write_campaign(tmp_path_factory.mktemp("climb"), CONFIG % BELOW)
    one_tier = alloop("start", config)
    before = labels(config)
    config.write_text(CONFIG % (BELOW + ABOVE) + TRANSFER)
    asked = alloop("start", config)
    first = work(config)
    asked_again = alloop("start", config)
    again = work(config)
    second_round = alloop("start", "--approve", config)
    finished = alloop("start", "--approve", config)
    return Climb(
        config, one_tier, asked, asked_again, second_round, finished, before, (first, again)
    )


# -- the way there ---------------------------------------------------------------------------------


def test_a_tier_is_added_to_a_finished_campaign_and_all_its_labels_stay(climb):
    assert climb.one_tier.exit_code == CONVERGED, climb.one_tier.output
    assert len(climb.before) > 20
    assert climb.before < labels(climb.config)
    assert "config changed: tiers.gfn2: nothing ->" in climb.asked.output
    again = "SELECT COUNT(*) FROM (SELECT label_id FROM label_attempt WHERE status = 'done'"
    assert rows(climb.config, again + " GROUP BY 1 HAVING COUNT(*) > 1)") == [(0,)]


def test_it_pauses_with_the_price_after_two_labels(climb):
    assert climb.asked.exit_code == PAUSED, climb.asked.output
    assert "12 labels of tier 'gfn2' will cost about" in climb.asked.output.replace("\n", " ")
    assert "--approve" in climb.asked.output


def test_asked_again_it_has_done_nothing(climb):
    assert climb.asked_again.exit_code == PAUSED, climb.asked_again.output
    first, again = climb.while_asked
    assert first == again


def test_every_round_is_asked_for_and_the_end_comes_with_the_tier_s_own_budget(climb):
    assert climb.second_round.exit_code == PAUSED, climb.second_round.output
    assert "12 labels of tier gfn2 approved" in climb.second_round.output  # two are made
    assert "14 labels of tier gfn2 approved" in climb.finished.output
    assert climb.finished.exit_code == SPENT, climb.finished.output
    assert "budget spent (2 of 2 generations)" in climb.finished.output.replace("\n", " ")
    assert rows(climb.config, "SELECT COUNT(*) FROM event WHERE kind = 'approval'") == [(2,)]
    assert rows(
        climb.config,
        "SELECT number, tier FROM generation JOIN level_of_theory USING (level_of_theory_id)"
        " ORDER BY 1",
    ) == [(0, "gfn1"), (1, "gfn1"), (2, "gfn1"), *((turn, "gfn2") for turn in UPPER_TURNS)]
    assert rows(climb.config, "SELECT DISTINCT status FROM task") == [("done",)]


def test_a_finished_climb_does_nothing_and_says_so(climb):
    before = work(climb.config), rows(climb.config, "SELECT COUNT(*) FROM event")

    outcome = alloop("start", climb.config)

    assert outcome.exit_code == SPENT
    assert "nothing to do" in outcome.output
    assert (work(climb.config), rows(climb.config, "SELECT COUNT(*) FROM event")) == before


GFN3 = "  - {id: other, method: {engine: ase, calculator: 'ase.calculators.emt:EMT', name: EMT}}\n"


@pytest.mark.parametrize(
    ("tiers", "words"),
    [
        (GFN3 + BELOW + ABOVE, "tiers.other"),
        (BELOW + GFN3 + ABOVE, "tiers.other"),
        (ABOVE.replace(", escalate: {per_round: 14, approve: true}", "") + BELOW, "tiers.gfn2"),
        (BELOW, "tiers.gfn2"),
        (BELOW + ABOVE.replace("tblite, model: GFN2-xTB", "xtb, model: GFN2-xTB"), "tiers.gfn2"),
    ],
    ids=["inserted first", "inserted between", "swapped", "removed", "another method"],
)
def test_tiers_that_have_begun_keep_their_place_and_method(climb, tiers, words):
    other = climb.config.with_name("other.yaml")
    transfer = TRANSFER if tiers.count("- {id") > 1 else ""
    other.write_text(CONFIG % tiers + transfer)
    before = work(climb.config)

    outcome = alloop("start", other)

    assert isinstance(outcome.exception, ConfigError)
    (line, *more) = (p for p in outcome.exception.problems if words in p)
    assert not more
    assert ":" in line
    assert work(climb.config) == before


# -- what the ledger holds -------------------------------------------------------------------------


def test_promoted_frames_are_labelled_below_and_each_is_asked_for_once(climb):
    promoted = rows(climb.config, "SELECT frame_id FROM decision WHERE action = 'promoted'")
    below = "SELECT frame_id FROM label JOIN level_of_theory l USING (level_of_theory_id)"
    below += " WHERE status = 'done' AND l.tier = "
    assert set(promoted) <= set(rows(climb.config, below + "'gfn1'"))
    assert len(promoted) == len(set(promoted)) == 28
    assert set(rows(climb.config, below + "'gfn2'")) == set(promoted)


def test_a_snapshot_holds_labels_of_one_level_and_no_audit_frame(climb):
    mixed = """SELECT COUNT(*) FROM snapshot s JOIN snapshot_member USING (snapshot_id)
        JOIN label l USING (label_id) JOIN frame USING (frame_id) WHERE """
    assert rows(climb.config, mixed + "l.level_of_theory_id != s.level_of_theory_id") == [(0,)]
    assert rows(climb.config, mixed + "frame.split = 'audit'") == [(0,)]
    audited = """SELECT tier, COUNT(*) FROM label JOIN frame USING (frame_id)
        JOIN level_of_theory USING (level_of_theory_id) WHERE split = 'audit' GROUP BY tier"""
    assert dict(rows(climb.config, audited)).keys() == {"gfn1", "gfn2"}


def test_files_of_a_level_keep_to_it_and_audit_frames_to_themselves(climb):
    store = ArtifactStore(climb.config.parent / "run" / "artifacts")
    found = rows(
        climb.config,
        "SELECT l.name, a.sha256, held_out FROM snapshot JOIN artifact a USING (artifact_id)"
        " JOIN level_of_theory l USING (level_of_theory_id)",
    )
    audited: set[str] = set()
    trained: set[str] = set()
    for level, training, held_out in found:
        data = load_dataset(store.get(training, ".npz"))
        assert data.level_of_theory == level
        assert set(data.splits) <= {"train", "validation"}
        trained |= {frame.key for frame in data.frames}
        if held_out:
            judges = load_dataset(store.get(held_out, ".npz"))
            assert judges.level_of_theory == level
            audited |= {frame.key for frame in judges.frames}
    assert audited
    assert not audited & trained, "a frame held out at one level is trained on at no other"


def test_promotion_keeps_the_split_of_a_frame(climb):
    rules = rows(
        climb.config,
        "SELECT rule, split, COUNT(*) FROM decision JOIN frame USING (frame_id)"
        " WHERE action = 'promoted' GROUP BY 1, 2",
    )
    assert {(rule, split) for rule, split, _ in rules} == {
        ("value_per_cost", "train"), ("audit", "audit"), ("validation", "validation"),
    }  # fmt: skip


def test_the_price_and_the_choice_are_in_the_ledger(climb):
    first, second = rows(
        climb.config,
        "SELECT n_candidates, n_promoted, seconds, numbers FROM promotion ORDER BY 1 DESC",
    )
    assert {first[1], second[1]} == {14}
    assert sorted([first[2] is None, second[2] is None]) == [False, True], "known from round two"
    for row in (first, second):
        assert {"cost_exponent", "error_before", "error_after"} <= json.loads(row[3]).keys()
    numbers = rows(climb.config, "SELECT numbers FROM decision WHERE rule = 'value_per_cost'")
    assert all({"tier", "rank", "price", "value"} <= json.loads(n).keys() for (n,) in numbers)


def test_the_committee_of_a_turn_is_that_of_its_best_mode(climb):
    scores = rows(
        climb.config,
        "SELECT number, mode, force_rmse, relative, promoted FROM mode_score"
        " JOIN generation USING (generation_id)",
    )
    for number in UPPER_TURNS:
        own = [row for row in scores if row[0] == number]
        assert {row[1] for row in own} == {"scratch", "finetune", "delta"}
        (best,) = (row for row in own if row[4])
        assert best[2] == min(row[2] for row in own)
        assert best[3] == 1.0
        seats = rows(
            climb.config,
            "SELECT member, mode, l.tier FROM committee JOIN committee_member USING (committee_id)"
            " JOIN model USING (model_id) JOIN generation g ON g.generation_id ="
            " committee.generation_id JOIN level_of_theory l ON l.level_of_theory_id ="
            f" committee.level_of_theory_id WHERE g.number = {number} ORDER BY position",
        )
        assert seats == [(f"ani/{i}", best[1], "gfn2") for i in range(3)]


def test_the_audit_of_a_committee_is_the_score_of_its_mode(climb):
    pairs = rows(
        climb.config,
        "SELECT e.force_rmse, s.force_rmse, e.n_frames, s.n_frames FROM evaluation e"
        " JOIN mode_score s USING (generation_id) WHERE e.kind = 'audit' AND s.promoted",
    )
    assert len(pairs) == 2
    for audit, score, n_audit, n_score in pairs:
        assert audit == pytest.approx(score, rel=1e-12)
        assert n_audit == n_score


def test_what_is_learnt_from_the_tier_below_is_of_the_upper_level_and_knows_its_parent(climb):
    models = rows(
        climb.config,
        "SELECT model.mode, a.sha256, parent.mode, l.tier FROM model"
        " JOIN artifact a USING (artifact_id) JOIN snapshot s USING (snapshot_id)"
        " JOIN level_of_theory l USING (level_of_theory_id)"
        " JOIN model parent ON parent.model_id = model.parent_model_id"
        " WHERE model.mode != 'plain'",
    )
    assert len(models) == 2 * 2 * 3, "all but those from scratch"
    assert {(row[2], row[3]) for row in models} == {("plain", "gfn2")}
    store = ArtifactStore(climb.config.parent / "run" / "artifacts")
    for mode, sha256, *_ in models:
        member = load_member(store.get(sha256, ".pt"))
        assert member.level_of_theory == "GFN2-xTB"
        assert member.metadata["mode"] == mode


def test_atomic_energies_are_those_of_their_level(climb):
    energies = rows(
        climb.config,
        "SELECT l.tier, AVG(energy) FROM atom_energy JOIN level_of_theory l"
        " USING (level_of_theory_id) WHERE number = 8 GROUP BY 1",
    )
    assert dict(energies).keys() == {"gfn1", "gfn2"}
    assert len({round(energy, 3) for _, energy in energies}) == 2


def test_predictions_of_promoted_frames_came_before_their_labels(climb):
    second = rows(
        climb.config,
        "SELECT p.prediction_id, t.finished_at, label.done_at FROM decision d"
        " JOIN generation g USING (generation_id) JOIN task t ON t.task_id = d.task_id"
        " JOIN label ON label.frame_id = d.frame_id"
        " JOIN level_of_theory l ON l.level_of_theory_id = label.level_of_theory_id"
        " LEFT JOIN committee c ON c.generation_id = g.generation_id - 1"
        " LEFT JOIN prediction p ON p.frame_id = d.frame_id AND p.committee_id = c.committee_id"
        " WHERE d.action = 'promoted' AND g.number = 4 AND l.tier = 'gfn2'",
    )
    assert len(second) == 14
    assert all(said is not None for said, _, _ in second)
    assert all(chosen <= done for _, chosen, done in second)


def test_blind_tests_compare_with_labels_of_the_committee_s_own_level(climb):
    blind = rows(
        climb.config,
        "SELECT e.committee_id, e.kind, e.energy_rmse, e.n_frames FROM evaluation e"
        " JOIN committee c USING (committee_id) JOIN level_of_theory l"
        " USING (level_of_theory_id) WHERE e.kind LIKE 'prospective%' AND l.tier = 'gfn2'",
    )
    assert {kind for _, kind, _, _ in blind} == {"prospective", "prospective_audit"}
    rules = {"prospective": "'value_per_cost'", "prospective_audit": "'audit'"}
    for committee_id, kind, rmse, n_frames in blind:
        pairs = rows(
            climb.config,
            "SELECT (p.energy - label.energy) / n_atoms FROM decision d JOIN frame USING (frame_id)"
            f" JOIN prediction p ON p.frame_id = d.frame_id AND p.committee_id = {committee_id}"
            " JOIN label ON label.frame_id = d.frame_id JOIN level_of_theory l"
            " ON l.level_of_theory_id = label.level_of_theory_id WHERE l.tier = 'gfn2'"
            f" AND d.action = 'promoted' AND d.rule = {rules[kind]}",
        )
        assert len(pairs) == n_frames
        assert rmse == pytest.approx((sum(e**2 for (e,) in pairs) / len(pairs)) ** 0.5)


# -- what people see -------------------------------------------------------------------------------


def test_why_and_lineage_know_both_levels(climb):
    (frame,) = rows(
        climb.config,
        "SELECT frame_id FROM decision WHERE action = 'promoted' AND rule = 'value_per_cost'",
    )[0]
    words = alloop("why", frame, "-c", climb.config)
    assert words.exit_code == 0, words.output
    assert "GFN1-xTB" in words.output
    assert "GFN2-xTB" in words.output
    assert "promoted" in words.output

    ((model,),) = rows(climb.config, "SELECT MAX(model_id) FROM model")
    lineage = alloop("lineage", f"model:{model}", "--json", "-c", climb.config)
    assert lineage.exit_code == 0, lineage.output
    assert json.loads(lineage.output)["up"]


def test_status_counts_both_tiers(climb):
    outcome = alloop("status", "--json", "-c", climb.config)
    assert outcome.exit_code == 0, outcome.output
    summary = json.loads(outcome.output)
    assert [g["generation"] for g in summary["generations"]] == [0, 1, 2, *UPPER_TURNS]
    assert summary["generations"][4]["errors"]["audit"]["n_frames"] > 0


def test_the_change_of_tier_and_every_choice_of_a_mode_are_told(climb):
    told = rows(climb.config, "SELECT kind, text FROM event ORDER BY event_id")
    (tier,) = (text for kind, text in told if kind == "tier")
    assert "tier gfn1 is over, on to gfn2: converged" in tier
    assert sum(kind == "mode_score" and "is kept" in text for kind, text in told) == 2
    assert sum(kind == "promotion" for kind, _ in told) == 2
