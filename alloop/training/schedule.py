"""Learning rate by step, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from alloop.training.settings import TrainSettings


class Schedule:
    """The learning rate of a fit: a linear rise, then a cosine or falls on plateaus.

    Parameters
    ----------
    settings : of the fit.
    n_steps : steps after which the fit is over.

    """

    def __init__(self, settings: TrainSettings, n_steps: int) -> None:
        self._settings = settings
        self._n_steps = n_steps
        self._plateau = settings.plateau_patience or max(1, settings.patience // 3)
        self._factor = 1.0
        self._since_best = 0
        self._since_change = 0
        self._best = math.inf

    def learning_rate(self, step: int) -> float:
        """Return the step length of a step, counted from 0."""
        rise = min(1.0, (step + 1) / (self._settings.warmup_steps + 1))
        rate = self._settings.learning_rate * rise
        if self._settings.schedule == "cosine":
            return rate * 0.5 * (1.0 + math.cos(math.pi * step / self._n_steps))
        return rate * self._factor

    def judge(self, loss: float) -> bool:
        """Take note of a validation loss; return whether it is the best so far."""
        if loss < self._best:
            self._best = loss
            self._since_best = self._since_change = 0
            return True
        self._since_best += 1
        self._since_change += 1
        if self._since_change >= self._plateau:
            self._factor *= self._settings.plateau_factor
            self._since_change = 0
        return False

    @property
    def out_of_patience(self) -> bool:
        """Whether there was no better loss for too long."""
        return self._since_best >= self._settings.patience

    @property
    def too_slow(self) -> bool:
        """Whether plateaus have brought the learning rate below the least that was asked for."""
        falls = self._settings.schedule == "plateau"
        return falls and (
            self._settings.learning_rate * self._factor < self._settings.min_learning_rate
        )

    def state(self) -> dict[str, Any]:
        """Return what ``restore`` needs to go on, as plain values."""
        return {
            "factor": self._factor,
            "since_best": self._since_best,
            "since_change": self._since_change,
            "best": self._best,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self._factor, self._best = float(state["factor"]), float(state["best"])
        self._since_best = int(state["since_best"])
        self._since_change = int(state["since_change"])
