"""How long and how fast a 4D model can be followed, by every rule, against ordinary dynamics.

    alloop spacetime sample configs/ethanol.xyz --potential ANI-1ccx --replicas 16 \\
        --duration "3 ps" --record-every "0.25 fs" --seed 2 -o test.h5
    python benchmarks/spacetime_stability.py MODEL test.h5 [--potential ANI-1ccx] [--duration 3000]

Starts are the first frames of the trajectories of a shard, which the model has not seen. Energies
are those of the potential itself. A replica has failed when it ended early, or ended more than
50 kcal/mol from its energy. Seconds are CPU seconds of one thread per ps and replica, all replicas
side by side, frames every 0.05 and every 0.5 fs; energies that a rule needs are among them, those
that judge it are not. Reference: the published weights for ethanol on 16 Wigner starts, 3 ps, as
measured for this comparison, and the potential's own dynamics in steps of 0.05 and 0.5 fs.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from alloop.dynamics.health import HealthLimits
from alloop.dynamics.md import MdSettings, run_md
from alloop.frames import Frame
from alloop.potentials.evaluation import Committee
from alloop.reference.potential import find_potential
from alloop.spacetime.files import load_model
from alloop.spacetime.model import SpacetimeModel
from alloop.spacetime.propagation.energy_rules import PropagationSettings, total_energy
from alloop.spacetime.propagation.propagate import propagate
from alloop.spacetime.propagation.schedule import Regular
from alloop.spacetime.surface import CommitteeSurface, Surface
from alloop.trajectories import Shard
from alloop.units import EV_PER_KCAL_MOL

FAILED = 50.0 * EV_PER_KCAL_MOL
PUBLISHED = {
    "one network, mean": ("13 of 16", "31", "0.16"),
    "ensemble, mean": ("3 of 16", "16.7", ""),
    "ensemble, select": ("1 of 16", "1.1", "1.06"),
}
"""Published weights: failed, rms energy at 3 ps, seconds per ps at 0.05 fs."""


@dataclass(frozen=True)
class Case:
    """Starts of a molecule and the surface they move on."""

    model: SpacetimeModel
    surface: Surface
    committee: Committee
    positions: Tensor
    velocities: Tensor


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("shard", type=Path)
    parser.add_argument("--potential", default="ANI-1ccx")
    parser.add_argument("--duration", type=float, default=3000.0, help="fs")
    parser.add_argument("--rules", default="", help="only those with this in their name")
    options = parser.parse_args()
    torch.set_num_threads(1)
    case = read_case(options.model, options.shard, options.potential)
    one = replace(
        case.model, weights=tuple(w[:1] for w in case.model.weights),
        biases=tuple(b[:1] for b in case.model.biases),
    )  # fmt: skip
    plain, limited = PropagationSettings(), PropagationSettings(rule="shell")
    rules = {
        "one network, mean": (one, plain),
        "one network, shell": (one, limited),
        "ensemble, shell, not reversible": (
            case.model,
            PropagationSettings(rule="shell", reversible=False),
        ),
        "ensemble, mean": (case.model, plain),
        "ensemble, select": (case.model, PropagationSettings(rule="select")),
        "ensemble, shell": (case.model, limited),
        "ensemble, shell, rescue": (case.model, PropagationSettings(rule="shell", rescue=True)),
    }
    n = len(case.positions)
    print(f"{n} starts, {options.duration / 1000:g} ps, energies in kcal/mol\n")
    print(
        "| rule | failed | rms dE at the end | rms dE inside | uncorrected | rescued segments |"
        " s/ps at 0.05 fs | s/ps at 0.5 fs | published: failed | rms dE | s/ps |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for name, (model, settings) in rules.items():
        if options.rules not in name:
            continue
        fields = judge(replace(case, model=model), settings, options.duration)
        fields += [f"{pace(replace(case, model=model), settings, dt):.3f}" for dt in (0.05, 0.5)]
        fields += PUBLISHED.get(name, ("", "", ""))
        print(f"| {name} | {' | '.join(fields)} |", flush=True)
    print()
    for step in (0.05, 0.5):
        print(f"dynamics of the potential, steps of {step} fs: {md_pace(case, step):.3f} s/ps")


def read_case(model: Path, shard: Path, potential: str) -> Case:
    """Return the model, its surface and the starts."""
    trajectories = list(Shard(shard))
    numbers = trajectories[0].system.numbers
    frame = Frame(numbers=numbers, positions=trajectories[0].positions[0])
    committee = find_potential([potential], frame).committee
    starts = (
        np.array([getattr(t, name)[0] for t in trajectories])
        for name in ("positions", "velocities")
    )
    positions, velocities = (torch.tensor(part) for part in starts)
    surface = CommitteeSurface(committee, numbers)
    return Case(load_model(model), surface, committee, positions, velocities)


def judge(case: Case, settings: PropagationSettings, duration: float) -> list[str]:
    """Return how a rule fares, judged by true energies every 2.5 fs."""
    seen = propagate(
        case.model, case.positions, case.velocities, Regular(duration, 2.5),
        surface=case.surface, settings=settings,
    )  # fmt: skip
    masses = case.model.masses
    start = total_energy(case.surface, masses, case.positions, case.velocities)
    gaps = torch.stack([
        total_energy(case.surface, masses, x, v) - e
        for x, v, e in zip(seen.positions, seen.velocities, start, strict=True)
    ])  # fmt: skip
    fine = torch.tensor([reason is None for reason in seen.reasons])
    fine &= gaps[:, -1].abs() <= FAILED
    inside = gaps[fine][:, 1::4]  # 2.5 fs after the end of a segment of 10 fs, and so on
    errors = torch.cat([course.errors for course in seen.courses])
    n_rescues = sum(course.n_rescues for course in seen.courses)
    n_segments = sum(course.n_segments for course in seen.courses)
    return [
        f"{int((~fine).sum())} of {len(fine)}",
        f"{_rms(gaps[fine, -1]):.2f}",
        f"{_rms(inside):.2f}",
        f"{_rms(errors):.2f}",
        f"{n_rescues} of {n_segments}",
    ]


def pace(
    case: Case, settings: PropagationSettings, interval: float, duration: float = 200
) -> float:
    """Return CPU seconds per ps and replica."""

    def run() -> None:
        propagate(
            case.model, case.positions, case.velocities, Regular(duration, interval),
            surface=case.surface, settings=settings, sink=lambda _: None,
        )  # fmt: skip

    return _seconds(run) / (duration / 1000) / len(case.positions)


def md_pace(case: Case, step: float, n_steps: int = 100) -> float:
    """Return CPU seconds per ps and replica of velocity Verlet."""
    n = len(case.positions)
    every = max(1, round(0.5 / step))
    settings = MdSettings("nve", step, n_steps, every, (0.0,) * n, tuple(range(n)))
    limits = HealthLimits(spike_factor=20.0)
    numbers = np.array(case.model.numbers)

    def run() -> None:
        run_md(
            case.committee, numbers, case.positions, case.velocities, case.model.masses.numpy(),
            settings, limits,
        )  # fmt: skip

    return _seconds(run) / (n_steps * step / 1000) / n


def _seconds(run: Callable[[], None]) -> float:
    """Return CPU seconds, the better of two."""
    spent = []
    for _ in range(2):
        began = time.process_time()
        run()
        spent.append(time.process_time() - began)
    return min(spent)


def _rms(values: Tensor) -> float:
    finite = values[torch.isfinite(values)]
    return float(finite.square().mean().sqrt()) / EV_PER_KCAL_MOL if len(finite) else math.nan


if __name__ == "__main__":
    main()
