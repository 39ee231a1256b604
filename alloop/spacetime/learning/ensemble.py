"""Training of the networks of a 4D model, all members in one batched program."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from alloop.checkpoint import CheckpointFile
from alloop.errors import SpacetimeError
from alloop.spacetime.basis import TimeBasis
from alloop.spacetime.coordinates.protocol import Coordinates
from alloop.spacetime.learning.energy_loss import EnergyLoss
from alloop.spacetime.learning.settings import FitSettings
from alloop.spacetime.model import stacked_mlp

Progress = Callable[[int, int, float], None]
"""Called with (steps done, steps in all, loss)."""
Layers = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]
"""Weights and biases of each layer."""

LOSS_WEIGHTS = {
    "bond": (1.0, 16.0),
    "angle": (2.0, 20.0),
    "dihedral": (4.0, 24.0),
    "displacement": (1.0, 16.0),
}
"""Of coordinates and rates; GICnet's (doi:10.1021/acs.jpclett.3c01592, SI), for ours as bonds'."""
WARM_UP_STEPS = 50
BETAS = (0.9, 0.99)
WEIGHT_DECAY = 0.1
N_VALIDATIONS = 10
"""How many times in a training the best networks so far are looked for."""
N_REPORTS = 100
"""How many times in a training progress is told."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Normalised starts (n, n_features) and the coefficients left to learn (n, n_outputs)."""

    inputs: Tensor
    targets: Tensor


class MotionLoss:
    """Weighted root mean square errors of coordinates and rates over a grid of times."""

    def __init__(
        self, internal: Coordinates, basis: TimeBasis, times: Tensor, scale: Tensor
    ) -> None:
        self._functions = torch.cat(basis(times)).to(torch.float32).T.contiguous()
        self._scale = scale
        self._weights = torch.zeros(internal.n_coordinates, 2)
        for kind, span in internal.kinds.items():
            weights = torch.tensor(LOSS_WEIGHTS[kind])
            self._weights[span] = weights / (span.stop - span.start)

    def __call__(self, errors: Tensor) -> Tensor:
        """Return one loss per member for errors (n_members, n, n_outputs) of scaled outputs."""
        coefficients = errors.unflatten(-1, self._scale.shape) * self._scale
        motion = (coefficients @ self._functions).unflatten(-1, (2, -1))
        squares = motion.square().mean(dim=(1, -1))
        return torch.sum(self._weights * torch.sqrt(squares + 1e-16), dim=(-1, -2))


def new_layers(sizes: list[int], n_members: int, generator: torch.Generator) -> Layers:
    """Return random layers whose last one is zero: untrained networks change nothing."""
    weights: list[Tensor] = []
    biases: list[Tensor] = []
    for n_in, n_out in pairwise(sizes):
        spread = math.sqrt(2.0 / n_in)
        weights.append(spread * torch.randn(n_members, n_in, n_out, generator=generator))
        biases.append(torch.zeros(n_members, 1, n_out))
    weights[-1].zero_()
    return tuple(weights), tuple(biases)


