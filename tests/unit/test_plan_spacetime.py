"""When 4D models are fitted, probed and refitted: the planner on plain values."""

from __future__ import annotations

import dataclasses

import pytest
from pydantic import ValidationError

from alloop.campaign.actions import Finish, OpenGeneration
from alloop_db.schema import PROBE_ROUTE
from alloop_db.state import CampaignState, ShardState, SpacetimeState
from tests.planner_states import (
    SNAPSHOT,
    audit,
    config,
    done,
    exploring,
    judged,
    run,
    shard,
)

LIMITS = {"limits": {"spread": 0.01}, "quantile": 0.99}
CONVERGED = (audit(1, 0.05),)
FIRST, SECOND = ("water", 2, 0), ("water", 2, 1)


def motion(number: int, turn: int = 0, **values) -> SpacetimeState:
    """Return a 4D model of the committee of a generation."""
    blank = {"promoted": True, "committee": ("a" * 64,), "snapshot": "b" * 64, "thresholds": LIMITS}
    sha256 = f"{number}{turn}" * 32
    return SpacetimeState("water", number + 1, number, sha256, turn, **(blank | values))


def probed(number: int) -> ShardState:
    """Return the shard that a probe of the model of a generation's committee has left."""
    return dataclasses.replace(
        shard(number, "nve", number + 1), route=PROBE_ROUTE, sha256=f"4d{number}".ljust(64, "0")
    )


def middle(**values) -> CampaignState:
    """Generation 3 has explored with the committee of generation 2, to which a fit is due."""
    explored = {"shards": (shard(3, "nve", 3),)}
    given = exploring(3, generation=explored, nve_shards=(shard(3, "nve", 3),), **values)
    routes = run(exploring(3)).tasks
    return dataclasses.replace(given, tasks=done([t for t in routes if t.kind == "explore"]))


def the_end(**values) -> CampaignState:
    """The final committee, of generation 1, has run the trajectories for its 4D model."""
    given = judged(1, evaluations=CONVERGED)
    routes = run(given).tasks
    assert {task.spec["route"] for task in routes} == {"free"}
    blank = {"nve_shards": (shard(1, "nve", 2),)}
    return dataclasses.replace(given, tasks=given.tasks | done(routes), **(blank | values))


def kinds(given: CampaignState, settings=None) -> list[str]:
    return [task.kind for task in run(given, settings).tasks]


def test_a_fit_goes_on_beside_the_stages_of_a_generation():
    selecting = middle()
    labelling = dataclasses.replace(
        selecting,
        tasks=selecting.tasks | done([t for t in run(selecting).tasks if t.kind == "select"]),
        generation=dataclasses.replace(selecting.generation, labels={"xtb": {"pending": 3}}),
    )
    training = dataclasses.replace(
        labelling, generation=dataclasses.replace(labelling.generation, snapshots={"xtb": SNAPSHOT})
    )

    keys = set()
    for stage in (selecting, labelling, training):
        (fit,) = [task for task in run(stage).tasks if task.kind == "fit_spacetime"]
        keys.add(fit.key)
    assert len(keys) == 1
    running = dataclasses.replace(training, fits={("water", 3, 0): "running"})
    assert "fit_spacetime" not in kinds(running)


def test_no_fit_before_all_trajectories_of_its_generation_are_there():
    half = dataclasses.replace(middle(), tasks={})

    assert set(kinds(half)) == {"explore"}


def test_only_every_so_many_generations():
    assert "fit_spacetime" not in kinds(middle(), config(spacetime={"every": "5 generations"}))


def test_a_model_that_comes_into_use_is_probed_even_while_others_explore():
    given = dataclasses.replace(
        middle(), tasks={}, spacetime=(motion(2),), fits={("water", 3, 0): "done"}
    )

    (probe,) = [task for task in run(given).tasks if task.kind == "probe_spacetime"]

    assert probe.spec["model"] == motion(2).sha256
    assert probe.spec["thresholds"] == LIMITS
    assert probe.spec["committee"] == ["a" * 64]
    assert probe.generation == 2
    assert "probe_spacetime" not in kinds(
        dataclasses.replace(given, probes={("water", 3, 0): "failed"})
    )


@pytest.mark.parametrize("values", [{"promoted": False}, {"thresholds": None}])
def test_a_model_that_is_held_back_or_without_limits_is_not_probed(values):
    given = middle(spacetime=(motion(2, **values),), fits={("water", 3, 0): "done"})

    assert "probe_spacetime" not in kinds(given)


def test_probes_can_be_turned_off():
    given = middle(spacetime=(motion(2),), fits={("water", 3, 0): "done"})

    assert "probe_spacetime" in kinds(given)
    assert "probe_spacetime" not in kinds(given, config(spacetime__probe="off"))


