"""Which internal coordinates a molecule gets, and how they are written down."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alloop.errors import SpacetimeError
from alloop.spacetime.coordinates.construction import find_zmatrix, smallest_singular_value
from alloop.spacetime.coordinates.dummies import DummyZMatrix
from alloop.spacetime.coordinates.eckart import EckartFrame, build_eckart
from alloop.spacetime.coordinates.protocol import Coordinates
from alloop.spacetime.coordinates.straight import StraightFrame, build_straight
from alloop.spacetime.coordinates.zmatrix import ZMatrix

LEAST_SINGULAR_VALUE = 0.01
"""A Z-matrix below this nearly loses a coordinate; sound ones have 0.1 and more."""
LEAST_OVERLAP = 0.5
"""Frames with less of the moments of an Eckart reference than this hardly tell how they stand."""


def choose(
    numbers: NDArray[np.int64],
    masses: NDArray[np.float64],
    frames: NDArray[np.float64],
    *,
    dummies: bool = False,
) -> Coordinates:
    """Return coordinates that stay well defined in all frames (n_frames, n_atoms, 3), Å.

    A Z-matrix, or an Eckart frame where there is none that keeps all coordinates: four and more
    atoms on a straight line, fragments that turn freely. A hundred frames from all over the data
    are enough; ``masses`` are in amu. With ``dummies`` the Z-matrix stands on GICnet's dummy atoms.

    Raises
    ------
    SpacetimeError
        A single atom, frames that are not finite, or dummies asked for where there is no Z-matrix.

    """
    samples = np.array(frames, dtype=np.float64)
    zmatrix = find_zmatrix(numbers, samples)
    weights = torch.tensor(np.array(masses, dtype=np.float64))
    if dummies:
        if zmatrix is None:
            raise SpacetimeError("coordinates with dummy atoms need a Z-matrix, and there is none")
        return DummyZMatrix(zmatrix, weights)
    if zmatrix is not None and (
        len(numbers) < 4 or smallest_singular_value(zmatrix, samples) >= LEAST_SINGULAR_VALUE
    ):
        return zmatrix
    return _frame_of(weights, torch.as_tensor(samples))


def _frame_of(masses: Tensor, frames: Tensor) -> EckartFrame | StraightFrame:
    bent = build_eckart(masses, frames)
    certainty = bent.overlap(frames)
    if certainty >= LEAST_OVERLAP:
        return bent
    straight = build_straight(masses, frames)
    return straight if straight.overlap(frames) >= certainty else bent


def restore(definition: Mapping[str, Any]) -> Coordinates:
    """Return coordinates from what their ``definition`` gave.

    Raises
    ------
    SpacetimeError
        The kind is unknown or the definition makes no sense.

    """
    kind = definition["kind"]
    if kind == "zmatrix":
        return _zmatrix(definition)
    if kind == "dummies":
        return DummyZMatrix(_zmatrix(definition), *_tensors(definition, "masses"))
    if kind == "eckart":
        return EckartFrame(*_tensors(definition, "masses", "reference", "basis"))
    if kind == "straight":
        return StraightFrame(*_tensors(definition, "masses", "reference", "stretches", "bends"))
    raise SpacetimeError(f"internal coordinates of kind {kind!r} are unknown here")


def digest(internal: Coordinates, numbers: Sequence[int]) -> str:
    """Return the sha-256 of a definition together with the elements it is for."""
    text = json.dumps([[int(z) for z in numbers], internal.definition()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _zmatrix(definition: Mapping[str, Any]) -> ZMatrix:
    return ZMatrix(tuple(tuple(row) for row in definition["rows"]))


def _tensors(definition: Mapping[str, Any], *names: str) -> list[Tensor]:
    return [torch.tensor(definition[name], dtype=torch.float64) for name in names]
