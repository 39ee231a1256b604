"""The planner above the first tier: what a turn there is made of, what it costs, how it ends."""

from __future__ import annotations

import dataclasses

import pytest

from alloop.campaign import specs, tier_specs
from alloop.campaign.actions import Finish, FormCommittee, OpenGeneration, Plan, Seal
from alloop_db.state import AttemptState, CampaignState, EvaluationState, LabelNeed, TierState
from tests.planner_states import (
    FIRST_TURN,
    LOWER,
    SNAPSHOT,
    UPPER,
    WATER,
    audit,
    climb,
    committee,
    done,
    judged,
    price,
    run,
    shard,
    took,
    upper_turn,
)

SEATS = ("ani/0", "ani/1", "ani/2")
BELOW = {"snapshots": {"xtb": LOWER}}
"""A turn in which the tier below has been sealed."""
SEALED = {"snapshots": {"xtb": LOWER, "gfn1": UPPER}, "promotion": price()}
ENERGIES = {"method": {"engine": "external", "name": "by hand", "forces": False}}
DISTIL = {"modes": ["distil"]}
BOTH = {"modes": ["finetune", "delta"]}


def needs(n: int, tier: str = "gfn1") -> tuple[LabelNeed, ...]:
    return tuple(
        LabelNeed(i, tier, f"{i:064d}", "water", WATER["positions"], 0, False) for i in range(n)
    )


def models(*modes: str) -> dict[str, dict[str, str]]:
    return {mode: {seat: f"{mode}{seat}" for seat in SEATS} for mode in modes}


def keys(step: Plan) -> list[str]:
    return [task.key for task in step.tasks]


def kinds(step: Plan) -> list[str]:
    return [task.kind for task in step.tasks]


def end(step: Plan) -> tuple[int, str]:
    assert isinstance(step.action, Finish), step
    return step.action.verdict.exit_code, step.action.verdict.text


# -- the stages of a turn --------------------------------------------------------------------------


def test_the_first_turn_promotes_what_the_tier_below_has_found_without_exploring():
    assert run(upper_turn(), climb()).action == Seal(FIRST_TURN, below=True)

    step = run(upper_turn(generation=BELOW), climb())

    assert kinds(step) == ["promote"]
    spec = step.tasks[0].spec
    assert (spec["level"], spec["lower_level"]) == ("GFN1-xTB", "GFN2-xTB")
    assert (spec["lower"], spec["upper"]) == (LOWER.artifact, None)
    assert spec["committee"] is None, "nobody knows the upper tier yet"
    assert spec["labels"] == 20


def explored(**values) -> CampaignState:
    """The second turn after its exploration; ``labels`` are those that it asked for below."""
    tasks = run(upper_turn(4), climb()).tasks
    assert {task.kind for task in tasks} == {"explore"}
    known = {"shards": (shard(4, committee_id=4),)} | values.pop("generation", {})
    return upper_turn(4, tasks=done(tasks), generation=known, **values)


def selected(**values) -> CampaignState:
    (select,) = run(explored(), climb()).tasks
    given = explored(**values)
    return dataclasses.replace(given, tasks=given.tasks | done([select]))


def test_later_turns_explore_with_their_own_committee_and_label_below_first():
    step = run(upper_turn(4), climb())
    assert {task.spec["committee_id"] for task in step.tasks} == {committee(3).committee_id}

    step = run(explored(), climb())
    assert kinds(step) == ["select"]
    assert step.tasks[0].spec["tiers"] == ["xtb"]

    asked = {"labels": {"xtb": {"pending": 30}}}
    step = run(selected(generation=asked, needs=needs(30, "xtb")), climb())
    assert {task.spec["method"]["model"] for task in step.tasks} == {"GFN2-xTB"}

    answered = {"labels": {"xtb": {"done": 30}}}
    assert run(selected(generation=answered), climb()).action == Seal(4, below=True)

    step = run(selected(generation=answered | BELOW), climb())
    assert kinds(step) == ["promote"]
    spec = step.tasks[0].spec
    assert spec["committee"] == [sha256 for _, sha256 in committee(3).members]
    assert spec["below"] == [sha256 for _, sha256 in committee(2).members]
    assert spec["upper"] == UPPER.artifact


