"""AdamW on one flat vector of parameters.

Torch's own optimisers load its compiler when they are made: a second for every fresh worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_FIRST, _SECOND, _EPSILON = 0.9, 0.999, 1e-8


class AdamW:
    """Adam with decoupled weight decay; algorithm 2 of arXiv:1711.05101.

    A parameter that never had a gradient stays exactly as it is, whatever the decay.

    Parameters
    ----------
    parameters : (n_parameters,), changed in place by every step.
    weight_decay : times the learning rate, the part by which parameters shrink in a step.
    rates : (n_parameters,), multiplies the learning rate; None for 1 everywhere.

    """

    def __init__(
        self, parameters: Tensor, weight_decay: float, rates: Tensor | None = None
    ) -> None:
        self._parameters = parameters
        self._weight_decay = weight_decay
        self._rates = rates
        self._mean = torch.zeros_like(parameters)
        self._square = torch.zeros_like(parameters)
        self._n_steps = 0

    @torch.no_grad()
    def step(self, gradient: Tensor, learning_rate: float) -> None:
        """Change the parameters by one step against the gradient."""
        self._n_steps += 1
        self._mean.lerp_(gradient, 1.0 - _FIRST)
        self._square.mul_(_SECOND).addcmul_(gradient, gradient, value=1.0 - _SECOND)
        scale = (self._square / (1.0 - _SECOND**self._n_steps)).sqrt_().add_(_EPSILON)
        change = self._mean / scale * (1.0 / (1.0 - _FIRST**self._n_steps))
        if self._weight_decay:
            change += self._weight_decay * self._parameters * (self._square > 0.0)
        if self._rates is not None:
            change *= self._rates
        self._parameters.sub_(change, alpha=learning_rate)

    def state(self) -> dict[str, Any]:
        """Return what ``restore`` needs to go on, as tensors and plain values."""
        return {
            "mean": self._mean.clone(),
            "square": self._square.clone(),
            "n_steps": self._n_steps,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; the parameters themselves are the caller's to restore."""
        self._mean.copy_(state["mean"])
        self._square.copy_(state["square"])
        self._n_steps = int(state["n_steps"])
