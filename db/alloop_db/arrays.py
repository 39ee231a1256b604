"""Arrays as blobs: little-endian, C order, nothing that could be executed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def floats_to_blob(values: ArrayLike) -> bytes:
    """Return float64 values as bytes."""
    return np.ascontiguousarray(values, dtype="<f8").tobytes()


def blob_to_vectors(blob: bytes) -> NDArray[np.float64]:
    """Return a blob as an array (n, 3)."""
    return np.frombuffer(blob, dtype="<f8").reshape(-1, 3).astype(np.float64)


def integers_to_blob(values: ArrayLike) -> bytes:
    """Return int64 values as bytes."""
    return np.ascontiguousarray(values, dtype="<i8").tobytes()


def blob_to_integers(blob: bytes) -> NDArray[np.int64]:
    """Return a blob as integers (n,)."""
    return np.frombuffer(blob, dtype="<i8").astype(np.int64)
