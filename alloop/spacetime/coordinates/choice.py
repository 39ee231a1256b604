"""Which internal coordinates a molecule gets, and how they are written down."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alloop.errors import SpacetimeError
from alloop.spacetime.coordinates.construction import build_zmatrix
from alloop.spacetime.coordinates.protocol import Coordinates
from alloop.spacetime.coordinates.zmatrix import ZMatrix


def choose(
    numbers: NDArray[np.int64], masses: NDArray[np.float64], frames: NDArray[np.float64]
) -> Coordinates:
    """Return coordinates that stay well defined in all frames (n_frames, n_atoms, 3), Å.

    A hundred frames from all over the data are enough; ``masses`` are in amu.

    Raises
    ------
    SpacetimeError
        A single atom, or frames that are not finite.

    """
    return build_zmatrix(numbers, frames)


def restore(definition: Mapping[str, Any]) -> Coordinates:
    """Return coordinates from what their ``definition`` gave.

    Raises
    ------
    SpacetimeError
        The kind is unknown or the definition makes no sense.

    """
    if definition["kind"] == "zmatrix":
        return ZMatrix(tuple(tuple(row) for row in definition["rows"]))
    raise SpacetimeError(f"internal coordinates of kind {definition['kind']!r} are unknown here")


def digest(internal: Coordinates, numbers: Sequence[int]) -> str:
    """Return the sha-256 of a definition together with the elements it is for."""
    text = json.dumps([[int(z) for z in numbers], internal.definition()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
