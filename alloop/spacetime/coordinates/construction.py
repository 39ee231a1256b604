"""Internal coordinates of any molecule, found without a human.

A Z-matrix grows along the covalent graph, heavy atoms first. All but the first atom that hang on
the same bond take their dihedral from the first one, which makes it a stiff, near-harmonic
coordinate and leaves one torsion for each bond. References close to a straight line in any sampled
frame are avoided, others are then searched for. Of the definitions grown from several roots the one
with the largest smallest singular value of Wilson's B matrix wins (Wilson, Decius, Cross,
*Molecular Vibrations*, 1955, chapter 4): it is the farthest from losing a coordinate.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from alloop.errors import SpacetimeError
from alloop.spacetime.coordinates.graph import CovalentGraph
from alloop.spacetime.coordinates.internal import to_internal
from alloop.spacetime.coordinates.zmatrix import ZMatrix

GOOD_SINE = 0.35
"""References whose sines never fall below this (20 degrees from a line) are taken unsearched."""
LEAST_SINE = 0.05
"""Below this (3 degrees from a line) rates of angles are too large to be learnt."""
MAX_ROOTS = 6
"""How many atoms are tried as root."""


def build_zmatrix(numbers: NDArray[np.int64], frames: NDArray[np.float64]) -> ZMatrix:
    """Return internal coordinates that stay well defined in all frames (n_frames, n_atoms, 3), Å.

    A hundred frames from all over the data are enough.

    Raises
    ------
    SpacetimeError
        A single atom, frames that are not finite, or four and more atoms that come to lie on a
        straight line.

    """
    zmatrix = find_zmatrix(numbers, frames)
    if zmatrix is None:
        raise SpacetimeError(
            f"no Z-matrix for {len(numbers)} atoms that come to lie on a straight line;"
            " choose() has other coordinates for them"
        )
    return zmatrix


def find_zmatrix(numbers: NDArray[np.int64], frames: NDArray[np.float64]) -> ZMatrix | None:
    """Return what :func:`build_zmatrix` does, or None where there is no such Z-matrix.

    Raises
    ------
    SpacetimeError
        A single atom, or frames that are not finite.

    """
    if len(numbers) < 2:
        raise SpacetimeError("a single atom has no internal motion; a 4D model needs two atoms")
    samples = np.asarray(frames, dtype=np.float64)
    if not np.isfinite(samples).all():
        raise SpacetimeError("positions are not finite; internal coordinates need sound frames")
    graph = CovalentGraph.of_frames(numbers, samples)
    grown = (_grow(graph, samples, root) for root in graph.central_atoms()[:MAX_ROOTS])
    return max(
        (zmatrix for zmatrix in grown if zmatrix is not None),
        key=lambda zmatrix: smallest_singular_value(zmatrix, samples),
        default=None,
    )


def smallest_singular_value(zmatrix: ZMatrix, frames: NDArray[np.float64]) -> float:
    """Return the smallest singular value of B = dq/dx over frames (n_frames, n_atoms, 3), Å.

    Angles count in rad. Zero means that some motion is lost.
    """
    n_frames, n_atoms, _ = frames.shape
    units = torch.eye(3 * n_atoms, dtype=torch.float64).view(3 * n_atoms, n_atoms, 3)
    positions = torch.as_tensor(frames, dtype=torch.float64)[:, None]
    shape = (n_frames, 3 * n_atoms, n_atoms, 3)
    _, transposed = to_internal(zmatrix, positions.expand(shape), units.expand(shape))
    return float(torch.linalg.svdvals(transposed).min())


def _grow(graph: CovalentGraph, samples: NDArray[np.float64], root: int) -> ZMatrix | None:
    """Return the Z-matrix that starts at ``root``, or None if an atom finds no references."""
    rows: list[tuple[int, ...]] = [(root,)]
    while len(rows) < len(graph.numbers):
        row = _next_row(graph, samples, rows)
        if row is None:
            return None
        rows.append(row)
    return ZMatrix(tuple(rows))


def _next_row(
    graph: CovalentGraph, samples: NDArray[np.float64], rows: list[tuple[int, ...]]
) -> tuple[int, ...] | None:
    """Return the first good row; failing that, the best of all that could come next."""
    best, best_sine = None, LEAST_SINE
    for atom, parent in _frontier(graph, [row[0] for row in rows]):
        for references in _references(graph, rows, parent):
            row = (atom, *references)
            sine = _least_sine(samples, row)
            if sine >= GOOD_SINE or len(graph.numbers) == 3:
                return row
            if sine > best_sine:
                best, best_sine = row, sine
    return best


def _frontier(graph: CovalentGraph, placed: list[int]) -> list[tuple[int, int]]:
    """Return (atom, parent) for unplaced neighbours of placed atoms, heavy first, nearest first."""
    pairs = (
        (graph.numbers[atom] == 1, depth, int(atom), parent)
        for depth, parent in enumerate(placed)
        for atom in np.flatnonzero(graph.bonds[parent])
        if atom not in placed
    )
    return [(atom, parent) for _, _, atom, parent in sorted(pairs)]


def _references(
    graph: CovalentGraph, rows: list[tuple[int, ...]], parent: int
) -> Iterator[tuple[int, ...]]:
    """Yield references for a neighbour of ``parent``, in order of preference."""
    placed = [row[0] for row in rows]
    if len(rows) == 1:
        yield (parent,)
    nearby = sorted(placed, key=lambda atom: (graph.distances[parent, atom], atom))[:8]
    for b in nearby:  # the parent comes first, its distance to itself being zero
        bonded = [atom for atom in placed if graph.bonds[b, atom]]
        for c in _unique([*bonded, *(atom for atom in nearby if atom != b)]):
            if len(rows) == 2:
                yield b, c
            siblings = [row[0] for row in rows[2:] if row[1:3] == (b, c)]
            onward = [atom for atom in placed if graph.bonds[c, atom]]
            for d in _unique([*siblings, *onward, *nearby]):
                if d not in (b, c):
                    yield b, c, d


def _unique(atoms: list[int]) -> list[int]:
    return list(dict.fromkeys(atoms))


def _least_sine(samples: NDArray[np.float64], row: tuple[int, ...]) -> float:
    """Return how far, at worst, the references are from a straight line (1: at right angles)."""
    if len(row) < 3:
        return 1.0
    x = samples[:, row]
    sines = [_sine(x[:, 0] - x[:, 1], x[:, 2] - x[:, 1])]
    if len(row) == 4:
        axis = x[:, 2] - x[:, 1]
        sines.append(np.maximum(_sine(axis, x[:, 3] - x[:, 1]), _sine(axis, x[:, 3] - x[:, 2])))
    return float(np.min(sines))


def _sine(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    sine: NDArray[np.float64] = np.linalg.norm(np.cross(a, b), axis=-1) / lengths
    return sine
