"""Frames of a file, parted for a training: to learn from, to stop by, and to be judged by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from alloop import seeds
from alloop.acquisition.splits import split_frames
from alloop.datasets import Dataset, joined


def partition(
    data: Dataset, *, validation: float, test: float, seed: int, tests: Dataset | None = None
) -> tuple[Dataset, tuple[str, ...]]:
    """Return the frames with their splits, and what there is to say about it, one line each.

    Whole groups are set aside: shares ``validation`` and ``test`` of them, with splits
    "validation" and "audit". ``tests`` are further frames for audit; those that are also in
    ``data`` are left out.

    Raises
    ------
    AcquisitionError
        Nothing would be left to train on.

    """
    splits = split_frames(
        data.groups, {"validation": validation, "audit": test}, seeds.generator(seed, "splits")
    )
    data = replace(data, splits=tuple(splits))
    notes = []
    n_groups = len(set(data.groups))
    if n_groups < 3 and validation + test > 0.0:
        notes.append(f"{n_groups} groups are too few to set one aside: all frames train")
    if n_groups == len(data):
        notes.append(
            "every frame is a group of its own; if frames are neighbours on trajectories, errors"
            " look too small unless the groups are named"
        )
    if tests is None:
        return data, tuple(notes)
    known = {frame.key for frame in data.frames}
    new = np.array([frame.key not in known for frame in tests.frames])
    if not new.all():
        notes.append(
            f"{int((~new).sum())} of {len(new)} test frames are also among the others and are not"
            " tested"
        )
    tests = tests.subset(new)
    return joined(data, replace(tests, splits=("audit",) * len(tests))), tuple(notes)
