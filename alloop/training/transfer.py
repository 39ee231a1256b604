"""What a fit keeps of the member it starts from, when it moves to another level of theory."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from alloop.errors import TrainingError
from alloop.potentials.fitting import Trainable
from alloop.potentials.member import Member

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Transfer:
    """How weights trained on one level of theory are fitted to labels of another.

    Attributes
    ----------
    freeze : regular expressions, looked for in the names of weights: those stay bit for bit as
        they are. "auto" stands for what the architecture says. Nothing is frozen if empty.
    layer_rates : factors of the learning rate by regular expression; the first that is found in
        the name of a weight counts, 1 where none is.

    Raises
    ------
    TrainingError
        A pattern is no regular expression, or a factor is negative or not finite.

    """

    freeze: tuple[str, ...] = ()
    layer_rates: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for pattern in (*self.freeze, *self.layer_rates):
            try:
                re.compile(pattern)
            except re.error as error:
                raise TrainingError(
                    f"{pattern!r} in a transfer is no regular expression: {error}"
                ) from error
        for pattern, rate in self.layer_rates.items():
            if not 0.0 <= rate < math.inf:
                raise TrainingError(
                    f"the learning rate of {pattern!r} is multiplied by {rate}, want 0 or more"
                )

    def rates(self, layout: Mapping[str, slice], frozen: Sequence[str]) -> Tensor:
        """Return the factor of the learning rate of every parameter, (n_parameters,).

        ``layout`` is that of the potential in training, ``frozen`` what "auto" stands for.
        Raises TrainingError if a pattern finds no weight, or nothing is left to train.
        """
        if AUTO in self.freeze and not frozen:
            raise TrainingError(
                f"{AUTO!r} freezes nothing: the architecture makes no choice; name weights"
            )
        freeze = [p for f in self.freeze for p in (frozen if f == AUTO else (f,))]
        for pattern in (*freeze, *self.layer_rates):
            if not any(re.search(pattern, name) for name in layout):
                raise TrainingError(
                    f"no weight has a name with {pattern!r}; the names are {', '.join(layout)}"
                )
        factors = dict.fromkeys(freeze, 0.0) | {
            pattern: rate for pattern, rate in self.layer_rates.items() if pattern not in freeze
        }
        rates = torch.ones(max(place.stop for place in layout.values()))
        for name, place in layout.items():
            rates[place] = next((r for p, r in factors.items() if re.search(p, name)), 1.0)
        if not bool((rates > 0.0).any()):
            raise TrainingError("the transfer freezes every weight: nothing is left to train")
        return rates


def check_frozen(potential: Trainable, rates: Tensor) -> None:
    """Raise TrainingError if a frozen weight would change with weights that are not."""
    before = potential.export(potential.start)
    after = potential.export(potential.start + (rates > 0.0))
    for name, place in potential.layout.items():
        if not bool(rates[place].any()) and not torch.equal(before[name], after[name]):
            raise TrainingError(
                f"{name} cannot be frozen without the other weights of its layer; freeze these too"
            )


def with_unmoved(
    weights: Mapping[str, Tensor], potential: Trainable, fitted: Tensor, start: Member
) -> dict[str, Tensor]:
    """Return weights in which those that did not move are bit for bit those of the start.

    ``potential`` began with the weights of ``start`` and exported ``fitted`` as ``weights``, which
    may have rounded them.
    """
    unmoved = {
        name: start.weights[name].clone()
        for name, place in potential.layout.items()
        if torch.equal(fitted[place], potential.start[place])
    }
    return {**weights, **unmoved}
