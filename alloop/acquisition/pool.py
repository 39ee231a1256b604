"""What a selection looks at, and what it says of each frame."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from alloop.acquisition.fingerprint import DUPLICATE_TOLERANCE
from alloop.acquisition.splits import Split
from alloop.errors import AcquisitionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

Action = Literal["selected", "rejected", "duplicate", "audit", "validation", "accurate", "broken"]

_COLUMNS: dict[str, type[np.generic]] = {
    "trajectory": np.int64,
    "step": np.int64,
    "time": np.float64,
    "spread": np.float64,
    "fingerprint": np.float64,
    "healthy": np.bool_,
}


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """The frames that one committee explored of one system, in any order.

    Attributes
    ----------
    trajectory : (n_frames,) int64, identity of the trajectory of each frame.
    step : (n_frames,) int64, its step there; no two frames share trajectory and step.
    time : (n_frames,) float64, its time there, fs.
    spread : (n_frames,) float64, the measure of disagreement.
    fingerprint : (n_frames, width) float64, Å.
    healthy : (n_frames,) bool, whether the frame may be labelled at all.
    splits : the split of every trajectory, fixed at its birth.

    """

    trajectory: NDArray[np.int64]
    step: NDArray[np.int64]
    time: NDArray[np.float64]
    spread: NDArray[np.float64]
    fingerprint: NDArray[np.float64]
    healthy: NDArray[np.bool_]
    splits: Mapping[int, Split]

    def __post_init__(self) -> None:
        n_frames = len(self.trajectory)
        for name, kind in _COLUMNS.items():
            column = np.asarray(getattr(self, name), dtype=kind).view()
            if name != "fingerprint" and column.shape != (n_frames,):
                raise AcquisitionError(f"pool: {name} has shape {column.shape}, want ({n_frames},)")
            column.flags.writeable = False
            object.__setattr__(self, name, column)
        if self.fingerprint.ndim != 2 or len(self.fingerprint) != n_frames:
            raise AcquisitionError(
                f"pool: fingerprint has shape {self.fingerprint.shape}, want ({n_frames}, width)"
            )
        places = np.stack([self.trajectory, self.step])
        if np.unique(places, axis=1).shape[1] != n_frames:
            raise AcquisitionError("pool: two frames have the same trajectory and step")
        for trajectory in np.unique(self.trajectory).tolist():
            if self.splits.get(trajectory) not in get_args(Split):
                raise AcquisitionError(
                    f"pool: trajectory {trajectory} has split {self.splits.get(trajectory)!r},"
                    f" want one of {', '.join(get_args(Split))}"
                )

    def __len__(self) -> int:
        return len(self.trajectory)

    def members(self, split: Split) -> NDArray[np.int64]:
        """Return the frames of a split by trajectory and step, however the pool is ordered."""
        order = np.lexsort((self.step, self.trajectory))
        inside = [t for t, of in self.splits.items() if of == split]
        return order[np.isin(self.trajectory[order], inside)]


@dataclass(frozen=True, slots=True)
class SelectionSettings:
    """How many labels to ask for and how.

    Attributes
    ----------
    budget : labels of one batch, those for audit and validation included.
    seed : of the random draws.
    policy : uncertainty, or random: the control that draws from all sound training frames.
    audit_fraction, validation_fraction : shares of the budget drawn at random, rounded up.
    gap : least time between two selected frames of one trajectory, fs.
    tolerance : frames closer than this are duplicates, Å.
    trajectory_cap : most frames selected from one trajectory, or None.
    weighted : whether the spread multiplies the distance in the max-min selection.

    """

    budget: int
    seed: int
    policy: Literal["uncertainty", "random"] = "uncertainty"
    audit_fraction: float = 0.1
    validation_fraction: float = 0.1
    gap: float = 10.0
    tolerance: float = DUPLICATE_TOLERANCE
    trajectory_cap: int | None = None
    weighted: bool = False

    def __post_init__(self) -> None:
        for name in ("audit_fraction", "validation_fraction", "gap", "tolerance"):
            value = getattr(self, name)
            if not (value >= 0.0 and math.isfinite(value)):
                raise AcquisitionError(f"selection: {name} must be 0 or more, got {value}")
        if self.trajectory_cap is not None and self.trajectory_cap < 1:
            raise AcquisitionError(
                f"selection: trajectory_cap must be 1 or more, got {self.trajectory_cap}"
            )
        if self.n_train < 1:
            raise AcquisitionError(
                f"selection: a budget of {self.budget} labels leaves none to train on after"
                f" {self.n_audit} for audit and {self.n_validation} for validation; raise it"
            )

    @property
    def n_audit(self) -> int:
        """Labels for the audit."""
        return _ceil(self.audit_fraction * self.budget)

    @property
    def n_validation(self) -> int:
        """Labels for the validation split."""
        return _ceil(self.validation_fraction * self.budget)

    @property
    def n_train(self) -> int:
        """Labels for training, at most."""
        return self.budget - self.n_audit - self.n_validation


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about one frame of the pool, and why.

    Attributes
    ----------
    index : row of the frame in the pool.
    action : selected, audit and validation frames are to be labelled, the others not.
    rule : name of the rule that decided.
    numbers : what it compared, all finite.

    """

    index: int
    action: Action
    rule: str
    numbers: dict[str, float]


def _ceil(labels: float) -> int:
    # 0.07 * 100 is a little above 7 in binary, and must not become 8.
    return math.ceil(labels - 1e-9)
