"""The spectrum of long motion under a 4D model, against the dynamics that it imitates.

    python benchmarks/spacetime_spectrum.py MODEL SHARD [--replicas 8] [--compare 50]
    python benchmarks/spacetime_spectrum.py MODEL SHARD --replicas 4 --duration 1000

Starts are the first frames of a shard that the model has not seen. The 4D model follows them for
``--duration`` ps under the rule shell with rescue; its last ``--compare`` ps make the spectrum.
Reference: as many ps of velocity Verlet on the same potential, steps of 0.5 fs, from the same
starts. Both are seen every fs. Similarity is Pearson's correlation over 0-4000 cm^-1, always beside
its floor: the same score between two halves of the reference. The first table compares sets of
starts, the second the first and second half of the time of every start by itself, so that all of
it is at one energy. Energies are those of the potential. A longer propagation is judged all along
as well, in windows of ``--compare`` ps: the second half of each against the first of the reference,
and where the kinetic energy is.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray
from torch import Tensor

from alloop.analysis.plots import draw_spectra
from alloop.analysis.similarity import compare, similarity
from alloop.analysis.spectrum import Spectrum, mean_spectrum, power_spectra
from alloop.dynamics.integrators import Response, State, VelocityVerlet
from alloop.frames import Frame
from alloop.reference.potential import find_potential
from alloop.spacetime.files import load_model
from alloop.spacetime.propagation.courses import Block
from alloop.spacetime.propagation.energy_rules import PropagationSettings, total_energy
from alloop.spacetime.propagation.propagate import propagate
from alloop.spacetime.propagation.schedule import Regular
from alloop.spacetime.surface import CommitteeSurface
from alloop.trajectories import Shard
from alloop.units import EV_PER_KCAL_MOL

INTERVAL = 1.0
"""Time between frames that are seen, fs."""
STEP = 0.5
"""Of the reference, fs."""


class Tail:
    """Keeps the last velocities and the last state of every replica."""

    def __init__(self, n_replicas: int, n_atoms: int, n_kept: int, n_frames: int) -> None:
        self.velocities = np.full((n_replicas, n_kept, n_atoms, 3), np.nan, dtype=np.float32)
        self.last = [(torch.empty(0), torch.empty(0))] * n_replicas
        self._first = n_frames - n_kept

    def __call__(self, block: Block) -> None:
        """Take some frames."""
        place = block.first - self._first + np.arange(len(block.times))
        kept = place >= 0
        self.velocities[block.replica, place[kept]] = block.velocities.numpy()[kept]
        self.last[block.replica] = block.positions[-1], block.velocities[-1]


class Windows:
    """Looks at each window of a propagation as soon as it is whole.

    ``shares`` and ``spectra`` are of each replica's windows: shares of the kinetic energy by atom,
    and the spectrum of the second half.
    """

    def __init__(self, n_replicas: int, masses: NDArray[np.float64], n_frames: int) -> None:
        self._buffer = np.empty((n_replicas, n_frames, len(masses), 3), dtype=np.float32)
        self._masses = masses
        self.shares: list[list[NDArray[np.float64]]] = [[] for _ in range(n_replicas)]
        self.spectra: list[list[Spectrum]] = [[] for _ in range(n_replicas)]

    def __call__(self, block: Block) -> None:
        """Take some frames; the start belongs to no window."""
        n_frames = self._buffer.shape[1]
        frames = block.velocities.numpy()
        place = block.first - 1 + np.arange(len(frames))
        for window in np.unique(place[place >= 0] // n_frames):
            mine = place // n_frames == window
            inside = place[mine] - window * n_frames
            self._buffer[block.replica, inside] = frames[mine]
            if inside[-1] == n_frames - 1:
                self._close(block.replica)

    def _close(self, replica: int) -> None:
        velocities = self._buffer[replica].astype(np.float64)
        self.shares[replica].append(kinetic_shares(velocities, self._masses))
        half = len(velocities) // 2
        self.spectra[replica] += power_spectra([velocities[half:]], self._masses, INTERVAL)


def kinetic_shares(
    velocities: NDArray[np.float64], masses: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the share of the kinetic energy (n_atoms,) of (n_frames, n_atoms, 3) velocities."""
    each: NDArray[np.float64] = masses * np.square(velocities).sum(axis=(0, 2))
    return each / each.sum()