def train(
    layers: Layers,
    sample: Sample,
    validation: Sample | None,
    loss: MotionLoss,
    settings: FitSettings,
    generator: torch.Generator,
    *,
    energy_loss: EnergyLoss | None = None,
    checkpoint: CheckpointFile | None = None,
    deadline: float | None = None,
    on_progress: Progress | None = None,
) -> tuple[Layers, dict[str, float]]:
    """Return trained layers, the best ones by the validation sample, and how it went.

    Adam with decoupled weight decay; the learning rate warms up and falls to zero by a cosine. Each
    member draws its own batches. How it went: ``steps``, and ``train_loss`` and ``validation_loss``
    where there was a step and a validation sample. At ``deadline`` (of ``time.monotonic``) training
    ends early. With a checkpoint, training goes on where it was, to the last bit.

    Raises
    ------
    SpacetimeError
        The networks diverged.

    """
    course = _Course(layers, generator, _validate(layers, validation, loss))
    kept = None if checkpoint is None else checkpoint.load()
    if kept is not None:
        course.restore(kept)
    steps = settings.steps
    while course.step < steps and not (deadline is not None and time.monotonic() >= deadline):
        course.step += 1
        rate = settings.learning_rate * _schedule(course.step, steps)
        rows = torch.randint(
            len(sample.inputs), (len(layers[0][0]), settings.batch), generator=generator
        )
        with _quick_products():
            outputs = stacked_mlp(sample.inputs[rows], *course.layers)
        errors = outputs - sample.targets[rows]
        losses = loss(errors)
        total = losses.sum()
        if energy_loss is not None:
            total = total + settings.energy_weight * energy_loss(errors, rows, generator).sum()
        course.descend(total, rate)
        course.train_loss = float(losses.detach().mean())
        if course.step % max(steps // N_VALIDATIONS, 1) == 0 or course.step == steps:
            course.judge(_validate(course.snapshot(), validation, loss))
        if on_progress is not None and course.step % max(steps // N_REPORTS, 1) == 0:
            on_progress(course.step, steps, course.train_loss)
        if checkpoint is not None:
            checkpoint.offer(course.state)
    if checkpoint is not None and course.step < steps:
        checkpoint.keep(course.state())
    if not all(bool(torch.isfinite(p).all()) for part in course.best for p in part):
        raise SpacetimeError(
            f"4D fit: the networks diverged at a learning rate of {settings.learning_rate};"
            " lower it, or look for broken trajectories"
        )
    return course.best, course.numbers()


class _Course:
    """Where a training is: all that it takes to go on from there."""

    def __init__(self, layers: Layers, generator: torch.Generator, best_loss: float) -> None:
        weights, biases = (tuple(p.clone().requires_grad_() for p in part) for part in layers)
        self.layers: Layers = weights, biases
        self.best, self.best_loss = layers, best_loss
        self.step, self.train_loss = 0, math.nan
        self._generator = generator
        self._optimiser = torch.optim.AdamW(
            [*weights, *biases], betas=BETAS, weight_decay=WEIGHT_DECAY
        )

    def descend(self, total: Tensor, rate: float) -> None:
        """Take one step of the optimiser."""
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.zero_grad()
        with _quick_products():
            total.backward()
        self._optimiser.step()

    def judge(self, validation_loss: float) -> None:
        """Keep the present layers if they are the best so far; the last, if nobody judges (NaN)."""
        if math.isnan(self.best_loss) or validation_loss < self.best_loss:
            self.best, self.best_loss = self.snapshot(), validation_loss

    def snapshot(self) -> Layers:
        """Return a copy of the present layers."""
        weights, biases = (tuple(p.detach().clone() for p in part) for part in self.layers)
        return weights, biases

    def state(self) -> dict[str, Any]:
        """Return everything that the next step depends on."""
        return {
            "step": self.step,
            "layers": [list(part) for part in self.snapshot()],
            "best": [list(part) for part in self.best],
            "best_loss": self.best_loss,
            "train_loss": self.train_loss,
            "optimiser": self._optimiser.state_dict(),
            "generator": self._generator.get_state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a state."""
        self.step, self.train_loss = state["step"], state["train_loss"]
        self.best_loss = state["best_loss"]
        weights, biases = (tuple(part) for part in state["best"])
        self.best = weights, biases
        with torch.no_grad():
            for part, kept in zip(self.layers, state["layers"], strict=True):
                for parameter, values in zip(part, kept, strict=True):
                    parameter.copy_(values)
        self._optimiser.load_state_dict(state["optimiser"])
        self._generator.set_state(state["generator"])

    def numbers(self) -> dict[str, float]:
        """Return how it went."""
        course = {
            "steps": float(self.step),
            "train_loss": self.train_loss,
            "validation_loss": self.best_loss,
        }
        return {name: value for name, value in course.items() if not math.isnan(value)}


@contextmanager
def _quick_products() -> Iterator[None]:
    """Let processors with bfloat16 units use them for products of float32 matrices.

    Three times faster where they exist, and no less accurate: what the networks learn is a small
    correction, known to a few digits. Elsewhere nothing changes.
    """
    products = getattr(torch.backends.mkldnn, "matmul", None)
    if products is None:  # PyTorch before 2.9
        yield
        return
    before = products.fp32_precision
    products.fp32_precision = "bf16"
    try:
        yield
    finally:
        products.fp32_precision = before


def _validate(layers: Layers, validation: Sample | None, loss: MotionLoss) -> float:
    if validation is None:
        return math.nan
    with torch.no_grad():
        outputs = stacked_mlp(validation.inputs, *layers)
        return float(loss(outputs - validation.targets).mean())


def _schedule(step: int, steps: int) -> float:
    return min(1.0, step / WARM_UP_STEPS) * 0.5 * (1.0 + math.cos(math.pi * (step - 1) / steps))
