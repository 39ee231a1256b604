"""Whether a 4D model knows where it is wrong: its disagreement against its true error.

    alloop spacetime sample ... -o ethanol.h5
    python benchmarks/spacetime_disagreement.py --shards ethanol.h5 [--model model.pt]

Limits come from the validation trajectories, the table from the test trajectories: starts of
segments as they are, and hotter than anything in the training set, with velocities multiplied. The
true end of a segment is molecular dynamics from the same start with the potential that the
trajectories are of, a published ANI model (weights where TORCHANI_DATA_DIR says). Errors are RMSDs
after superposition at the cutoff. Without --model a model is fitted first, half a CPU minute.

Ge et al. 2023, doi:10.1021/acs.jpclett.3c01592, name such active learning as future work: there are
no published numbers to stand beside these. A signal worth nothing has a rank correlation of 0, and
the same error above its limit as below.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from alloop.acquisition.ranking import rank_correlation
from alloop.dynamics.health import HealthLimits
from alloop.dynamics.md import MdSettings, run_md
from alloop.potentials.ani.pretrained import pretrained
from alloop.potentials.committee import build_committee
from alloop.potentials.evaluation import Committee
from alloop.spacetime.files import load_model
from alloop.spacetime.judging.disagreement import (
    Signals,
    Thresholds,
    calibrate_thresholds,
    flag,
    segments,
    shape_rmsd,
    signals,
)
from alloop.spacetime.learning.fit import fit
from alloop.spacetime.learning.settings import FitSettings
from alloop.spacetime.learning.sources import Shares, gather, list_sources
from alloop.spacetime.model import SpacetimeModel
from alloop.spacetime.motion.orientation import endpoints
from alloop.spacetime.surface import CommitteeSurface

UNLIMITED = HealthLimits(spike_factor=1e3, max_stretch=None)
"""Hot starts are meant to be extreme, and run for one segment only."""


def main() -> None:
    """Calibrate, disturb and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", nargs="+", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="a 4D model that never saw the test split")
    parser.add_argument("--potential", default="ANI-1ccx")
    parser.add_argument("--starts", type=int, default=300, help="of each temperature")
    parser.add_argument("--heat", nargs="+", type=float, default=[1.0, 2.0, 3.0, 4.0])
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data, _ = gather(list_sources(options.shards), shares=Shares(0.1, 0.2, options.seed))
    model = load_model(options.model) if options.model else fit(data, FitSettings(), 1).model
    committee = build_committee(pretrained(options.potential))
    surface = CommitteeSurface(committee, data.numbers)
    spent = time.process_time()
    limits = calibrate_thresholds(model, data, data.members("validation"), surface)
    print(
        f"{limits.n_segments} segments of {limits.n_trajectories} validation trajectories,"
        f" {time.process_time() - spent:.1f} CPU s; limits: quantile {limits.quantile} times"
        f" {limits.factor}\n\n| signal | limit | rank correlation with the error |\n|---|---|---|"
    )
    for name, limit in limits.limits.items():
        print(f"| {name} | {limit:.4f} | {limits.rank_correlations[name]:.2f} |")
    print(
        "\n| kinetic energy times | starts | flagged | error / Å, median: all | flagged"
        " | not flagged | rank correlation: spread | round trip | energy change |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    (x, v), _ = segments(model, data, data.members("test"))
    rng = np.random.default_rng(options.seed)
    chosen = torch.as_tensor(rng.permutation(len(x))[: options.starts])
    seen: list[Signals] = []
    errors: list[Tensor] = []
    for heat in options.heat:
        start = x[chosen], v[chosen] * heat**0.5
        errors.append(shape_rmsd(endpoints(model, *start)[0], _true_ends(model, committee, *start)))
        seen.append(signals(model, *start, surface))
        _print_row(f"{heat:g}", seen[-1], errors[-1], limits)
    every = [one.by_name() for one in seen]
    together = {name: torch.cat([one[name] for one in every]) for name in every[0]}
    _print_row("all", Signals(**together), torch.cat(errors), limits)


def _true_ends(
    model: SpacetimeModel, committee: Committee, positions: Tensor, velocities: Tensor
) -> Tensor:
    """Return positions (n, n_atoms, 3) at the cutoff; NaN where the dynamics broke."""
    n, n_steps = len(positions), round(model.cutoff / 0.25)
    settings = MdSettings(
        "nve", model.cutoff / n_steps, n_steps, n_steps, (0.0,) * n, tuple(range(n))
    )
    numbers, masses = np.array(model.numbers), model.masses.numpy()
    runs = run_md(committee, numbers, positions, velocities, masses, settings, UNLIMITED)
    ends = torch.full_like(positions, torch.nan)
    for end, run in zip(ends, runs, strict=True):
        if run.about.ended == "completed":
            end.copy_(torch.as_tensor(np.array(run.positions[-1])))
    return ends


def _print_row(heat: str, found: Signals, error: Tensor, limits: Thresholds) -> None:
    known = torch.isfinite(error)
    error, flagged = error[known], flag(found, limits).flagged[known]
    medians = [_median(error), _median(error[flagged]), _median(error[~flagged])]
    ranks = [_rank(values[known], error) for values in found.by_name().values()]
    cells = [heat, str(len(error)), f"{flagged.double().mean():.1%}", *medians, *ranks]
    print(f"| {' | '.join(cells)} |")


def _median(errors: Tensor) -> str:
    return f"{errors.median():.4f}" if len(errors) else "none"


def _rank(values: Tensor, errors: Tensor) -> str:
    sound = torch.isfinite(values)
    rank = rank_correlation(values[sound].numpy(), errors[sound].numpy())
    return "undefined" if rank is None else f"{rank:.2f}"


if __name__ == "__main__":
    main()
