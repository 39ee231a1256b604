"""The planner: a pure function of the state, so every stage of a campaign is a value here."""

from __future__ import annotations

import dataclasses

import pytest

from alloop.campaign.actions import Finish, FormCommittee, OpenGeneration, Seal
from alloop_db.state import CampaignState, LabelNeed
from tests.planner_states import (
    SNAPSHOT,
    WATER,
    audit,
    committee,
    config,
    done,
    exploring,
    generation,
    judged,
    run,
    shard,
    state,
    took,
)


def test_a_new_campaign_prepares_its_systems_first():
    step = run(state())

    assert [task.kind for task in step.tasks] == ["prepare"]
    assert step.tasks[0].spec["splits"].count("audit") == 0, "the initial set is not MD's"


def test_planning_twice_gives_the_same_tasks():
    assert [t.key for t in run(exploring()).tasks] == [t.key for t in run(exploring()).tasks]


def test_the_number_of_workers_does_not_change_what_is_explored():
    assert run(exploring(), slots=1).tasks == run(exploring(), slots=64).tasks


def test_replicas_are_cut_into_the_batches_of_the_config_each_with_its_own_seed():
    tasks = run(exploring()).tasks

    assert [len(task.spec["replicas"]) for task in tasks] == [4, 2, 4]
    seeds = [replica["seed"] for task in tasks for replica in task.spec["replicas"]]
    assert len(set(seeds)) == 10
    warm = [r["temperature"] for task in tasks[:2] for r in task.spec["replicas"]]
    assert warm == [300.0, 600.0] * 3


def test_every_generation_has_seeds_of_its_own():
    first, second = (
        {r["seed"] for task in run(exploring(n)).tasks for r in task.spec["replicas"]}
        for n in (1, 2)
    )

    assert not first & second


def test_selection_waits_for_the_last_trajectory():
    tasks = run(exploring()).tasks
    half = exploring(tasks=done(tasks[:-1]), generation={"shards": (shard(1),)})

    assert {task.key for task in run(half).tasks} == {tasks[-1].key}

    whole = exploring(tasks=done(tasks), generation={"shards": (shard(1),)})
    assert [task.kind for task in run(whole).tasks] == ["select"]


def test_one_failed_batch_of_trajectories_does_not_stop_the_rest():
    tasks = run(exploring()).tasks
    statuses = done(tasks) | {tasks[0].key: "failed"}

    step = run(exploring(tasks=statuses, generation={"shards": (shard(1),)}))

    assert [task.kind for task in step.tasks] == ["select"]


def test_no_trajectory_at_all_is_an_error_not_a_loop():
    tasks = run(exploring()).tasks

    step = run(exploring(tasks=done(tasks, "failed")))

    assert isinstance(step.action, Finish)
    assert step.action.verdict.exit_code == 1


def test_what_a_selection_asks_for_does_not_change_the_selection_itself():
    tasks = run(exploring()).tasks
    shards = {"shards": (shard(1),)}
    before = run(exploring(tasks=done(tasks), generation=shards, requested=470)).tasks[0]
    after = exploring(
        tasks=done(tasks),
        generation=shards | {"labels": {"pending": 30}},
        requested=500,
    )

    assert run(after).tasks[0].key == before.key


def test_the_label_budget_bounds_a_selection():
    tasks = run(exploring()).tasks
    step = run(exploring(tasks=done(tasks), generation={"shards": (shard(1),)}, requested=470))

    assert step.tasks[0].spec["budget"] == 30


def needs(n: int) -> tuple[LabelNeed, ...]:
    return tuple(
        LabelNeed(i, "xtb", f"{i:064d}", "water", WATER["positions"], 0, False) for i in range(n)
    )


def labelling(**values) -> CampaignState:
    prepared = run(state()).tasks
    values.setdefault("generation", generation(0, labels={"pending": 60}))
    return state(tasks=done(prepared), requested=60, **values)


def test_cheap_labels_travel_in_chunks_and_dear_ones_alone():
    cheap = run(labelling(needs=needs(60), attempts=took(0.1))).tasks
    dear = run(labelling(needs=needs(60), attempts=took(600.0))).tasks

    assert {len(task.labels) for task in cheap} == {20}
    assert {len(task.labels) for task in dear} == {1}


