"""Functions that shipped queries may use besides SQLite's own: errors between array blobs."""

from __future__ import annotations

import sqlite3

import numpy as np


def rmse(one: bytes | None, other: bytes | None) -> float | None:
    """Return the root-mean-square difference of two float64 blobs, in their unit.

    None if one is missing or their sizes differ; infinite if any value is not finite.
    """
    if one is None or other is None or len(one) != len(other) or not one:
        return None
    difference = np.frombuffer(one, "<f8") - np.frombuffer(other, "<f8")
    error = float(np.sqrt(np.mean(difference**2)))
    return error if np.isfinite(error) else float("inf")


def register(connection: sqlite3.Connection) -> None:
    """Make ``rmse(blob, blob)`` known to a connection."""
    connection.create_function("rmse", 2, rmse, deterministic=True)
