"""Train, validation or audit: decided once for a whole trajectory, at its birth, for ever.

Frames of one trajectory resemble each other, so a split of frames would leak.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from alloop.errors import AcquisitionError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

Split = Literal["train", "validation", "audit"]


def assign_splits(
    n_trajectories: int, fractions: Mapping[Split, float], rng: np.random.Generator
) -> list[Split]:
    """Return the split of each trajectory, in order.

    ``fractions`` gives the shares of validation and audit (0 to leave one out); train takes the
    rest. With 3 trajectories or more every wanted split gets at least one and so does train; with
    fewer all train. Give the trajectories sorted by what distinguishes them, route and temperature:
    one is set aside from each of as many equal stretches of the list as are needed.
    """
    validation, audit = _share(fractions, "validation"), _share(fractions, "audit")
    if not validation + audit < 1.0:
        raise AcquisitionError(
            f"validation {validation:g} and audit {audit:g} leave no trajectory to train on:"
            " their sum must stay below 1"
        )
    splits: list[Split] = ["train"] * n_trajectories
    if n_trajectories < 3:
        return splits
    n_validation = _count(validation, n_trajectories)
    n_audit = _count(audit, n_trajectories)
    while n_validation + n_audit > n_trajectories - 1:
        if n_validation >= n_audit:
            n_validation -= 1
        else:
            n_audit -= 1
    n_aside = n_validation + n_audit
    roles: list[Split] = ["validation"] * n_validation
    roles += ["audit"] * n_audit
    for stretch, role in enumerate(rng.permutation(n_aside)):
        first = stretch * n_trajectories // n_aside
        end = (stretch + 1) * n_trajectories // n_aside
        splits[int(rng.integers(first, end))] = roles[role]
    return splits


def _share(fractions: Mapping[Split, float], split: Split) -> float:
    share = fractions.get(split, 0.0)
    if not share >= 0.0:
        raise AcquisitionError(f"the {split} fraction must be 0 or more, got {share}")
    return share


def _count(share: float, n_trajectories: int) -> int:
    return max(1, round(share * n_trajectories)) if share > 0.0 else 0


def split_frames(
    groups: Sequence[str], fractions: Mapping[Split, float], rng: np.random.Generator
) -> list[Split]:
    """Return the split of each frame, the same for all frames of a group (its trajectory)."""
    names = list(dict.fromkeys(groups))
    split = dict(zip(names, assign_splits(len(names), fractions, rng), strict=True))
    return [split[group] for group in groups]
