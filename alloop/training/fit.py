"""One run of the optimiser over a training set."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from alloop import seeds
from alloop.errors import TrainingError
from alloop.potentials.fitting import Prediction
from alloop.training.adamw import AdamW
from alloop.training.data import Labels
from alloop.training.losses import frame_losses, known_forces, species_means
from alloop.training.schedule import Schedule
from alloop.training.settings import Epoch, Errors, StoppedBy, TrainReport, TrainSettings

_FRAMES_AT_ONCE = 64


class DivergedError(Exception):
    """The loss is not finite any more; the caller begins anew with shorter steps."""


class Fittable(Protocol):
    """What a fit asks of a potential; see ``Trainable``."""

    @property
    def start(self) -> Tensor:
        """(n_parameters,) float32."""
        ...

    def predict(self, parameters: Tensor, frames: Tensor) -> Prediction:
        """Predict frames (k,) int64 of the set."""
        ...


class Fit:
    """A fit from the start of a potential to the weights with the least validation loss.

    ``best`` holds those weights, (n_parameters,), averaged over steps.

    Parameters
    ----------
    potential : what is fitted.
    labels : of all frames that it can predict.
    settings : how.
    seed : of the order of the frames and of resampling.
    rates : (n_parameters,), multiplies the learning rate; parameters with 0 stay bit for bit.
    shown : (n,) int64, the frames of one epoch, which may repeat; all training frames if None.

    Raises
    ------
    TrainingError
        Only forces are to be learned, and no training frame has any.

    """

    def __init__(
        self,
        potential: Fittable,
        labels: Labels,
        settings: TrainSettings,
        seed: int,
        *,
        rates: Tensor | None = None,
        shown: Tensor | None = None,
    ) -> None:
        self._potential, self._labels, self._settings = potential, labels, settings
        self._order = torch.Generator().manual_seed(seeds.integer(seed, "order"))
        self._training = labels.training.nonzero()[:, 0]
        self._judges = (~labels.training).nonzero()[:, 0]
        if not settings.energy_weight and not bool(labels.has_forces[self._training].any()):
            raise TrainingError("energy_weight is 0 and no training frame has forces")
        shown = self._training if shown is None else shown
        self._drawn = self._resampled(shown, seeds.integer(seed, "resample"))
        steps_per_epoch = -(-len(self._drawn) // settings.batch_size)
        self._n_steps = settings.epochs * steps_per_epoch
        if settings.max_steps is not None:
            self._n_steps = min(self._n_steps, settings.max_steps)
        self._epochs = -(-self._n_steps // steps_per_epoch)
        self._schedule = Schedule(settings, self._n_steps)
        self._parameters = potential.start.clone().requires_grad_()
        self._averaged = potential.start.clone()
        self._optimiser = AdamW(self._parameters.detach(), settings.weight_decay, rates)
        self._moves = None if rates is None else rates > 0.0
        self._rate = 0.0
        self._step = self.epoch = self._best_epoch = 0
        self.best = self._averaged.clone()

    def run(
        self,
        should_stop: Callable[[], bool],
        on_epoch: Callable[[Epoch], None] | None,
        keep: Callable[[], None],
    ) -> StoppedBy:
        """Fit until the schedule ends, patience is lost or the caller says stop.

        ``keep`` is called after every whole epoch: then ``state`` is worth keeping. Raises
        DivergedError when a loss is not finite.
        """
        while True:
            if self._schedule.out_of_patience:
                return "patience"
            if self._schedule.too_slow:
                return "rate"
            if self._step >= self._n_steps:
                return "schedule"
            loss, stopped = self._run_epoch(should_stop)
            self.epoch += 1
            self._judge(loss, on_epoch)
            if stopped:
                return "deadline"
            keep()

    def state(self) -> dict[str, Any]:
        """Return all that changes during a fit, as tensors and plain values."""
        return {
            "parameters": self._parameters.detach().clone(),
            "averaged": self._averaged.clone(),
            "best": self.best.clone(),
            "optimiser": self._optimiser.state(),
            "schedule": self._schedule.state(),
            "order": self._order.get_state(),
            "rate": self._rate,
            "step": self._step,
            "epoch": self.epoch,
            "best_epoch": self._best_epoch,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of an equal fit as if it had never ended."""
        with torch.no_grad():
            self._parameters.copy_(state["parameters"])
        self._averaged.copy_(state["averaged"])
        self.best.copy_(state["best"])
        self._optimiser.restore(state["optimiser"])
        self._schedule.restore(state["schedule"])
        self._order.set_state(state["order"])
        self._rate, self._step = float(state["rate"]), int(state["step"])
        self.epoch, self._best_epoch = int(state["epoch"]), int(state["best_epoch"])

    def report(self, stopped_by: StoppedBy, restarts: int, checkpoint: str = "") -> TrainReport:
        """Return what came of it, with the errors of the best weights."""
        return TrainReport(
            epochs=self.epoch,
            steps=self._step,
            best_epoch=self._best_epoch,
            stopped_by=stopped_by,
            restarts=restarts,
            learning_rate=self._settings.learning_rate,
            training=self._errors(self.best, self._training)[1],
            validation=self._errors(self.best, self._judges)[1],
            checkpoint=checkpoint,
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
        prediction = self._potential.predict(self._parameters, batch)
        loss = frame_losses(self._settings, prediction, labels).mean()
        (gradient,) = torch.autograd.grad(loss, self._parameters)
        if self._moves is not None:
            gradient = gradient * self._moves
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
            self._best_epoch = self.epoch
        if on_epoch is not None:
            on_epoch(Epoch(self.epoch, self._epochs, self._step, self._rate, loss, judged, errors))

    def _errors(self, parameters: Tensor, entries: Tensor) -> tuple[float, Errors]:
        """Return the mean loss and the errors over some frames; NaN over none."""
        n = len(entries)
        if not n:
            return math.nan, Errors(0, *(math.nan,) * 5)
        has_forces = self._labels.has_forces[entries]
        share = float(has_forces.double().mean())
        columns, n_atoms = [], 0
        with torch.no_grad():
            for frames in entries.split(_FRAMES_AT_ONCE):
                labels = self._labels.of(frames)
                prediction = self._potential.predict(parameters, frames)
                losses = frame_losses(self._settings, prediction, labels, share)
                energy = (prediction.energies - labels.energies).double() / labels.n_atoms
                known = labels.has_forces[labels.frame]
                force = (prediction.forces - known_forces(labels)).double()
                force = force.where(known[:, None], 0.0)
                squares, sizes = force.square().sum(), force.abs().sum()
                mepa = species_means(force.abs(), labels).sum()
                parts = [losses.double().sum(), energy.square().sum(), energy.abs().sum()]
                columns.append(torch.stack([*parts, squares, sizes, mepa]))
                n_atoms += int(known.sum())
        sums = torch.stack(columns).sum(0).tolist()
        loss, energy_square, energy_size = (sums[k] / n for k in (0, 1, 2))
        force_square, force_size = (sums[k] / (3 * n_atoms or math.nan) for k in (3, 4))
        return loss, Errors(
            n_frames=n,
            energy=math.sqrt(energy_square),
            force=math.sqrt(force_square),
            energy_mae=energy_size,
            force_mae=force_size,
            mepa=sums[5] / (int(has_forces.sum()) or math.nan),
        )

    def _resampled(self, shown: Tensor, seed: int) -> Tensor:
        if self._settings.resample == "none":
            return shown
        generator = torch.Generator().manual_seed(seed)
        n = len(shown)
        return shown[torch.randint(n, (n,), generator=generator)]
