"""What a cheap level of theory saves of the labels of an expensive one, by how it is learnt.

    python benchmarks/tiers.py --data FOLDER [--quick] [--seeds 0 1 2] [--labels 25 50 100 200]
        [--energy-labels 50 200] [--arms ...] [--energy-arms ...]

A small ANI network learns 2,000 frames of ethanol labelled with GFN2-xTB, which the program samples
itself (GFN2-xTB Langevin dynamics at 500 K); it is the parent. Then there are few labels of
PBE/def2-SVP from rMD17 (Christensen and von Lilienfeld, DOI 10.1088/2632-2153/abba6f), whose
frames are labelled with GFN2-xTB, too. A fifth of the labels validates. Every mode of
``alloop.training.tiers`` learns from them; beside these "slow body" (all but the last layer of the
parent at a tenth or a third of the rate), "freeze 2" (only the third layer stays as it is) and
"unchanged" (the parent with refitted atomic energies and no step of training). The second table
takes the energies of PBE alone, and no forces: "distil" has three teachers, which are fits of mode
"finetune" from three parents.
Judged on 1,000 other frames of rMD17 with forces. Mean and standard deviation over seeds, which
draw labels and weights anew. CPU seconds leave out parents and teachers, which are listed by
themselves. The settings were chosen with seed 100, which is in no table.
FOLDER (or the environment variable ALLOOP_DATA) holds rmd17_ethanol_train_01.npz and
rmd17_ethanol_test_01.npz at any depth, from https://github.com/andersx/rmd17-npz.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

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
from alloop.training.settings import TrainSettings
from alloop.training.tiers import MODES, learn
from alloop.training.trainer import train_member
from alloop.training.transfer import Transfer

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHEAP, BETTER = "GFN2-xTB", "PBE/def2-SVP"
EV_PER_KCAL = kcal / mol
ARMS = ("scratch", "unchanged", "finetune", "slow body", "freeze", "freeze 2", "delta", "joint")
ENERGY_ARMS = ("scratch", "unchanged", "finetune", "delta", "joint", "distil")
SLOW = Transfer(layer_rates={r"\.0\.": 0.1, r"\.1\.": 0.3})
N_TEACHERS = 3
RATE = 5e-3


def main() -> None:
    """Sample, pretrain, learn in every mode, print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("ALLOOP_DATA"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--labels", nargs="*", type=int, default=[25, 50, 100, 200])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--energy-labels", nargs="*", type=int, default=[50, 200])
    parser.add_argument("--energy-arms", nargs="+", choices=ENERGY_ARMS, default=ENERGY_ARMS)
    parser.add_argument("--quick", action="store_true", help="a minute, to see that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.quick:
        options.seeds, options.labels, options.energy_labels = [0], [25], [25]
    n_cheap, pretraining, tuning = (200, 300, 100) if options.quick else (2000, 3000, 1500)
    known, test = (rmd17(options.data, split) for split in ("train", "test"))
    began = time.process_time()
    cheap = sample(n_cheap)
    print(f"{n_cheap} frames of {CHEAP}: {time.process_time() - began:.0f} CPU s", flush=True)
    full, energy = Table("energies and forces"), Table("energies only")
    for seed in options.seeds:
        case = Case(cheap, known, seed, pretraining, tuning)
        for n in options.labels:
            case.draw(n)
            for arm in options.arms:
                full.add(n, arm, test, *case.fit(arm))
        for n in options.energy_labels:
            case.draw(n, forces=False)
            for arm in options.energy_arms:
                energy.add(n, arm, test, *case.fit(arm))
    full.print()
    energy.print()
    full.compare()
    print(f"\nall: {time.process_time() / 60:.1f} CPU min on one thread")


class Case:
    """One draw of labels and weights: the parent, and what is learnt from it."""

    def __init__(
        self, cheap: TrainingSet, known: TrainingSet, seed: int, pretraining: int, tuning: int
    ) -> None:
        self.cheap, self.known, self.seed, self.tuning = cheap, known, seed, tuning
        self.pretraining = pretraining
        self.parents: list[Member] = []
        self.teachers: list[Member] = []
        self.parent = self._parent(0)
        self.order = np.random.default_rng(seed).permutation(len(known.frames))

    def draw(self, n: int, *, forces: bool = True) -> None:
        """Take the first n frames of this seed's order as those with both labels."""
        index = self.order[:n]
        frames = tuple(self.known.frames[i] for i in index)
        given = [self.known.forces[i] for i in index]
        flags = np.arange(n) % 5 == 4
        self.upper = TrainingSet(
            frames,
            self.known.energies[index],
            tuple(given if forces else [np.full_like(f, np.nan) for f in given]),
            flags,
        )
        below = labelled(frames)
        self.lower = TrainingSet(
            (*self.cheap.frames, *frames),
            np.concatenate([self.cheap.energies, below.energies]),
            (*self.cheap.forces, *below.forces),
            np.concatenate([self.cheap.is_validation, flags]),
        )
        self.teachers = []

    def fit(self, arm: str) -> tuple[Member, float]:
        """Return a member of the better method, and the CPU seconds of its fit."""
        if arm == "distil":
            self._teach()
        began = time.process_time()
        if arm.partition(" ")[0] in MODES:
            member = self._learn(arm, self.seed, self.parent)
        else:
            still = replace(settings(1), learning_rate=1e-12)
            member, _ = train_member(
                self.upper,
                still if arm == "unchanged" else settings(self.tuning, 0.2 * RATE),
                level_of_theory=BETTER,
                seed=self.seed,
                start=self.parent,
                transfer=SLOW if arm == "slow body" else Transfer(),
            )
        return member, time.process_time() - began

    def _parent(self, seat: int) -> Member:
        """Return a member of the cheap method for a seat of the committee."""
        while len(self.parents) <= seat:
            began = time.process_time()
            member, report = train_member(
                self.cheap,
                settings(self.pretraining),
                level_of_theory=CHEAP,
                seed=self.seed + 1000 * len(self.parents),
            )
            self.parents.append(member)
            print(
                f"seed {self.seed}: {CHEAP} learnt to {1e3 * report.validation.force:.0f} meV/Å"
                f" in {time.process_time() - began:.0f} CPU s",
                flush=True,
            )
        return self.parents[seat]

    def _teach(self) -> None:
        began = time.process_time()
        seats = [(self.seed + 1000 * k, self._parent(k)) for k in range(N_TEACHERS)]
        self.teachers = [self._learn("finetune", *seat) for seat in seats]
        print(
            f"seed {self.seed}: {N_TEACHERS} teachers from {len(self.upper.frames)} energies in"
            f" {time.process_time() - began:.0f} CPU s",
            flush=True,
        )

    def _learn(self, arm: str, seed: int, parent: Member) -> Member:
        mode, _, layers = arm.partition(" ")
        return learn(
            mode,
            self.upper,
            self.lower,
            settings(self.tuning),
            level_of_theory=BETTER,
            lower_level=CHEAP,
            seed=seed,
            kind="ani",
            parent=parent,
            teachers=self.teachers,
            freeze=(rf"\.{layers}\.",) if layers else ("auto",),
        )[0]


class Table:
    """Errors by number of labels and arm."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.rows: dict[tuple[int, str], list[tuple[float, float, float]]] = {}

    def add(self, n: int, arm: str, test: TrainingSet, member: Member, seconds: float) -> None:
        """Judge a member."""
        force, energy = errors(member, test)
        print(f"{self.title}, {n}, {arm}: {force:.1f} meV/Å, {energy:.1f} meV", flush=True)
        self.rows.setdefault((n, arm), []).append((force, energy, seconds))

    def print(self) -> None:
        """Print means and standard deviations over seeds."""
        print(f"\n{self.title}\n\n| labels | fit | force RMSE, meV/Å | energy RMSE, meV | CPU s |")
        print("|--:|:--|--:|--:|--:|")
        for (n, arm), values in self.rows.items():
            force, energy, seconds = np.array(values).T
            print(
                f"| {n} | {arm} | {force.mean():.1f} ± {force.std():.1f}"
                f" | {energy.mean():.1f} ± {energy.std():.1f} | {seconds.mean():.0f} |"
            )

    def compare(self, few: int = 50, many: int = 200) -> None:
        """Say whether the better mode with few labels is better than scratch with many."""
        means = {key: float(np.mean([row[0] for row in rows])) for key, rows in self.rows.items()}
        best = min((v, arm) for (n, arm), v in [*means.items(), ((few, ""), np.inf)] if n == few)
        if not best[1] or (many, "scratch") not in means:
            return
        wanted = means[many, "scratch"]
        print(
            f"\n{best[1]} with {few} labels: {best[0]:.1f} meV/Å, scratch with {many}:"
            f" {wanted:.1f} meV/Å: {'better' if best[0] < wanted else 'not better'}"
        )


def settings(steps: int, learning_rate: float = RATE) -> TrainSettings:
    """Return those of a fit of so many steps."""
    return TrainSettings(epochs=steps, max_steps=steps, patience=steps, learning_rate=learning_rate)


def rmd17(folder: Path | None, split: str) -> TrainingSet:
    """Return frames of a split with energies (eV) and forces (eV/Å); ends where there are none."""
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
    frames = tuple(Frame(data["nuclear_charges"], positions) for positions in data["coords"])
    return TrainingSet(
        frames,
        data["energies"] * EV_PER_KCAL,
        tuple(data["forces"] * EV_PER_KCAL),
        np.zeros(len(frames), bool),
    )


def sample(n: int) -> TrainingSet:
    """Return n frames 10 fs apart of one trajectory at 500 K after 1 ps; each tenth validates."""
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
    flags = np.arange(n) % 10 == 9
    return TrainingSet(tuple(frames), np.array(energies), tuple(forces), flags)


def labelled(frames: Sequence[Frame]) -> TrainingSet:
    """Return frames with labels of the cheap method."""
    reference = build_reference(MethodSpec("tblite"), frames[0].numbers, 0, 1)
    labels = [reference.label(frame) for frame in frames]
    energies = np.array([label.energy for label in labels])
    return TrainingSet(
        tuple(frames), energies, tuple(_forces(label.forces) for label in labels), energies > 0.0
    )


def _forces(forces: NDArray[np.float64] | None) -> NDArray[np.float64]:
    if forces is None:
        raise TypeError(f"{CHEAP} gave no forces")
    return forces


def errors(member: Member, test: TrainingSet) -> tuple[float, float]:
    """Return the root mean square errors of forces (meV/Å) and total energies (meV)."""
    positions = torch.tensor(np.array([frame.positions for frame in test.frames]))
    answer = build_committee([member]).evaluate(test.frames[0].numbers, positions, forces="mean")
    force = answer.forces.numpy() - np.array(test.forces)
    energy = answer.energies[0].numpy() - test.energies
    return 1e3 * float(np.sqrt((force**2).mean())), 1e3 * float(np.sqrt((energy**2).mean()))


if __name__ == "__main__":
    main()
