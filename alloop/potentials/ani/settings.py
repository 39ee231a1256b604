"""The shape of an ANI model and the names of its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from typing import Any

from ase.data import chemical_symbols
from torch import Tensor

from alloop.errors import ModelError
from alloop.potentials.activations import activation
from alloop.potentials.ani.terms import AevSettings
from alloop.potentials.member import Member

SMALL = (128, 96, 64)
ANI1X = {1: (160, 128, 96), 6: (144, 112, 96)}
ANI1X_OTHERS = (128, 112, 96)

Layers = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class AniSettings:
    """Shape of an ANI model.

    Attributes
    ----------
    hidden : for each element, in the order of the model's elements, the widths of the hidden
        layers.
    activation : name, see :mod:`alloop.potentials.activations`.
    aev : the descriptor.

    """

    hidden: tuple[tuple[int, ...], ...]
    activation: str = "silu"
    aev: AevSettings = field(default_factory=AevSettings)

    @classmethod
    def of_size(cls, size: str, elements: Sequence[int]) -> AniSettings:
        """Return "small", which trains in seconds, or "ani1x", the published layer widths."""
        if size == "small":
            return cls(tuple(SMALL for _ in elements))
        if size == "ani1x":
            return cls(tuple(ANI1X.get(z, ANI1X_OTHERS) for z in elements))
        raise ModelError(f"ani has no size {size!r}, want 'small' or 'ani1x'")

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> AniSettings:
        """Read settings from plain values; ModelError if they are not of this architecture."""
        try:
            aev = dict(plain["aev"])
            known = {f.name for f in fields(AevSettings)}
            if set(plain) != {"hidden", "activation", "aev"} or set(aev) != known:
                raise KeyError
            for name in known:
                if isinstance(aev[name], list | tuple):
                    aev[name] = tuple(float(value) for value in aev[name])
            hidden = tuple(tuple(int(width) for width in widths) for widths in plain["hidden"])
            return cls(hidden, str(plain["activation"]), AevSettings(**aev))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"settings {plain!r} are not those of an ANI model") from error

    def to_plain(self) -> dict[str, Any]:
        """Return the settings as plain values for a file."""
        return asdict(self)

    def shapes(self, elements: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """Return the shape of every weight by name, such as ``C.0.weight`` (n_out, n_in)."""
        shapes: dict[str, tuple[int, ...]] = {}
        for z, hidden in zip(elements, self.hidden, strict=True):
            widths = (self.aev.n_features(len(elements)), *hidden, 1)
            for layer, (n_in, n_out) in enumerate(pairwise(widths)):
                shapes[f"{chemical_symbols[z]}.{layer}.weight"] = (n_out, n_in)
                shapes[f"{chemical_symbols[z]}.{layer}.bias"] = (n_out,)
        return shapes


def check(member: Member) -> None:
    """Raise ModelError unless a member's settings and weights make an ANI model."""
    settings = AniSettings.from_plain(member.settings)
    activation(settings.activation)
    if len(settings.hidden) != len(member.elements) or not all(settings.hidden):
        raise ModelError(
            f"hidden layers are given for {len(settings.hidden)} elements,"
            f" want at least one layer for each of {len(member.elements)}"
        )
    wanted = settings.shapes(member.elements)
    got = {name: tuple(tensor.shape) for name, tensor in member.weights.items()}
    if got != wanted:
        name = next(n for n in (wanted | got) if got.get(n) != wanted.get(n))
        raise ModelError(f"weight {name} has shape {got.get(name)}, want {wanted.get(name)}")


def layers(member: Member, z: int) -> Layers:
    """Return (weight (n_out, n_in), bias (n_out,)) of the network of an element, in order."""
    symbol = chemical_symbols[z]
    hidden = member.settings["hidden"][member.elements.index(z)]
    return [
        (member.weights[f"{symbol}.{k}.weight"], member.weights[f"{symbol}.{k}.bias"])
        for k in range(len(hidden) + 1)
    ]
