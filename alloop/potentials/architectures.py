"""The architectures that a member can have; a new one is one module and one line here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import torch

from alloop.errors import ModelError
from alloop.potentials.ani import Ani
from alloop.potentials.egnn import EGNN
from alloop.potentials.evaluation import Committee
from alloop.potentials.fitting import FrameGroup, Trainable
from alloop.potentials.graphs.network import Network
from alloop.potentials.hipnn import HIPNN
from alloop.potentials.mace import MACE
from alloop.potentials.member import Member
from alloop.potentials.newtonnet import NEWTONNET
from alloop.potentials.reann import EQUIREANN, REANN
from alloop.potentials.schnet import SCHNET


class Architecture(Protocol):
    """What alloop asks of a kind of potential.

    ``frozen`` are regular expressions, looked for in the names of weights: what a transfer to
    another level of theory keeps as it is.
    """

    @property
    def learning_rate(self) -> float:
        """Longest step of AdamW that suits it, where the user names none."""
        ...

    @property
    def frozen(self) -> tuple[str, ...]:
        """Patterns of the weights that a transfer keeps."""
        ...

    def head(self, settings: Mapping[str, Any], elements: Sequence[int]) -> tuple[str, ...]:
        """Return patterns of the weights that are not shared by levels of theory fitted jointly."""
        ...

    def settings(self, size: str, elements: Sequence[int]) -> dict[str, Any]:
        """Return the settings of a named size as plain values."""
        ...

    def check(self, member: Member) -> None:
        """Raise ModelError unless the member's settings and weights belong together."""
        ...

    def network(self, member: Member, dtype: torch.dtype) -> Network:
        """Return a member as a network on graphs, which can be differentiated in any way."""
        ...

    def cutoff(self, member: Member) -> float:
        """Return the range of the pairs that the network of a member needs, Å."""
        ...

    def committee(self, members: Sequence[Member], dtype: torch.dtype) -> Committee:
        """Stack members of equal shape."""
        ...

    def trainable(
        self,
        groups: Sequence[FrameGroup],
        elements: tuple[int, ...],
        settings: Mapping[str, Any],
        atom_energies: Mapping[int, float],
        *,
        scale: float,
        seed: int,
        start: Member | None,
    ) -> Trainable:
        """Prepare the fit of one member, from random weights or from those of another.

        ``scale`` (eV) is about how much atomic energies vary: first weights may go by it.
        """
        ...


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "ani": Ani(),
        "schnet": SCHNET,
        "newtonnet": NEWTONNET,
        "egnn": EGNN,
        "hipnn": HIPNN,
        "reann": REANN,
        "equireann": EQUIREANN,
        "mace": MACE,
    }
)


def architecture(name: str) -> Architecture:
    """Return an architecture by name; ModelError if there is none."""
    if name not in ARCHITECTURES:
        raise ModelError(f"architecture is {name!r}, want one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


def shaped(
    name: str, size: str, elements: Sequence[int], changes: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the settings of a size with some of them changed.

    Raises ModelError if there is no such architecture, size or setting, or a value is of another
    type than the one it replaces.
    """
    settings = architecture(name).settings(size, elements)
    for key, value in changes.items():
        if key not in settings:
            known = ", ".join(settings)
            raise ModelError(f"{name} has no setting {key!r}, want one of {known}")
        usual = settings[key]
        if isinstance(usual, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if isinstance(usual, tuple) and isinstance(value, list):
            value = tuple(value)
        if type(value) is not type(usual):
            raise ModelError(f"setting {key} of {name} is {value!r}, want one like {usual!r}")
        settings[key] = value
    return settings
