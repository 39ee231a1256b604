"""Promotion to the next level of theory: the policy against random frames, at equal cost.

    python benchmarks/promotion.py --data FOLDER [--quick] [--seeds 0 1 2] [--cases ethanol]

Committees of three small ANI networks learn all frames of a pool at the lower level. Rounds of
labels at the upper level follow, chosen by ``alloop.acquisition.promotion.choose`` or drawn at
random for the same core-seconds; after each round every member is fine-tuned from the lower one on
all upper labels so far. Force errors of the committee's mean on frames of no pool.

ethanol: 1,000 frames of rMD17 (DOI 10.1088/2632-2153/abba6f), GFN2-xTB to PBE/def2-SVP, rounds of
25 labels of one price.
carbonyls: 800 frames each of CH2O and HCOOH (DOI 10.1021/acs.jctc.1c00249), MP2 to CCSD(T), both in
aug-cc-pVTZ, in one pool; a label of HCOOH is priced (184/138)^7 = 7.5 times one of CH2O, by their
numbers of basis functions. A round is worth 25 labels of the mean price.

Seeds draw weights and frames anew. Both policies of a seed share the lower committee, the seeds of
the fits and the test frames: their differences are paired, with the standard error over seeds.
FOLDER (or the environment variable ALLOOP_DATA) holds, at any depth, rmd17_ethanol_train_01.npz and
rmd17_ethanol_test_01.npz from https://github.com/andersx/rmd17-npz, and ch2o.npz and hcooh.npz with
arrays Z, R, E_mp2, F_mp2, E_ccsdt, F_ccsdt (eV, Å), made of https://github.com/dralgroup/ani1ccxgelu.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ase.units import kcal, mol

from alloop.acquisition.promotion import Policy, choose
from alloop.acquisition.tier_pool import pool_frames
from alloop.frames import Frame
from alloop.potentials.committee import Committee, build_committee
from alloop.potentials.member import Member
from alloop.reference.method import MethodSpec, build_reference
from alloop.training.data import TrainingSet
from alloop.training.settings import TrainSettings
from alloop.training.trainer import train_member
from alloop.training.transfer import Transfer

N_MEMBERS, LABELS, N_TEST = 3, 25, 500
POLICIES: tuple[Policy, ...] = ("random", "value")


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Frames of one molecule; energies (eV) and forces (eV/Å) of each level, over the frames."""

    numbers: np.ndarray
    positions: np.ndarray
    lower: tuple[np.ndarray, np.ndarray]
    upper: tuple[np.ndarray, np.ndarray]

    def rows(self, chosen: np.ndarray) -> Labelled:
        """Return some of the frames."""
        lower, upper = (tuple(part[chosen] for part in level) for level in (self.lower, self.upper))
        return Labelled(self.numbers, self.positions[chosen], lower, upper)

    @property
    def frames(self) -> list[Frame]:
        """The geometries."""
        return [Frame(self.numbers, positions) for positions in self.positions]


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """Frames by molecule, how many of each are in the pool, and core-seconds of a label of each."""

    molecules: dict[str, Labelled]
    n_pool: int
    prices: dict[str, float]

    @property
    def round_s(self) -> float:
        """Core-seconds of a round."""
        return LABELS * float(np.mean(list(self.prices.values())))