def main() -> None:
    """Print the tables and draw the spectra."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("shard", type=Path)
    parser.add_argument("--potential", default="ANI-1ccx")
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument("--compare", type=float, default=50.0, help="ps")
    parser.add_argument("--duration", type=float, default=0.0, help="ps; without it --compare")
    parser.add_argument("--networks", type=int, help="use only the first so many, for speed")
    parser.add_argument("--image", type=Path, default=Path("spacetime_spectrum.png"))
    parser.add_argument("--reference", type=Path, help="keeps the reference (.npz), or has it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.model)
    model = replace(
        model,
        weights=tuple(w[: options.networks] for w in model.weights),
        biases=tuple(b[: options.networks] for b in model.biases),
    )
    trajectories = list(Shard(options.shard))[: options.replicas]
    frame = Frame(np.array(model.numbers), trajectories[0].positions[0])
    surface = CommitteeSurface(find_potential([options.potential], frame).committee, frame.numbers)
    x = torch.tensor(np.array([t.positions[0] for t in trajectories]))
    v = torch.tensor(np.array([t.velocities[0] for t in trajectories]))

    n_kept = round(1000 * options.compare / INTERVAL)
    duration = 1000 * max(options.duration, options.compare)
    n_frames = round(duration / INTERVAL) + 1
    masses = model.masses.numpy()
    tail = Tail(len(x), len(model.numbers), n_kept, n_frames)
    windows = Windows(len(x), masses, n_kept)

    def sink(block: Block) -> None:
        tail(block)
        windows(block)

    began = time.process_time()
    seen = propagate(
        model, x, v, Regular(duration, INTERVAL), surface=surface,
        settings=PropagationSettings(rule="shell", checks_inside=0, rescue=True), sink=sink,
        on_progress=_Progress(),
    )  # fmt: skip
    seconds = time.process_time() - began
    start = total_energy(surface, model.masses, x, v)
    end = [total_energy(surface, model.masses, *(part[None] for part in s))[0] for s in tail.last]
    print(f"\n4D: {len(x)} starts, {duration / 1000:g} ps, {seconds:.0f} CPU s")
    print(
        "| start | kinetic energy, eV | reached, ps | ended by | rescued |"
        " rms dE of a segment, kcal/mol | dE at the end, kcal/mol |"
    )
    print("|---|---|---|---|---|---|---|")
    for i, (course, last, first) in enumerate(zip(seen.courses, end, start, strict=True)):
        reached = (course.n_frames - 1) * INTERVAL / 1000
        kinetic = float(total_energy(surface, model.masses, x[i : i + 1], v[i : i + 1])[0])
        potential, _ = surface.with_forces(x[i : i + 1])
        print(
            f"| {i} | {kinetic - float(potential[0]):.2f} | {reached:g} | {course.reason or '-'} |"
            f" {course.n_rescues} of {course.n_segments} |"
            f" {course.rms_error / EV_PER_KCAL_MOL:.2f} |"
            f" {float(last - first) / EV_PER_KCAL_MOL:.3f} |"
        )
    reference = _reference(options.reference, surface, x, v, model.masses, n_kept)
    whole = np.isfinite(tail.velocities).all(axis=(1, 2, 3))
    _tables(reference[whole], tail.velocities[whole], masses, options.image)
    if duration > 1000 * options.compare:
        _along_time(reference, windows, masses, _kinds(frame))


class _Progress:
    """Says now and then how far a propagation is."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def __call__(self, done: float, total: float, going: int) -> None:
        if time.monotonic() - self._said > 60:
            self._said = time.monotonic()
            print(f"{done / 1000:.1f} of {total / 1000:g} ps, {going} replicas", flush=True)