def test_a_third_tier_asks_for_labels_at_all_tiers_below_it():
    two = climb().model_dump(mode="json", by_alias=True)["tiers"]
    top = {"id": "top", "method": {"engine": "external", "name": "by hand"}}
    settings = climb(tiers=[*two, top])
    given = upper_turn(4, generation={"shards": (shard(4, committee_id=4),)})
    given = dataclasses.replace(
        given,
        generation=dataclasses.replace(given.generation, tier="top"),
        explorer=dataclasses.replace(given.explorer, tier="top"),
        tiers={**given.tiers, "top": TierState()},
        tier_of={**given.tier_of, 4: "top"},
    )
    given = dataclasses.replace(given, tasks=done(run(given, settings).tasks))
    step = run(given, settings)
    assert step.tasks[0].spec["tiers"] == ["xtb", "gfn1"]

    for lower, labels in (
        ("GFN2-xTB", {"xtb": {"pending": 9}, "gfn1": {"pending": 9}}),
        ("GFN1-xTB", {"xtb": {"done": 9}, "gfn1": {"pending": 9}}),
    ):
        asked = dataclasses.replace(
            given,
            tasks=given.tasks | done(step.tasks),
            generation=dataclasses.replace(given.generation, labels=labels),
            needs=(*needs(9, "xtb"), *needs(9)),
        )
        told = {task.spec["method"]["model"] for task in run(asked, settings).tasks}
        assert told == {lower}


def labelling(counts: dict[str, int], number: int = FIRST_TURN, **values) -> CampaignState:
    known = BELOW | {"promotion": price(), "labels": {"gfn1": counts}}
    return upper_turn(number, generation=known | values.pop("generation", {}), **values)


def test_promoted_frames_are_labelled_and_sealed_and_dear_labels_go_alone():
    step = run(labelling({"pending": 20}, needs=needs(20)), climb(), slots=4)
    assert kinds(step) == ["label"] * 8
    assert all(len(task.labels) == 1 for task in step.tasks), "nobody knows yet what they cost"
    assert {task.spec["method"]["model"] for task in step.tasks} == {"GFN1-xTB"}

    quick = labelling({"pending": 20}, needs=needs(20), attempts=took(0.1))
    assert {len(task.labels) for task in run(quick, climb()).tasks} == {20}

    settled = labelling({"done": 19, "failed": 1}, requested=20, done=19, failed=1)
    assert run(settled, climb()).action == Seal(FIRST_TURN)


def test_labels_of_another_tier_do_not_travel_with_those_that_are_due():
    step = run(labelling({"pending": 2}, needs=(*needs(2, "xtb"), *needs(2))), climb())

    assert {task.spec["method"]["model"] for task in step.tasks} == {"GFN1-xTB"}
    assert sum(len(task.labels) for task in step.tasks) == 2


def learning(number: int = FIRST_TURN, **values) -> CampaignState:
    return upper_turn(number, generation=SEALED | values.pop("generation", {}), **values)


def test_every_seat_learns_in_every_mode_from_its_own_member_below():
    settings = climb(transfer=BOTH | {"max_steps": 70})
    step = run(learning(), settings)

    assert kinds(step) == ["transfer"] * 6
    assert {task.spec["mode"] for task in step.tasks} == {"finetune", "delta"}
    parents = dict(committee(2).members)
    for task in step.tasks:
        assert task.spec["parent"] == parents[task.spec["member"]]
        assert (task.spec["data"], task.spec["lower"]) == (UPPER.artifact, LOWER.artifact)
        assert task.spec["settings"]["max_steps"] == 70
    assert len({task.spec["seed"] for task in step.tasks}) == 6


def test_parents_are_of_the_tier_below_in_later_turns_too():
    step = run(learning(4), climb())

    assert {t.spec["parent"] for t in step.tasks} == {sha for _, sha in committee(2).members}


def test_modes_are_scored_and_the_best_one_takes_the_seats():
    settings = climb(transfer=BOTH)
    fits = done(run(learning(), settings).tasks)
    known = {"models": models("finetune", "delta")}
    step = run(learning(tasks=fits, generation=known), settings)
    assert kinds(step) == ["score"]
    assert step.tasks[0].spec["modes"] == {
        mode: [known["models"][mode][seat] for seat in SEATS] for mode in ("finetune", "delta")
    }
    assert step.tasks[0].spec["held_out"] == UPPER.held_out

    scored = learning(tasks=fits | done(step.tasks), generation=known | {"best_mode": "delta"})
    action = run(scored, settings).action
    assert action == FormCommittee.of(scored.generation, "delta", SEATS)
    assert action.members == SEATS
    other = FormCommittee.of(scored.generation, "finetune", SEATS)
    assert action.sha256 != other.sha256


