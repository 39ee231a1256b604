"""The check that every array passes before it is analysed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from alloop.errors import AnalysisError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def checked(what: str, values: ArrayLike, shape: tuple[int | None, ...]) -> NDArray[np.float64]:
    """Return values as float64 if they have this shape, None meaning any length, and are finite.

    Raises AnalysisError.
    """
    array = np.asarray(values, dtype=np.float64)
    fits = array.ndim == len(shape) and all(
        want in (None, got) for want, got in zip(shape, array.shape, strict=True)
    )
    if not fits or array.size == 0:
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise AnalysisError(f"{what}: got shape {array.shape}, want ({wanted}) and not empty")
    bad = array.size - np.count_nonzero(np.isfinite(array))
    if bad:
        raise AnalysisError(
            f"{what}: {bad} of {array.size} numbers are not finite; cut the trajectory before them"
        )
    return array


def checked_masses(masses: ArrayLike, n_atoms: int) -> NDArray[np.float64]:
    """Return masses as float64, amu, if there is one for each atom and all are positive.

    Raises AnalysisError.
    """
    array = checked("masses", masses, (n_atoms,))
    if not (array > 0.0).all():
        raise AnalysisError(f"masses: the least is {array.min():g} amu, want positive ones")
    return array


def frozen(array: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a copy that cannot be written to."""
    own = array.copy()
    own.setflags(write=False)
    return own
