"""Same campaign seed and same place, same numbers; another place, other numbers."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from alloop import seeds

PLACES = [
    (),
    ("explore",),
    ("train",),
    ("explore", 3),
    ("explore", 3, "warm"),
    ("explore", "warm", 3),
    ("explore", 3, "warm", 7),
    ("explore", 37, "warm"),
]


@pytest.mark.parametrize("place", PLACES)
def test_a_place_always_gives_the_same_numbers(place):
    first = seeds.generator(1, *place).normal(size=8)

    assert np.array_equal(first, seeds.generator(1, *place).normal(size=8))
    assert seeds.integer(1, *place) == seeds.integer(1, *place)


def test_the_numbers_do_not_change_between_versions():
    """A campaign that is resumed by a newer alloop must go on as it began."""
    assert seeds.integer(20260101, "explore", 3, "warm", 7) == 7238772833430588348
    assert seeds.generator(1, "label").integers(1_000_000) == 653700


def test_places_are_independent():
    integers = {seeds.integer(1, *place) for place in PLACES}
    assert len(integers) == len(PLACES)

    draws = [seeds.generator(1, "explore", n).normal(size=4000) for n in range(6)]
    for one, other in itertools.combinations(draws, 2):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.08  # five standard errors


def test_campaigns_are_independent():
    assert seeds.integer(1, "train") != seeds.integer(2, "train")


def test_an_integer_fits_wherever_a_seed_goes():
    for member in range(50):
        seed = seeds.integer(1, "train", member)
        assert 0 <= seed < 2**63
        assert json.loads(json.dumps(seed)) == seed
        np.random.default_rng(seed)
