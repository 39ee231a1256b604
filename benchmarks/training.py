"""How accurate a committee becomes from how many labels, in how much time, with and without
bootstrap.

    python benchmarks/training.py [--frames 100 200 300] [--members 4]

Ethanol at GFN2-xTB: training frames from Langevin dynamics at 600 K (two thirds) and 300 K, a tenth
of them for validation; errors on 600 K trajectories from other starts. Reference: the spread of
the forces themselves, which is the error of a potential that knows nothing.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from ase.build import molecule
from ase.md.langevin import Langevin
from ase.units import fs
from scipy.stats import spearmanr

from alloop.acquisition.uncertainty import max_force_spread
from alloop.datasets import Dataset
from alloop.dynamics.initial import maxwell_boltzmann
from alloop.frames import Frame
from alloop.potentials.committee import build_committee
from alloop.reference.method import MethodSpec, build_reference
from alloop.reference.optimise import ReferenceCalculator
from alloop.training.data import TrainingSet
from alloop.training.settings import TrainSettings
from alloop.training.trainer import train_member


def main() -> None:
    """Make the data, fit, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", nargs="+", type=int, default=[100, 200, 300])
    parser.add_argument("--members", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    most = max(options.frames)
    hot, cold = _frames(600.0, 2 * most // 3 + 1, seed=1), _frames(300.0, most // 3 + 1, seed=2)
    test = _frames(600.0, 200, seed=3)
    scale = np.sqrt(np.mean(np.square(test.forces)))
    print(f"spread of the test forces: {scale:.3f} eV/Å")
    print("frames  resample   CPU s/member  one member  committee  rank correlation")
    for n in options.frames:
        for resample in ("none", "bootstrap"):
            members, seconds = _fit(hot, cold, n, options.members, resample)
            one = _errors(members[:1], test)[0]
            mean, correlation = _errors(members, test)
            print(
                f"{n:6d}  {resample:9s}  {seconds:12.1f}  {one:10.4f}  {mean:9.4f}"
                f"  {correlation:16.2f}",
                flush=True,
            )


def _frames(temperature: float, n: int, seed: int) -> Dataset:
    """Return n frames 20 fs apart of one trajectory of ethanol, after 500 fs."""
    atoms = molecule("CH3CH2OH")
    frame = Frame(atoms.numbers, atoms.positions)
    reference = build_reference(MethodSpec("tblite"), frame.numbers, 0, 1)
    atoms.calc = ReferenceCalculator(reference, frame)
    rng = np.random.default_rng(seed)
    masses = atoms.get_masses()
    atoms.set_velocities(maxwell_boltzmann(masses, temperature, 1, rng, atoms.positions)[0] / fs)
    motion = Langevin(
        atoms, 0.5 * fs, temperature_K=temperature, friction=0.02 / fs, fixcm=False, rng=rng
    )
    motion.run(1000)
    frames, energies, forces = [], [], []
    for _ in range(n):
        motion.run(40)
        frames.append(Frame(atoms.numbers, atoms.positions))
        energies.append(atoms.get_potential_energy())
        forces.append(atoms.get_forces())
    names = ("train",) * n
    return Dataset(
        tuple(frames), np.array(energies), tuple(forces), names, names, names, reference.name
    )


def _fit(hot: Dataset, cold: Dataset, n: int, n_members: int, resample: str) -> tuple[list, float]:
    parts = [(hot, 2 * n // 3), (cold, n - 2 * n // 3)]
    frames = [frame for data, k in parts for frame in data.frames[:k]]
    data = TrainingSet(
        tuple(frames),
        np.concatenate([data.energies[:k] for data, k in parts]),
        tuple(force for data, k in parts for force in data.forces[:k]),
        np.arange(n) % 10 == 9,
    )
    settings = TrainSettings(resample=resample)
    began = time.process_time()
    members = [
        train_member(data, settings, level_of_theory=hot.level_of_theory, seed=seed)[0]
        for seed in range(n_members)
    ]
    return members, (time.process_time() - began) / n_members


def _errors(members: list, test: Dataset) -> tuple[float, float]:
    """Return the force RMSE of the mean and the rank correlation of spread and error."""
    positions = torch.tensor(np.array([frame.positions for frame in test.frames]))
    answer = build_committee(members).evaluate(test.frames[0].numbers, positions, forces="members")
    forces = answer.member_forces.numpy()
    errors = ((forces.mean(axis=0) - np.array(test.forces)) ** 2).mean(axis=(1, 2))
    correlation = np.nan
    if len(members) > 1:
        correlation = float(spearmanr(max_force_spread(forces), errors).statistic)
    return float(np.sqrt(errors.mean())), correlation


if __name__ == "__main__":
    main()
