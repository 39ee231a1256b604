"""From trajectory shards to what a fit learns from: what is taken, what is left out, and why."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from alloop import seeds
from alloop.acquisition.splits import Split, assign_splits
from alloop.errors import SpacetimeError
from alloop.spacetime.learning.trajectories import TrajectorySet
from alloop.spacetime.model import SpacetimeModel
from alloop.trajectories import Shard, System, Trajectory

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROLES: Final[Mapping[str, str]] = {
    "train": "train",
    "validation": "validation",
    "audit": "test",
    "test": "test",
}
"""What each split of a store is to a 4D model: audit trajectories only measure it."""
SEEN: Final = ("train", "validation", "earlier")
"""Keys of a model's metadata that list trajectories it was made with."""
EVEN: Final = 1e-6
"""Times between frames are equal if they differ by less than this part."""


@dataclass(frozen=True, slots=True)
class Source:
    """One trajectory in a shard.

    Attributes
    ----------
    shard : the file.
    replica : which trajectory of it.
    name : for messages and lineage.
    split : a key of :data:`ROLES`, or None where nobody has decided yet.

    """

    shard: Path
    replica: int
    name: str
    split: str | None = None


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of the trajectories without a split that validate and that test, and the seed."""

    validation: float = 0.1
    test: float = 0.1
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Exclusions:
    """What was left out: for each trajectory its name and a reason code.

    Reasons are how it ended (see :class:`alloop.dynamics.health.Reason`), ``thermostat``,
    ``not_finite`` and ``too_short``.
    """

    reasons: tuple[tuple[str, str], ...]

    @property
    def counts(self) -> dict[str, int]:
        """Number of trajectories by reason, the most frequent first."""
        return dict(Counter(reason for _, reason in self.reasons).most_common())


def list_sources(paths: Iterable[Path]) -> list[Source]:
    """Return all trajectories of some shards, none of which has a split.

    Raises ArtifactError for a file that is no shard.
    """
    return [
        Source(path, replica, f"{path.name}#{replica}")
        for path in paths
        for replica in range(len(Shard(path)))
    ]


def gather(
    sources: Sequence[Source],
    *,
    interval: float | None = None,
    shortest: float = 0.0,
    shares: Shares | None = None,
    known: Mapping[str, str] | None = None,
) -> tuple[TrajectorySet, Exclusions]:
    """Read the trajectories that a model can learn from, and say which were left out.

    Names of the set are those of the sources, an ``@`` and a hash of the start, by which a
    trajectory is known again in another file.

    Parameters
    ----------
    sources : where they are.
    interval : wanted time between frames, fs, a multiple of the stored one; None for the stored
        one, which must then be the same in all.
    shortest : what is not longer than this, fs, is left out: no segment fits in.
    shares : how trajectories without a split are shared out; those that were left out have none.
    known : splits of trajectories by the hash of their start, see :func:`roles`; they go before all
        others.

    Raises
    ------
    SpacetimeError
        Nothing is left, a trajectory is there twice, or they differ in their atoms or in the time
        between frames.
    ArtifactError
        A shard is missing or damaged.

    """
    if not sources:
        raise SpacetimeError("4D model: no trajectory is given; name shards, or run some first")
    kept, left_out = [], []
    shards: dict[Path, Shard] = {}
    for source in sources:
        if source.shard not in shards:
            shards[source.shard] = Shard(source.shard)
        trajectory = shards[source.shard].read(source.replica)
        reason = _reason(trajectory, shortest)
        if reason is None:
            kept.append(_Kept.of(source, trajectory))
        else:
            left_out.append((source.name, reason))
    exclusions = Exclusions(tuple(left_out))
    if not kept:
        raise SpacetimeError(
            f"4D model: none of {len(sources)} trajectories can be used: {describe(exclusions)}"
        )
    _check_same(kept)
    kept = _evenly(kept, interval)
    system = kept[0].system
    found = TrajectorySet(
        numbers=system.numbers,
        masses=system.masses,
        timestep=kept[0].interval,
        positions=tuple(item.positions for item in kept),
        velocities=tuple(item.velocities for item in kept),
        splits=tuple(_splits(kept, shares or Shares(), known or {})),
        ids=tuple(f"{item.source.name}@{item.start}" for item in kept),
    )
    return found, exclusions


def describe(exclusions: Exclusions) -> str:
    """Return the reasons and how often each applied, in one line."""
    return ", ".join(f"{n} {reason}" for reason, n in exclusions.counts.items()) or "none"


def fingerprint(name: str) -> str:
    """Return the hash of its start from the name of a trajectory; empty if it has none."""
    return name.rpartition("@")[2] if "@" in name else ""


def roles(model: SpacetimeModel) -> dict[str, str]:
    """Return what trajectories were to a model and those before it, by the hash of their start."""
    found: dict[str, str] = {}
    for key in reversed(SEEN):
        names = model.metadata.get(key, [])
        if isinstance(names, list):
            role = "validation" if key == "validation" else "train"
            found |= {fingerprint(str(name)): role for name in names}
    found.pop("", None)
    return found


def remember(model: SpacetimeModel, initial: SpacetimeModel | None) -> SpacetimeModel:
    """Return a model that also knows what the one that it started from was made with."""
    if initial is None:
        return model
    earlier: set[str] = set()
    for key in SEEN:
        names = initial.metadata.get(key, [])
        earlier |= {str(name) for name in names} if isinstance(names, list) else set()
    return replace(model, metadata={**model.metadata, "earlier": sorted(earlier)})


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """A trajectory that can be used; ``interval`` fs lies between its frames."""

    source: Source
    system: System
    start: str
    temperature: float
    interval: float
    positions: NDArray[np.float64]
    velocities: NDArray[np.float64]

    @classmethod
    def of(cls, source: Source, trajectory: Trajectory) -> _Kept:
        digest = hashlib.sha256(trajectory.positions[0].tobytes())
        digest.update(trajectory.velocities[0].tobytes())
        gaps = np.diff(trajectory.steps)
        if len(set(gaps.tolist())) != 1:
            raise SpacetimeError(
                f"4D model: the frames of trajectory {source.name} are not equally far apart"
                f" ({gaps.min()} to {gaps.max()} steps); leave it out"
            )
        return cls(
            source,
            trajectory.system,
            digest.hexdigest()[:16],
            trajectory.about.temperature,
            float(gaps[0]) * trajectory.about.timestep,
            trajectory.positions,
            trajectory.velocities,
        )

    def thinned(self, interval: float) -> _Kept:
        """Return every so many frames, so that ``interval`` fs lies between them."""
        every = round(interval / self.interval)
        if not (every >= 1 and abs(every * self.interval - interval) <= EVEN * interval):
            raise SpacetimeError(
                f"4D model: the frames of trajectory {self.source.name} are {self.interval:g} fs"
                f" apart, {interval:g} fs are wanted; choose an interval that is a multiple of the"
                " stored ones"
            )
        return _Kept(
            self.source,
            self.system,
            self.start,
            self.temperature,
            interval,
            np.array(self.positions[::every]),
            np.array(self.velocities[::every]),
        )


def _reason(trajectory: Trajectory, shortest: float) -> str | None:
    """Return why nothing can be learnt from a trajectory, None if something can."""
    about = trajectory.about
    if about.ended != "completed":
        return about.ended
    if about.ensemble != "nve":
        return "thermostat"
    if trajectory.n_frames < 3 or not trajectory.times[-1] > shortest * (1.0 - EVEN):
        return "too_short"
    if not (np.isfinite(trajectory.positions).all() and np.isfinite(trajectory.velocities).all()):
        return "not_finite"
    return None


def _evenly(kept: Sequence[_Kept], interval: float | None) -> list[_Kept]:
    """Return trajectories with the same time between frames, fs; None for that of all."""
    first = kept[0]
    for item in kept:
        if interval is None and not abs(item.interval / first.interval - 1.0) <= EVEN:
            raise SpacetimeError(
                f"4D model: the frames of {item.source.name} are {item.interval:g} fs apart, those"
                f" of {first.source.name} {first.interval:g} fs; say which interval is wanted, a"
                " multiple of both"
            )
    return [item.thinned(first.interval if interval is None else interval) for item in kept]


def _check_same(kept: Sequence[_Kept]) -> None:
    first = kept[0]
    if first.system.cell is not None:
        raise SpacetimeError(
            f"4D model: {first.source.name} is periodic; a 4D model is of a molecule"
        )
    for item in kept[1:]:
        if not item.system.same_as(first.system):
            raise SpacetimeError(
                f"4D model: {item.source.name} has other atoms than {first.source.name}"
                f" ({item.system.numbers.tolist()} against {first.system.numbers.tolist()}, with"
                " their masses); a 4D model is of one molecule"
            )
    twice = [name for name, n in Counter(item.start for item in kept).items() if n > 1]
    if twice:
        names = [item.source.name for item in kept if item.start == twice[0]]
        raise SpacetimeError(
            f"4D model: {' and '.join(names)} are the same trajectory; name it once, or errors on"
            " held-out trajectories mean nothing"
        )


def _splits(kept: Sequence[_Kept], shares: Shares, known: Mapping[str, str]) -> list[str]:
    """Return the split of each trajectory: known before, said by its source, or drawn."""
    said = [known.get(item.start, item.source.split) for item in kept]
    undecided = sorted(
        (i for i, split in enumerate(said) if split is None),
        key=lambda i: (kept[i].temperature, kept[i].start),
    )
    fractions: dict[Split, float] = {"validation": shares.validation, "audit": shares.test}
    drawn = assign_splits(len(undecided), fractions, seeds.generator(shares.seed, "splits"))
    for i, split in zip(undecided, drawn, strict=True):
        said[i] = split
    unknown = sorted({str(split) for split in said} - set(ROLES))
    if unknown:
        raise SpacetimeError(
            f"4D model: splits {', '.join(unknown)} are unknown, want one of {', '.join(ROLES)}"
        )
    return [ROLES[str(split)] for split in said]
