"""A vector for the shape of a molecule that no motion, reflection or renaming of atoms changes.

For each ordered pair of elements (A, B): the distances from each A atom to all B atoms, sorted
within the atom, then each rank sorted over the A atoms. Sorting never moves two lists apart, so
the distance between fingerprints is at most the root-mean-square difference of the interatomic
distances under the best matching of equal atoms: it is a number in Å, continuous through every
exchange of atoms, and geometries that it tells apart are different. Distance obeys the triangle
inequality. The converse fails: like every finite list of distances it does not separate all
geometries (doi:10.1103/PhysRevLett.125.166001), so a tolerance can drop a frame wrongly, rarely.

Mirror images are one geometry here, for their energies are equal and their forces mirrored.
Charge and multiplicity are not geometry: compare frames of one system only. Periodic images are not
looked at, a molecule must come unwrapped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from alloop.errors import AcquisitionError

if TYPE_CHECKING:
    from numpy.typing import NDArray

DUPLICATE_TOLERANCE = 0.01
"""Frames closer than this are one geometry, Å: about 0.008 Å of noise on every coordinate. Of 1000
independent ethanol frames at 500 K, half have their nearest neighbour beyond 0.066."""
_FARTHEST = 1e6
"""Atoms farther apart than this are no molecule, and their squares would drown all others, Å."""
_BATCH_VALUES = 2**22
"""Numbers held at once; bounds the memory of a pool of large molecules to about 0.1 GB."""


def fingerprints(numbers: NDArray[np.int64], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return one fingerprint for each frame of a system.

    numbers: (n_atoms,); positions: (n_frames, n_atoms, 3), Å.
    Returns (n_frames, n_atoms (n_atoms - 1)), Å, scaled so that the Euclidean distance of two rows
    is a root-mean-square difference. A frame that has exploded gives NaN.
    """
    n_atoms = len(numbers)
    if positions.ndim != 3 or positions.shape[1:] != (n_atoms, 3):
        raise AcquisitionError(
            f"positions have shape {positions.shape}, want (n_frames, {n_atoms}, 3)"
        )
    width = n_atoms * (n_atoms - 1)
    result = np.empty((len(positions), width))
    batch = max(1, _BATCH_VALUES // (3 * n_atoms**2))
    for start in range(0, len(positions), batch):
        part = slice(start, start + batch)
        result[part] = _profiles(numbers, positions[part])
    result[~(result.max(axis=1, initial=0.0) <= _FARTHEST)] = np.nan
    result /= np.sqrt(max(width, 1))
    return result


def nearest(
    rows: NDArray[np.float64], others: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return each row's distance to the closest of the others, Å, and which one that is.

    rows: (n, width); others: (m, width). Without others the distance is inf and the index -1; so
    is it for a row that is not finite and never for a NaN in the others.
    """
    if len(rows) and len(others) and rows.shape[1] != others.shape[1]:
        raise AcquisitionError(
            f"fingerprints of widths {rows.shape[1]} and {others.shape[1]} are of two systems"
        )
    distance = np.full(len(rows), np.inf)
    index = np.full(len(rows), -1, dtype=np.int64)
    usable = np.flatnonzero(np.isfinite(others).all(axis=1)) if len(others) else np.arange(0)
    if len(usable) == 0:
        return distance, index
    # Scalar products find the closest fast, and lose fewest digits about the mean.
    centre = others[usable].mean(axis=0)
    reference = others[usable] - centre
    reference_squares = np.einsum("ij,ij->i", reference, reference)
    batch = max(1, _BATCH_VALUES // len(usable))
    finite = np.flatnonzero(np.isfinite(rows).all(axis=1))
    for start in range(0, len(finite), batch):
        part = finite[start : start + batch]
        moved = rows[part] - centre
        squares = reference_squares - 2.0 * moved @ reference.T
        closest = squares.argmin(axis=1)
        index[part] = usable[closest]
        distance[part] = np.linalg.norm(moved - reference[closest], axis=1)
    return distance, index


def _profiles(numbers: NDArray[np.int64], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sorted distance profiles of a batch, (n_frames, n_atoms (n_atoms - 1)), Å."""
    with np.errstate(invalid="ignore", over="ignore"):  # of a frame that has exploded
        steps = positions[:, :, None] - positions[:, None]
        distances = np.sqrt(np.einsum("rijk,rijk->rij", steps, steps))
    elements = [np.flatnonzero(numbers == z) for z in np.unique(numbers)]
    blocks = []
    for centres in elements:
        for partners in elements:
            block = np.sort(distances[:, centres[:, None], partners], axis=2)
            if centres is partners:
                block = block[:, :, 1:]  # an atom is no neighbour of its own
            blocks.append(np.sort(block, axis=1).reshape(len(positions), -1))
    return np.concatenate(blocks, axis=1)