def _reference(
    file: Path | None,
    surface: CommitteeSurface,
    positions: Tensor,
    velocities: Tensor,
    masses: Tensor,
    n_frames: int,
) -> NDArray[np.float32]:
    """Return velocities (n_replicas, n_frames, n_atoms, 3) of ordinary dynamics."""
    if file is not None and file.exists():
        kept: NDArray[np.float32] = np.load(file)["velocities"]
        return kept[: len(positions)]
    integrator = VelocityVerlet(masses, STEP)

    def field(where: Tensor) -> Response:
        energies, forces = surface.with_forces(where)
        return Response(forces, energies[None], None)

    state = State(positions, velocities, field(positions))
    seen = np.empty((len(positions), n_frames, *positions.shape[1:]), dtype=np.float32)
    began, every = time.process_time(), round(INTERVAL / STEP)
    for i in range(n_frames * every):
        state = integrator.step(state, field)
        if (i + 1) % every == 0:
            seen[:, i // every] = state.velocities.numpy()
    print(f"reference: {time.process_time() - began:.0f} CPU s", flush=True)
    if file is not None:
        np.savez(file, velocities=seen)
    return seen


def _tables(
    reference: NDArray[np.float32],
    candidate: NDArray[np.float32],
    masses: NDArray[np.float64],
    image: Path,
) -> None:
    """Print similarities with their floors and draw the spectra."""
    known = power_spectra(list(reference.astype(np.float64)), masses, INTERVAL)
    new = power_spectra(list(candidate.astype(np.float64)), masses, INTERVAL)
    print("\n| compared | 4D against reference | reference against itself (floor) |")
    print("|---|---|---|")
    if len(reference) > 1:
        both = compare(known, new)
        print(
            f"| halves of {len(reference)} starts |"
            f" {both.value:.3f} [{both.value_low:.3f}, {both.value_high:.3f}] |"
            f" {both.floor:.3f} [{both.floor_low:.3f}, {both.floor_high:.3f}] |"
        )
        draw_spectra(image, mean_spectrum(known), {"4D": (mean_spectrum(new), both)})
    rows = [
        _halves_in_time(r, c, masses)
        for r, c in zip(reference.astype(np.float64), candidate.astype(np.float64), strict=True)
    ]
    for i, (value, floor) in enumerate(rows):
        print(f"| start {i}, halves in time | {value:.3f} | {floor:.3f} |")
    value, floor = np.mean(rows, axis=0)
    print(f"| mean of these | {value:.3f} | {floor:.3f} |")


def _kinds(frame: Frame) -> list[str]:
    """Return what each atom is: its element, and of a hydrogen on what it sits."""
    names = [chemical_symbols[z] for z in frame.numbers]
    heavy = np.flatnonzero(frame.numbers > 1)
    gaps = np.linalg.norm(frame.positions[:, None] - frame.positions[heavy], axis=-1)
    nearest = heavy[gaps.argmin(axis=1)]
    return [f"H on {names[n]}" if s == "H" else s for s, n in zip(names, nearest, strict=True)]


def _along_time(
    reference: NDArray[np.float32],
    windows: Windows,
    masses: NDArray[np.float64],
    kinds: list[str],
) -> None:
    """Print how windows compare, means over the replicas that came so far."""
    known = [part.astype(np.float64) for part in reference]
    half = len(known[0]) // 2
    halves = [power_spectra([v[:half], v[half:]], masses, INTERVAL) for v in known]
    names = sorted(set(kinds))

    def shares(each: list[NDArray[np.float64]]) -> str:
        mean = np.mean(each, axis=0)
        return " | ".join(
            f"{sum(s for s, k in zip(mean, kinds, strict=True) if k == name):.3f}" for name in names
        )

    print(f"\n| window | replicas | against reference | kinetic energy in {' | '.join(names)} |")
    print("|---|---|---|" + "---|" * len(names))
    for k in range(max(len(each) for each in windows.spectra)):
        there = [i for i, each in enumerate(windows.spectra) if len(each) > k]
        value = np.mean([similarity(halves[i][0], windows.spectra[i][k]) for i in there])
        rows = shares([windows.shares[i][k] for i in there])
        print(f"| {k + 1} | {len(there)} | {value:.3f} | {rows} |")
    floor = np.mean([similarity(*pair) for pair in halves])
    rows = shares([kinetic_shares(v, masses) for v in known])
    print(f"| reference | {len(known)} | {floor:.3f} | {rows} |")


def _halves_in_time(
    reference: NDArray[np.float64], candidate: NDArray[np.float64], masses: NDArray[np.float64]
) -> tuple[float, float]:
    """Return the correlation of reference's first half with both second halves."""
    half = len(reference) // 2
    parts = [reference[:half], candidate[half:], reference[half:]]
    spectra: list[Spectrum] = power_spectra(parts, masses, INTERVAL)
    return similarity(spectra[0], spectra[1]), similarity(spectra[0], spectra[2])


if __name__ == "__main__":
    main()
