"""Learning curves of NewtonNet and SchNet on the combustion of hydrogen, at equal CPU time.

    python benchmarks/h2_combustion.py --data DIR [--budget 60] [--sizes 50 100 200] [--quick]

Real reactive frames of H and O, wB97X-V/cc-pVTZ, energies relative to the separated atoms (Guan et
al., DOI 10.1038/s41597-022-01330-5): from ab initio trajectories, displaced along normal modes, and
along reaction paths. DIR, or $ALLOOP_DATA, holds 02_aimd.npz, 02_nm.npz and so on, also in a folder
h2combustion, of https://github.com/THGLab/H2COMBUSTION_DATA. Of reaction 12 the corrected path on
the quartet surface is taken, on which its trajectories lie, too: a potential that sees no spin
cannot be on both.

Each fit learns all reactions together, from the same number of frames of each. 150 test frames of
a reaction come from trajectories, 50 are displaced. Split "random" draws test frames from all
trajectories, as the paper did; split "by run" keeps whole trajectories for the test, so that no
training frame is the neighbour in time of a test frame, or the same: many trajectories of a
reaction start from its transition state. The budget is CPU seconds of one thread; the learning
rate falls with it to zero. Reference: figure 2 of Haghighatlari et al., DOI 10.1039/D2DD00008C.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alloop.acquisition.accuracy import predict
from alloop.datafiles import Convention, read_dataset
from alloop.datasets import Dataset, joined
from alloop.datasources import Keys
from alloop.potentials.architectures import ARCHITECTURES, shaped
from alloop.potentials.committee import build_committee
from alloop.potentials.member import Member
from alloop.training.data import TrainingSet
from alloop.training.settings import TrainSettings
from alloop.training.trainer import train_member
from alloop.units import EV_PER_KCAL_MOL

KEYS = Keys("E", "F", "R", "Z")
CONVENTION = Convention("kcal/mol", "A", "wB97X-V/cc-pVTZ")
PATHS = {"12": "12a_irc_q_corr"}
REACTIONS = ("02", "09", "12", "13", "15")
"""O + H2, HO2 -> H + O2, HO2 + O, H2O + O2, H2O2 -> 2 OH: five compositions of 3 to 5 atoms."""
N_AIMD, N_DISPLACED = 150, 50
PROBE = 12
"""Steps that find out how long a step takes; the first two warm up."""
KINDS: dict[str, dict[str, Any]] = {
    "newtonnet": {"batch_size": 20},
    "schnet": {"batch_size": 20},
}
PAPER = (
    "Paper, 16 reactions, random split, trained to convergence: NewtonNet reaches chemical accuracy"
    " (1 kcal/mol) with 500 frames of each, and with these beats SchNet with 5000."
)


@dataclass(frozen=True, slots=True, eq=False)
class Reaction:
    """The frames of a reaction: test and what may be trained on, in the order they are drawn."""

    test: Dataset
    known: Dataset


def main() -> None:
    """Fit all, print a table row for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("ALLOOP_DATA"))
    parser.add_argument("--budget", type=float, default=60.0, help="CPU seconds of a fit")
    parser.add_argument("--sizes", nargs="+", type=int, default=[50, 100, 200])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--splits", nargs="+", default=["random", "by run"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="50 frames, 5 CPU seconds")
    options = parser.parse_args()
    torch.set_num_threads(1)
    budget = 5.0 if options.quick else options.budget
    sizes = [50] if options.quick else options.sizes
    parts = [_read(options.data, name) for name in REACTIONS]
    print(
        f"{len(REACTIONS)} reactions, {N_AIMD + N_DISPLACED} test frames of each, {budget:g} CPU"
        f" seconds per fit, seed {options.seed}; MAE in kcal/mol and kcal/mol/Å, mean over"
        f" reactions.\n{PAPER}\n\n"
        "| split | frames per reaction | model | CPU s | steps | E | F | F on trajectories"
        " | F on displaced |\n|---|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    for split in options.splits:
        reactions = [_split(*part, split, options.seed) for part in parts]
        for n in sizes:
            for kind in options.kinds:
                data = _training_set(reactions, n)
                member, seconds, steps = _fit(kind, data, budget, options.seed)
                errors = " | ".join(f"{error:.2f}" for error in _errors(member, reactions))
                print(
                    f"| {split} | {n} | {kind} | {seconds:.0f} | {steps} | {errors} |", flush=True
                )


def _read(folder: Path | None, reaction: str) -> tuple[Dataset, Dataset, Dataset]:
    """Return the frames of trajectories, displaced ones and those of the reaction path."""
    names = (f"{reaction}_aimd", f"{reaction}_nm", PATHS.get(reaction, f"{reaction}_irc"))
    found = []
    for name in names:
        places = [] if folder is None else [Path(folder), Path(folder) / "h2combustion"]
        path = next((p / f"{name}.npz" for p in places if (p / f"{name}.npz").is_file()), None)
        if path is None:
            print(
                f"no {name}.npz: say with --data or ALLOOP_DATA where it is; the files are at"
                " https://github.com/THGLab/H2COMBUSTION_DATA",
                file=sys.stderr,
            )
            sys.exit(2)
        found.append(read_dataset(path, KEYS, CONVENTION).data)
    return found[0], found[1], found[2]


def runs_of(data: Dataset) -> NDArray[np.int64]:
    """Return the trajectory of each frame: a new one begins where atoms move twice as far."""
    positions = np.array([frame.positions for frame in data.frames])
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=(1, 2))
    around = np.pad(steps, 1, constant_values=np.inf)
    begins = steps > 2.0 * np.maximum(around[:-2], around[2:])
    return np.concatenate([[0], np.cumsum(begins)])


