"""Learning rate by step, and when to stop."""

from __future__ import annotations

import math

from alloop.training.settings import TrainSettings

_PLATEAU_FACTOR = 0.5


class Schedule:
    """The learning rate of a fit: a linear rise, then a cosine or halvings on plateaus.

    Parameters
    ----------
    settings : of the fit.
    n_steps : steps after which the fit is over.

    """

    def __init__(self, settings: TrainSettings, n_steps: int) -> None:
        self._settings = settings
        self._n_steps = n_steps
        self._factor = 1.0
        self._plateau = max(1, settings.patience // 3)
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
            self._factor *= _PLATEAU_FACTOR
            self._since_change = 0
        return False

    @property
    def out_of_patience(self) -> bool:
        """Whether there was no better loss for too long."""
        return self._since_best >= self._settings.patience
