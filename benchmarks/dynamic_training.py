"""Does dynamic training make a potential follow trajectories better, or do more steps?

    python benchmarks/dynamic_training.py [--kind schnet] [--seeds 0 1 2] [--save FILE]
    python benchmarks/dynamic_training.py --tables FILE FILE

Ethanol at GFN2-xTB: 30 runs at constant energy (500 K, 300 steps of 0.5 fs), of which 17 train,
3 validate and 10 judge. For each seed a member is trained on single frames (S=1); from there each
arm takes the same number of steps over the same subsequences with the same resets of the learning
rate: the control goes on with S=1, the others grow from S=2 to S=5. S=1 with three times the steps
costs about the CPU time of growth. The measure is the MEPA of free motion on the trajectories that
judge: sum over elements of the mean absolute force error, against the reference at the same time.
Reference: two unrelated motions.

Molecules are chaotic, so windows of 10, 50 and 100 steps are reported next to 300. Seeds may be run
side by side and their files put together with --tables.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.build import molecule

from alloop.dynamics.health import HealthLimits
from alloop.dynamics.initial import maxwell_boltzmann
from alloop.dynamics.md import MdSettings, run_md
from alloop.frames import Frame
from alloop.potentials.evaluation import Evaluation
from alloop.potentials.member import Member
from alloop.reference.method import MethodSpec, build_reference
from alloop.training.data import TrainingSet
from alloop.training.dynamic import DynamicEpoch, DynamicSettings, refine
from alloop.training.rollouts import mepa, rollout_errors
from alloop.training.segments import NveTrajectory
from alloop.training.settings import TrainSettings
from alloop.training.trainer import train_member

TEMPERATURE, TIMESTEP = 500.0, 0.5
HORIZONS = (1, 10, 50, 100, 300)
GROWTH, CONTROL = (2, 3, 4, 5), (1, 1, 1, 1)
ARMS = {
    "S=1 continued (control)": (CONTROL, "detached", 1),
    "S=2..5 detached": (GROWTH, "detached", 1),
    "S=2..5 through time": (GROWTH, "bptt", 1),
    "S=1 continued, 3 x steps": (CONTROL, "detached", 3),
}
"""Lengths of the subsequences, gradient and a factor on the epochs."""


def main() -> None:
    """Make the data, run the arms for each seed, print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", default="schnet")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1500, help="of S=1 before the arms part")
    parser.add_argument("--epochs", type=int, default=4, help="of each of the four stages")
    parser.add_argument("--rate", type=float, default=5e-4, help="learning rate after each reset")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--save", type=Path, help="write the numbers as JSON")
    parser.add_argument("--tables", nargs="+", type=Path, help="only print what was saved")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything, no meaning")
    options = parser.parse_args()
    if options.quick:
        options.steps, options.epochs, options.seeds = 200, 1, options.seeds[:1]
    torch.set_num_threads(1)
    if options.tables:
        results = [row for path in options.tables for row in json.loads(path.read_text())]
    else:
        results = _measure(options)
    _print(results)


def _measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    runs = _trajectories(6 if options.quick else 30)
    n_judges, n_validation = len(runs) // 3, max(1, len(runs) // 10)
    judges, rest = runs[:n_judges], runs[n_judges:]
    validation, train = rest[:n_validation], rest[n_validation:]
    unrelated = _unrelated(judges)
    results = []
    for seed in options.seeds:
        began = time.process_time()
        start = _single_frames(train, validation, options, seed)
        seconds = time.process_time() - began
        results.append(_row(seed, "S=1", start, judges, seconds, 0, unrelated))
        for arm in options.arms:
            lengths, gradient, factor = ARMS[arm]
            settings = DynamicSettings(
                lengths=lengths,
                gradient=gradient,
                stride=4,
                batch_size=16,
                epochs_per_stage=options.epochs * factor,
                learning_rate=options.rate,
                patience=0,
            )
            # The control must not see more starts: S=5 cannot begin with the last 4 frames.
            shown = [_shorter(t, max(GROWTH) - max(lengths)) for t in train]
            began = time.process_time()
            refined, report = refine(
                start, shown, validation, settings, seed=seed, on_epoch=lambda e, a=arm: _tell(a, e)
            )
            seconds = time.process_time() - began
            row = _row(seed, arm, refined, judges, seconds, report.epochs[-1].step, unrelated)
            results.append(row | {"validation": [report.before, report.best]})
        if options.save:
            options.save.write_text(json.dumps(results))
    return results


class _Gfn2:
    """GFN2-xTB as a committee of one, so that the dynamics of alloop move atoms by it."""

    n_members = 1

    def __init__(self, numbers: np.ndarray) -> None:
        self._reference = build_reference(MethodSpec("tblite"), numbers, 0, 1)
        self.elements = tuple(sorted(set(numbers.tolist())))

    def evaluate(self, numbers: np.ndarray, positions: torch.Tensor, **_: object) -> Evaluation:
        labels = [self._reference.label(Frame(numbers, x)) for x in positions.numpy()]
        forces = torch.tensor(np.array([label.forces for label in labels]))
        energies = torch.tensor([[label.energy for label in labels]])
        return Evaluation(energies, forces, forces[None])


