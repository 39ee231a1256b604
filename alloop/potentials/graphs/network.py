"""What every graph network is: energies of a batch, whose gradients are forces and virials."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alloop.potentials.graphs.graph import Graph


@dataclass(frozen=True, slots=True, eq=False)
class Output:
    """What a network says of a batch.

    Attributes
    ----------
    energies : (n_structures,) eV, relative to the free atoms.
    latent_forces : (n_atoms, 3), vectors that a loss may direct along the forces; None if the
        network has none.
    penalty : (n_structures,), what a loss may add to regularise the network; None if nothing.

    """

    energies: Tensor
    latent_forces: Tensor | None = None
    penalty: Tensor | None = None


class Network(nn.Module, ABC):
    """Base of all graph networks; subclasses define ``forward(graph) -> Output``.

    ``scale`` (n_elements,) eV and ``shift`` (n_elements,) eV turn what the network gives for an
    atom into its energy. Networks never see atomic numbers, only the place of an element.
    """

    def __init__(self, n_elements: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(n_elements))
        self.shift = nn.Parameter(torch.zeros(n_elements))

    @abstractmethod
    def forward(self, graph: Graph) -> Output:
        """Return the energies of a batch."""

    def calibrate(self, sample: Graph) -> None:
        """Set the buffers that depend on a sample of the training frames; most have none."""

    def total(self, atomic: Tensor, graph: Graph) -> Tensor:
        """Sum what the network gives for atoms (n_atoms,) to energies (n_structures,)."""
        energies = atomic * self.scale[graph.species] + self.shift[graph.species]
        return energies.new_zeros(graph.n_structures).index_add(0, graph.structure, energies)


@dataclass(frozen=True, slots=True, eq=False)
class Slopes:
    """Derivatives of the energies of a batch.

    Attributes
    ----------
    forces : (n_atoms, 3) eV/Å.
    by_vectors : (n_pairs, 3) eV/Å, derivative by the vector of each pair.

    """

    forces: Tensor
    by_vectors: Tensor

    def virials(self, graph: Graph) -> Tensor:
        """Return the derivative of each energy by strain, (n_structures, 3, 3), eV.

        Divided by the volume of a cell it is the stress.
        """
        parts = graph.vectors[:, :, None] * self.by_vectors[:, None, :]
        empty = parts.new_zeros(graph.n_structures, 3, 3)
        return empty.index_add(0, graph.structure[graph.centre], parts)


def differentiate(energies: Tensor, graph: Graph, *, create_graph: bool) -> Slopes:
    """Return the slopes of energies (n_structures,) that were computed from ``graph.vectors``.

    ``graph.vectors`` must require a gradient or depend on something that does. With
    ``create_graph`` the slopes can be differentiated again.
    """
    (slope,) = torch.autograd.grad(
        energies.sum(),
        graph.vectors,
        create_graph=create_graph,
        allow_unused=True,
        materialize_grads=True,
    )
    forces = slope.new_zeros(graph.n_atoms, 3)
    forces = forces.index_add(0, graph.centre, slope).index_add(0, graph.other, -slope)
    return Slopes(forces, slope)
