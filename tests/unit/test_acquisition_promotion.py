"""Promotion against what can be worked out: a dense Gaussian process, planted surfaces, prices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from alloop.acquisition.kernel import START_LENGTH, likely_scales, normalised, similarity
from alloop.acquisition.promotion import choose, draw_audit
from alloop.acquisition.reduction import Posterior
from alloop.acquisition.tier_pool import TierPool
from alloop.errors import AcquisitionError


def pool(rows, *, system="a", prices=None, spreads=None, known=(), keys=None, **columns):
    n = len(rows)
    flags = np.zeros(n, bool)
    flags[list(known)] = True
    given = {
        "differences": np.full(n, np.nan),
        "candidate": ~flags,
        "representative": np.ones(n, bool),
        **columns,
    }
    return TierPool(
        system=system,
        keys=tuple(keys if keys is not None else (f"{system}{i:05d}" for i in range(n))),
        fingerprints=np.asarray(rows, float),
        spreads=np.ones(n) if spreads is None else spreads,
        prices=np.ones(n) if prices is None else prices,
        known=flags,
        **given,
    )


def keys_of(promotion):
    return [pick.key for pick in promotion.picks]


def dense(rows, spreads, length, noise, labelled):
    """Return the posterior covariance of all rows, by the textbook."""
    prior = spreads[:, None] * similarity(rows, rows, length) * spreads
    cross = prior[:, labelled]
    inner = prior[np.ix_(labelled, labelled)] + noise * np.eye(len(labelled))
    return prior - cross @ np.linalg.solve(inner, cross.T)


@pytest.mark.parametrize("known", [[], [3, 11, 40]])
def test_conditioning_equals_a_dense_gaussian_process(known):
    rng = np.random.default_rng(0)
    rows, spreads = rng.normal(size=(60, 4)), rng.uniform(0.5, 2.0, 60)
    representatives, noise, length = np.arange(0, 60, 2), 0.02, 1.5
    posterior = Posterior(
        rows, spreads, representatives, np.array(known, int), length=length, noise=noise
    )
    picked = [5, 17, 5, 30, 31]  # twice the same one: a repeated noisy label
    for count in range(len(picked) + 1):
        labelled = [*known, *picked[:count]]
        covariance = dense(rows, spreads, length, noise, labelled)
        expected = (covariance[:, representatives] ** 2).sum(axis=1)
        expected /= np.diag(covariance) + noise
        np.testing.assert_allclose(posterior.variance, np.diag(covariance), atol=1e-8)
        np.testing.assert_allclose(posterior.reductions, expected, atol=1e-8)
        assert posterior.error == pytest.approx(np.diag(covariance)[representatives].sum())
        if count < len(picked):
            before, promised = posterior.error, posterior.reductions[picked[count]]
            posterior.condition(picked[count])
            assert before - posterior.error == pytest.approx(promised, abs=1e-9)


def test_first_choice_is_the_best_of_all_by_brute_force():
    rng = np.random.default_rng(1)
    rows, spreads = rng.normal(size=(40, 3)), rng.uniform(0.5, 2.0, 40)
    prices = rng.uniform(1.0, 3.0, 40)
    outcome = choose([pool(rows, spreads=spreads, prices=prices, known=[7])], 3, seed=0)
    scales = outcome.scales["a"]
    noise = scales.noise * (spreads**2).mean()
    labelled = [7]
    for pick in outcome.picks:
        errors = [
            np.trace(dense(normalised(rows), spreads, scales.length, noise, [*labelled, i])) / 40
            for i in range(40)
        ]
        now = np.trace(dense(normalised(rows), spreads, scales.length, noise, labelled)) / 40
        values = (now - np.array(errors)) / prices
        values[labelled] = -np.inf
        best = int(values.argmax())
        assert pick.key == f"a{best:05d}"
        assert pick.value == pytest.approx(values[best])
        assert pick.reduction == pytest.approx(now - errors[best])
        assert pick.fraction == pytest.approx(pick.reduction / outcome.error_before**2)
        labelled.append(best)
    assert outcome.error_after == pytest.approx(np.sqrt(now - outcome.picks[-1].reduction))
    assert outcome.rmse_ratio == pytest.approx(outcome.error_after / outcome.error_before)


def surface(rows):
    return np.sin(2.0 * rows[:, 0]) + 0.5 * np.cos(3.0 * rows[:, 1]) * rows[:, 0]


def interpolation_error(rows, labelled, values):
    """RMSE over all rows of the kernel interpolation through the labelled ones."""
    inner = similarity(rows[labelled], rows[labelled], 0.8) + 1e-6 * np.eye(len(labelled))
    predicted = similarity(rows, rows[labelled], 0.8) @ np.linalg.solve(inner, values[labelled])
    return np.sqrt(((predicted - values) ** 2).mean())


def rounds(rows, values, policy, seed):
    """Return what three rounds of ten labels choose, each knowing the ones before."""
    labelled = []
    for number in range(3):
        known = np.isin(np.arange(len(rows)), labelled)
        differences = np.where(known, values, np.nan)
        one = pool(rows, known=labelled, differences=differences)
        outcome = choose([one], 10, seed=10 * seed + number, policy=policy)
        labelled += [int(key[1:]) for key in keys_of(outcome)]
    return labelled


@pytest.mark.parametrize("seed", range(3))
def test_picks_teach_a_planted_surface_more_than_random_ones(seed):
    rng = np.random.default_rng(seed)
    dense_part, sparse_part = rng.normal(0.0, 0.3, (300, 2)), rng.uniform(-2.0, 2.0, (100, 2))
    rows = np.concatenate([dense_part, sparse_part])
    values = surface(rows)
    chosen = interpolation_error(rows, rounds(rows, values, "value", 0), values)
    drawn = [
        interpolation_error(rows, rounds(rows, values, "random", draw), values) for draw in range(5)
    ]
    assert chosen < 0.5 * np.median(drawn)


def test_a_known_region_is_left_alone():
    rng = np.random.default_rng(2)
    rows = np.concatenate([rng.normal(0.0, 0.3, (100, 2)), rng.normal(6.0, 0.3, (100, 2))])
    first = choose([pool(rows, known=range(10))], 1, seed=0)
    assert first.picks[0].key >= "a00100"
    assert first.picks[0].nearest > 5.0
    assert first.n_known == 10


def test_spread_draws_choices_to_where_the_levels_differ():
    rng = np.random.default_rng(3)
    rows = rng.uniform(-1.0, 1.0, (400, 2))
    spreads = np.where(rows[:, 0] > 0.0, 1.0, 0.1)
    outcome = choose([pool(rows, spreads=spreads)], 20, seed=0)
    sides = [rows[int(key[1:]), 0] > -0.1 for key in keys_of(outcome)]
    assert np.mean(sides) > 0.9
    assert choose([pool(rows)], 20, seed=0).picks != outcome.picks


def test_expensive_frames_are_passed_over_where_cheap_ones_teach_nearly_as_much():
    rng = np.random.default_rng(4)
    rows = rng.uniform(-1.0, 1.0, (300, 2))
    prices = np.where(np.arange(300) % 2, 10.0, 1.0)
    assert all(p.price == 1.0 for p in choose([pool(rows, prices=prices)], 20, seed=0).picks)
    # Where only expensive frames are left to teach, they are bought: the far cluster.
    far = np.concatenate([rows, rng.normal(8.0, 0.2, (100, 2))])
    prices = np.concatenate([np.ones(300), np.full(100, 3.0)])
    picks = choose([pool(far, prices=prices)], 20, seed=0).picks
    assert any(pick.price == 3.0 for pick in picks)


def test_systems_share_the_budget_and_teach_each_other_nothing():
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(80, 3)), rng.normal(size=(50, 6))
    both = [pool(a, system="a"), pool(b, system="b")]
    outcome = choose(both, 30, seed=0)
    for one in both:
        alone = choose([one], 30, seed=0)
        mine = [key for key in keys_of(outcome) if key[0] == one.system]
        assert 5 < len(mine) < 25
        assert mine == keys_of(alone)[: len(mine)]
    values = [pick.value for pick in outcome.picks]
    assert outcome.n_representatives == 130
    assert values == sorted(values, reverse=True)


def test_the_error_of_all_systems_is_the_mean_over_their_frames():
    rows = np.random.default_rng(6).normal(size=(30, 3))
    wide = pool(rows, system="a", spreads=np.full(30, 2.0))
    outcome = choose([wide, pool(rows[:10], system="b")], 1, seed=0)
    assert outcome.error_before == pytest.approx(np.sqrt((30 * 4.0 + 10) / 40))


@pytest.mark.parametrize("policy", ["value", "random"])
def test_the_order_of_frames_and_pools_does_not_matter(policy):
    rng = np.random.default_rng(7)
    one = pool(rng.normal(size=(50, 3)), prices=rng.uniform(1, 2, 50), known=[4, 5])
    other = pool(rng.normal(size=(40, 2)), system="b", spreads=rng.uniform(1, 2, 40))
    shuffled = []
    for p in (other, one):
        order = rng.permutation(len(p))
        columns = {
            name: getattr(p, name)[order]
            for name in (
                *("fingerprints", "spreads", "prices", "differences"),
                *("candidate", "known", "representative"),
            )
        }
        shuffled.append(replace(p, keys=tuple(p.keys[i] for i in order), **columns))
    expected = choose([one, other], 25, seed=3, policy=policy)
    assert choose(shuffled, 25, seed=3, policy=policy).picks == expected.picks
    assert choose([one, other], 25, seed=3, policy=policy) == expected


def test_ties_go_to_the_first_key():
    rows = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])  # alike by symmetry
    assert keys_of(choose([pool(rows, keys="dbca")], 1, seed=0)) == ["a"]
    assert keys_of(choose([pool(rows, keys="abcd")], 1, seed=0)) == ["a"]


@pytest.mark.parametrize("policy", ["value", "random"])
def test_broken_spreads_and_fingerprints_are_never_chosen(policy):
    rng = np.random.default_rng(8)
    rows, spreads = rng.normal(size=(30, 3)), np.ones(30)
    spreads[:5] = [np.nan, np.inf, np.nan, np.inf, -np.inf]
    rows[5] = np.nan
    outcome = choose([pool(rows, spreads=spreads)], 30, seed=0, policy=policy)
    assert sorted(keys_of(outcome)) == [f"a{i:05d}" for i in range(6, 30)]
    assert (outcome.n_broken, outcome.n_candidates) == (6, 24)
    assert outcome.stopped_by == "candidates"
    sound = pool(rows[6:], system="b")
    with_a = choose([pool(rows, spreads=np.full(30, np.nan)), sound], 3, seed=0, policy=policy)
    assert all(pick.system == "b" for pick in with_a.picks)
    assert len(with_a.picks) == 3
    everything = choose([pool(rows, spreads=np.full(30, np.nan))], 3, seed=0, policy=policy)
    assert everything.picks == ()
    assert everything.rmse_ratio == 1.0


def test_spreads_of_nothing_but_zero_count_as_equal():
    rows = np.random.default_rng(9).normal(size=(30, 3))
    zero = choose([pool(rows, spreads=np.zeros(30))], 5, seed=0)
    assert keys_of(zero) == keys_of(choose([pool(rows)], 5, seed=0))


@pytest.mark.parametrize("policy", ["value", "random"])
def test_stops_inside_the_budget(policy):
    rng = np.random.default_rng(10)
    prices = rng.uniform(1.0, 5.0, 60)
    outcome = choose(
        [pool(rng.normal(size=(60, 3)), prices=prices)], 60, seed=0, policy=policy, budget_s=40.0
    )
    left = 40.0 - sum(pick.price for pick in outcome.picks)
    chosen = {pick.key for pick in outcome.picks}
    others = [price for i, price in enumerate(prices) if f"a{i:05d}" not in chosen]
    assert outcome.stopped_by == "budget"
    assert outcome.seconds == pytest.approx(40.0 - left)
    assert 0.0 <= left < min(others)


def test_random_control_is_uniform():
    rows = np.random.default_rng(11).normal(size=(20, 2))
    one = pool(rows, spreads=np.linspace(0.1, 5.0, 20), prices=np.linspace(1.0, 9.0, 20))
    counts = np.zeros(20)
    for seed in range(600):
        for key in keys_of(choose([one], 4, seed=seed, policy="random")):
            counts[int(key[1:])] += 1
    # 600 draws of 4 of 20: mean 120, standard deviation 9.8.
    assert counts.sum() == 2400
    assert np.abs(counts - 120).max() < 4 * 9.8


def test_frames_that_are_known_are_no_candidates_whatever_is_said():
    rows = np.random.default_rng(19).normal(size=(20, 2))
    everything = np.ones(20, bool)
    outcome = choose([pool(rows, known=range(8), candidate=everything)], 20, seed=0)
    assert sorted(keys_of(outcome)) == [f"a{i:05d}" for i in range(8, 20)]
    assert outcome.n_candidates == 12


def test_nearest_counts_the_known_and_the_chosen():
    rows = np.random.default_rng(20).normal(size=(40, 3))
    outcome = choose([pool(rows, known=[1, 2])], 10, seed=0)
    before = [1, 2]
    for pick in outcome.picks:
        row = int(pick.key[1:])
        expected = np.linalg.norm(rows[before] - rows[row], axis=1).min()
        assert pick.nearest == pytest.approx(expected)
        before.append(row)


def test_only_candidates_are_chosen_and_only_representatives_count():
    rng = np.random.default_rng(12)
    rows = np.concatenate([rng.normal(0.0, 1.0, (50, 2)), rng.normal(9.0, 1.0, (50, 2))])
    near = np.arange(100) < 50
    outcome = choose([pool(rows, candidate=np.arange(100) % 2 == 0)], 60, seed=0)
    assert len(outcome.picks) == 50
    assert all(int(key[1:]) % 2 == 0 for key in keys_of(outcome))
    outcome = choose([pool(rows, representative=near)], 5, seed=0)
    assert all(near[int(key[1:])] for key in keys_of(outcome))
    assert outcome.n_representatives == 50


def test_without_representatives_all_frames_are():
    rows = np.random.default_rng(21).normal(size=(30, 2))
    nothing = choose([pool(rows, representative=np.zeros(30, bool))], 5, seed=0)
    assert nothing.picks == choose([pool(rows)], 5, seed=0).picks


def test_frames_that_teach_nothing_are_not_bought():
    rows = np.random.default_rng(22).normal(size=(30, 2))
    aside = pool(rows, system="b", representative=np.zeros(30, bool))
    outcome = choose([pool(rows[:10]), aside], 40, seed=0, budget_s=100.0)
    assert len(outcome.picks) == 10
    assert outcome.stopped_by == "candidates"


def test_representatives_are_thinned(monkeypatch):
    monkeypatch.setattr("alloop.acquisition.promotion.MOST_REPRESENTATIVES", 40)
    rows = np.random.default_rng(13).normal(size=(100, 3))
    outcome = choose([pool(rows), pool(rows, system="b")], 5, seed=0)
    assert outcome.n_representatives == 40
    assert outcome.error_before == pytest.approx(1.0)


def test_numbers_for_the_ledger_are_finite():
    pick = choose([pool(np.random.default_rng(14).normal(size=(9, 2)))], 1, seed=0).picks[0]
    assert pick.nearest == np.inf
    names = {"rank", "spread", "reduction", "fraction", "price", "value"}
    assert set(pick.numbers) == names
    outcome = choose([pool(np.ones((9, 2)))], 1, seed=0)
    assert all(np.isfinite(number) for number in outcome.numbers.values())
    assert outcome.numbers["rmse_ratio"] == outcome.rmse_ratio


def test_likely_scales_find_the_length_of_a_planted_process():
    rng = np.random.default_rng(15)
    rows = normalised(rng.normal(size=(200, 3)))
    for length in (0.5, 2.0):
        covariance = similarity(rows, rows, length) + 1e-3 * np.eye(200)
        values = np.linalg.cholesky(covariance) @ rng.normal(size=200)
        some = np.where(np.arange(200) < 120, 40.0 * values - 7.0, np.nan)
        found = likely_scales(rows, some)
        assert 0.7 * length <= found.length <= 1.5 * length
        assert found.noise == 1e-3
    assert likely_scales(rows, np.full(200, np.nan)).length == START_LENGTH


def test_differences_of_frames_without_labels_are_not_looked_at():
    rng = np.random.default_rng(16)
    rows = rng.normal(size=(60, 2))
    differences = rng.normal(size=60)
    hidden = choose([pool(rows, differences=differences)], 1, seed=0)
    seen = choose([pool(rows, differences=differences, known=range(40))], 1, seed=0)
    assert hidden.scales["a"].length == START_LENGTH
    assert seen.scales["a"] != hidden.scales["a"]


def test_normalised_fingerprints_know_no_unit_and_skip_what_is_constant():
    rng = np.random.default_rng(17)
    rows = rng.normal(size=(80, 3))
    other = np.column_stack([rows * [1.0, 50.0, 0.01] + 4.0, np.ones(80)])
    np.testing.assert_allclose(normalised(rows), normalised(other), atol=1e-9)
    distances = np.linalg.norm(normalised(rows)[:, None] - normalised(rows), axis=2)
    assert np.median(distances[np.triu_indices(80, 1)]) == pytest.approx(1.0)
    assert normalised(np.ones((1, 4))).shape == (1, 0)


def test_draw_audit_is_uniform_nested_and_blind_to_order():
    keys = [f"k{i}" for i in range(12)]
    few, more = draw_audit(keys, 3, seed=1), draw_audit(reversed(keys), 7, seed=1)
    assert more[:3] == few
    assert len(draw_audit(keys, 99, seed=1)) == 12
    drawn = [key for seed in range(600) for key in draw_audit(keys, 3, seed)]
    counts = [drawn.count(key) for key in keys]
    assert max(abs(count - 150) for count in counts) < 4 * 10.6


def test_five_thousand_candidates_take_seconds():
    rng = np.random.default_rng(18)
    outcome = choose([pool(rng.normal(size=(5000, 30)), known=range(50))], 20, seed=0)
    assert len(outcome.picks) == 20
    assert outcome.n_representatives == 2000


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"prices": np.zeros(5)}, "prices"),
        ({"prices": np.full(5, np.nan)}, "prices"),
        ({"spreads": np.ones(4)}, "spreads has shape"),
        ({"keys": "aabcd"}, "twice"),
    ],
)
def test_pools_that_make_no_sense_are_refused(wrong, words):
    with pytest.raises(AcquisitionError, match=words):
        pool(np.ones((5, 2)), **wrong)


def test_calls_that_make_no_sense_are_refused():
    one = pool(np.ones((5, 2)))
    with pytest.raises(AcquisitionError, match="one pool for each"):
        choose([one, one], 1, seed=0)
    with pytest.raises(AcquisitionError, match="one at least"):
        choose([], 1, seed=0)
    with pytest.raises(AcquisitionError, match="1 or more"):
        choose([one], 0, seed=0)
    with pytest.raises(AcquisitionError, match="above 0"):
        choose([one], 1, seed=0, budget_s=float("nan"))
    with pytest.raises(AcquisitionError, match="greedy"):
        choose([one], 1, seed=0, policy="greedy")
