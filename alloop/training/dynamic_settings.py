"""How a member learns from motion, what is told on the way, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from alloop.errors import TrainingError


@dataclass(frozen=True, slots=True)
class DynamicSettings:
    """How a trained member learns from motion. Defaults are the paper's, or its program's.

    Attributes
    ----------
    lengths : frames of the subsequences, stage after stage: the paper goes from 1 to 11. A constant
        row is the control: as many stages and resets of the learning rate, nothing longer.
    gradient : "bptt" differentiates through the motion, as the paper says; "detached" takes the
        frames that the potential arrives at as given, as the paper's program does, which needs the
        memory of one frame only.
    first_weight : of the first frame, the only one whose labels are exactly its own; λ_1 of
        equation 12. The others weigh 1.
    energy_weight : of the energy per atom where subsequences have one frame; equation 9.
    stride : frames between two starts; 1 starts from every frame.
    batch_size : subsequences in one step.
    learning_rate : of AdamW at the start of every stage.
    minimal_rate, factor, patience : after more than ``patience`` epochs without a better validation
        error the learning rate is multiplied by ``factor``, down to ``minimal_rate``; when it
        happens there, the stage is over.
    epochs_per_stage : after which a stage is over in any case.
    validation_frames : length of the free motions whose MEPA is the validation error.
    max_gradient_norm : longer gradients are shortened to it.

    Raises
    ------
    TrainingError
        A number is out of range.

    """

    lengths: tuple[int, ...] = tuple(range(1, 12))
    gradient: Literal["bptt", "detached"] = "bptt"
    first_weight: float = 50.0
    energy_weight: float = 1.0
    stride: int = 1
    batch_size: int = 32
    learning_rate: float = 1e-4
    minimal_rate: float = 2e-6
    factor: float = 0.33
    patience: int = 15
    epochs_per_stage: int = 1000
    validation_frames: int = 60
    max_gradient_norm: float = 1.0

    def __post_init__(self) -> None:
        at_least_one = ("stride", "batch_size", "epochs_per_stage", "validation_frames")
        positive = ("first_weight", "learning_rate", "minimal_rate", "factor", "max_gradient_norm")
        bad = [name for name in at_least_one if not getattr(self, name) >= 1]
        bad += [name for name in positive if not 0.0 < getattr(self, name) < math.inf]
        bad += [n for n in ("energy_weight", "patience") if not 0 <= getattr(self, n) < math.inf]
        if not self.lengths or not min(self.lengths) >= 1:
            bad.append("lengths")
        if self.gradient not in ("bptt", "detached"):
            bad.append("gradient")
        if not self.factor < 1.0:
            bad.append("factor")
        if not self.minimal_rate <= self.learning_rate:
            bad.append("minimal_rate")
        if bad:
            given = ", ".join(f"{name} = {getattr(self, name)!r}" for name in dict.fromkeys(bad))
            raise TrainingError(f"settings of dynamic training are out of range: {given}")


@dataclass(frozen=True, slots=True)
class DynamicEpoch:
    """Progress, told after every epoch.

    Attributes
    ----------
    stage, length : number of the stage from 0, and frames of its subsequences.
    epoch, step : epochs and optimiser steps done, over all stages.
    learning_rate : of the epoch.
    training_loss : mean over the epoch; nothing to compare between lengths.
    validation : MEPA of free motion on the validation trajectories, eV/Å.

    """

    stage: int
    length: int
    epoch: int
    step: int
    learning_rate: float
    training_loss: float
    validation: float


@dataclass(frozen=True, slots=True)
class DynamicReport:
    """What came of it.

    Attributes
    ----------
    epochs : all of them, in order.
    before : MEPA of the member that was given, eV/Å on the validation trajectories.
    best : that of the member returned, which is the given one if nothing was better.
    stopped_by : "schedule" or "deadline".
    checkpoint : what is to be said about the file of checkpoints; empty if nothing.

    """

    epochs: tuple[DynamicEpoch, ...]
    before: float
    best: float
    stopped_by: Literal["schedule", "deadline"]
    checkpoint: str = ""


class Plateau:
    """A learning rate that falls when a validation error no longer does.

    ``rate`` is the learning rate; ``over`` says that patience was exceeded at the minimal rate.
    """

    def __init__(self, settings: DynamicSettings) -> None:
        self._settings = settings
        self.rate = settings.learning_rate
        self.over = False
        self._best = math.inf
        self._since = 0

    def judge(self, error: float) -> None:
        """Take note of the validation error of an epoch."""
        if error < self._best:
            self._best, self._since = error, 0
            return
        self._since += 1
        if self._since > self._settings.patience:
            self.over = self.rate <= self._settings.minimal_rate
            self.rate = max(self.rate * self._settings.factor, self._settings.minimal_rate)
            self._since = 0

    def state(self) -> dict[str, Any]:
        """Return what ``restore`` needs to go on, as plain values."""
        return {"rate": self.rate, "over": self.over, "best": self._best, "since": self._since}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.rate, self.over = state["rate"], state["over"]
        self._best, self._since = state["best"], state["since"]