def test_many_workers_get_longer_tasks_of_labels_and_at_first_one_label_each():
    long = run(labelling(needs=needs(60), attempts=took(0.5)), slots=1000).tasks
    first = run(labelling(needs=needs(60), attempts=()), slots=1000).tasks

    assert {len(task.labels) for task in long} == {40, 20}
    assert {len(task.labels) for task in first} == {1}


def test_labels_whose_shared_task_failed_travel_alone():
    suspects = tuple(dataclasses.replace(need, alone=True) for need in needs(3))
    step = run(labelling(needs=(*needs(60)[3:], *suspects), attempts=took(0.1)), slots=9)

    assert [len(task.labels) for task in step.tasks] == [20, 20, 17, 1, 1, 1]


def test_label_tasks_in_flight_are_bounded():
    step = run(labelling(needs=needs(60), attempts=took(1.0), open_label_tasks=3), slots=2)

    assert len(step.tasks) == 1


def test_a_tier_that_only_fails_is_stopped_with_its_own_words():
    given = labelling(
        needs=needs(3), consecutive_failures=20, last_failures=("scf_not_converged: SCF not ...",)
    )

    verdict = run(given).action.verdict

    assert verdict.exit_code == 4
    assert "SCF not ..." in verdict.text


def test_a_generation_is_sealed_when_its_last_label_is_settled():
    waiting = labelling(generation=generation(0, labels={"done": 58, "pending": 2}), done=58)
    settled = labelling(generation=generation(0, labels={"done": 58, "failed": 2}), done=58)

    assert run(waiting).action is None
    assert run(settled).action == Seal(0)


def test_close_at_lets_stragglers_join_the_next_generation():
    tiers = [{"id": "xtb", "method": {"engine": "tblite"}, "close_at": 0.9}]
    nearly = labelling(generation=generation(0, labels={"done": 54, "pending": 6}), done=54)

    assert run(nearly, config(tiers=tiers)).action == Seal(0)


def test_every_member_is_trained_and_the_committee_waits_for_the_last():
    given = state(generation=generation(0, snapshot=SNAPSHOT))
    tasks = run(given).tasks
    assert [task.spec["member"] for task in tasks] == ["ani/0", "ani/1", "ani/2"]
    assert len({task.spec["seed"] for task in tasks}) == 3

    models = {task.spec["member"]: "c" * 64 for task in tasks}
    half = state(
        generation=generation(0, snapshot=SNAPSHOT, models={"plain": models}), tasks=done(tasks[:2])
    )
    assert [task.spec["member"] for task in run(half).tasks] == ["ani/2"]

    whole = state(
        generation=generation(0, snapshot=SNAPSHOT, models={"plain": models}), tasks=done(tasks)
    )
    action = run(whole).action
    assert isinstance(action, FormCommittee)
    assert action.members == ("ani/0", "ani/1", "ani/2")


def test_members_start_from_the_last_generation_only_if_asked():
    given = exploring(generation={"snapshot": SNAPSHOT})

    warm = run(given, config(train={"warm_start": True})).tasks
    cold = run(given, config(train={"warm_start": False})).tasks

    assert [t.spec["parent"] for t in warm[:3]] == [sha for _, sha in committee(0).members]
    assert [t.spec["parent"] for t in cold[:3]] == [None] * 3


def test_an_error_above_the_target_opens_the_next_generation():
    step = run(judged(1, evaluations=(audit(1, 0.3),)))

    assert step.action == OpenGeneration(2, committee(1).committee_id, "xtb")


