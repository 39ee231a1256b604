"""Trajectories with known forces, and members of every architecture, for dynamic training."""

from __future__ import annotations

import re

import numpy as np
import torch

from alloop.dynamics.health import HealthLimits
from alloop.dynamics.initial import maxwell_boltzmann
from alloop.dynamics.md import MdSettings, run_md
from alloop.potentials.architectures import architecture
from alloop.potentials.committee import build_committee
from alloop.potentials.fitting import FrameGroup
from alloop.potentials.member import Member
from alloop.training.segments import NveTrajectory
from tests.physics.dynamics_committees import WATER, WATER_AT, WATER_MASSES, morse_water

ATOMS = {1: -1.0, 6: -3.0, 8: -2.0}


def water_runs(ensemble="nve", n_replicas=3, n_steps=40, timestep=0.5, committee=None):
    """Return runs of water, every step recorded, on three Morse-like springs."""
    rng = np.random.default_rng(5)
    starts = np.repeat(WATER_AT[None], n_replicas, axis=0)
    velocities = maxwell_boltzmann(WATER_MASSES, 600.0, n_replicas, rng, starts)
    settings = MdSettings(
        ensemble,
        timestep,
        n_steps,
        1,
        (600.0,) * n_replicas,
        tuple(range(n_replicas)),
        friction=0.02 if ensemble == "nvt" else None,
    )
    return run_md(
        committee or morse_water(1),
        WATER,
        starts,
        velocities,
        WATER_MASSES,
        settings,
        HealthLimits(),
    )


def water_trajectories(n_replicas=3, **options):
    runs = water_runs(n_replicas=n_replicas, **options)
    return [NveTrajectory.of(run, f"run {i}") for i, run in enumerate(runs)]


def member_of(kind: str, elements=(1, 6, 8), scale=1.0, seed=7) -> Member:
    """Return a member of an architecture in its small size with random weights."""
    model = architecture(kind)
    settings = model.settings("small", elements)
    rng = np.random.default_rng(2)
    frames = torch.tensor(rng.normal(0.0, 1.5, (1, 3, 3)))
    group = FrameGroup(
        (elements[0],) * 3, frames, None, torch.ones(1, dtype=torch.bool), torch.zeros(1).long()
    )
    trainable = model.trainable(
        [group], elements, settings, ATOMS, scale=scale, seed=seed, start=None
    )
    noise = torch.Generator().manual_seed(seed)
    weights = {  # layers that start at zero would give no forces at all
        name: w if w.any() else 0.1 * torch.randn(w.shape, generator=noise)
        for name, w in trainable.export(trainable.start).items()
    }
    if kind == "ani":  # its first weights do not go by the scale: forces of some 0.03 eV/Å
        head = "|".join(model.head(settings, elements))
        weights = {n: scale * w if re.search(head, n) else w for n, w in weights.items()}
    return Member(
        kind,
        elements,
        settings,
        weights,
        {z: ATOMS[z] for z in elements},
        "springs",
        {},
    )


def member_with_forces(kind: str, size: float, numbers, positions, cell=None, seed=7) -> Member:
    """Return a random member whose forces at a geometry are of some ``size`` eV/Å."""
    weak = build_committee([member_of(kind, seed=seed)], dtype=torch.float64)
    lattice = None if cell is None else torch.tensor(cell)
    said = weak.evaluate(numbers, torch.tensor(positions[None]), forces="mean", cell=lattice)
    return member_of(kind, scale=size / float(said.forces.square().mean().sqrt()), seed=seed)