def main() -> None:
    """Run both policies for each case and seed and print a table for each case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("ALLOOP_DATA"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", nargs=2, type=int, default=[1000, 400], help="lower, upper")
    parser.add_argument("--quick", action="store_true", help="a minute, to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.rounds, options.steps = [0], 2, [200, 100]
    torch.set_num_threads(1)
    for name in options.cases:
        case = CASES[name](options.data)
        results = [_run(case, seed, options.rounds, *options.steps) for seed in options.seeds]
        _print(name, case.round_s, np.array(results))
    print(f"\n{time.process_time() / 60:.1f} CPU min on one thread")


def _run(case: Case, seed: int, rounds: int, lower_steps: int, upper_steps: int) -> list:
    """Return for each policy and round labels, two errors, expected ratio, error at the start."""
    began = time.process_time()
    pools, tests = _drawn(case, seed)
    data = _training_set([(pool, np.arange(case.n_pool), "lower") for pool in pools.values()])
    settings = TrainSettings(epochs=lower_steps, max_steps=lower_steps, patience=lower_steps)
    lower = [
        train_member(data, settings, level_of_theory="lower", seed=10 * seed + i)[0]
        for i in range(N_MEMBERS)
    ]
    start = _errors(lower, tests)[0]
    results = []
    for policy in POLICIES:
        known = {name: np.zeros(case.n_pool, bool) for name in pools}
        upper: list[Member] = []
        results.append([])
        for number in range(rounds):
            expected = _promote(case, pools, known, lower, upper, policy, 100 * seed + number)
            upper = _fine_tuned(pools, known, lower, 10 * seed, upper_steps)
            counts = [int(flags.sum()) for flags in known.values()]
            results[-1].append((sum(counts), *_errors(upper, tests), expected, start))
            shown = ", ".join(f"{value:.4g}" for value in results[-1][-1])
            print(f"seed {seed}, {policy}, {counts}: {shown}", flush=True)
    print(f"{time.process_time() - began:.0f} CPU s", flush=True)
    return results


def _drawn(case: Case, seed: int) -> tuple[dict[str, Labelled], dict[str, Labelled]]:
    """Return pools and tests of a seed."""
    pools, tests = {}, {}
    for name, every in case.molecules.items():
        order = np.random.default_rng(seed).permutation(len(every.positions))
        pools[name] = every.rows(order[: case.n_pool])
        tests[name] = every.rows(order[case.n_pool :][:N_TEST])
    return pools, tests


def _promote(
    case: Case,
    pools: dict[str, Labelled],
    known: dict[str, np.ndarray],
    lower: list[Member],
    upper: list[Member],
    policy: Policy,
    seed: int,
) -> float:
    """Mark the frames of one more round as known; return the expected ratio of errors."""
    tier_pools = [
        pool_frames(
            name,
            pool.frames,
            np.full(case.n_pool, case.prices[name]),
            lower=build_committee(lower) if upper else None,
            upper=build_committee(upper) if upper else None,
            differences=np.where(known[name], pool.upper[0] - pool.lower[0], np.nan),
            candidate=~known[name],
            known=known[name],
            representative=np.ones(case.n_pool, bool),
        )
        for name, pool in pools.items()
    ]
    rows = {pool.system: {key: row for row, key in enumerate(pool.keys)} for pool in tier_pools}
    result = choose(tier_pools, 10_000, seed=seed, policy=policy, budget_s=case.round_s)
    for pick in result.picks:
        known[pick.system][rows[pick.system][pick.key]] = True
    return result.rmse_ratio


def _fine_tuned(
    pools: dict[str, Labelled],
    known: dict[str, np.ndarray],
    lower: list[Member],
    seed: int,
    steps: int,
) -> list[Member]:
    parts = [(pools[name], np.flatnonzero(flags), "upper") for name, flags in known.items()]
    data = _training_set([part for part in parts if len(part[1])])
    settings = TrainSettings(epochs=steps, max_steps=steps, patience=steps, learning_rate=1e-3)
    return [
        train_member(
            data, settings, level_of_theory="upper", seed=seed + i, start=start, transfer=Transfer()
        )[0]
        for i, start in enumerate(lower)
    ]


def _training_set(parts: list[tuple[Labelled, np.ndarray, str]]) -> TrainingSet:
    """Return frames of molecules with their labels at one level; none validates."""
    chosen = [(part.rows(rows), level) for part, rows, level in parts]
    frames = [frame for part, _ in chosen for frame in part.frames]
    energies = np.concatenate([getattr(part, level)[0] for part, level in chosen])
    forces = [force for part, level in chosen for force in getattr(part, level)[1]]
    return TrainingSet(tuple(frames), energies, tuple(forces), np.zeros(len(frames), bool))


def _errors(members: list[Member], tests: dict[str, Labelled]) -> tuple[float, float]:
    """Return the RMSE of force components, of all frames and of the worst hundredth, meV/Å."""
    squares = []
    committee: Committee = build_committee(members)
    for test in tests.values():
        answer = committee.evaluate(test.numbers, torch.tensor(test.positions), forces="mean")
        error = answer.forces.numpy() - test.upper[1]
        squares.append((error**2).mean(axis=(1, 2)))
    each = np.sort(np.concatenate(squares))
    worst = each[-max(1, len(each) // 100) :]
    return 1e3 * float(np.sqrt(each.mean())), 1e3 * float(np.sqrt(worst.mean()))


def _ethanol(folder: Path | None) -> Case:
    train, test = (np.load(_find(folder, f"rmd17_ethanol_{s}_01.npz")) for s in ("train", "test"))
    numbers = train["nuclear_charges"].astype(np.int64)
    new = ~np.isin(test["old_indices"], train["old_indices"])
    positions, energies, forces = (
        np.concatenate([train[name], test[name][new]]) for name in ("coords", "energies", "forces")
    )
    reference = build_reference(MethodSpec("tblite"), numbers, 0, 1)
    labels = [reference.label(Frame(numbers, each)) for each in positions]
    lower = np.array([label.energy for label in labels]), np.array([x.forces for x in labels])
    upper = energies * (kcal / mol), forces * (kcal / mol)
    return Case({"ethanol": Labelled(numbers, positions, lower, upper)}, 1000, {"ethanol": 1.0})


def _carbonyls(folder: Path | None) -> Case:
    molecules, prices = {}, {}
    for name, n_basis in (("ch2o", 138), ("hcooh", 184)):
        data = np.load(_find(folder, f"{name}.npz"))
        levels = [
            (data[f"E_{level}"], data[f"F_{level}"].astype(float)) for level in ("mp2", "ccsdt")
        ]
        molecules[name] = Labelled(data["Z"].astype(np.int64), data["R"], *levels)
        prices[name] = (n_basis / 138) ** 7
    return Case(molecules, 800, prices)


CASES = {"ethanol": _ethanol, "carbonyls": _carbonyls}


def _find(folder: Path | None, name: str) -> Path:
    path = next(Path(folder).rglob(name), None) if folder else None
    if path is None:
        print(f"{name} is not in {folder or '--data or ALLOOP_DATA, not set'}", file=sys.stderr)
        sys.exit(2)
    return path


def _print(name: str, round_s: float, results: np.ndarray) -> None:
    """Print a table of results (seeds, policies, rounds, columns of ``_run``)."""
    random, value = results[:, 0], results[:, 1]
    print(
        f"\n{name}, {len(results)} seeds\n\n| core-seconds | labels: random | value |"
        " RMSE, meV/Å: random | value | difference | worst 1 %: random | value | difference |"
        " expected ratio | found |\n|" + "--:|" * 11
    )
    for row in range(results.shape[2]):
        cells = [f"{(row + 1) * round_s:.0f}"]
        cells += [f"{policy[:, row, 0].mean():.0f}" for policy in (random, value)]
        for column in (1, 2):
            pair = random[:, row, column], value[:, row, column]
            change = pair[1] - pair[0]
            error = change.std(ddof=1) / np.sqrt(len(change)) if len(change) > 1 else np.nan
            cells += [f"{part.mean():.1f}" for part in pair]
            cells.append(f"{change.mean():+.1f} ± {error:.1f}")
        before = value[:, row - 1, 1] if row else value[:, 0, 4]
        cells += [f"{value[:, row, 3].mean():.2f}", f"{(value[:, row, 1] / before).mean():.2f}"]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
