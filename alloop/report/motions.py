"""Trajectories of files of both kinds, propagations and shards, ready to be compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from alloop.errors import ArtifactError, DataError
from alloop.spacetime.propagation.writers import PropagationFile
from alloop.trajectories import Shard

if TYPE_CHECKING:
    from numpy.typing import NDArray

EVEN: Final = 1e-6
"""Times between frames are equal if they differ by less than this part."""
SAME_MASS: Final = 1e-3
"""Masses are those of the same isotope if they differ by less than this part."""


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """One trajectory, its frames evenly spaced.

    Attributes
    ----------
    name : file and number.
    begin, interval : time of the first frame and between frames, fs.
    positions, velocities : (n_frames, n_atoms, 3) float64, Å and Å/fs.
    potential : (n_frames,) float64, eV, or None where the file has none.

    """

    name: str
    begin: float
    interval: float
    positions: NDArray[np.float64]
    velocities: NDArray[np.float64]
    potential: NDArray[np.float64] | None

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.positions)

    @property
    def times(self) -> NDArray[np.float64]:
        """Times of the frames (n_frames,), fs."""
        steps = np.arange(self.n_frames, dtype=np.float64)
        times: NDArray[np.float64] = np.add(self.begin, self.interval * steps)
        return times

    def thinned(self, stride: int, n_frames: int | None = None) -> Motion:
        """Return every so many frames of the first ``n_frames``, or of all."""
        span = slice(None, n_frames, stride)
        parts = (self.positions[span], self.velocities[span])
        potential = None if self.potential is None else self.potential[span]
        return Motion(self.name, self.begin, stride * self.interval, *parts, potential)


@dataclass(frozen=True, slots=True, eq=False)
class Sides:
    """Reference and candidate trajectories of one molecule, all with the same time between frames.

    Attributes
    ----------
    numbers, masses : (n_atoms,) of the atoms; masses in amu.
    interval : time between frames, fs.
    reference, candidate : the trajectories, in the order of the files.
    said : what a file says of the molecule, such as ``charge``.
    notes : what was left out or thinned, one line each.

    """

    numbers: NDArray[np.int64]
    masses: NDArray[np.float64]
    interval: float
    reference: tuple[Motion, ...]
    candidate: tuple[Motion, ...]
    said: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def paired(self) -> bool:
        """Whether there are equally many on both sides: then they are paired by their places."""
        return len(self.reference) == len(self.candidate)

    def equally_long(self) -> Sides:
        """Return what is long enough, cut to the longest time that both sides have.

        Pairs are kept or left out together; the notes say how many are left out.
        """
        sides = (self.reference, self.candidate)
        n_frames = min(max((m.n_frames for m in side), default=0) for side in sides)
        long = [[m.n_frames >= n_frames for m in side] for side in sides]
        if self.paired:
            long = [[all(pair) for pair in zip(*long, strict=True)]] * 2
        reference, candidate = (
            tuple(m.thinned(1, n_frames) for m, fine in zip(side, kept, strict=True) if fine)
            for side, kept in zip(sides, long, strict=True)
        )
        n_short = sum(not fine for kept in long for fine in kept)
        length = (n_frames - 1) * self.interval
        words = f"{n_short} trajectories are left out: shorter than {length:g} fs, or their pairs"
        notes = (words,) if n_short else ()
        return replace(self, reference=reference, candidate=candidate, notes=notes)


def read_sides(reference: Sequence[Path], candidate: Sequence[Path]) -> Sides:
    """Read trajectories and thin them to the longest of their times between frames.

    Raises
    ------
    DataError
        A file is neither a propagation nor a shard, molecules differ, frames are not evenly spaced,
        an interval does not divide the longest one, or nothing is left on a side.

    """
    sides = [[_File.read(path) for path in paths] for paths in (reference, candidate)]
    files = [file for side in sides for file in side]
    for file in files[1:]:
        _check_same(files[0], file)
    interval = max((m.interval for file in files for m in file.motions), default=0.0)
    notes = [note for file in files for note in file.notes]
    kept: list[tuple[Motion, ...]] = []
    for name, side in zip(("reference", "candidate"), sides, strict=True):
        motions = [(m, _stride(m, interval)) for file in side for m in file.motions]
        n_thinned = sum(stride > 1 for _, stride in motions)
        notes += [f"{name}: {n_thinned} trajectories thinned to every {interval:g} fs"] * (
            n_thinned > 0
        )
        long = [m.thinned(stride) for m, stride in motions if m.n_frames > stride]
        notes += [
            f"{m.name} is left out: too short" for m, stride in motions if m.n_frames <= stride
        ]
        if not long:
            raise DataError(f"{name}: no trajectory has two frames; want one at least that has")
        kept.append(tuple(long))
    said = next((file.said for file in files if file.said), {})
    return Sides(files[0].numbers, files[0].masses, interval, kept[0], kept[1], said, tuple(notes))


@dataclass(frozen=True, slots=True, eq=False)
class _File:
    path: Path
    numbers: NDArray[np.int64]
    masses: NDArray[np.float64]
    motions: tuple[Motion, ...]
    said: Mapping[str, Any]
    notes: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> _File:
        """Read a file of either kind."""
        try:
            file = PropagationFile(path)
        except ArtifactError:
            return cls._of_shard(path)
        parts = (file.read(i) for i in range(len(file.n_frames)))
        frames = ((f.times, f.positions, f.velocities, f.potential) for f in parts)
        return cls._of(path, file.numbers, file.masses, frames, {})

    @classmethod
    def _of_shard(cls, path: Path) -> _File:
        try:
            shard = Shard(path)
            frames = [(t.times, t.positions, t.velocities, t.potential) for t in shard]
        except ArtifactError as error:
            raise DataError(f"{path} is no propagation, and as trajectories: {error}") from None
        said = shard.about[0].tags if shard.about else {}
        return cls._of(path, shard.system.numbers, shard.system.masses, frames, said)

    @classmethod
    def _of(
        cls,
        path: Path,
        numbers: NDArray[np.int64],
        masses: NDArray[np.float64],
        frames: Iterable[tuple[Any, Any, Any, Any]],
        said: Mapping[str, Any],
    ) -> _File:
        motions, notes = [], []
        for i, (times, positions, velocities, potential) in enumerate(frames):
            name = f"{path.name}#{i}"
            if len(times) < 2:
                notes.append(f"{name} is left out: it has fewer than two frames")
                continue
            x, v = (np.asarray(array, np.float64) for array in (positions, velocities))
            energies = None if potential is None else np.asarray(potential, np.float64)
            motions.append(Motion(name, float(times[0]), _interval(name, times), x, v, energies))
        return cls(path, numbers, masses, tuple(motions), said, tuple(notes))


def _interval(name: str, times: NDArray[np.float64]) -> float:
    interval = float(times[-1] - times[0]) / (len(times) - 1)
    if not (interval > 0.0 and np.allclose(np.diff(times), interval, rtol=EVEN, atol=0.0)):
        raise DataError(f"{name}: its frames are not evenly spaced in time; write them so")
    return interval


def _stride(motion: Motion, interval: float) -> int:
    stride = round(interval / motion.interval)
    if not abs(stride * motion.interval - interval) <= EVEN * interval:
        raise DataError(
            f"{motion.name} has a frame every {motion.interval:g} fs, another trajectory every"
            f" {interval:g} fs; want the same, or one a multiple of the other"
        )
    return stride


def _check_same(first: _File, other: _File) -> None:
    same = np.array_equal(first.numbers, other.numbers)
    if not same or not np.allclose(first.masses, other.masses, rtol=SAME_MASS, atol=0.0):
        raise DataError(
            f"{other.path} is of atoms {other.numbers.tolist()}, {first.path} of"
            f" {first.numbers.tolist()}; want the same atoms in the same order, of equal masses"
        )