def test_the_end_waits_for_trajectories_and_fit_of_the_final_committee():
    given = judged(1, evaluations=(audit(1, 0.05),))
    routes = run(given).tasks
    assert {task.spec["route"] for task in routes} == {"free"}
    assert {task.spec["committee_id"] for task in routes} == {committee(1).committee_id}

    final = shard(1, "nve", committee(1).committee_id)
    explored = dataclasses.replace(
        given, tasks=given.tasks | done(routes), nve_shards=(shard(1, "nve"), final)
    )
    (fit,) = run(explored).tasks
    assert fit.kind == "fit_spacetime"
    assert [s["sha256"] for s in fit.spec["shards"]] == [final.sha256]

    running = dataclasses.replace(explored, fits={("water", 2, 0): "running"})
    assert run(running).tasks == ()
    assert run(running).action is None

    fitted = dataclasses.replace(explored, fits={("water", 2, 0): "done"})
    verdict = run(fitted).action.verdict
    assert (verdict.state, verdict.exit_code) == ("converged", 0)


def test_trajectories_of_the_final_committee_begin_elsewhere_than_those_that_it_learnt_from():
    seeds = [
        {r["seed"] for t in run(given).tasks if t.kind == "explore" for r in t.spec["replicas"]}
        for given in (exploring(1), judged(1, evaluations=(audit(1, 0.05),)), exploring(2))
    ]

    assert all(seeds)
    assert len(set.union(*seeds)) == sum(map(len, seeds))


def test_without_a_4d_section_a_converged_campaign_just_ends():
    step = run(judged(1, evaluations=(audit(1, 0.05),)), config(spacetime=None))

    assert step.action.verdict.state == "converged"


def test_a_4d_model_also_learns_from_an_older_committee_that_was_nearly_as_good():
    old, final = shard(1, "nve"), shard(2, "nve", committee(2).committee_id)
    for error, taught in ((0.07, [old.sha256, final.sha256]), (0.5, [final.sha256])):
        given = judged(2, evaluations=(audit(0, error), audit(2, 0.05)))
        routes = run(given).tasks
        given = dataclasses.replace(
            given, tasks=given.tasks | done(routes), nve_shards=(old, final)
        )
        (fit,) = run(given).tasks
        assert [s["sha256"] for s in fit.spec["shards"]] == taught


@pytest.mark.parametrize("high", [None, float("nan"), float("inf")])
def test_an_interval_without_an_upper_end_never_converges(high):
    unsure = dataclasses.replace(audit(1, 0.01), force_high=high)

    assert isinstance(run(judged(1, evaluations=(unsure,))).action, OpenGeneration)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"number": 5}, "5 of 5 generations"),
        ({"number": 2, "requested": 500}, "500 of 500 labels"),
    ],
)
def test_a_spent_budget_ends_the_campaign(values, words):
    given = judged(**({"evaluations": (audit(values["number"], 0.3),)} | values))

    verdict = run(given, config(spacetime=None)).action.verdict

    assert verdict.exit_code == 3
    assert words in verdict.text


def test_wall_time_counts_over_all_drivers():
    settings = config(spacetime=None, stop__wall_clock="1 h")
    given = judged(1, evaluations=(audit(1, 0.3),), seconds=3000.0)

    assert isinstance(run(given, settings, elapsed=500.0).action, OpenGeneration)
    assert run(given, settings, elapsed=700.0).action.verdict.exit_code == 3


def test_no_better_error_for_some_generations_is_a_stall():
    errors = (audit(1, 0.3), audit(2, 0.31), audit(3, 0.32))

    verdict = run(judged(3, evaluations=errors), config(spacetime=None)).action.verdict
    assert verdict.exit_code == 4

    better = (*errors[:2], audit(3, 0.29))
    assert isinstance(run(judged(3, evaluations=better)).action, OpenGeneration)


def test_stable_wants_every_trajectory_to_reach_its_end():
    settings = config(spacetime=None, stop__when=["audit_below_target", "stable"])
    good = {"evaluations": (audit(1, 0.05),)}

    broken = run(judged(1, stability={1: (10, 9)}, **good), settings)
    whole = run(judged(1, stability={1: (10, 10)}, **good), settings)

    assert isinstance(broken.action, OpenGeneration)
    assert whole.action.verdict.state == "converged"


def test_a_task_that_failed_for_good_ends_the_campaign_with_advice():
    tasks = run(state()).tasks

    verdict = run(state(tasks=done(tasks, "failed"))).action.verdict

    assert verdict.exit_code == 1
    assert "alloop start" in verdict.text
