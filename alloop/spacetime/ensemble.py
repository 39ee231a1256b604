"""Training of the networks of a 4D model, all members in one batched program."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from alloop.errors import SpacetimeError
from alloop.spacetime.basis import TimeBasis
from alloop.spacetime.coordinates.protocol import Coordinates
from alloop.spacetime.model import stacked_mlp
from alloop.spacetime.settings import FitSettings

Progress = Callable[[int, int, float], None]
"""Called with (steps done, steps in all, loss)."""
Layers = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]
"""Weights and biases of each layer."""

LOSS_WEIGHTS = {"bond": (1.0, 16.0), "angle": (2.0, 20.0), "dihedral": (4.0, 24.0)}
"""Of coordinates and rates; those of GICnet (doi:10.1021/acs.jpclett.3c01592, SI)."""
WARM_UP_STEPS = 50
BETAS = (0.9, 0.99)
WEIGHT_DECAY = 0.1
N_VALIDATIONS = 10
"""How many times in a training the best networks so far are looked for."""


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
    deadline: float | None,
    on_progress: Progress | None,
) -> tuple[Layers, dict[str, float]]:
    """Return trained layers, the best ones by the validation sample, and how it went.

    Adam with decoupled weight decay; the learning rate warms up and falls to zero by a cosine. Each
    member draws its own batches. How it went: ``steps``, and ``train_loss`` and ``validation_loss``
    where there was a step and a validation sample. At ``deadline`` (of ``time.monotonic``) training
    ends early.

    Raises
    ------
    SpacetimeError
        The networks diverged.

    """
    weights, biases = (tuple(p.clone().requires_grad_() for p in part) for part in layers)
    optimiser = torch.optim.AdamW([*weights, *biases], betas=BETAS, weight_decay=WEIGHT_DECAY)
    steps = settings.steps
    best, best_loss = layers, _validate(layers, validation, loss)
    done, current = 0, math.nan
    for step in range(1, steps + 1):
        if deadline is not None and time.monotonic() >= deadline:
            break
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * _schedule(step, steps)
        rows = torch.randint(
            len(sample.inputs), (len(weights[0]), settings.batch), generator=generator
        )
        outputs = stacked_mlp(sample.inputs[rows], weights, biases)
        total = loss(outputs - sample.targets[rows]).sum()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        done, current = step, float(total.detach()) / len(weights[0])
        if step % max(steps // N_VALIDATIONS, 1) == 0 or step == steps:
            now = _copy(weights), _copy(biases)
            value = _validate(now, validation, loss)
            if validation is None or value < best_loss:
                best, best_loss = now, value
            if on_progress is not None:
                on_progress(step, steps, current)
    if not all(bool(torch.isfinite(p).all()) for part in best for p in part):
        raise SpacetimeError(
            f"4D fit: the networks diverged at a learning rate of {settings.learning_rate};"
            " lower it, or look for broken trajectories"
        )
    course = {"steps": float(done), "train_loss": current, "validation_loss": best_loss}
    return best, {name: value for name, value in course.items() if not math.isnan(value)}


def _copy(parameters: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(parameter.detach().clone() for parameter in parameters)


def _validate(layers: Layers, validation: Sample | None, loss: MotionLoss) -> float:
    if validation is None:
        return math.nan
    with torch.no_grad():
        outputs = stacked_mlp(validation.inputs, *layers)
        return float(loss(outputs - validation.targets).mean())


def _schedule(step: int, steps: int) -> float:
    return min(1.0, step / WARM_UP_STEPS) * 0.5 * (1.0 + math.cos(math.pi * (step - 1) / steps))
