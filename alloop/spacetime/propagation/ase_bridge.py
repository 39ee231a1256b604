"""4D models for people who think in ASE's Atoms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from torch import Tensor

from alloop.errors import SpacetimeError
from alloop.potentials.evaluation import Committee
from alloop.spacetime.model import SpacetimeModel
from alloop.spacetime.propagation.courses import Block
from alloop.spacetime.propagation.energy_rules import PropagationSettings
from alloop.spacetime.propagation.propagate import Propagator
from alloop.spacetime.propagation.schedule import Regular
from alloop.spacetime.surface import CommitteeSurface, Surface
from alloop.units import FS


def propagate_atoms(
    model: SpacetimeModel,
    atoms: Atoms,
    duration: float,
    interval: float,
    committee: Committee | None = None,
    settings: PropagationSettings | None = None,
) -> Iterator[Atoms]:
    """Yield what a molecule does from its positions and velocities, first of all the start itself.

    Parameters
    ----------
    model : the 4D model of the molecule.
    atoms : the start, with velocities; atoms in the order of the model.
    duration, interval : how long to go on and how far apart frames are, fs.
    committee : potentials; with them frames have energies, and the energy is kept.
    settings : what is done about the energy; without it the rule is "shell" where there is a
        committee and "mean" where there is none.

    Yields
    ------
    Atoms with velocities, the masses of the model and ``info["time_fs"]``.

    Raises
    ------
    SpacetimeError
        The atoms are not those of the model, or the motion cannot be followed to its end; frames
        up to there have been given by then.

    """
    if tuple(atoms.numbers.tolist()) != model.numbers:
        raise SpacetimeError(
            f"atoms are {atoms.numbers.tolist()}, the 4D model is for {list(model.numbers)}"
        )
    surface = None if committee is None else CommitteeSurface(committee, np.array(model.numbers))
    if settings is None:
        settings = PropagationSettings(rule="mean" if surface is None else "shell")
    x, v = (torch.tensor(part)[None] for part in (atoms.positions, atoms.get_velocities() * FS))
    times = Regular(duration, interval)
    propagator = Propagator(model, x, v, times, surface=surface, settings=settings)
    return _frames(model, propagator, surface)


def to_atoms(
    model: SpacetimeModel, block: Block, surface: Surface | None = None
) -> Sequence[Atoms]:
    """Return the frames of a block, with energies where there is a surface."""
    energies = None if surface is None else potential_energies(surface, block.positions)
    frames = []
    for i, time in enumerate(block.times.tolist()):
        atoms = Atoms(
            model.numbers, positions=block.positions[i].numpy(), masses=model.masses.numpy()
        )
        atoms.set_velocities(block.velocities[i].numpy() / FS)
        atoms.info |= {"time_fs": time, "replica": block.replica}
        if energies is not None:
            atoms.calc = SinglePointCalculator(atoms, energy=float(energies[i]))
        frames.append(atoms)
    return frames


def potential_energies(surface: Surface, positions: Tensor) -> Tensor:
    """Return potential energies (n_frames,), eV, without a graph."""
    with torch.no_grad():
        return surface.energies(positions)


def _frames(
    model: SpacetimeModel, propagator: Propagator, surface: Surface | None
) -> Iterator[Atoms]:
    for block in propagator.blocks():
        yield from to_atoms(model, block, surface)
    (course,) = propagator.courses()
    if course.reason is not None:
        raise SpacetimeError(
            f"the 4D model could not follow the motion beyond frame {course.n_frames}:"
            f" {course.reason}; let settings.rescue bridge such places, or fit on more trajectories"
        )
