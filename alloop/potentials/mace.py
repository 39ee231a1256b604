"""MACE: higher-order equivariant messages, made by the package mace-torch.

Batatia et al., arXiv:2206.07697. The package is an extra, ``alloop[mace]``, and is imported only
when a MACE model is built.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import nn

from alloop.errors import ModelError
from alloop.potentials.graphs.architecture import GraphArchitecture
from alloop.potentials.graphs.graph import Graph
from alloop.potentials.graphs.network import Network, Output
from alloop.potentials.member import Member


@dataclass(frozen=True, slots=True)
class MaceSettings:
    """Shape of a MACE model.

    Attributes
    ----------
    features : channels of each order of the messages.
    order : highest order of the messages between atoms; 0 makes them invariant.
    angular : highest order of the spherical harmonics.
    correlation : factors in a product of the many-body basis; bodies less one.
    interactions : number of layers.
    basis : Bessel functions.
    radial : width of the radial network.
    neighbours : that sums over neighbours are divided by.
    cutoff : Å.

    """

    features: int = 16
    order: int = 1
    angular: int = 2
    correlation: int = 2
    interactions: int = 2
    basis: int = 8
    radial: int = 32
    neighbours: float = 8.0
    cutoff: float = 4.5


class Mace(Network):
    """The network; see ``MaceSettings``."""

    def __init__(self, shape: MaceSettings, n_elements: int) -> None:
        super().__init__(n_elements)
        with _foreign():
            self.model = _model(shape, n_elements)

    def forward(self, graph: Graph) -> Output:
        """Return the energies of a batch."""
        like = graph.vectors
        # Atoms at the origin and shifts that are the vectors: geometry enters nowhere else.
        batch = {
            "node_attrs": torch.eye(len(self.scale), dtype=like.dtype)[graph.species],
            "positions": like.new_zeros(graph.n_atoms, 3),
            "cell": like.new_zeros(3 * graph.n_structures, 3),
            "edge_index": torch.stack((graph.other, graph.centre)),
            "shifts": -like,
            "batch": graph.structure,
            "ptr": torch.arange(graph.n_structures + 1),
        }
        atomic = self.model(batch, compute_force=False)["node_energy"]
        return Output(self.total(atomic, graph))


class MaceArchitecture(GraphArchitecture[MaceSettings]):
    """As every graph network, but the constants of the representations are made again."""

    def network(self, member: Member, dtype: torch.dtype = torch.float32) -> Network:
        """Return the network of a member; its constants are exact to ``dtype``."""
        usual = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            network = Mace(self._read(member.settings), len(member.elements))
        finally:
            torch.set_default_dtype(usual)
        known = dict(network.named_parameters())
        weights = {name: tensor for name, tensor in member.weights.items() if name in known}
        network.load_state_dict(weights, strict=False)
        return network.to(dtype)


@contextmanager
def _foreign() -> Iterator[None]:
    """Let e3nn have its deprecation warnings, and real tensors where others need only shapes."""
    with warnings.catch_warnings(), torch.device("cpu"):
        warnings.simplefilter("ignore")
        yield


def _model(shape: MaceSettings, n_elements: int) -> nn.Module:
    try:
        modules, o3 = import_module("mace.modules"), import_module("e3nn.o3")
    except ImportError as error:
        raise ModelError(
            "a mace model needs alloop[mace]; install it with pip install 'alloop[mace]'"
        ) from error
    orders = "+".join(f"{shape.features}x{n}{'eo'[n % 2]}" for n in range(shape.order + 1))
    settings: dict[str, Any] = {
        "r_max": shape.cutoff,
        "num_bessel": shape.basis,
        "num_polynomial_cutoff": 5,
        "max_ell": shape.angular,
        "interaction_cls": modules.RealAgnosticResidualInteractionBlock,
        "interaction_cls_first": modules.RealAgnosticInteractionBlock,
        "num_interactions": shape.interactions,
        "num_elements": n_elements,
        "hidden_irreps": o3.Irreps(orders),
        "MLP_irreps": o3.Irreps("16x0e"),
        "atomic_energies": torch.zeros(n_elements).numpy(),
        "avg_num_neighbors": shape.neighbours,
        "atomic_numbers": list(range(1, n_elements + 1)),
        "correlation": shape.correlation,
        "gate": nn.functional.silu,
        "radial_MLP": [shape.radial] * 3,
    }
    model: nn.Module = modules.MACE(**settings)
    return model


MACE = MaceArchitecture(
    "mace",
    {
        "small": MaceSettings(),
        "paper": MaceSettings(
            features=128, angular=3, correlation=3, radial=64, neighbours=10.0, cutoff=5.0
        ),
    },
    Mace,
    frozen=(r"^model\.node_embedding", r"^model\.(interactions|products)\.0\."),
    head=(r"^model\.readouts", r"^scale$", r"^shift$"),
)
