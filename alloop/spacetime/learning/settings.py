"""What the fit of a 4D model may cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from alloop.errors import SpacetimeError


@dataclass(frozen=True, slots=True)
class FitSettings:
    """What a fit may cost; the defaults take half a minute on one core for ethanol.

    Attributes
    ----------
    cutoff : longest time after a start to predict, fs; a multiple of the time between frames.
    members : number of networks.
    hidden : widths of the hidden layers.
    basis_size : number of functions of time, None for 1.2 in each fs; never more than a segment has
        frames.
    windows : how many stretches of trajectory are learnt from.
    batch : windows per optimiser step and member.
    steps : optimiser steps; 0 leaves the polynomial alone.
    learning_rate : of Adam, at its peak.
    energy_weight : weight of the error of the potential energy in the loss; GICnet's is 1.
    augment : whether to learn from trajectories reversed in time, and mirrored or with like atoms
        exchanged where the molecule allows it, as well.
    coordinates : "auto" for what suits the molecule; "dummies" for GICnet's, which stand on dummy
        atoms in space and tell the orientation too, for comparison.

    Raises
    ------
    SpacetimeError
        Some value makes no sense.

    """

    cutoff: float = 10.0
    members: int = 4
    hidden: tuple[int, ...] = (256, 256)
    basis_size: int | None = None
    windows: int = 72_000
    batch: int = 256
    steps: int = 1000
    learning_rate: float = 6e-3
    energy_weight: float = 0.0
    augment: bool = True
    coordinates: Literal["auto", "dummies"] = "auto"

    def __post_init__(self) -> None:
        for name in ("cutoff", "members", "basis_size", "windows", "batch", "learning_rate"):
            value = getattr(self, name)
            if value is None:
                continue
            if not (value > 0 and math.isfinite(value)):
                raise SpacetimeError(f"4D fit: {name} must be positive, got {value}")
        if not all(width > 0 for width in self.hidden):
            raise SpacetimeError(
                f"4D fit: widths of hidden layers are {self.hidden}, want positive"
            )
        if self.coordinates not in ("auto", "dummies"):
            raise SpacetimeError(
                f"4D fit: coordinates are {self.coordinates!r}, want 'auto' or 'dummies'"
            )
        for name in ("steps", "energy_weight"):
            if not getattr(self, name) >= 0:
                raise SpacetimeError(
                    f"4D fit: {name} must not be negative, got {getattr(self, name)}"
                )

    def n_functions(self, n_frames: int) -> int:
        """Return the number of functions of time for segments of so many frames."""
        wanted = math.ceil(1.2 * self.cutoff - 1e-9) if self.basis_size is None else self.basis_size
        return min(wanted, n_frames)
