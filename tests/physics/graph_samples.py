"""Structures as one graph, for tests of single networks."""

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule

from alloop.potentials.fitting import FrameGroup
from alloop.potentials.graphs.graph import GraphStore
from alloop.potentials.graphs.network import differentiate

ELEMENTS = (1, 6, 8)


def graph_of(*structures, cutoff=5.0):
    """Return structures as one graph in float64, whose vectors require a gradient."""
    groups = [
        FrameGroup(
            tuple(atoms.numbers.tolist()),
            torch.tensor(atoms.positions)[None],
            torch.tensor(atoms.cell.array)[None] if atoms.pbc.any() else None,
            torch.ones(1, dtype=torch.bool),
            torch.tensor([index]),
        )
        for index, atoms in enumerate(structures)
    ]
    graph = GraphStore(groups, ELEMENTS, cutoff).graph(torch.arange(len(structures)), torch.float64)
    graph.vectors.requires_grad_()
    return graph


def energies_of(network, *structures, cutoff=5.0):
    return network(graph_of(*structures, cutoff=cutoff)).energies.detach().numpy()


def forces_of(network, *structures, cutoff=5.0):
    graph = graph_of(*structures, cutoff=cutoff)
    return differentiate(network(graph).energies, graph, create_graph=False).forces.numpy()


def ethanol(seed=0):
    atoms = molecule("CH3CH2OH")
    atoms.positions += np.random.default_rng(seed).normal(0.0, 0.08, (len(atoms), 3))
    return atoms


def small_cell():
    """Return a skewed cell, smaller than the cutoff, with an atom that sees its own images."""
    cell = [[3.9, 0.0, 0.0], [0.4, 3.6, 0.0], [-0.3, 0.5, 4.1]]
    scaled = [[0, 0, 0], [0.3, 0.4, 0.2], [0.6, 0.1, 0.7]]
    return Atoms([6, 1, 8], scaled_positions=scaled, cell=cell, pbc=True)


def lone_atom():
    return Atoms([8], [[0.0, 0.0, 0.0]])


def worst_slope(network, atoms, step=1e-4):
    """Return the largest error of forces and virial, eV/Å and eV, against differences."""
    graph = graph_of(atoms)
    slopes = differentiate(network(graph).energies, graph, create_graph=False)
    forces, virial = slopes.forces.numpy(), slopes.virials(graph)[0].detach().numpy()
    worst = 0.0
    for atom, axis in ((0, 0), (1, 2), (len(atoms) - 1, 1)):
        ends = [atoms.copy() for _ in range(2)]
        for end, sign in zip(ends, (1.0, -1.0), strict=True):
            end.positions[atom, axis] += sign * step
        up, down = energies_of(network, *ends)
        worst = max(worst, abs((up - down) / (2.0 * step) + forces[atom, axis]))
    for strain in (np.outer(*np.eye(3)[[0, 0]]), np.outer(*np.eye(3)[[1, 2]])):
        ends = [atoms.copy() for _ in range(2)]
        for end, sign in zip(ends, (1.0, -1.0), strict=True):
            stretch = np.eye(3) + sign * step * strain
            end.set_cell(atoms.cell.array @ stretch)
            end.positions = atoms.positions @ stretch
        up, down = energies_of(network, *ends)
        worst = max(worst, abs((up - down) / (2.0 * step) - (virial * strain).sum()))
    return worst


def jumps_at_cutoff(network, cutoff):
    """Return how energy, force and curvature jump where two atoms pass the cutoff, eV and Å.

    A third atom near the first makes all messages matter.
    """

    def at(r):
        return Atoms([6, 8, 1], [[0.0, 0.0, 0.0], [r, 0.0, 0.0], [-0.9, 0.4, 0.0]])

    step = 1e-3
    near = [at(cutoff - 1e-9 - k * step) for k in range(3)]
    far = [at(cutoff + 1e-9 + k * step) for k in range(3)]
    energies = energies_of(network, near[0], far[0], cutoff=cutoff)
    force = [forces_of(network, atoms, cutoff=cutoff)[1, 0] for atoms in (*near, *far)]
    curvature = (force[1] - force[0]) / step, (force[4] - force[3]) / step
    return abs(energies[0] - energies[1]), abs(force[0] - force[3]), abs(sum(curvature))
