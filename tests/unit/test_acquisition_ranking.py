"""Spearman's coefficient, and None wherever it would be made up."""

from __future__ import annotations

import numpy as np
import pytest

from alloop.acquisition.ranking import rank_correlation


def test_it_looks_at_the_order_alone():
    spreads = np.array([1.0, 2.0, 3.0, 4.0])

    assert rank_correlation(spreads, spreads**3) == pytest.approx(1.0)
    assert rank_correlation(spreads, -np.exp(spreads)) == pytest.approx(-1.0)


@pytest.mark.parametrize(
    ("spreads", "errors"),
    [
        ([1.0, 2.0], [1.0, 2.0]),
        ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]),
        ([1.0, np.inf, 2.0], [1.0, 2.0, 3.0]),
        ([1.0, 2.0, 3.0], [1.0, np.nan, 3.0]),
    ],
)
def test_it_is_none_where_it_says_nothing(spreads, errors):
    assert rank_correlation(np.array(spreads), np.array(errors)) is None
