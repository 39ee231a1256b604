"""The policy, rule by rule, on pools of points whose distances are plain."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from alloop.acquisition.bands import Band
from alloop.acquisition.pool import Pool, SelectionSettings
from alloop.acquisition.selection import select, tally
from alloop.errors import AcquisitionError

BAND = Band(0.2, 3.0, "calibrated")
NOTHING = np.empty((0, 5))
LABELLED = ("selected", "audit", "validation")


def pool_of(n_trajectories=12, n_steps=25, seed=0):
    """Trajectories that wander, so that neighbours in time are close in shape."""
    rng = np.random.default_rng(seed)
    walk = rng.normal(size=(n_trajectories, n_steps, 5)).cumsum(axis=1) * 0.05
    trajectory = np.repeat(np.arange(n_trajectories) * 7 + 3, n_steps)
    step = np.tile(np.arange(n_steps) * 10, n_trajectories)
    n = len(step)
    splits = {
        t: ("audit", "train", "train", "validation")[i % 4]
        for i, t in enumerate(sorted(set(trajectory.tolist())))
    }
    return Pool(
        trajectory=trajectory,
        step=step,
        time=step * 0.5,
        spread=np.exp(0.9 * rng.normal(size=n)) * 0.3,
        fingerprint=walk.reshape(n, 5),
        healthy=rng.uniform(size=n) > 0.05,
        splits=splits,
    )


def rearranged(pool, order):
    columns = ("trajectory", "step", "time", "spread", "fingerprint", "healthy")
    return replace(pool, **{name: getattr(pool, name)[order] for name in columns})


def of(decisions, *actions):
    return [d.index for d in decisions if d.action in actions]


@pytest.fixture
def pool():
    return pool_of()


@pytest.fixture
def known():
    return np.random.default_rng(9).normal(size=(30, 5)) * 0.3


SETTINGS = SelectionSettings(budget=30, seed=4, gap=12.0, tolerance=0.05)


@pytest.mark.parametrize("policy", ["uncertainty", "random"])
@pytest.mark.parametrize("seed", range(4))
def test_every_frame_gets_exactly_one_decision(known, policy, seed):
    pool = pool_of(seed=seed)
    decisions = select(pool, known, BAND, replace(SETTINGS, policy=policy))
    assert [d.index for d in decisions] == list(range(len(pool)))
    assert sum(tally(decisions).values()) == len(pool)
    assert len(of(decisions, *LABELLED)) <= 30


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_no_two_selected_are_alike_or_known(known, seed, weighted):
    pool = pool_of(seed=seed)
    chosen = of(select(pool, known, BAND, replace(SETTINGS, weighted=weighted)), "selected")
    assert len(chosen) > 10
    shapes = np.concatenate([known, pool.fingerprint[chosen]])
    apart = np.linalg.norm(shapes[:, None] - pool.fingerprint[chosen], axis=2)
    apart[len(known) + np.arange(len(chosen)), np.arange(len(chosen))] = np.inf
    assert apart.min() > 0.05


@pytest.mark.parametrize("policy", ["uncertainty", "random"])
def test_the_order_of_the_pool_does_not_matter(pool, known, policy):
    settings = replace(SETTINGS, policy=policy)
    decisions = select(pool, known, BAND, settings)
    order = np.random.default_rng(8).permutation(len(pool))
    other = select(rearranged(pool, order), known, BAND, settings)
    names = ("action", "rule", "numbers")
    for decision in other:
        same = decisions[order[decision.index]]
        for name in names:
            mine, theirs = getattr(same, name), getattr(decision, name)
            if name == "numbers":
                places = order.tolist()
                theirs = {
                    k: places[int(v)] if k == "neighbour" and same.rule != "near_training" else v
                    for k, v in theirs.items()
                }
            assert mine == theirs


def test_same_seed_same_choice_other_seed_other_draws(pool, known):
    first, again = (select(pool, known, BAND, SETTINGS) for _ in range(2))
    assert first == again
    other = select(pool, known, BAND, replace(SETTINGS, seed=5))
    assert of(first, "audit") != of(other, "audit")
    assert of(first, "selected") == of(other, "selected")


def test_splits_are_never_mixed(pool, known):
    for policy in ("uncertainty", "random"):
        decisions = select(pool, known, BAND, replace(SETTINGS, policy=policy))
        splits = {"selected": "train", "audit": "audit", "validation": "validation"}
        for decision in decisions:
            if decision.action in splits:
                split = pool.splits[int(pool.trajectory[decision.index])]
                assert split == splits[decision.action]
        assert len(of(decisions, "audit")) == len(of(decisions, "validation")) == 3


def test_audit_and_validation_draw_independently(pool):
    pool = replace(pool, healthy=np.ones(len(pool), dtype=bool))
    places = []
    for action in ("audit", "validation"):
        frames = [i for i in range(300) if pool.splits[int(pool.trajectory[i])] == action]
        decisions = select(pool, NOTHING, BAND, SETTINGS)
        places.append({frames.index(i) for i in of(decisions, action)})
    assert places[0] != places[1]


def test_audit_frames_are_drawn_uniformly_whatever_their_spread(known):
    pool = pool_of()
    audited = np.isin(pool.trajectory, [t for t, s in pool.splits.items() if s == "audit"])
    eligible = np.flatnonzero(audited & pool.healthy)
    spread = pool.spread.copy()
    spread[eligible[::3]], spread[eligible[1::3]] = 1e-6, 1e6
    pool = replace(pool, spread=spread)
    counts = np.zeros(len(pool))
    for seed in range(150):
        drawn = of(select(pool, NOTHING, BAND, replace(SETTINGS, seed=seed)), "audit")
        assert len(set(drawn)) == 3
        counts[drawn] += 1
    assert counts[~(audited & pool.healthy)].sum() == 0
    expected = 450 / 3
    for third in (eligible[::3], eligible[1::3], eligible[2::3]):
        # binomial with standard deviation 10
        assert abs(counts[third].sum() - expected * len(third) * 3 / len(eligible)) < 45


@pytest.mark.parametrize("unknown", [np.nan, np.inf])
@pytest.mark.parametrize("policy", ["uncertainty", "random"])
def test_unknown_numbers_are_broken_in_every_split(pool, known, unknown, policy):
    victims = np.arange(0, len(pool), 5)
    for name, rule in (("spread", "spread_not_finite"), ("fingerprint", "fingerprint_not_finite")):
        column = getattr(pool, name).copy()
        column[victims] = unknown
        settings = replace(SETTINGS, policy=policy, budget=len(pool))
        for decision in select(replace(pool, **{name: column}), known, BAND, settings):
            if decision.index % 5 == 0:
                assert decision.action == "broken"
                assert decision.rule in (rule, "unhealthy")


def test_unknown_known_frames_hide_nothing(pool, known):
    spoiled = np.concatenate([np.full((2, 5), np.nan), known, np.full((1, 5), np.inf)])
    clean, other = select(pool, known, BAND, SETTINGS), select(pool, spoiled, BAND, SETTINGS)
    assert of(clean, "selected") == of(other, "selected")


def test_unhealthy_frames_are_never_labelled(pool, known):
    for policy in ("uncertainty", "random"):
        settings = replace(SETTINGS, budget=len(pool), policy=policy)
        labelled = of(select(pool, known, BAND, settings), *LABELLED)
        assert pool.healthy[labelled].all()
    sick = replace(pool, healthy=np.zeros(len(pool), dtype=bool))
    assert tally(select(sick, known, BAND, SETTINGS)) == {("broken", "unhealthy"): len(pool)}


def test_only_the_band_is_selected(pool, known):
    decisions = select(pool, known, BAND, replace(SETTINGS, budget=len(pool), gap=0.0))
    for decision in decisions:
        spread = pool.spread[decision.index]
        if decision.action in ("selected", "duplicate"):
            assert 0.2 < spread <= 3.0
        if decision.action == "accurate":
            assert spread <= 0.2
        if decision.rule == "above_upper":
            assert spread > 3.0
    train = [d.action for d in decisions if pool.splits[int(pool.trajectory[d.index])] == "train"]
    assert set(train) == {"selected", "duplicate", "accurate", "broken"}


def test_a_certain_committee_buys_fewer_labels(pool, known):
    certain = replace(pool, spread=pool.spread * 1e-3)
    decisions = select(certain, known, BAND, SETTINGS)
    assert of(decisions, "selected") == []
    assert len(of(decisions, "audit", "validation")) == 6


def test_thinning_keeps_the_most_uncertain_of_each_stretch(pool, known):
    decisions = select(pool, NOTHING, BAND, replace(SETTINGS, tolerance=0.0, budget=len(pool)))
    chosen = of(decisions, "selected")
    for a in chosen:
        for b in chosen:
            if a < b and pool.trajectory[a] == pool.trajectory[b]:
                assert abs(pool.time[a] - pool.time[b]) >= 12.0
    thinned = [d for d in decisions if d.rule == "thinned"]
    assert len(thinned) > 20
    for decision in thinned:
        keeper = int(decision.numbers["neighbour"])
        assert keeper in chosen
        assert pool.trajectory[keeper] == pool.trajectory[decision.index]
        assert pool.spread[keeper] >= pool.spread[decision.index]
        assert abs(pool.time[keeper] - pool.time[decision.index]) < 12.0


def test_frames_a_gap_apart_are_both_kept():
    """Times come from multiplying steps, so that 0.3 may be a little less."""
    pool = Pool(
        trajectory=np.zeros(3, int),
        step=np.array([3, 6, 9]),
        time=np.array([3, 6, 9]) * 0.1,
        spread=np.array([0.5, 0.6, 0.5]),
        fingerprint=np.eye(3),
        healthy=np.ones(3, bool),
        splits={0: "train"},
    )
    settings = replace(SETTINGS, gap=0.3)
    assert len(of(select(pool, np.empty((0, 3)), BAND, settings), "selected")) == 3


def test_duplicates_name_what_they_repeat(pool, known):
    shapes = pool.fingerprint.copy()
    known = np.concatenate([known, shapes[30:31] + 2e-4])
    shapes[60] = shapes[61]
    spread = np.full(len(pool), 0.5)
    pool = replace(pool, fingerprint=shapes, spread=spread, healthy=np.ones(len(pool), bool))
    settings = replace(SETTINGS, tolerance=1e-3, gap=0.0, budget=len(pool) * 2)
    decisions = select(pool, known, BAND, settings)
    assert decisions[30].rule == "near_training"
    assert decisions[30].numbers["neighbour"] == 30
    pair = [decisions[60], decisions[61]]
    assert [d.rule for d in pair] == ["maxmin:calibrated", "near_selected"]
    assert pair[1].numbers["neighbour"] == 60


def test_the_cap_bounds_each_trajectory(pool, known):
    decisions = select(pool, known, BAND, replace(SETTINGS, budget=200, trajectory_cap=2))
    trajectories = pool.trajectory[of(decisions, "selected")]
    assert np.bincount(trajectories).max() == 2
    assert tally(decisions)["rejected", "trajectory_cap"] > 0
    assert tally(decisions)["rejected", "over_budget"] == 0


def test_the_budget_takes_the_farthest_first(pool, known):
    few = select(pool, known, BAND, SETTINGS)
    many = select(pool, known, BAND, replace(SETTINGS, budget=60))
    assert tally(few)["rejected", "over_budget"] > 0

    def ranked(decisions):
        chosen = [d for d in decisions if d.action == "selected"]
        return sorted(chosen, key=lambda d: d.numbers["rank"])

    assert [d.index for d in ranked(many)[:24]] == [d.index for d in ranked(few)]
    chosen = pool.fingerprint[[d.index for d in ranked(many)]]
    for rank, decision in enumerate(ranked(many)):
        before = np.concatenate([known, chosen[:rank]])
        gap = np.linalg.norm(before - chosen[rank], axis=1).min()
        assert decision.numbers["distance"] == pytest.approx(gap)


def test_weighting_by_the_spread_prefers_uncertain_frames(pool, known):
    plain, weighted = (
        of(select(pool, known, BAND, replace(SETTINGS, weighted=w)), "selected")
        for w in (False, True)
    )
    assert pool.spread[weighted].mean() > pool.spread[plain].mean() + 0.1


def test_without_anything_known_the_most_uncertain_is_first(pool):
    decisions = select(pool, NOTHING, BAND, SETTINGS)
    first = next(d for d in decisions if d.action == "selected" and d.numbers["rank"] == 0)
    train = np.isin(pool.trajectory, [t for t, s in pool.splits.items() if s == "train"])
    wanted = train & pool.healthy & BAND.is_candidate(pool.spread)
    assert pool.spread[first.index] == pool.spread[wanted].max()


def test_the_rule_says_where_the_threshold_came_from(pool, known):
    decisions = select(pool, known, Band(0.2, 3.0, "pool_quantile"), SETTINGS)
    assert {d.rule for d in decisions if d.action == "selected"} == {"maxmin:pool_quantile"}
    assert {d.rule for d in decisions if d.action == "accurate"} == {
        "below_threshold:pool_quantile"
    }


def test_the_random_control_ignores_spread_and_shape(pool, known):
    settings = replace(SETTINGS, policy="random")
    decisions = select(pool, known, BAND, settings)
    chosen = of(decisions, "selected")
    assert len(chosen) == 24
    shaken = replace(
        pool,
        spread=np.where(BAND.is_broken(pool.spread), pool.spread, 0.01),
        fingerprint=np.zeros_like(pool.fingerprint),
    )
    assert of(select(shaken, known, BAND, settings), "selected") == chosen
    assert tally(decisions)["broken", "above_upper"] > 0


def test_all_numbers_can_be_stored_as_json(pool, known):
    spread = pool.spread.copy()
    spread[::7] = np.nan
    broken = replace(pool, spread=spread)
    for labelled in (known, NOTHING):
        decisions = select(broken, labelled, Band(0.2, np.inf), SETTINGS)
        text = json.dumps([d.numbers for d in decisions], allow_nan=False)
        assert json.loads(text) == [d.numbers for d in decisions]


def test_an_empty_pool_decides_nothing(known):
    empty = np.empty(0)
    pool = Pool(empty, empty, empty, empty, np.empty((0, 5)), empty, {})
    assert select(pool, known, BAND, SETTINGS) == []


def test_quotas_are_rounded_up_once():
    settings = SelectionSettings(budget=100, seed=0, audit_fraction=0.07, validation_fraction=0.141)
    assert (settings.n_audit, settings.n_validation, settings.n_train) == (7, 15, 78)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": 2}, "leaves none to train on"),
        ({"budget": 0}, "leaves none to train on"),
        ({"audit_fraction": float("nan")}, "audit_fraction"),
        ({"gap": -1.0}, "gap"),
        ({"tolerance": float("inf")}, "tolerance"),
        ({"trajectory_cap": 0}, "trajectory_cap"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(AcquisitionError, match=message):
        replace(SETTINGS, **change)


def test_malformed_pools_are_refused(pool):
    step = pool.step.copy()
    step[1] = step[0]
    for change, message in (
        ({"step": step}, "same trajectory and step"),
        ({"spread": pool.spread[1:]}, r"spread has shape \(299,\), want \(300,\)"),
        ({"fingerprint": pool.spread}, "fingerprint has shape"),
        ({"splits": {}}, "trajectory 3 has split None"),
        ({"splits": {**pool.splits, 10: "test"}}, "trajectory 10 has split 'test'"),
    ):
        with pytest.raises(AcquisitionError, match=message):
            replace(pool, **change)


def test_a_pool_cannot_be_changed(pool):
    with pytest.raises(ValueError, match="read-only"):
        pool.spread[0] = 0.0