@pytest.mark.parametrize(
    "before",
    [{"fits": {("water", 1, 0): "running"}}, {"probes": {("water", 1, 0): "pending"}}],
)
def test_a_fit_waits_for_what_went_before_and_its_generation_waits_for_it(before):
    assert "fit_spacetime" not in kinds(middle(**before))

    blank = {"evaluations": (audit(3, 0.3),), "nve_shards": (shard(3, "nve", 3),)}
    waiting = run(judged(3, **blank, **before))
    assert (waiting.tasks, waiting.action) == ((), None)
    (fit,) = run(judged(3, **blank)).tasks
    assert fit.kind == "fit_spacetime"
    planned = run(judged(3, **blank, fits={("water", 3, 0): "running"}))
    assert isinstance(planned.action, OpenGeneration)


def test_another_system_need_not_wait():
    two = config(systems={"water": {"structure": "w.xyz"}, "other": {"structure": "o.xyz"}})
    systems = exploring().systems
    both = {"water": systems["water"], "other": dataclasses.replace(
        systems["water"], record=systems["water"].record | {"name": "other"})}  # fmt: skip
    shards = (shard(3, "nve", 3), dataclasses.replace(shard(3, "nve", 3), system="other"))
    given = judged(3, evaluations=(audit(3, 0.3),), nve_shards=shards, systems=both)

    tasks = run(dataclasses.replace(given, fits={("water", 1, 0): "running"}), two).tasks

    assert [task.spec["system"]["name"] for task in tasks] == ["other"]


def test_a_fit_starts_from_the_model_in_use_not_from_one_that_was_held_back():
    models = (motion(0), motion(1, promoted=False))
    (fit,) = run(the_end(spacetime=models)).tasks

    assert fit.spec["parent"] == models[0].sha256


def test_the_end_goes_from_fit_to_probe_to_refit_to_probe():
    (fit,) = run(the_end()).tasks
    assert (fit.kind, fit.spec["turn"], fit.spec["parent"]) == ("fit_spacetime", 0, None)

    fitted = the_end(spacetime=(motion(1),), fits={FIRST: "done"})
    assert run(fitted).stage == "4D probe"
    (probe,) = run(fitted).tasks
    assert probe.kind == "probe_spacetime"
    waiting = run(dataclasses.replace(fitted, probes={FIRST: "running"}))
    assert (waiting.tasks, waiting.action) == ((), None)

    found = dataclasses.replace(
        fitted,
        probes={FIRST: "done"},
        begun={FIRST: 4},
        nve_shards=(*fitted.nve_shards, probed(1)),
    )
    (refit,) = run(found).tasks
    assert (refit.spec["turn"], refit.spec["parent"]) == (1, motion(1).sha256)
    assert probed(1).sha256 in [one["sha256"] for one in refit.spec["shards"]]
    assert refit.spec["seed"] != fit.spec["seed"]

    refitted = dataclasses.replace(
        found, spacetime=(motion(1), motion(1, turn=1)), fits={FIRST: "done", SECOND: "done"}
    )
    (again,) = run(refitted).tasks
    assert again.spec["model"] == motion(1, turn=1).sha256
    assert {r["seed"] for r in again.spec["replicas"]}.isdisjoint(
        r["seed"] for r in probe.spec["replicas"]
    )
    over = dataclasses.replace(
        refitted, probes={FIRST: "done", SECOND: "done"}, begun={FIRST: 4, SECOND: 2}
    )
    assert isinstance(run(over).action, Finish)
    more = config(spacetime={"every": "2 generations", "probe": {"rounds": 2}})
    assert run(over, more).tasks[0].spec["turn"] == 2


@pytest.mark.parametrize(
    "values",
    [
        {"spacetime": (motion(1),), "probes": {FIRST: "done"}},  # nothing was flagged
        {"spacetime": (motion(1),), "probes": {FIRST: "failed"}},
        {"spacetime": (motion(0), motion(1, promoted=False))},
        {"spacetime": ()},  # the fit failed
    ],
)
def test_without_a_find_the_end_is_reached_at_once(values):
    step = run(the_end(fits={FIRST: "done"}, **values))

    assert isinstance(step.action, Finish)


def test_the_end_waits_for_a_probe_of_an_earlier_model():
    given = the_end(spacetime=(motion(0),), fits={("water", 1, 0): "done"})

    assert kinds(given) == ["probe_spacetime"]
    assert kinds(dataclasses.replace(given, probes={("water", 1, 0): "done"})) == ["fit_spacetime"]


def test_no_route_of_a_config_can_be_taken_for_a_probe():
    with pytest.raises(ValidationError, match=r"explore\.routes"):
        config(explore={"routes": [{"id": PROBE_ROUTE, "ensemble": "nve"}]})
