"""Errors on rMD17 after the same CPU time for every architecture, and for hippynn and mace-torch.

    python benchmarks/rmd17.py ethanol --data DIR [--budget 180] [--models newtonnet mace-torch]

950 training and 50 validation frames of split 01 and its 1000 test frames: PBE/def2-SVP, labels of
rMD17 (arXiv:2007.09593). DIR, or $ALLOOP_DATA, holds rmd17_MOLECULE_train_01.npz and _test_01.npz,
also in a folder rmd17. One thread, float32, one model each, energies and forces in the loss. The
budget is CPU seconds of optimiser steps; a learning rate that falls as a cosine ends with it.
hippynn and mace-torch run where they are installed, see ``rmd17_peers.py``.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rmd17_peers import Hippynn, Mace, Outcome, Peer, Plan, run_peer

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

N_TRAIN, N_KNOWN = 950, 1000
LEVEL = "PBE/def2-SVP"
KEYS = Keys("energies", "forces", "coords", "nuclear_charges")
PROBE = 40
"""Steps that find out how long a step takes; the first two warm up."""

COMMON: dict[str, Any] = {"batch_size": 10, "epochs": 100_000, "patience": 100_000}
RECIPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ani": ({}, {"batch_size": 16}),
    "newtonnet": ({"layers": 2}, {"learning_rate": 2e-3}),
    "hipnn": ({}, {"batch_size": 8}),
    "equireann": ({}, {"batch_size": 32, "learning_rate": 5e-3}),
    "reann": ({}, {"batch_size": 32, "learning_rate": 5e-3}),
    "egnn": ({"sigma": 1.5}, {"batch_size": 8, "learning_rate": 3e-3}),
    "schnet": ({}, {}),
}
"""Settings that differ from those of size small, and of the training."""
PEERS: dict[str, tuple[str, type, Plan]] = {
    "hippynn": ("hippynn", Hippynn, Plan(batch_size=10, learning_rate=1e-2)),
    "mace-torch": ("mace", Mace, Plan(batch_size=5, learning_rate=2e-2)),
}
PAPERS: dict[str, dict[str, tuple[float, float]]] = {
    # MD17 (DFT of lower precision than rMD17), 950 training frames; kcal/mol and kcal/mol/Å;
    # table 1 of DOI 10.1039/D2DD00008C.
    "ethanol": {"newtonnet": (0.078, 0.264), "schnet": (0.08, 0.39)},
    "aspirin": {"newtonnet": (0.168, 0.348), "schnet": (0.37, 1.35)},
}


def main() -> None:
    """Train one model after the other and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("molecule", nargs="?", default="ethanol")
    parser.add_argument("--data", type=Path, default=os.environ.get("ALLOOP_DATA"))
    parser.add_argument("--budget", type=float, default=180.0, help="CPU seconds per model")
    parser.add_argument("--models", nargs="+", help="default: all that there are")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="10 CPU seconds per model")
    options = parser.parse_args()
    torch.set_num_threads(1)
    budget = 10.0 if options.quick else options.budget
    known, test = (_frames(options.data, options.molecule, part) for part in ("train", "test"))
    print(
        f"{options.molecule}, {budget:g} CPU seconds per model, seed {options.seed}\n\n"
        "| model | parameters | steps | CPU s | E MAE, meV | kcal/mol | F MAE, meV/Å"
        " | kcal/mol/Å | paper (MD17): E, F |\n|---|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    for name in options.models or [*RECIPES, *PEERS]:
        if name in PEERS and importlib.util.find_spec(PEERS[name][0]) is None:
            print(f"| {name} | not installed |", flush=True)
            continue
        run = _run_peer if name in PEERS else _run_ours
        outcome = run(name, known, test, budget, options.seed)
        print(_row(name, options.molecule, outcome, test), flush=True)


def _frames(folder: Path | None, molecule: str, part: str) -> Dataset:
    name = f"rmd17_{molecule}_{part}_01.npz"
    places = [] if folder is None else [Path(folder) / name, Path(folder) / "rmd17" / name]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        print(
            f"no {name}: say with --data or ALLOOP_DATA where it is; the files are at"
            " https://github.com/andersx/rmd17-npz",
            file=sys.stderr,
        )
        sys.exit(2)
    return read_dataset(path, KEYS, Convention("kcal/mol", "A", LEVEL)).data


def _run_ours(name: str, known: Dataset, test: Dataset, budget: float, seed: int) -> Outcome:
    changes, recipe = RECIPES[name]
    is_validation = np.arange(N_KNOWN) >= N_TRAIN
    data = TrainingSet(known.frames, known.energies, known.forces, is_validation)
    shape = shaped(name, "small", data.elements, changes)
    rate = {"learning_rate": ARCHITECTURES[name].learning_rate}
    base = COMMON | rate | recipe
    _, probe, _ = _fit(name, data, shape, base | {"max_steps": PROBE}, seed)
    steps = max(PROBE, int(budget / probe))
    member, each, seconds = _fit(
        name, data, shape, base | {"max_steps": steps}, seed, most=1.2 * budget
    )
    predictions = predict(build_committee([member]), test)
    n_parameters = sum(tensor.numel() for tensor in member.weights.values())
    forces = np.array([force[0] for force in predictions.forces])
    return Outcome(predictions.energies[0], forces, seconds, round(seconds / each), n_parameters)


def _fit(
    name: str,
    data: TrainingSet,
    shape: dict[str, Any],
    settings: dict[str, Any],
    seed: int,
    most: float = np.inf,
) -> tuple[Member, float, float]:
    """Return a member, the CPU seconds of a step after the first two, and of all steps."""
    ticks: list[float] = []

    def should_stop() -> bool:
        ticks.append(time.process_time())
        return ticks[-1] - ticks[0] > most

    member, _ = train_member(
        data,
        TrainSettings(**settings),
        level_of_theory=LEVEL,
        seed=seed,
        kind=name,
        shape=shape,
        should_stop=should_stop,
    )
    each = (ticks[-1] - ticks[1]) / (len(ticks) - 2)
    return member, each, each * len(ticks)


def _run_peer(name: str, known: Dataset, test: Dataset, budget: float, seed: int) -> Outcome:
    _, make, plan = PEERS[name]
    torch.manual_seed(seed)
    training = known.subset(np.arange(N_KNOWN) < N_TRAIN)
    peer: Peer = make(joined(training, test), N_TRAIN)
    return run_peer(peer, plan, N_TRAIN, list(range(N_TRAIN, N_TRAIN + len(test))), budget, seed)


def _row(name: str, molecule: str, outcome: Outcome, test: Dataset) -> str:
    energy = float(np.abs(outcome.energies - test.energies).mean())
    force = float(np.abs(outcome.forces - np.array(test.forces)).mean())
    paper = PAPERS.get(molecule, {}).get(name)
    return (
        f"| {name} | {outcome.parameters} | {outcome.steps} | {outcome.seconds:.0f}"
        f" | {1e3 * energy:.1f} | {energy / EV_PER_KCAL_MOL:.3f}"
        f" | {1e3 * force:.1f} | {force / EV_PER_KCAL_MOL:.3f}"
        f" | {'–' if paper is None else f'{paper[0]}, {paper[1]}'} |"
    )


if __name__ == "__main__":
    main()