def _split(
    trajectories: Dataset, displaced: Dataset, path: Dataset, split: str, seed: int
) -> Reaction:
    rng = np.random.default_rng(seed)
    if split == "random":
        order = rng.permutation(len(trajectories))
        keep = order[N_AIMD:]
    else:
        runs = runs_of(trajectories)
        rank = rng.permutation(runs.max() + 1)
        # Run after run: all but the last one in the test are wholly there.
        order = np.lexsort((rng.random(len(runs)), rank[runs]))
        keep = order[N_AIMD:]
        keep = keep[runs[keep] != runs[order[N_AIMD - 1]]]
    other = rng.permutation(len(displaced))
    known = joined(joined(_at(trajectories, keep), _at(displaced, other[N_DISPLACED:])), path)
    test = joined(_at(trajectories, order[:N_AIMD]), _at(displaced, other[:N_DISPLACED]))
    if split == "by run":
        tested = {frame.key for frame in test.frames}
        known = known.subset(np.array([frame.key not in tested for frame in known.frames]))
    return Reaction(test, _at(known, rng.permutation(len(known))))


def _at(data: Dataset, index: NDArray[np.int64]) -> Dataset:
    return Dataset(
        tuple(data.frames[i] for i in index),
        data.energies[index],
        tuple(data.forces[i] for i in index),
        tuple(data.splits[i] for i in index),
        tuple(data.systems[i] for i in index),
        tuple(data.groups[i] for i in index),
        data.level_of_theory,
    )


def _training_set(reactions: Sequence[Reaction], n: int) -> TrainingSet:
    """Return n frames of each reaction for training, and a tenth of that for validation."""
    each = [_at(part.known, np.arange(n + n // 10)) for part in reactions]
    return TrainingSet(
        tuple(frame for part in each for frame in part.frames),
        np.concatenate([part.energies for part in each]),
        tuple(force for part in each for force in part.forces),
        np.concatenate([np.arange(len(part)) >= n for part in each]),
    )


def _fit(kind: str, data: TrainingSet, budget: float, seed: int) -> tuple[Member, float, int]:
    """Return a member, the CPU seconds of its fit and the steps that it took."""
    begin = time.process_time()
    _, warm = _train(kind, data, seed, 2, np.inf)
    _, probe = _train(kind, data, seed, PROBE, np.inf)
    each = (probe - warm) / (PROBE - 2)
    left = budget - (time.process_time() - begin)
    steps = max(PROBE, int(left / each))
    member, _ = _train(kind, data, seed, steps, begin + 1.2 * budget)
    return member, time.process_time() - begin, steps


def _train(
    kind: str, data: TrainingSet, seed: int, steps: int, until: float
) -> tuple[Member, float]:
    begin = time.process_time()
    settings = TrainSettings(
        epochs=100_000,
        patience=100_000,
        max_steps=steps,
        learning_rate=ARCHITECTURES[kind].learning_rate,
        **KINDS[kind],
    )
    member, _ = train_member(
        data,
        settings,
        level_of_theory=CONVENTION.level_of_theory,
        seed=seed,
        kind=kind,
        shape=shaped(kind, "small", data.elements, {}),
        atom_energies=dict.fromkeys(data.elements, 0.0),
        should_stop=lambda: time.process_time() > until,
    )
    return member, time.process_time() - begin


def _errors(member: Member, reactions: Sequence[Reaction]) -> list[float]:
    """Return MAE of energy and forces, and of forces on trajectories and displaced frames."""
    committee = build_committee([member])
    rows = []
    for reaction in reactions:
        answer = predict(committee, reaction.test)
        off = [
            np.abs(force[0] - true).mean()
            for force, true in zip(answer.forces, reaction.test.forces, strict=True)
        ]
        energy = np.abs(answer.energies[0] - reaction.test.energies).mean()
        rows.append((energy, np.mean(off), np.mean(off[:N_AIMD]), np.mean(off[N_AIMD:])))
    return (np.mean(rows, axis=0) / EV_PER_KCAL_MOL).tolist()


if __name__ == "__main__":
    main()
