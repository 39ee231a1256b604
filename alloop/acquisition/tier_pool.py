"""What a promotion looks at: the frames of one system that have a label at the lower level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from alloop.acquisition.fingerprint import fingerprints
from alloop.errors import AcquisitionError
from alloop.frames import Frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alloop.potentials.committee import Committee, ForceKind

_COLUMNS: dict[str, type[np.generic]] = {
    "spreads": np.float64,
    "prices": np.float64,
    "differences": np.float64,
    "candidate": np.bool_,
    "known": np.bool_,
    "representative": np.bool_,
}
_FRAMES_AT_ONCE = 256


@dataclass(frozen=True, slots=True, eq=False)
class TierPool:
    """Frames of one system labelled at the lower level, in any order.

    Attributes
    ----------
    system : its name.
    keys : frame keys, (n,), each once.
    fingerprints : (n, width), Å.
    spreads : (n,), standard deviation of the difference between the levels over the seats of the
        committee, eV/Å (eV/atom where labels have no forces); ones while there is no committee
        at the upper level. A frame whose spread is not finite is broken: never chosen.
    prices : (n,), core-seconds of a label at the upper level, or relative ones.
    differences : (n,), upper less lower energy where both are known, eV; else NaN.
    candidate : (n,), the frames that may be chosen now, such as those of the training split.
    known : (n,), the frames whose labels at the upper level shape the model already.
    representative : (n,), the frames over which the error is summed: those that stand for what
        the potential will be used on.

    Raises
    ------
    AcquisitionError
        Shapes disagree, a key occurs twice, or a price is not a positive number.

    """

    system: str
    keys: tuple[str, ...]
    fingerprints: NDArray[np.float64]
    spreads: NDArray[np.float64]
    prices: NDArray[np.float64]
    differences: NDArray[np.float64]
    candidate: NDArray[np.bool_]
    known: NDArray[np.bool_]
    representative: NDArray[np.bool_]

    def __post_init__(self) -> None:
        n = len(self.keys)
        name = f"frames of {self.system} to promote"
        for attribute, kind in _COLUMNS.items():
            column = np.array(getattr(self, attribute), dtype=kind)
            if column.shape != (n,):
                raise AcquisitionError(f"{name}: {attribute} has shape {column.shape}, want ({n},)")
            column.flags.writeable = False
            object.__setattr__(self, attribute, column)
        if self.fingerprints.ndim != 2 or len(self.fingerprints) != n:
            raise AcquisitionError(
                f"{name}: fingerprints have shape {self.fingerprints.shape}, want ({n}, width)"
            )
        if len(set(self.keys)) != n:
            raise AcquisitionError(f"{name}: {n - len(set(self.keys))} frames are there twice")
        if not ((self.prices > 0.0) & np.isfinite(self.prices)).all():
            raise AcquisitionError(f"{name}: prices must be positive numbers of seconds")

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def sound(self) -> NDArray[np.bool_]:
        """Frames with a finite spread and fingerprint, (n,)."""
        return np.isfinite(self.spreads) & np.isfinite(self.fingerprints).all(axis=1)


def pool_frames(
    system: str,
    frames: Sequence[Frame],
    prices: NDArray[np.float64],
    *,
    lower: Committee | None,
    upper: Committee | None,
    differences: NDArray[np.float64],
    candidate: NDArray[np.bool_],
    known: NDArray[np.bool_],
    representative: NDArray[np.bool_],
    forces: bool = True,
    alpha: float = 1.0,
) -> TierPool:
    """Return the pool of frames of one system, with fingerprints and spreads worked out.

    Without an upper committee all spreads are 1. See :class:`TierPool` for the other arguments.

    forces : whether labels at the upper level have them.
    alpha : error per spread on audit frames (:mod:`alloop.acquisition.calibration`). One number
        for all systems changes no choice; it makes the expected errors right.

    Raises AcquisitionError if frames differ in their atoms or committees in their members.
    """
    if not frames or any(not np.array_equal(f.numbers, frames[0].numbers) for f in frames):
        raise AcquisitionError(f"frames of {system} to promote: want one or more of one system")
    numbers, positions = frames[0].numbers, np.array([frame.positions for frame in frames])
    spreads = np.ones(len(frames))
    if lower is not None and upper is not None:
        spreads = alpha * difference_spread(numbers, positions, lower, upper, forces=forces)
    return TierPool(
        system=system,
        keys=tuple(frame.key for frame in frames),
        fingerprints=fingerprints(numbers, positions),
        spreads=spreads,
        prices=prices,
        differences=differences,
        candidate=candidate,
        known=known,
        representative=representative,
    )


def difference_spread(
    numbers: NDArray[np.int64],
    positions: NDArray[np.float64],
    lower: Committee,
    upper: Committee,
    *,
    forces: bool = True,
) -> NDArray[np.float64]:
    """Return the standard deviation of upper less lower over the seats, (n_frames,).

    Of forces: root mean square over components, eV/Å; else of energies, each seat's mean over the
    frames left out, eV/atom. Member i of both committees is seat i. NaN where a member gives none.
    """
    if lower.n_members != upper.n_members or lower.n_members < 2:
        raise AcquisitionError(
            "the spread of a difference needs two or more seats, filled in both committees:"
            f" the lower has {lower.n_members} members, the upper {upper.n_members}"
        )
    kind: ForceKind = "members" if forces else "none"
    parts = []
    for start in range(0, len(positions), _FRAMES_AT_ONCE):
        batch = torch.tensor(positions[start : start + _FRAMES_AT_ONCE])
        below, above = (c.evaluate(numbers, batch, forces=kind) for c in (lower, upper))
        if forces and above.member_forces is not None and below.member_forces is not None:
            difference = above.member_forces - below.member_forces
        else:
            difference = above.energies - below.energies
        parts.append(difference.numpy())
    values = np.concatenate(parts, axis=1)
    if not forces:
        sound = np.isfinite(values).all(axis=0)
        offsets = values[:, sound].mean(axis=1, keepdims=True) if sound.any() else 0.0
        spread: NDArray[np.float64] = (values - offsets).std(axis=0, ddof=1) / len(numbers)
    else:
        spread = np.sqrt(values.var(axis=0, ddof=1).mean(axis=(1, 2)))
    return spread
