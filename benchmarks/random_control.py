"""Does asking the committee pay? The same campaign twice, with and without its disagreement.

    python benchmarks/random_control.py [configs/ethanol.yaml] [-o runs/control] [--seeds 1 2]
        [--generations 6]

Both arms start from the same frames, run the same number of generations and buy the same number
of labels (the target is set out of reach). One draws its training frames by query by committee,
the other blindly from the same kind of trajectories. Each final committee is judged on its own
audit frames and on those of the other arm, which neither was trained on. A ratio below 1 says
that query by committee has the smaller error. A torn geometry among the audit frames can decide
a root mean square alone, so the ratio without the worst hundredth of the frames and that of the
medians stand beside it.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
from learning_curve import errors_of_last
from numpy.typing import NDArray
from rich.console import Console

from alloop.campaign.start import start
from alloop.config.load import load
from alloop.report.display import Display
from alloop.report.status import status
from alloop_db.ledger import open_readonly

OUT_OF_REACH = "0.0001 eV/A"
SCORES = ("force RMSE", "without the worst 1 %", "median")


def main() -> None:
    """Run both arms for each seed and print their errors and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", nargs="?", type=Path, default=Path("configs/ethanol.yaml"))
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/control"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--generations", type=int, default=6)
    options = parser.parse_args()
    ratios = []
    for seed in options.seeds:
        arms = {
            policy: _run(
                options.config,
                options.output / f"{policy}-{seed}",
                policy,
                seed,
                options.generations,
            )
            for policy in ("uncertainty", "random")
        }
        scores = {}
        for policy, directory in arms.items():
            labels = status(open_readonly(directory))["labels"].get("done", 0)
            scores[policy] = _scores([errors_of_last(directory, judge) for judge in arms.values()])
            words = ", ".join(f"{name} {value:.4f}" for name, value in scores[policy].items())
            print(f"seed {seed}, {policy}: {labels} labels, {words} eV/Å")
        ratios.append(
            {name: scores["uncertainty"][name] / scores["random"][name] for name in SCORES}
        )
        print(f"seed {seed}: uncertainty / random: {_words(ratios[-1])}")
    mean = {name: float(np.exp(np.mean(np.log([r[name] for r in ratios])))) for name in SCORES}
    print(f"geometric means: {_words(mean)}")


def _scores(errors: list[NDArray[np.float64]]) -> dict[str, float]:
    """Return the scores over the audit frames of all arms."""
    ordered = np.sort(np.concatenate(errors))
    most = ordered[: len(ordered) - math.ceil(len(ordered) / 100)]
    values = (
        np.sqrt(np.mean(ordered**2)),
        np.sqrt(np.mean(most**2)),
        np.median(ordered),
    )
    return {name: float(value) for name, value in zip(SCORES, values, strict=True)}


def _words(ratios: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in ratios.items())


def _run(config: Path, directory: Path, policy: str, seed: int, generations: int) -> Path:
    overrides = {
        "campaign.directory": str(directory.absolute()),
        "campaign.seed": seed,
        "select.policy": policy,
        "target.force_rmse": OUT_OF_REACH,
        "stop.max_generations": generations,
        "stop.patience": generations,
        "spacetime": None,
    }
    loaded = load(config, overrides)
    with Display(loaded.config, Console()) as display:
        verdict = start(loaded, display.say, display)
    print(f"{directory}: {verdict.text}", flush=True)
    return directory


if __name__ == "__main__":
    main()
