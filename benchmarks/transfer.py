"""What pretraining on a cheap method saves of the labels of a better one.

    python benchmarks/transfer.py --data FOLDER [--quick] [--seeds 3] [--labels 25 50 100 200]

A small ANI network learns 2,000 frames of ethanol labelled with GFN2-xTB, which the program samples
itself (GFN2-xTB Langevin dynamics at 500 K), and then few labels of PBE/def2-SVP from rMD17
(Christensen and von Lilienfeld, DOI 10.1088/2632-2153/abba6f). A fifth of the labels validates.
Judged on 1,000 other frames of rMD17; references are a fit of the few labels alone ("scratch") and
the pretrained networks with refitted atomic energies and no step of training ("as it is").
Mean and standard deviation over seeds, which draw labels and weights anew.
FOLDER (or the environment variable ALLOOP_DATA) holds rmd17_ethanol_train_01.npz and
rmd17_ethanol_test_01.npz at any depth, from https://github.com/andersx/rmd17-npz.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from ase.build import molecule
from ase.md.langevin import Langevin
from ase.units import fs, kcal, mol

from alloop.dynamics.initial import maxwell_boltzmann
from alloop.frames import Frame
from alloop.potentials.committee import build_committee
from alloop.potentials.member import Member
from alloop.reference.method import MethodSpec, build_reference
from alloop.reference.optimise import ReferenceCalculator
from alloop.training.data import TrainingSet
from alloop.training.joint import train_joint
from alloop.training.settings import TrainSettings
from alloop.training.trainer import train_member
from alloop.training.transfer import Transfer

CHEAP, BETTER = "GFN2-xTB", "PBE/def2-SVP"
EV_PER_KCAL = kcal / mol
ARMS = ("scratch", "as it is", "full", "slow body", "frozen", "joint")
SLOW = Transfer(layer_rates={r"\.0\.": 0.1, r"\.1\.": 0.3})


def main() -> None:
    """Sample, pretrain, fine-tune, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("ALLOOP_DATA"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--labels", nargs="+", type=int, default=[25, 50, 100, 200])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--quick", action="store_true", help="a minute, to see that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    known, test = (_rmd17(options.data, split) for split in ("train", "test"))
    if options.quick:
        options.seeds, options.labels = 1, [25]
    n_cheap, pretraining, tuning = (200, 300, 300) if options.quick else (2000, 3000, 1500)
    began = time.process_time()
    cheap = _sample(n_cheap)
    print(f"{n_cheap} frames of {CHEAP}: {time.process_time() - began:.0f} CPU s")
    rows: dict[tuple[int, str], list[tuple[float, float, float]]] = {}
    for seed in range(options.seeds):
        began = time.process_time()
        start, report = train_member(
            _split(cheap, 10), _settings(pretraining), level_of_theory=CHEAP, seed=seed
        )
        print(
            f"seed {seed}: {CHEAP} learned to {1e3 * report.validation.force:.0f} meV/Å in"
            f" {time.process_time() - began:.0f} CPU s",
            flush=True,
        )
        order = np.random.default_rng(seed).permutation(len(known[0]))
        for n in options.labels:
            few = _split(tuple([part[i] for i in order[:n]] for part in known), 5)
            for arm in options.arms:
                began = time.process_time()
                member = _fit(arm, few, cheap, start, seed, tuning, pretraining)
                seconds = time.process_time() - began
                rows.setdefault((n, arm), []).append((*_errors(member, test), seconds))
    _print(rows)
    print(f"\nall: {time.process_time() / 60:.1f} CPU min on one thread")


def _print(rows: dict[tuple[int, str], list[tuple[float, float, float]]]) -> None:
    print(
        "\n| labels | fit | force RMSE, meV/Å | energy RMSE, meV | CPU s |\n|--:|:--|--:|--:|--:|"
    )
    for (n, arm), values in rows.items():
        force, energy, seconds = np.array(values).T
        print(
            f"| {n} | {arm} | {force.mean():.0f} ± {force.std():.0f}"
            f" | {energy.mean():.1f} ± {energy.std():.1f} | {seconds.mean():.0f} |"
        )


def _fit(
    arm: str, few: TrainingSet, cheap: tuple, start: Member, seed: int, steps: int, joint_steps: int
) -> Member:
    """Return a member of the better method."""
    if arm == "joint":
        every = np.zeros(len(cheap[0]), bool)  # only the better method judges
        data = [(CHEAP, TrainingSet(*cheap, every)), (BETTER, few)]
        return train_joint(data, _settings(joint_steps), seed=seed)[0][1]
    if arm == "scratch":
        return train_member(few, _settings(steps), level_of_theory=BETTER, seed=seed)[0]
    still = TrainSettings(epochs=1, max_steps=1, learning_rate=1e-12)
    settings = still if arm == "as it is" else _settings(steps, 1e-3)
    transfer = {"frozen": Transfer(("auto",)), "slow body": SLOW}.get(arm, Transfer())
    return train_member(
        few, settings, level_of_theory=BETTER, seed=seed, start=start, transfer=transfer
    )[0]


def _settings(steps: int, learning_rate: float = 5e-3) -> TrainSettings:
    return TrainSettings(epochs=steps, max_steps=steps, patience=steps, learning_rate=learning_rate)


def _rmd17(folder: Path | None, split: str) -> tuple[list, np.ndarray, list]:
    """Return frames, energies (eV) and forces (eV/Å) of a split."""
    name = f"rmd17_ethanol_{split}_01.npz"
    path = next(Path(folder).rglob(name), None) if folder else None
    if path is None:
        print(
            f"{name} is not in {folder or '--data or ALLOOP_DATA, which are not set'}:"
            " get it from https://github.com/andersx/rmd17-npz",
            file=sys.stderr,
        )
        sys.exit(2)
    data = np.load(path)
    frames = [Frame(data["nuclear_charges"], positions) for positions in data["coords"]]
    return frames, data["energies"] * EV_PER_KCAL, list(data["forces"] * EV_PER_KCAL)


def _sample(n: int) -> tuple[list, np.ndarray, list]:
    """Return n frames 10 fs apart of one trajectory at 500 K, after 1 ps."""
    atoms = molecule("CH3CH2OH")
    frame = Frame(atoms.numbers, atoms.positions)
    reference = build_reference(MethodSpec("tblite"), frame.numbers, 0, 1)
    atoms.calc = ReferenceCalculator(reference, frame)
    rng = np.random.default_rng(0)
    velocities = maxwell_boltzmann(atoms.get_masses(), 500.0, 1, rng, atoms.positions)[0]
    atoms.set_velocities(velocities / fs)
    motion = Langevin(
        atoms, 1.0 * fs, temperature_K=500.0, friction=0.01 / fs, fixcm=False, rng=rng
    )
    motion.run(1000)
    frames, energies, forces = [], [], []
    for _ in range(n):
        motion.run(10)
        frames.append(Frame(atoms.numbers, atoms.positions))
        energies.append(atoms.get_potential_energy())
        forces.append(atoms.get_forces())
    return frames, np.array(energies), forces


def _split(data: tuple, every: int) -> TrainingSet:
    """Return a training set of which each ``every``-th frame validates."""
    frames, energies, forces = data
    flags = np.arange(len(frames)) % every == every - 1
    return TrainingSet(tuple(frames), np.array(energies), tuple(forces), flags)


def _errors(member: Member, test: tuple) -> tuple[float, float]:
    """Return the root mean square errors of forces (meV/Å) and total energies (meV)."""
    frames, energies, forces = test
    positions = torch.tensor(np.array([frame.positions for frame in frames]))
    answer = build_committee([member]).evaluate(frames[0].numbers, positions, forces="mean")
    force = answer.forces.numpy() - np.array(forces)
    energy = answer.energies[0].numpy() - energies
    return 1e3 * float(np.sqrt((force**2).mean())), 1e3 * float(np.sqrt((energy**2).mean()))


if __name__ == "__main__":
    main()
