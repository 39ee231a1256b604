"""AdamW on one flat vector of parameters.

Torch's own optimisers load its compiler when they are made: a second for every fresh worker.
"""

from __future__ import annotations

import torch
from torch import Tensor

_FIRST, _SECOND, _EPSILON = 0.9, 0.999, 1e-8


class AdamW:
    """Adam with decoupled weight decay; algorithm 2 of arXiv:1711.05101.

    Parameters
    ----------
    parameters : (n_parameters,), changed in place by every step.
    weight_decay : times the learning rate, the part by which parameters shrink in a step.

    """

    def __init__(self, parameters: Tensor, weight_decay: float) -> None:
        self._parameters = parameters
        self._weight_decay = weight_decay
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
        self._parameters.mul_(1.0 - learning_rate * self._weight_decay)
        rate = learning_rate / (1.0 - _FIRST**self._n_steps)
        self._parameters.addcdiv_(self._mean, scale, value=-rate)
