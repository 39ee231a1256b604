"""The band of spreads worth a label, between what is known and what is broken.

The lower limit is the target error translated by the calibration, or a quantile of the pool while
there is none. The upper limit knows nothing of the target, so that a tighter target can only widen
the band; it stands far above the middle of the pool, so that a poor first committee, uncertain
everywhere, still finds frames to ask for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from alloop.acquisition.calibration import threshold_for_target
from alloop.errors import AcquisitionError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alloop.acquisition.calibration import Calibration

MINIMUM_SAMPLES = 30
"""Blind predictions below which a calibration does not set the threshold."""
MINIMUM_GROUPS = 2
"""Trajectories below which it does not: one cannot show how much another would differ."""
UPPER_FACTOR = 10.0
"""Times the pool's median spread, above which a frame counts as broken."""


@dataclass(frozen=True, slots=True)
class Band:
    """Frames with ``lower < spread <= upper`` are candidates for a label.

    Attributes
    ----------
    lower, upper : limits in the unit of the measure; a lower limit above the upper one raises it.
    rule : where the lower limit comes from: calibrated, pool_quantile, or fixed.

    """

    lower: float
    upper: float
    rule: Literal["calibrated", "pool_quantile", "fixed"] = "fixed"

    def __post_init__(self) -> None:
        if math.isnan(self.lower) or math.isnan(self.upper):
            raise AcquisitionError(f"a band needs two numbers, got {self.lower} to {self.upper}")
        object.__setattr__(self, "upper", max(self.lower, self.upper))

    def is_broken(self, spread: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return where a spread is no number or too large to be of a sound geometry."""
        return ~(np.isfinite(spread) & (spread <= self.upper))

    def is_accurate(self, spread: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return where the committee is certain enough."""
        return np.isfinite(spread) & (spread <= self.lower)

    def is_candidate(self, spread: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return where a label is worth its price."""
        return (spread > self.lower) & ~self.is_broken(spread)


def choose_band(
    spreads: NDArray[np.float64],
    target: float,
    calibration: Calibration | None,
    *,
    top_fraction: float = 0.5,
    upper_floor: float = 0.0,
) -> Band:
    """Return the band for a pool.

    spreads: (n_frames,), the measure in the healthy frames that may be chosen; target: the force
    RMSE to reach, eV/Å; calibration: of the same measure against the force RMSE, or None.
    Without a calibration on enough frames the most uncertain ``top_fraction`` of the pool is taken,
    and the band's rule says so. No spread up to ``upper_floor`` is ever called broken.
    """
    if not 0.0 < top_fraction <= 1.0:
        raise AcquisitionError(f"the top fraction of a pool is 0 to 1, got {top_fraction}")
    finite = spreads[np.isfinite(spreads)]
    upper = upper_floor
    if len(finite):
        upper = max(upper_floor, UPPER_FACTOR * float(np.median(finite)))
    if calibration is not None and _trustworthy(calibration):
        return Band(threshold_for_target(target, calibration), upper, "calibrated")
    sound = finite[finite <= upper]
    if len(sound) == 0:
        return Band(0.0, upper, "pool_quantile")
    quantile = float(np.quantile(sound, 1.0 - top_fraction, method="lower"))
    # Just below, for frames at the quantile are in: a pool that is uncertain alike has no others.
    return Band(math.nextafter(quantile, 0.0), upper, "pool_quantile")


def _trustworthy(calibration: Calibration) -> bool:
    enough = calibration.n >= MINIMUM_SAMPLES and calibration.n_groups >= MINIMUM_GROUPS
    return enough and math.isfinite(calibration.alpha)