def test_scores_stand_when_a_mode_that_had_failed_is_tried_again():
    settings = climb(transfer=BOTH)
    fits = run(learning(), settings).tasks
    again = {task.key: "pending" if task.spec["mode"] == "joint" else "done" for task in fits}
    known = {"models": models("finetune"), "best_mode": "finetune"}

    action = run(learning(tasks=again, generation=known), settings).action

    assert isinstance(action, FormCommittee)
    assert action.mode == "finetune"


def test_a_mode_whose_fit_failed_is_left_out_and_without_any_mode_the_campaign_gives_up():
    settings = climb(transfer=BOTH)
    fits = run(learning(), settings).tasks
    lost = next(task for task in fits if task.spec["mode"] == "delta")
    partly = models("finetune", "delta")
    del partly["delta"][lost.spec["member"]]

    given = learning(tasks=done(fits) | done([lost], "failed"), generation={"models": partly})
    assert list(run(given, settings).tasks[0].spec["modes"]) == ["finetune"]

    code, text = end(run(learning(tasks=done(fits, "failed")), settings))
    assert code == 1
    assert "6 task(s) failed" in text


def test_the_committee_of_a_turn_is_evaluated_on_held_out_labels_of_its_own_tier():
    seated = learning(generation={"committee": committee(3, "gfn1")})
    (task,) = run(seated, climb()).tasks

    assert task.kind == "evaluate"
    assert (task.spec["data"], task.spec["held_out"]) == (UPPER.artifact, UPPER.held_out)


# -- a spec must not change by what comes in meanwhile ---------------------------------------------


def test_planning_twice_gives_the_same_tasks():
    for given in (upper_turn(4), explored(), selected(generation=BELOW), learning()):
        assert keys(run(given, climb())) == keys(run(given, climb())) != []


def test_exploration_does_not_change_when_sets_are_sealed_or_labels_come_in():
    routes = {"routes": [{"id": "f", "start": "frames", "replicas": 4}]}
    settings = climb(explore=routes)
    before = keys(run(upper_turn(4), settings))
    later = upper_turn(4, generation=SEALED | {"labels": {"xtb": {"done": 30}}, "promotion": None})
    later = dataclasses.replace(
        later,
        tiers={**later.tiers, "xtb": TierState(requested=130, done=130, attempts=took(0.5))},
    )
    # Sealed in full, a turn has left exploration behind: ask for the specs themselves.
    again = specs.explore(settings, later, later.explorer, 4, settings.explore.routes)
    assert [task.key for task in again] == before
    assert again[0].spec["snapshot"] == SNAPSHOT.artifact


def test_a_selection_does_not_change_by_what_it_asked_for():
    def with_requested(given: CampaignState, n: int) -> CampaignState:
        return dataclasses.replace(given, tiers={**given.tiers, "xtb": TierState(requested=n)})

    before = run(with_requested(explored(), 470), climb()).tasks
    asked = explored(generation={"labels": {"xtb": {"pending": 30}}})

    assert before[0].spec["budget"] == 30
    assert run(with_requested(asked, 500), climb()).tasks == before


def test_fits_do_not_change_by_labels_of_other_turns():
    before = keys(run(learning(), climb()))
    assert keys(run(learning(requested=40, done=40, attempts=took(3.0)), climb())) == before


# -- budgets ---------------------------------------------------------------------------------------


def test_a_spent_budget_below_ends_selection_not_the_climb():
    tiers = {"xtb": TierState(requested=500, done=500, attempts=took(0.01))}
    given = explored()
    given = dataclasses.replace(given, tiers={**given.tiers, **tiers})

    assert run(given, climb()).action == Seal(4, below=True)


def test_a_round_is_bounded_by_the_labels_and_core_seconds_that_are_left():
    spent = {"requested": 90, "done": 90, "core_seconds": 3000.0}
    upper = {"budget": {"labels": 100, "core_time": "1 h"}}
    given = upper_turn(4, generation=BELOW | {"shards": (shard(4, committee_id=4),)}, **spent)
    spec = tier_specs.promote(climb(upper=upper), given).spec

    assert spec["labels"] == 10
    assert spec["core_seconds"] == pytest.approx(600.0)

    over = dataclasses.replace(
        given, tiers={**given.tiers, "gfn1": TierState(requested=120, core_seconds=9000.0)}
    )
    spec = tier_specs.promote(climb(upper=upper), over).spec
    assert (spec["labels"], spec["core_seconds"]) == (0, 0.0)


