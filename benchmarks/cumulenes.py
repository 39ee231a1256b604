"""Energy of cumulenes over the dihedral of their ends, which no atom has both in reach.

    python benchmarks/cumulenes.py [--quick]

C3H4 with a cutoff of 2.0 Å and C5H4 with 3.0 Å, T = 2. Training frames and profiles are made and
labelled here: GFN2-xTB, dihedrals uniform, bonds and angles from the ranges of the EquiREANN paper
(for C3H4 a fifth of them, or the hydrogens would come within the cutoff of the middle atom).
Amplitude: largest less smallest energy over the dihedral. Error: root mean square over the profile
relative to its minimum at 90°, without 0° and 180°, where the reference has a cusp. The paper has
9100 frames of B3LYP and trains until the learning rate is 5e-5; it shows both models at C5H4 and
3.0 Å in its figure 4: REANN flat for any T, EquiREANN on the reference for T = 2.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from alloop.frames import Frame
from alloop.potentials.committee import build_committee
from alloop.potentials.member import Member
from alloop.potentials.reann import ReannSettings
from alloop.reference.method import MethodSpec, build_reference
from alloop.training.data import TrainingSet
from alloop.training.settings import TrainSettings
from alloop.training.trainer import train_member
from alloop.units import EV_PER_KCAL_MOL

ANGLES = np.arange(0.0, 181.0, 5.0)
SHAPE = ReannSettings(coefficient=1.0, envelope="polynomial")
"""Neighbours are few and the message must go far: the most that these settings let through."""


@dataclass(frozen=True)
class System:
    """A cumulene, the cutoff of the models, and what of the paper's ranges its frames span."""

    n_carbon: int
    cutoff: float
    spread: float


SYSTEMS = (System(3, 2.0, 0.2), System(5, 3.0, 1.0))


def main() -> None:
    """Label, fit and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="C3H4 only, few steps")
    parser.add_argument("--frames", type=int, default=1080)
    parser.add_argument("--steps", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    steps = 300 if options.quick else options.steps
    print("| molecule | cutoff / Å | model | amplitude / kcal/mol | error / kcal/mol | CPU s |")
    print("|---|---|---|---|---|---|")
    for system in SYSTEMS[:1] if options.quick else SYSTEMS:
        data, profile = _labels(system, options.frames)
        name = f"| C{system.n_carbon}H4 | {system.cutoff}"
        print(f"{name} | GFN2-xTB | {np.ptp(profile):.1f} | | |")
        for kind in ("reann", "equireann"):
            began = time.process_time()
            member = _fit(kind, system, data, steps)
            seconds = time.process_time() - began
            energies = _profile(member, system)
            middle = len(ANGLES) // 2
            off = (energies - energies[middle]) - (profile - profile[middle])
            error = np.sqrt(np.mean(off[1:-1] ** 2))
            print(
                f"{name} | {kind} | {np.ptp(energies):.3g} | {error:.2f} | {seconds:.0f} |",
                flush=True,
            )


def cumulene(
    n_carbon: int, dihedral: float, spread: float = 0.0, rng: np.random.Generator | None = None
) -> Frame:
    """Return C_nH4 with its ends turned by ``dihedral`` degrees; see ``System.spread``."""
    draw = rng or np.random.default_rng(0)

    def between(middle: float, half: float) -> float:
        return middle + spread * half * draw.uniform(-1.0, 1.0)

    direction, carbons = np.array([0.0, 0.0, 1.0]), [np.zeros(3)]
    for _ in range(n_carbon - 1):
        carbons.append(carbons[-1] + direction * between(1.30, 0.05))
        direction = _bent(direction, np.deg2rad(spread * draw.uniform(0.0, 10.0)), draw)
    hydrogens = []
    for here, inner, angle in ((0, 1, 0.0), (-1, -2, np.deg2rad(dihedral))):
        outward = carbons[here] - carbons[inner]
        outward /= np.linalg.norm(outward)
        across = _across(np.array([np.cos(angle), np.sin(angle), 0.0]), outward)
        for side in (1.0, -1.0):
            bend, bond = np.deg2rad(180.0 - between(120.0, 10.0)), between(1.09, 0.05)
            unit = np.cos(bend) * outward + side * np.sin(bend) * across
            hydrogens.append(carbons[here] + bond * unit)
    return Frame(np.array([6] * n_carbon + [1] * 4), np.array(carbons + hydrogens))


def _bent(
    direction: NDArray[np.float64], angle: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Turn a direction by an angle in a random plane."""
    side = _across(rng.normal(size=3), direction)
    turned: NDArray[np.float64] = np.cos(angle) * direction + np.sin(angle) * side
    return turned


def _across(vector: NDArray[np.float64], axis: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the direction of what of a vector is at right angles to a unit axis."""
    rest: NDArray[np.float64] = vector - axis * (vector @ axis)
    return rest / np.linalg.norm(rest)


def _labels(system: System, n_frames: int) -> tuple[TrainingSet, NDArray[np.float64]]:
    """Return frames for training, a tenth of them for validation, and the profile, kcal/mol."""
    rng = np.random.default_rng(0)
    n = system.n_carbon
    frames = [cumulene(n, rng.uniform(0.0, 360.0), system.spread, rng) for _ in range(n_frames)]
    reference = build_reference(MethodSpec("tblite"), frames[0].numbers, 0, 1)
    labels = [reference.label(frame) for frame in frames]
    data = TrainingSet(
        tuple(frames),
        np.array([label.energy for label in labels]),
        tuple(label.forces for label in labels),
        np.arange(n_frames) % 10 == 9,
    )
    profile = [reference.label(cumulene(n, angle)).energy for angle in ANGLES]
    return data, np.array(profile) / EV_PER_KCAL_MOL


def _fit(kind: str, system: System, data: TrainingSet, steps: int) -> Member:
    settings = TrainSettings(
        epochs=steps, max_steps=steps, patience=steps, batch_size=32, learning_rate=5e-3, loss="mse"
    )
    shape = asdict(replace(SHAPE, cutoff=system.cutoff))
    return train_member(data, settings, level_of_theory="GFN2-xTB", seed=0, kind=kind, shape=shape)[
        0
    ]


def _profile(member: Member, system: System) -> NDArray[np.float64]:
    """Return the energies of a member over the dihedral, kcal/mol."""
    frames = [cumulene(system.n_carbon, angle) for angle in ANGLES]
    positions = torch.tensor(np.array([frame.positions for frame in frames]))
    committee = build_committee([member], dtype=torch.float64)
    answer = committee.evaluate(frames[0].numbers, positions, forces="none")
    energies: NDArray[np.float64] = answer.energies[0].numpy() / EV_PER_KCAL_MOL
    return energies


if __name__ == "__main__":
    main()
