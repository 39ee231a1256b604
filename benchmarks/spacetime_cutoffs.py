"""How far ahead a 4D model should look: accuracy, stability and spectra over the cutoff.

    python benchmarks/spacetime_cutoffs.py TRAIN.h5 TEST.h5 [--cutoffs 1 5 10 20 30 50]

Reduced networks (four of 256, 256), the same number of optimiser steps for every cutoff. Errors are
those at the end of a segment on trajectories of TRAIN that were kept back. Starts of TEST are
followed for 3 ps by the mean of the ensemble alone and under the rule shell, without rescue; failed
are those that end early or more than 50 kcal/mol from their energy. Similarity of power spectra
over the starts that went through, with the floor of the reference against itself.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from alloop.analysis.similarity import compare
from alloop.analysis.spectrum import power_spectra
from alloop.frames import Frame
from alloop.reference.potential import find_potential
from alloop.spacetime.learning.fit import fit
from alloop.spacetime.learning.settings import FitSettings
from alloop.spacetime.learning.sources import gather, list_sources
from alloop.spacetime.model import SpacetimeModel
from alloop.spacetime.propagation.energy_rules import PropagationSettings, total_energy
from alloop.spacetime.propagation.propagate import Propagation, propagate
from alloop.spacetime.propagation.schedule import Regular
from alloop.spacetime.surface import CommitteeSurface
from alloop.trajectories import Shard, Trajectory
from alloop.units import EV_PER_KCAL_MOL

FAILED = 50.0 * EV_PER_KCAL_MOL
DURATION, INTERVAL = 3000.0, 1.0


def main() -> None:
    """Print a row for each cutoff."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--cutoffs", type=float, nargs="+", default=[1, 5, 10, 20, 30, 50])
    parser.add_argument("--potential", default="ANI-1ccx")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--windows", type=int, default=60_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    test = list(Shard(options.test))
    frame = Frame(test[0].system.numbers, test[0].positions[0])
    surface = CommitteeSurface(find_potential([options.potential], frame).committee, frame.numbers)
    data, _ = gather(list_sources([options.train]))
    print(
        "| cutoff, fs | fit, CPU s | bond, Å | angle | dihedral | failed, mean | failed, shell |"
        " rms dE of a segment, kcal/mol | similarity | floor |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for cutoff in options.cutoffs:
        settings = FitSettings(
            cutoff=cutoff, members=4, hidden=(256, 256), steps=options.steps,
            windows=options.windows,
        )  # fmt: skip
        began = time.process_time()
        fitted = fit(data, settings, 1)
        seconds = time.process_time() - began
        if fitted.test is None:
            raise SystemExit("no trajectory of TRAIN was kept back for the errors")
        errors = " | ".join(
            f"{fitted.test.ensemble[f'{k}_end']:.4f}" for k in ("bond", "angle", "dihedral")
        )
        print(
            f"| {cutoff:g} | {seconds:.0f} | {errors} | {follow(fitted.model, surface, test)} |",
            flush=True,
        )


def follow(model: SpacetimeModel, surface: CommitteeSurface, test: list[Trajectory]) -> str:
    """Return what becomes of the starts, as cells of the table."""
    x = torch.tensor(np.array([t.positions[0] for t in test]))
    v = torch.tensor(np.array([t.velocities[0] for t in test]))
    times = Regular(DURATION, INTERVAL)
    free = propagate(model, x, v, times)
    settings = PropagationSettings(rule="shell")
    held = propagate(model, x, v, times, surface=surface, settings=settings)
    fine = sound(held, model, surface)
    errors = torch.cat([course.errors for course in held.courses])
    rms = float(errors[torch.isfinite(errors)].square().mean().sqrt()) / EV_PER_KCAL_MOL
    every = round(INTERVAL / (test[0].times[1] - test[0].times[0]))
    known = [t.velocities[::every] for t, good in zip(test, fine, strict=True) if good]
    new = [w.numpy() for w, good in zip(held.velocities, fine, strict=True) if good]
    score = "- | -"
    if len(known) > 3:
        masses = model.masses.numpy()
        both = compare(power_spectra(known, masses, INTERVAL), power_spectra(new, masses, INTERVAL))
        score = f"{both.value:.3f} | {both.floor:.3f} [{both.floor_low:.3f}, {both.floor_high:.3f}]"
    n_failed = [len(test) - int(sum(sound(run, model, surface))) for run in (free, held)]
    return f"{n_failed[0]} of {len(test)} | {n_failed[1]} of {len(test)} | {rms:.2f} | {score}"


def sound(run: Propagation, model: SpacetimeModel, surface: CommitteeSurface) -> list[bool]:
    """Return which replicas came to the end with about the energy of their start."""
    ends = total_energy(surface, model.masses, run.positions[:, -1], run.velocities[:, -1])
    starts = total_energy(surface, model.masses, run.positions[:, 0], run.velocities[:, 0])
    near = (ends - starts).abs() <= FAILED
    return [r is None and bool(n) for r, n in zip(run.reasons, near, strict=True)]


if __name__ == "__main__":
    main()