def finished_turn(number: int, settings, **values) -> CampaignState:
    """A turn of the upper tier whose committee has been evaluated."""
    seated = SEALED | {"committee": committee(number, "gfn1")} | values.pop("generation", {})
    given = upper_turn(number, generation=seated, **values)
    return dataclasses.replace(given, tasks=done(run(given, settings).tasks))


def climbed(number: int, rmse: float, **values) -> EvaluationState:
    return dataclasses.replace(audit(number, rmse), **values)


@pytest.mark.parametrize(
    ("upper", "values", "words"),
    [
        ({"budget": {"labels": 100}}, {"requested": 97}, "97 of 100 labels"),
        ({"budget": {"core_time": "1 h"}}, {"core_seconds": 3600.0}, "1 of 1 core-hours"),
        ({}, {"number": FIRST_TURN + 4}, "5 of 5 generations"),
        ({}, {"generation": {"promotion": price(0)}}, "no frame is left to promote"),
    ],
)
def test_a_tier_ends_with_its_own_budget(upper, values, words):
    number, settings = values.pop("number", 4), climb(upper=upper)
    given = finished_turn(number, settings, **({"evaluations": (climbed(number, 0.3),)} | values))

    code, text = end(run(given, settings))

    assert code == 3
    assert words in text
    assert "audit force RMSE 0.300" in text


def test_generations_are_counted_for_each_tier_alone():
    settings = climb(stop={"max_generations": 2, "for_generations": 1})
    given = finished_turn(FIRST_TURN, settings, evaluations=(climbed(FIRST_TURN, 0.3),))

    assert run(given, settings).action == OpenGeneration(4, committee(3).committee_id, "gfn1")
    second = finished_turn(4, settings, evaluations=(climbed(4, 0.3),))
    assert end(run(second, settings))[0] == 3


# -- from tier to tier -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"evaluations": (audit(1, 0.05),)}, "converged"),
        ({"evaluations": (audit(1, 0.3),), "requested": 500}, "500 of 500 labels"),
        ({"number": 5, "evaluations": (audit(5, 0.3),)}, "5 of 5 generations"),
        ({"number": 3, "evaluations": (audit(1, 0.3), audit(3, 0.4))}, "stalled"),
    ],
)
def test_a_tier_that_is_over_opens_the_next_one_and_says_why(values, why):
    number = values.get("number", 1)
    given = judged(**({"number": number} | values))
    given = dataclasses.replace(given, tiers={**given.tiers, "gfn1": TierState()})

    action = run(given, climb()).action

    assert isinstance(action, OpenGeneration)
    assert (action.generation, action.tier) == (number + 1, "gfn1")
    assert why in action.why
    assert "tier xtb is over" in action.why


def test_a_turn_that_goes_on_in_its_tier_needs_no_reason():
    assert run(judged(1, evaluations=(audit(1, 0.3),)), climb()).action == OpenGeneration(
        2, committee(1).committee_id, "xtb", ""
    )


def test_wall_time_ends_all_tiers():
    settings = climb(stop={"wall_clock": "1 h", "for_generations": 1})
    given = judged(1, evaluations=(audit(1, 0.3),), seconds=3000.0)

    code, text = end(run(given, settings, elapsed=601.0))

    assert code == 3
    assert "wall time" in text


def test_the_last_tier_ends_the_campaign():
    given = finished_turn(4, climb(), evaluations=(climbed(4, 0.05),))

    assert end(run(given, climb()))[0] == 0


def test_audits_of_the_tier_below_neither_converge_nor_stall_the_upper_one():
    settings = climb(stop={"for_generations": 2, "patience": 2, "max_generations": 9})
    low = (audit(1, 0.02), audit(2, 0.02))
    for rmse in (0.05, 0.3):
        given = finished_turn(FIRST_TURN, settings, evaluations=(*low, climbed(3, rmse)))
        assert isinstance(run(given, settings).action, OpenGeneration)


