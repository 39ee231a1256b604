"""What coordinates, augmentation and size of the networks are worth, at equal training.

    python benchmarks/spacetime_coordinates.py SHARD... [--steps 800] [--windows 60000]

Fits that differ in one thing from the row before: GICnet's coordinates, which stand on three dummy
atoms in space; coordinates of the shape alone, its orientation recovered from the angular momentum;
motion reversed in time and like atoms exchanged. Errors of the shape are comparable because the
same kinds of coordinates are averaged (GICnet's have a few more of each); the position error is in
space, without superposition, and so holds the orientation too.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from alloop.spacetime.judging.disagreement import segments
from alloop.spacetime.learning.fit import fit
from alloop.spacetime.learning.settings import FitSettings
from alloop.spacetime.learning.sources import gather, list_sources
from alloop.spacetime.learning.trajectories import TrajectorySet
from alloop.spacetime.model import SpacetimeModel
from alloop.spacetime.motion.orientation import endpoints


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards", type=Path, nargs="+")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--windows", type=int, default=60_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data, _ = gather(list_sources(options.shards))
    rows = {
        "dummy atoms, as they are": FitSettings(coordinates="dummies", augment=False),
        "shape alone": FitSettings(augment=False),
        "shape alone, augmented": FitSettings(),
    }
    print("| coordinates | bond, Å | angle, rad | dihedral, rad | position at the end, Å | CPU s |")
    print("|---|---|---|---|---|---|")
    for name, base in rows.items():
        settings = FitSettings(
            coordinates=base.coordinates, augment=base.augment, members=2, steps=options.steps,
            windows=options.windows,
        )  # fmt: skip
        began = time.process_time()
        fitted = fit(data, settings, 1)
        seconds = time.process_time() - began
        if fitted.test is None:
            raise SystemExit("no trajectory was kept back for the errors")
        errors = " | ".join(f"{fitted.test.ensemble[k]:.4f}" for k in ("bond", "angle", "dihedral"))
        print(
            f"| {name} | {errors} | {in_space(fitted.model, data):.4f} | {seconds:.0f} |",
            flush=True,
        )


def in_space(model: SpacetimeModel, data: TrajectorySet) -> float:
    """Return the root mean square distance of atoms from where they are at the cutoff, Å."""
    (x, v), end = segments(model, data, data.members("test"))
    there, _ = endpoints(model, x, v)
    return float((there - end[0]).square().sum(-1).mean().sqrt())


if __name__ == "__main__":
    main()
