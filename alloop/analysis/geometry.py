"""Distances between geometries: root-mean-square deviations after optimal superposition.

Of all proper rotations the one that brings two centred point sets closest has, with the singular
values s1 >= s2 >= s3 of H = sum_i w_i a_i b_i^T (Kabsch 1976, doi:10.1107/S0567739476001873; 1978,
doi:10.1107/S0567739478001680),

    W RMSD² = sum_i w_i (|a_i|² + |b_i|²) - 2 (s1 + s2 + sign(det H) s3)

so that mirror images stay apart. A difference of large numbers: below 1e-7 Å it is noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from alloop.analysis.arrays import checked, checked_masses

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

CHUNK: Final = 1 << 18
"""Pairs of frames in work at a time; each takes some 200 bytes."""


def rmsd_along(
    first: ArrayLike, second: ArrayLike, masses: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Return the RMSD of two trajectories frame by frame, (n_frames,), Å.

    first, second: (n_frames, n_atoms, 3), Å; masses: (n_atoms,), amu, weights of superposition and
    mean alike, by default equal.

    Raises AnalysisError: shapes disagree or a number is not finite.
    """
    mine = checked("first trajectory", first, (None, None, 3))
    yours = checked("second trajectory", second, mine.shape)
    weights = _weights(masses, mine.shape[1])
    a, b = _centred(mine, weights), _centred(yours, weights)
    return _rmsd(a.swapaxes(1, 2) @ b, _squares(a) + _squares(b))


def rmsd_map(
    first: ArrayLike, second: ArrayLike, masses: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Return the RMSD of every frame of one trajectory to every one of another, Å.

    first: (n_first, n_atoms, 3), second: (n_second, n_atoms, 3), Å; masses as in ``rmsd_along``.
    Gives (n_first, n_second); working memory does not grow with n_first.

    Raises AnalysisError: numbers of atoms differ or a number is not finite.
    """
    mine = checked("first trajectory", first, (None, None, 3))
    n_atoms = mine.shape[1]
    yours = checked("second trajectory", second, (None, n_atoms, 3))
    weights = _weights(masses, n_atoms)
    a, b = _centred(mine, weights), _centred(yours, weights)
    columns = b.swapaxes(0, 1).reshape(n_atoms, -1)
    rmsd = np.empty((len(a), len(b)))
    n_rows = max(1, CHUNK // len(b))
    for start in range(0, len(a), n_rows):
        rows = a[start : start + n_rows]
        products = rows.swapaxes(1, 2).reshape(-1, n_atoms) @ columns
        covariances = products.reshape(len(rows), 3, len(b), 3).swapaxes(1, 2)
        squares = _squares(rows)[:, None] + _squares(b)
        rmsd[start : start + n_rows] = _rmsd(covariances, squares)
    return rmsd


def _weights(masses: ArrayLike | None, n_atoms: int) -> NDArray[np.float64]:
    weights = np.ones(n_atoms) if masses is None else checked_masses(masses, n_atoms)
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


def _centred(positions: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return positions about their centre, times the square root of the weights."""
    centres = np.einsum("fic,i->fc", positions, weights)
    centred: NDArray[np.float64] = (positions - centres[:, None]) * np.sqrt(weights)[:, None]
    return centred


def _squares(centred: NDArray[np.float64]) -> NDArray[np.float64]:
    squares: NDArray[np.float64] = np.einsum("fic,fic->f", centred, centred)
    return squares


def _rmsd(covariances: NDArray[np.float64], squares: NDArray[np.float64]) -> NDArray[np.float64]:
    values = np.linalg.svd(covariances, compute_uv=False)
    handedness = np.sign(np.linalg.det(covariances))
    overlap = values[..., 0] + values[..., 1] + handedness * values[..., 2]
    rmsd: NDArray[np.float64] = np.sqrt(np.maximum(squares - 2.0 * overlap, 0.0))
    return rmsd
