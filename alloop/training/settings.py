"""How a member is fitted, and what came of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from alloop.errors import TrainingError

StoppedBy = Literal["schedule", "patience", "rate", "deadline"]


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How one member is fitted. Defaults suit a few hundred frames of a small molecule.

    Attributes
    ----------
    epochs : most passes over the training frames.
    max_steps : most optimiser steps, whichever comes first; None for no such bound.
    batch_size : frames in one step.
    learning_rate : first step length of AdamW; it rises linearly over ``warmup_steps``.
    schedule : "cosine" falls to 0 at the last step; "plateau" falls by ``plateau_factor`` after
        ``plateau_patience`` epochs without improvement, a third of ``patience`` if None, and
        ends the fit below ``min_learning_rate``.
    energy_weight, force_weight : of the two parts of the loss, see :mod:`alloop.training.losses`.
    loss : "mse"; "huber", which learned small errors better in every test and forgives outliers;
        "mepa", absolute errors averaged over each element by itself.
    huber_delta : where "huber" turns from square to linear, eV and eV/Å.
    direction_weight : of the angles between latent and true forces, for architectures that
        have latent forces.
    penalty_weight : of the regularisation of architectures that have one.
    weight_decay : AdamW's decoupled decay.
    ema_decay : of the running mean of the weights, which is what is judged and kept.
    patience : epochs without a better validation loss after which the fit ends.
    max_gradient_norm : longer gradients are shortened to it.
    resample : what each member sees of the training frames: "none" shows all of them, so that
        members differ by their first weights and the order of frames; "bootstrap" draws as many
        with replacement, which widens the spread and costs a tenth to a quarter in accuracy.
    max_restarts : how often a fit that diverged is begun anew with a third of the step length.

    Raises
    ------
    TrainingError
        A number is out of range.

    """

    epochs: int = 500
    max_steps: int | None = 1500
    batch_size: int = 32
    learning_rate: float = 5e-3
    warmup_steps: int = 50
    schedule: Literal["cosine", "plateau"] = "cosine"
    plateau_factor: float = 0.5
    plateau_patience: int | None = None
    min_learning_rate: float = 0.0
    energy_weight: float = 1.0
    force_weight: float = 1.0
    loss: Literal["mse", "huber", "mepa"] = "huber"
    huber_delta: float = 0.05
    direction_weight: float = 0.0
    penalty_weight: float = 0.0
    weight_decay: float = 0.0
    ema_decay: float = 0.99
    patience: int = 100
    max_gradient_norm: float = 10.0
    resample: Literal["bootstrap", "none"] = "none"
    max_restarts: int = 3

    def __post_init__(self) -> None:
        at_least_one = ("epochs", "batch_size", "patience")
        positive = ("learning_rate", "huber_delta", "max_gradient_norm")
        not_negative = (
            "energy_weight",
            "force_weight",
            "direction_weight",
            "penalty_weight",
            "min_learning_rate",
            "weight_decay",
            "warmup_steps",
            "max_restarts",
        )
        bad = [name for name in at_least_one if not getattr(self, name) >= 1]
        bad += [name for name in positive if not 0.0 < getattr(self, name) < math.inf]
        bad += [name for name in not_negative if not 0.0 <= getattr(self, name) < math.inf]
        if not 0.0 <= self.ema_decay < 1.0:
            bad.append("ema_decay")
        if not 0.0 < self.plateau_factor < 1.0:
            bad.append("plateau_factor")
        for name in ("max_steps", "plateau_patience"):
            value = getattr(self, name)
            if value is not None and not value >= 1:
                bad.append(name)
        for name, known in (
            ("schedule", ("cosine", "plateau")),
            ("loss", ("mse", "huber", "mepa")),
            ("resample", ("bootstrap", "none")),
        ):
            if getattr(self, name) not in known:
                bad.append(name)
        if bad:
            given = ", ".join(f"{name} = {getattr(self, name)!r}" for name in bad)
            raise TrainingError(f"training settings are out of range: {given}")
        if not self.energy_weight + self.force_weight > 0.0:
            raise TrainingError("energy_weight and force_weight are both 0: nothing to learn")


@dataclass(frozen=True, slots=True)
class Errors:
    """Errors over some frames.

    Attributes
    ----------
    n_frames : how many; the errors of none are NaN.
    energy, energy_mae : root mean square and mean absolute of the energy per atom, eV/atom.
    force, force_mae : the same of the force components, eV/Å; like ``mepa`` over the frames that
        have forces, NaN where none has.
    mepa : mean absolute force error of each element, summed over elements, mean over frames, eV/Å.

    """

    n_frames: int
    energy: float
    force: float
    energy_mae: float
    force_mae: float
    mepa: float


@dataclass(frozen=True, slots=True)
class Epoch:
    """Progress of a fit, told after every epoch.

    Attributes
    ----------
    epoch, epochs : passes done, and most that there will be.
    step : optimiser steps done.
    learning_rate : of the last step.
    training_loss : mean over the epoch.
    validation_loss : of the averaged weights; of the training frames if none are for validation.
    validation : errors on the validation frames.

    """

    epoch: int
    epochs: int
    step: int
    learning_rate: float
    training_loss: float
    validation_loss: float
    validation: Errors


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What came of a fit.

    Attributes
    ----------
    epochs, steps : passes and optimiser steps done.
    best_epoch : the epoch whose weights were kept.
    stopped_by : "schedule" (it ran its course), "patience", "rate" (it fell below the least that
        was asked for) or "deadline".
    restarts : how often it diverged before.
    learning_rate : first step length of the run that succeeded.
    training, validation : errors of the kept weights; training over all frames, seen or not.
    checkpoint : what was found in place of the checkpoint; empty if nothing was.

    """

    epochs: int
    steps: int
    best_epoch: int
    stopped_by: StoppedBy
    restarts: int
    learning_rate: float
    training: Errors
    validation: Errors
    checkpoint: str = ""