def test_a_tier_has_a_target_of_its_own():
    lax, strict = ({"target": {"force_rmse": f"{value} eV/A"}} for value in (0.2, 0.02))
    for upper, code in ((lax, 0), (strict, None)):
        settings = climb(upper=upper)
        given = finished_turn(4, settings, evaluations=(climbed(4, 0.1),))
        action = run(given, settings).action
        assert isinstance(action, Finish) == (code == 0)
    lower = judged(1, evaluations=(audit(1, 0.1),))
    assert isinstance(run(lower, climb(upper=lax)).action, OpenGeneration)


@pytest.mark.parametrize(
    ("target", "energy", "good"),
    [
        ({"energy_rmse": "2 meV/atom"}, 0.001, True),
        ({"energy_rmse": "2 meV/atom"}, 0.003, False),
        ({"energy_rmse": "2 meV/atom"}, float("nan"), False),
        ({}, 0.0, False),
    ],
)
def test_energies_alone_converge_by_their_own_target(target, energy, good):
    settings = climb(upper=ENERGIES | {"target": target})
    none = {"force_rmse": None, "force_low": None, "force_high": None, "energy_rmse": energy}
    given = finished_turn(4, settings, evaluations=(climbed(4, 0.3, **none),))

    step = run(given, settings)

    assert isinstance(step.action, Finish) == good
    if good:
        _, text = end(step)
        assert "1.00 meV/atom" in text
        assert "target 2.00 meV/atom" in text


# -- a person is asked -----------------------------------------------------------------------------

ASK = {"escalate": {"per_round": 20, "approve": True}}


def test_a_known_price_pauses_until_somebody_agrees():
    told = price(20, 7200.0, low=3600.0, high=14400.0)
    given = labelling({"pending": 20}, 4, needs=needs(20), generation={"promotion": told})

    code, text = end(run(given, climb(upper=ASK)))
    assert code == 5
    assert "20 labels of tier 'gfn1' will cost about 2 [1, 4] core-hours" in text

    agreed = labelling(
        {"pending": 20}, 4, needs=needs(20), generation={"promotion": told, "approved": True}
    )
    assert set(kinds(run(agreed, climb(upper=ASK)))) == {"label"}


def test_two_labels_are_made_first_when_no_price_is_known():
    given = labelling({"pending": 20}, needs=needs(20))
    step = run(given, climb(upper=ASK), slots=8)
    assert [len(task.labels) for task in step.tasks] == [1, 1]

    one = labelling(
        {"pending": 19, "done": 1}, needs=needs(18), open_label_tasks=1, attempts=took(0.001)
    )
    assert run(one, climb(upper=ASK), slots=8).tasks == (), "the second one is on its way"

    two = (AttemptState(3, None, 100.0, True), AttemptState(3, None, 300.0, True))
    code, text = end(
        run(labelling({"pending": 18, "done": 2}, needs=needs(18), attempts=two), climb(upper=ASK))
    )
    assert code == 5
    assert "18 labels" in text
    assert f"about {18 * 200 / 3600:.3g} core-hours" in text


def test_nobody_is_asked_about_labels_that_are_all_there():
    given = labelling({"done": 20}, requested=20, done=20, attempts=took(1.0) * 2)

    assert run(given, climb(upper=ASK)).action == Seal(FIRST_TURN)


@pytest.mark.parametrize("more", [{}, ASK])
def test_labels_made_elsewhere_pause_the_campaign(more):
    settings = climb(upper=ENERGIES | more)

    code, text = end(run(labelling({"pending": 20}, needs=needs(20)), settings))

    assert code == 5
    assert "20 labels of tier 'gfn1' are made elsewhere" in text
    assert "alloop import" in text
    imported = labelling({"done": 20}, requested=20, done=20)
    assert run(imported, settings).action == Seal(FIRST_TURN)


def test_a_tier_that_can_get_no_label_ends_the_campaign():
    given = upper_turn(generation=BELOW | {"promotion": price(0)})

    code, text = end(run(given, climb()))

    assert code == 4
    assert "no frame could be promoted to tier 'gfn1'" in text
    assert "another campaign.directory" in text
    larger = climb(upper={"budget": {"labels": 9999}})
    assert end(run(given, larger)) == (code, text), "what is promoted stays"


def test_a_turn_without_promotions_learns_from_the_labels_that_are_there():
    given = upper_turn(4, generation=BELOW | {"promotion": price(0)})

    assert run(given, climb()).action == Seal(4)


