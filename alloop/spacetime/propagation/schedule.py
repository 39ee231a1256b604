"""At which times a propagation is to be seen, and which of them lie in which segment."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from alloop.errors import SpacetimeError

CLOSE = 1e-9
"""Part of a step within which two times are the same."""


@dataclass(frozen=True, slots=True)
class Regular:
    """Times from 0 to a duration at an interval, which are never all held in memory.

    Attributes
    ----------
    duration, interval : fs.

    Raises
    ------
    SpacetimeError
        They are not positive.

    """

    duration: float
    interval: float

    def __post_init__(self) -> None:
        if not (0.0 < self.duration < math.inf and 0.0 < self.interval < math.inf):
            raise SpacetimeError(
                f"a propagation of {self.duration} fs at intervals of {self.interval} fs makes no"
                " sense, want positive numbers"
            )

    def __len__(self) -> int:
        return math.floor(self.duration / self.interval + CLOSE) + 1

    def count(self, until: float) -> int:
        """Return how many of the times are not later than ``until``, fs."""
        return min(len(self), math.floor(until / self.interval + CLOSE) + 1)

    def span(self, first: int, end: int) -> Tensor:
        """Return times first, first + 1, ... end - 1, fs."""
        return self.interval * torch.arange(first, end, dtype=torch.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Listed:
    """Any times.

    Attributes
    ----------
    times : (n_times,) float64, ascending from 0 or later, fs.

    Raises
    ------
    SpacetimeError
        There are none or they do not ascend.

    """

    times: Tensor

    def __post_init__(self) -> None:
        times = self.times
        if not (len(times) and times[0] >= 0 and bool((times[1:] >= times[:-1]).all())):
            raise SpacetimeError("times of a propagation must ascend from 0 or later")

    def __len__(self) -> int:
        return len(self.times)

    def count(self, until: float) -> int:
        """Return how many of the times are not later than ``until``, fs."""
        return int(torch.searchsorted(self.times, until + CLOSE, right=True))

    def span(self, first: int, end: int) -> Tensor:
        """Return times first, first + 1, ... end - 1, fs."""
        return self.times[first:end]


class Times(Protocol):
    """What :class:`Regular` and :class:`Listed` have in common."""

    def __len__(self) -> int: ...

    def count(self, until: float) -> int:
        """Return how many of the times are not later than ``until``, fs."""
        ...

    def span(self, first: int, end: int) -> Tensor:
        """Return times first, first + 1, ... end - 1, fs."""
        ...


@dataclass(frozen=True, slots=True)
class Schedule:
    """Times cut into segments of equal length; a time on a border belongs to the earlier one.

    Attributes
    ----------
    times : all of them.
    length : of a segment, fs.

    """

    times: Times
    length: float

    @property
    def n_segments(self) -> int:
        """Number of segments up to the last time."""
        last = float(self.times.span(len(self.times) - 1, len(self.times))[0])
        return max(1, math.ceil(last / self.length - CLOSE))

    def first(self, segment: int) -> int:
        """Return how many times lie in earlier segments."""
        return self.times.count(segment * self.length) if segment else 0

    def within(self, segment: int) -> Tensor:
        """Return the times in a segment, counted from its start, fs."""
        times = self.times.span(self.first(segment), self.first(segment + 1))
        return torch.clamp(times - segment * self.length, 0.0, self.length)
