"""Energies of the atoms, so that networks learn what remains of a total energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from alloop.errors import TrainingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RANK_TOLERANCE = 1e-8


def fit_atom_energies(
    numbers: Sequence[NDArray[np.int64]],
    energies: NDArray[np.float64],
    prior: Mapping[int, float] | None = None,
) -> dict[int, float]:
    """Fit one energy per element to total energies by least squares.

    Where the compositions do not determine the energies (one molecule has only one equation)
    the solution closest to the prior is taken, so that a single composition is still fitted on
    average, exactly.

    Parameters
    ----------
    numbers : atomic numbers of each frame.
    energies : (n_frames,) total energies, eV.
    prior : energies of free atoms by atomic number, eV; 0 where it is silent.

    Raises
    ------
    TrainingError
        There are no frames, or an energy is not finite.

    """
    values = np.asarray(energies, dtype=np.float64)
    if not len(values) or len(values) != len(numbers):
        raise TrainingError(
            f"atomic energies need an energy for each frame, got {len(values)} energies"
            f" and {len(numbers)} frames"
        )
    if not np.isfinite(values).all():
        bad = np.flatnonzero(~np.isfinite(values)).tolist()
        raise TrainingError(f"energies of the frames {bad} are not finite")
    elements = sorted({int(z) for frame in numbers for z in frame})
    counts = np.array([[int((frame == z).sum()) for z in elements] for frame in numbers])
    start = np.array([(prior or {}).get(z, 0.0) for z in elements])
    # lstsq returns the shortest solution: shortest as a correction of the prior.
    correction, *_ = np.linalg.lstsq(
        counts.astype(np.float64), values - counts @ start, rcond=_RANK_TOLERANCE
    )
    return {z: float(e) for z, e in zip(elements, start + correction, strict=True)}