def test_a_tier_whose_labels_all_fail_stops_with_their_words():
    given = labelling(
        {"failed": 20}, requested=20, failed=20, last_failures=("scf_not_converged: no",)
    )

    code, text = end(run(given, climb()))

    assert code == 4
    assert "tier 'gfn1'" in text
    assert "scf_not_converged: no" in text


# -- modes -----------------------------------------------------------------------------------------


def test_students_are_for_energies_alone_and_wait_for_their_teachers():
    assert {t.spec["mode"] for t in run(learning(), climb(transfer=DISTIL)).tasks} == {"finetune"}
    fitted = done(run(learning(), climb(transfer=DISTIL)).tasks)
    alone = learning(tasks=fitted, generation={"models": models("finetune")})
    assert kinds(run(alone, climb(transfer=DISTIL))) == ["score"], "labels have forces"

    settings = climb(upper=ENERGIES, transfer=DISTIL)
    first = run(learning(), settings).tasks
    assert {task.spec["mode"] for task in first} == {"finetune"}

    partly = {"models": {"finetune": {"ani/0": "a"}}}
    waiting = learning(tasks=done(first[:1]), generation=partly)
    assert {task.spec["mode"] for task in run(waiting, settings).tasks} == {"finetune"}

    taught = learning(tasks=done(first), generation={"models": models("finetune")})
    students = run(taught, settings).tasks
    assert {task.spec["mode"] for task in students} == {"distil"}
    assert all(task.spec["teachers"] == [f"finetune{s}" for s in SEATS] for task in students)

    both = taught.tasks | done(students)
    ready = learning(tasks=both, generation={"models": models("finetune", "distil")})
    assert list(run(ready, settings).tasks[0].spec["modes"]) == ["finetune", "distil"]


# -- the 4D model ----------------------------------------------------------------------------------

FOLLOWS_LOWER = {"spacetime": {"every": "2 generations", "tier": "xtb"}}
FOLLOWS_LAST = {"spacetime": {"every": "2 generations"}}


def fits(step: Plan) -> list[int]:
    return [task.spec["committee_id"] for task in step.tasks if task.kind == "fit_spacetime"]


def test_the_4d_model_follows_one_tier_only():
    lower = dataclasses.replace(
        upper_turn(generation=BELOW), nve_shards=(shard(FIRST_TURN, "nve", 3),)
    )
    assert fits(run(lower, climb(**FOLLOWS_LOWER))) == [committee(2).committee_id]
    assert fits(run(lower, climb(**FOLLOWS_LAST))) == []

    own = dataclasses.replace(shard(5, "nve", 5), tier="gfn1")
    upper = dataclasses.replace(selected(), nve_shards=(own,))
    upper = dataclasses.replace(
        upper_turn(5, generation=BELOW), nve_shards=(own, shard(3, "nve", 3))
    )
    tasks = done(run(upper, climb()).tasks)
    upper = dataclasses.replace(
        upper,
        tasks=tasks,
        generation=dataclasses.replace(upper.generation, shards=(own,)),
    )
    assert fits(run(upper, climb(**FOLLOWS_LOWER))) == []
    step = run(upper, climb(**FOLLOWS_LAST))
    assert fits(step) == [committee(4).committee_id]
    (fit,) = (task for task in step.tasks if task.kind == "fit_spacetime")
    assert [s["sha256"] for s in fit.spec["shards"]] == [own.sha256], "one potential, one motion"


def test_a_tier_that_the_4d_model_follows_has_its_last_fit_before_the_next_one_begins():
    settings = climb(**FOLLOWS_LOWER)
    given = judged(1, evaluations=(audit(1, 0.05),))
    given = dataclasses.replace(given, tiers={**given.tiers, "gfn1": TierState()})

    routes = run(given, settings).tasks
    assert {task.kind for task in routes} == {"explore"}
    assert {task.spec["committee_id"] for task in routes} == {committee(1).committee_id}

    final = shard(1, "nve", committee(1).committee_id)
    ran = dataclasses.replace(given, tasks=given.tasks | done(routes), nve_shards=(final,))
    assert fits(run(ran, settings)) == [committee(1).committee_id]

    fitted = dataclasses.replace(ran, fits={("water", committee(1).committee_id, 0): "done"})
    assert isinstance(run(fitted, settings).action, OpenGeneration)
    assert isinstance(run(given, climb(**FOLLOWS_LAST)).action, OpenGeneration)
