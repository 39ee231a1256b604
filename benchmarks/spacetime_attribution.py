"""What of a start decides where a dihedral goes: integrated gradients of a 4D model.

    alloop spacetime sample ... -o ethanol.h5
    python benchmarks/spacetime_attribution.py --shards ethanol.h5 [--model model.pt]

After figure 8 of Ge et al. 2023, doi:10.1021/acs.jpclett.3c01592, who looked at one network, one
baseline and 100 trapezoids from t = 0, and gave no completeness error. Of the test trajectories the
start is taken from which the dihedral changes most within the cutoff. Baselines are at rest in the
basin of the start: the mean geometry and frames of the training trajectories. Values are given for
the cutoff, with the standard deviations over members and baselines, and for half of it; then with
time as an input. The sum of the values must be the change of the prediction: the last table shows
its error for different numbers of nodes. Without --model a model is fitted, half a CPU minute.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch

from alloop.spacetime.coordinates.protocol import Dual
from alloop.spacetime.files import load_model
from alloop.spacetime.judging.attribution import (
    Attribution,
    attribute,
    coordinate_names,
    resting_baselines,
)
from alloop.spacetime.learning.fit import fit
from alloop.spacetime.learning.settings import FitSettings
from alloop.spacetime.learning.sources import Shares, gather, list_sources
from alloop.spacetime.learning.trajectories import TrajectorySet
from alloop.spacetime.model import SpacetimeModel

N_FRAMES = 2000
"""Training frames among which the baselines are."""


def main() -> None:
    """Choose a start, attribute, print three tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", nargs="+", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--coordinate", help='such as "dihedral H4-C1-C0-O2"; the last by default')
    parser.add_argument("--baselines", type=int, default=8)
    parser.add_argument("--rows", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data, _ = gather(list_sources(options.shards), shares=Shares(0.1, 0.2, options.seed))
    model = load_model(options.model) if options.model else fit(data, FitSettings(), 1).model
    names = coordinate_names(model.internal, model.numbers)
    target = names.index(options.coordinate) if options.coordinate else len(names) - 1
    start, moved = _liveliest(model, data, target)
    frames = torch.as_tensor(data.frames(data.members("train"), N_FRAMES))
    baselines = resting_baselines(model, start[0], frames, options.baselines)
    print(
        f"{names[target]}: {moved:+.3f} within {model.cutoff:g} fs in the reference;"
        f" {len(baselines[0])} baselines, {model.n_members} members"
    )
    for along in (False, True):
        spent = time.process_time()
        full = attribute(model, start, baselines, target, model.cutoff, along_time=along)
        spent = time.process_time() - spent
        half = attribute(model, start, baselines, target, model.cutoff / 2, along_time=along)
        title = "time as an input" if along else "fixed time"
        change, error = full.changes.mean().item(), full.completeness_error.max().item()
        print(
            f"\n{title}, {spent:.2f} CPU s; change of the prediction {change:+.4f}, largest"
            f" completeness error {error:.1e}\n\n| input | value at {model.cutoff:g} fs | ± members"
            f" | ± baselines | value at {model.cutoff / 2:g} fs |\n|---|---|---|---|---|"
        )
        _print_values(full, half, options.rows)
    print("\n| nodes | completeness error: fixed time | time as an input |\n|---|---|---|")
    for n_nodes in (2, 4, 8, 16, 32):
        errors = [
            attribute(model, start, baselines, target, model.cutoff, along_time=a, n_nodes=n_nodes)
            for a in (False, True)
        ]
        cells = [f"{float(error.completeness_error.max()):.1e}" for error in errors]
        print(f"| {n_nodes} | {' | '.join(cells)} |")


def _liveliest(model: SpacetimeModel, data: TrajectorySet, target: int) -> tuple[Dual, float]:
    """Return the start from which a coordinate changes most, and by how much."""
    n_steps = round(model.cutoff / data.timestep)
    best: tuple[Dual, float] | None = None
    for i in data.members("test"):
        x, v = data.motion(i)
        path = model.internal.describe(x, v)[0][:, target]
        changes = path[n_steps:] - path[:-n_steps]
        if target in range(model.internal.n_coordinates)[model.internal.angular]:
            changes = torch.remainder(changes + math.pi, 2 * math.pi) - math.pi
        k = int(changes.abs().argmax())
        if best is None or abs(float(changes[k])) > abs(best[1]):
            best = (x[k], v[k]), float(changes[k])
    if best is None:
        raise SystemExit("no test trajectory; give more shards or another --seed")
    return best


def _print_values(full: Attribution, half: Attribution, n_rows: int) -> None:
    for i in full.largest(n_rows):
        cells = [full.mean[i], full.member_spread[i], full.baseline_spread[i], half.mean[i]]
        print(f"| {full.names[i]} | {' | '.join(f'{float(cell):+.4f}' for cell in cells)} |")


if __name__ == "__main__":
    main()