def _trajectories(n: int) -> list[NveTrajectory]:
    """Return n runs at constant energy, each from the end of 200 fs of its own thermostat."""
    atoms = molecule("CH3CH2OH")
    committee, masses = _Gfn2(atoms.numbers), atoms.get_masses()
    x = np.repeat(atoms.positions[None], n, axis=0)
    v = maxwell_boltzmann(masses, TEMPERATURE, n, np.random.default_rng(1), x)
    temperatures, seeds = (TEMPERATURE,) * n, tuple(range(n))
    limits = HealthLimits()
    warm = MdSettings("nvt", TIMESTEP, 400, 400, temperatures, seeds, friction=0.02)
    ends = run_md(committee, atoms.numbers, x, v, masses, warm, limits)
    x = np.array([end.positions[-1] for end in ends])
    v = np.array([end.velocities[-1] for end in ends])
    free = MdSettings("nve", TIMESTEP, max(HORIZONS), 1, temperatures, seeds)
    runs = run_md(committee, atoms.numbers, x, v, masses, free, limits)
    return [NveTrajectory.of(run, f"run {i}") for i, run in enumerate(runs)]


def _single_frames(
    train: list[NveTrajectory],
    validation: list[NveTrajectory],
    options: argparse.Namespace,
    seed: int,
) -> Member:
    frames = [(t, k, False) for t in train for k in range(t.n_frames)]
    frames += [(t, k, True) for t in validation for k in range(0, t.n_frames, 10)]
    data = TrainingSet(
        tuple(Frame(t.system.numbers, t.positions[k]) for t, k, _ in frames),
        np.array([t.energies[k] for t, k, _ in frames]),
        tuple(t.forces[k] for t, k, _ in frames),
        np.array([judges for *_, judges in frames]),
    )
    settings = TrainSettings(max_steps=options.steps, loss="mepa")
    return train_member(data, settings, level_of_theory="GFN2-xTB", seed=seed, kind=options.kind)[0]


def _shorter(trajectory: NveTrajectory, by: int) -> NveTrajectory:
    end = trajectory.n_frames - by
    return NveTrajectory(
        trajectory.name,
        trajectory.system,
        trajectory.timestep,
        trajectory.positions[:end],
        trajectory.velocities[:end],
        trajectory.energies[:end],
        trajectory.forces[:end],
    )


def _row(
    seed: int,
    arm: str,
    member: Member,
    judges: list[NveTrajectory],
    seconds: float,
    steps: int,
    unrelated: float,
) -> dict[str, Any]:
    curve = rollout_errors(member, judges, max(HORIZONS))
    row = {
        "seed": seed,
        "arm": arm,
        "cpu_s": seconds,
        "steps": steps,
        "unrelated": unrelated,
        "mean": [float(mepa(member, judges, n).mean()) for n in HORIZONS],
        "at": [float(curve[:, n - 1].mean()) for n in HORIZONS],
    }
    print(f"seed {seed} {arm}: {seconds:.0f} CPU-s, MEPA {row['mean']}", flush=True)
    return row


def _unrelated(judges: list[NveTrajectory]) -> float:
    """Return the MEPA of the forces of one trajectory judged by another."""
    errors = []
    for one, other in pairwise(judges):
        share = 1.0 / (3.0 * (one.system.numbers[:, None] == one.system.numbers).sum(1))
        errors.append((np.abs(one.forces - other.forces).sum(2) @ share).mean())
    return float(np.mean(errors))


def _tell(arm: str, epoch: DynamicEpoch) -> None:
    print(
        f"  {arm}: S={epoch.length} step {epoch.step} rate {epoch.learning_rate:.1e}"
        f" validation {epoch.validation:.4f}",
        flush=True,
    )


def _print(results: list[dict[str, Any]]) -> None:
    results = list({(row["seed"], row["arm"]): row for row in results}.values())
    seeds = sorted({row["seed"] for row in results})
    arms = [arm for arm in ("S=1", *ARMS) if arm in {row["arm"] for row in results}]
    print(f"\nMEPA / eV/Å on held-out trajectories, mean ± standard deviation of seeds {seeds};")
    print(f"of two unrelated motions {results[0]['unrelated']:.2f}\n")
    for title, key in (("mean over the first", "mean"), ("error at", "at")):
        head = " | ".join(f"{title} {n}" for n in HORIZONS)
        print(f"| arm | steps | CPU-s | {head} |")
        print("|---|" + "---|" * (len(HORIZONS) + 2))
        for arm in arms:
            rows = [row for row in results if row["arm"] == arm]
            cells = [_spread([row[key][i] for row in rows]) for i in range(len(HORIZONS))]
            seconds = np.mean([row["cpu_s"] for row in rows])
            print(f"| {arm} | {rows[0]['steps']} | {seconds:.0f} | {' | '.join(cells)} |")
        print()
    print("differences from the control, seed by seed (negative is better):\n")
    print("| arm | " + " | ".join(f"first {n}" for n in HORIZONS) + " |")
    print("|---|" + "---|" * len(HORIZONS))
    control = next(iter(ARMS))
    for arm in arms:
        if arm in ("S=1", control):
            continue
        cells = []
        for i in range(len(HORIZONS)):
            by_seed = {
                name: {row["seed"]: row["mean"][i] for row in results if row["arm"] == name}
                for name in (control, arm)
            }
            cells.append(_spread([by_seed[arm][s] - by_seed[control][s] for s in seeds]))
        print(f"| {arm} | {' | '.join(cells)} |")


def _spread(values: list[float]) -> str:
    deviation = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return f"{np.mean(values):.4f} ± {deviation:.4f}"


if __name__ == "__main__":
    main()
