"""A graph network as an architecture: settings as plain values, members, committees, fits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import torch

from alloop.errors import ModelError
from alloop.potentials.graphs.committee import GraphCommittee
from alloop.potentials.graphs.network import Network
from alloop.potentials.graphs.trainable import GraphTrainable

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from alloop.potentials.evaluation import Committee
    from alloop.potentials.fitting import FrameGroup, Trainable
    from alloop.potentials.member import Member

    class Settings(DataclassInstance, Protocol):
        """The shape of a graph network: a frozen dataclass of plain numbers and words."""

        @property
        def cutoff(self) -> float:
            """Range of the pairs, Å."""
            ...


SAMPLE_ATOMS = 2000
"""Of the training frames that a network is calibrated by."""

S = TypeVar("S", bound="Settings")


class GraphArchitecture(Generic[S]):
    """An architecture whose members are graph networks; implements ``Architecture``.

    Parameters
    ----------
    name : of the architecture.
    sizes : settings by the name of a size; every architecture has "small" and "paper".
    build : makes the network from settings and the number of elements, with random weights.
    learning_rate : of AdamW, that suits it.
    frozen, head : patterns of the weights that a transfer keeps, and of those that levels of
        theory do not share, see ``Architecture``.

    """

    def __init__(
        self,
        name: str,
        sizes: Mapping[str, S],
        build: Callable[[S, int], Network],
        *,
        learning_rate: float = 2e-3,
        frozen: tuple[str, ...] = (),
        head: tuple[str, ...] = (r"^readout", r"^scale$", r"^shift$"),
    ) -> None:
        self.name, self.sizes, self._build = name, sizes, build
        self.learning_rate, self.frozen, self._head = learning_rate, frozen, head
        self._type = type(next(iter(sizes.values())))

    def settings(self, size: str, elements: Sequence[int]) -> dict[str, Any]:  # noqa: ARG002
        """Return the settings of a named size as plain values; ModelError if there is none."""
        if size not in self.sizes:
            known = ", ".join(repr(name) for name in self.sizes)
            raise ModelError(f"{self.name} has no size {size!r}, want one of {known}")
        return asdict(self.sizes[size])

    def head(
        self,
        settings: Mapping[str, Any],  # noqa: ARG002
        elements: Sequence[int],  # noqa: ARG002
    ) -> tuple[str, ...]:
        """Return the patterns of the last layer and of what scales and shifts it."""
        return self._head

    def check(self, member: Member) -> None:
        """Raise ModelError unless the member's settings and weights make such a network."""
        try:
            with torch.device("meta"):
                network = self._build(self._read(member.settings), len(member.elements))
        except (TypeError, RuntimeError, ArithmeticError) as error:
            raise ModelError(self._foreign(member.settings)) from error
        wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        got = {name: tuple(tensor.shape) for name, tensor in member.weights.items()}
        if got != wanted:
            name = next(n for n in (wanted | got) if got.get(n) != wanted.get(n))
            raise ModelError(f"weight {name} has shape {got.get(name)}, want {wanted.get(name)}")

    def network(self, member: Member, dtype: torch.dtype = torch.float32) -> Network:
        """Return the network of a member."""
        with torch.random.fork_rng(devices=[]):  # its first weights are drawn and thrown away
            network = self._build(self._read(member.settings), len(member.elements))
        network.load_state_dict(dict(member.weights))
        return network.to(dtype)

    def cutoff(self, member: Member) -> float:
        """Return the range of the pairs that a member needs, Å."""
        return self._read(member.settings).cutoff

    def committee(self, members: Sequence[Member], dtype: torch.dtype) -> Committee:
        """Stack members of equal shape."""
        first = members[0]
        return GraphCommittee(
            [self.network(member, dtype) for member in members],
            [[member.atom_energies[z] for z in first.elements] for member in members],
            first.elements,
            self._read(first.settings).cutoff,
        )

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
        """Prepare the fit of one member; see ``Architecture.trainable``."""
        shape = self._read(settings)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = self._build(shape, len(elements))
        with torch.no_grad():
            network.scale.fill_(scale)
        if start is not None:
            self._continue(network, start, elements, settings, atom_energies)
        trainable = GraphTrainable(network, groups, elements, shape.cutoff)
        if start is None:
            network.calibrate(trainable.store.graph(_sample(groups, trainable.store.n_atoms)))
        return trainable

    def _continue(
        self,
        network: Network,
        start: Member,
        elements: tuple[int, ...],
        settings: Mapping[str, Any],
        atom_energies: Mapping[int, float],
    ) -> None:
        if start.elements != elements or self._read(start.settings) != self._read(settings):
            raise ModelError(
                "a member can only be continued with the elements and the shape it has:"
                f" it describes the elements {start.elements}, wanted are {elements};"
                " train from scratch, or keep its settings"
            )
        network.load_state_dict(dict(start.weights))
        with torch.no_grad():
            # What the atoms no longer account for.
            left = [start.atom_energies[z] - atom_energies[z] for z in elements]
            network.shift.add_(torch.tensor(left))

    def _read(self, plain: Mapping[str, Any]) -> S:
        try:
            known = {field.name for field in fields(self._type)}
            if set(plain) != known:
                raise KeyError
            shape = self._type(**plain)
            if not 0.0 < shape.cutoff < math.inf:
                raise ValueError
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(self._foreign(plain)) from error
        return shape

    def _foreign(self, plain: Mapping[str, Any]) -> str:
        return f"settings {dict(plain)!r} are not those of a {self.name} model"


def _sample(groups: Sequence[FrameGroup], n_atoms: torch.Tensor) -> torch.Tensor:
    """Return evenly spread training frames that have about ``SAMPLE_ATOMS`` atoms together."""
    training = torch.cat([group.index[group.training] for group in groups])
    n = max(1, round(SAMPLE_ATOMS * len(training) / max(1, int(n_atoms[training].sum()))))
    return training[:: max(1, len(training) // n)]
