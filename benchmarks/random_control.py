"""Does asking the committee pay? The same campaign twice, with and without its disagreement.

    python benchmarks/random_control.py [configs/ethanol.yaml] [-o runs/control] [--seeds 1 2]
        [--generations 6]

Both arms start from the same frames, run the same number of generations and buy the same number
of labels (the target is set out of reach). One draws its training frames by query by committee,
the other blindly from the same kind of trajectories. Each final committee is judged on its own
audit frames and on those of the other arm, which neither was trained on. A ratio below 1 says
that query by committee has the smaller error.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from pathlib import Path

from learning_curve import judge_last
from rich.console import Console

from alloop.campaign.start import start
from alloop.config.load import load
from alloop.report.display import Display
from alloop.report.status import status
from alloop_db.ledger import open_readonly

OUT_OF_REACH = "0.0001 eV/A"


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
        errors = {policy: _judged(directory, arms.values()) for policy, directory in arms.items()}
        ratio = errors["uncertainty"] / errors["random"]
        ratios.append(ratio)
        for policy, directory in arms.items():
            labels = status(open_readonly(directory))["labels"].get("done", 0)
            print(f"seed {seed}, {policy}: {labels} labels, force RMSE {errors[policy]:.4f} eV/Å")
        print(f"seed {seed}: uncertainty / random = {ratio:.3f}")
    mean = math.exp(math.fsum(math.log(ratio) for ratio in ratios) / len(ratios))
    print(f"geometric mean of the ratios: {mean:.3f}")


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


def _judged(directory: Path, judges: Iterable[Path]) -> float:
    """Return the error of a campaign's last committee on the audit frames of all arms together."""
    squares, frames = 0.0, 0
    for judge in judges:
        error = judge_last(directory, judge)
        squares += error["n_frames"] * error["force_rmse"] ** 2
        frames += error["n_frames"]
    return math.sqrt(squares / frames)


if __name__ == "__main__":
    main()
