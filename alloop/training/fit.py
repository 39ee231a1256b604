"""One run of the optimiser over a training set."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from alloop import seeds
from alloop.potentials.fitting import Trainable
from alloop.training.adamw import AdamW
from alloop.training.data import Labels
from alloop.training.losses import frame_losses
from alloop.training.schedule import Schedule
from alloop.training.settings import Epoch, Errors, TrainReport, TrainSettings

_FRAMES_AT_ONCE = 64


class DivergedError(Exception):
    """The loss is not finite any more; the caller begins anew with shorter steps."""


class Fit:
    """A fit from the start of a trainable to the weights with the least validation loss.

    ``best`` holds those weights, (n_parameters,), averaged over steps.
    """

    def __init__(
        self,
        trainable: Trainable,
        labels: Labels,
        settings: TrainSettings,
        seed: int,
    ) -> None:
        self._trainable, self._labels, self._settings = trainable, labels, settings
        self._order = torch.Generator().manual_seed(seeds.integer(seed, "order"))
        self._training = labels.training.nonzero()[:, 0]
        self._judges = (~labels.training).nonzero()[:, 0]
        self._drawn = self._resampled(seeds.integer(seed, "resample"))
        steps_per_epoch = -(-len(self._drawn) // settings.batch_size)
        self._n_steps = settings.epochs * steps_per_epoch
        if settings.max_steps is not None:
            self._n_steps = min(self._n_steps, settings.max_steps)
        self._epochs = -(-self._n_steps // steps_per_epoch)
        self._schedule = Schedule(settings, self._n_steps)
        self._parameters = trainable.start.clone().requires_grad_()
        self._averaged = trainable.start.clone()
        self._optimiser = AdamW(self._parameters.detach(), settings.weight_decay)
        self._rate = 0.0
        self._step = self._epoch = self._best_epoch = 0
        self.best = self._averaged.clone()

    def run(
        self, should_stop: Callable[[], bool], on_epoch: Callable[[Epoch], None] | None
    ) -> Literal["schedule", "patience", "deadline"]:
        """Fit until the schedule ends, patience is lost or the caller says stop.

        Raises DivergedError when a loss is not finite.
        """
        while self._step < self._n_steps:
            loss, stopped = self._run_epoch(should_stop)
            self._epoch += 1
            self._judge(loss, on_epoch)
            if stopped:
                return "deadline"
            if self._schedule.out_of_patience:
                return "patience"
        return "schedule"

    def report(
        self, stopped_by: Literal["schedule", "patience", "deadline"], restarts: int
    ) -> TrainReport:
        """Return what came of it, with the errors of the best weights."""
        return TrainReport(
            epochs=self._epoch,
            steps=self._step,
            best_epoch=self._best_epoch,
            stopped_by=stopped_by,
            restarts=restarts,
            learning_rate=self._settings.learning_rate,
            training=self._errors(self.best, self._training)[1],
            validation=self._errors(self.best, self._judges)[1],
        )

    def _run_epoch(self, should_stop: Callable[[], bool]) -> tuple[float, bool]:
        """Pass over the frames once; return the mean loss and whether to stop."""
        order = torch.randperm(len(self._drawn), generator=self._order)
        losses: list[float] = []
        for batch in self._drawn[order].split(self._settings.batch_size):
            losses.append(self._take_step(batch))
            if should_stop():
                return math.fsum(losses) / len(losses), True
            if self._step == self._n_steps:
                break
        return math.fsum(losses) / len(losses), False

    def _take_step(self, batch: Tensor) -> float:
        self._rate = self._schedule.learning_rate(self._step)
        labels = self._labels.of(batch)
        prediction = self._trainable.predict(self._parameters, batch)
        loss = frame_losses(self._settings, prediction, labels).mean()
        (gradient,) = torch.autograd.grad(loss, self._parameters)
        norm = float(gradient.norm())
        if norm > self._settings.max_gradient_norm:
            gradient *= self._settings.max_gradient_norm / norm
        self._optimiser.step(gradient, self._rate)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise DivergedError
        self._step += 1
        # The mean must forget the first weights faster than a long memory would.
        decay = min(self._settings.ema_decay, self._step / (self._step + 10))
        self._averaged.lerp_(self._parameters.detach(), 1.0 - decay)
        return value

    def _judge(self, loss: float, on_epoch: Callable[[Epoch], None] | None) -> None:
        judged, errors = self._errors(self._averaged, self._judges)
        if not len(self._judges):
            judged = self._errors(self._averaged, self._training)[0]
        if not math.isfinite(judged):
            raise DivergedError
        if self._schedule.judge(judged):
            self.best.copy_(self._averaged)
            self._best_epoch = self._epoch
        if on_epoch is not None:
            on_epoch(Epoch(self._epoch, self._epochs, self._step, self._rate, loss, judged, errors))

    def _errors(self, parameters: Tensor, entries: Tensor) -> tuple[float, Errors]:
        """Return the mean loss and the errors over some frames; NaN over none."""
        loss = energy = force = 0.0
        n_components = 0
        with torch.no_grad():
            for frames in entries.split(_FRAMES_AT_ONCE):
                labels = self._labels.of(frames)
                prediction = self._trainable.predict(parameters, frames)
                losses = frame_losses(self._settings, prediction, labels)
                off_energy = (prediction.energies - labels.energies).double() / labels.n_atoms
                off_force = (prediction.forces - labels.forces).double()
                loss += float(losses.double().sum())
                energy += float(off_energy.square().sum())
                force += float(off_force.square().sum())
                n_components += off_force.numel()
        n = len(entries)
        if not n:
            return math.nan, Errors(0, math.nan, math.nan)
        return loss / n, Errors(n, math.sqrt(energy / n), math.sqrt(force / n_components))

    def _resampled(self, seed: int) -> Tensor:
        if self._settings.resample == "none":
            return self._training
        generator = torch.Generator().manual_seed(seed)
        n = len(self._training)
        return self._training[torch.randint(n, (n,), generator=generator)]
