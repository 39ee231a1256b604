"""Whether frames with a larger spread are indeed those with the larger error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import spearmanr

if TYPE_CHECKING:
    from numpy.typing import NDArray


def rank_correlation(spreads: NDArray[np.float64], errors: NDArray[np.float64]) -> float | None:
    """Return Spearman's coefficient of spreads and errors, both (n_frames,).

    None where it is not defined: fewer than three frames, numbers that are none, or all alike.
    """
    if len(spreads) < 3 or not (np.isfinite(spreads).all() and np.isfinite(errors).all()):
        return None
    if np.ptp(spreads) == 0 or np.ptp(errors) == 0:
        return None
    return float(spearmanr(spreads, errors).statistic)
