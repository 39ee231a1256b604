"""Committee MD of many replicas against ASE and TorchANI's ensemble, same weights, same step.

    python benchmarks/committee_md.py [--replicas 32] [--rounds 9]

Both sides run Langevin dynamics of ethanol at 300 K and 0.5 fs on the mean force; ours returns the
energies of all members at every step (the peer computes them and returns their mean), and in the
lines "members" the forces of each member as well. Peer: ASE's Langevin integrator on TorchANI's
calculator, one replica after the other (its cost per step is measured on one replica, since they
are independent). Both sides take turns in blocks within one process on one thread; the ratio is of
blocks side by side.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings

import ase.units
import numpy as np
import torch
from ase import Atoms
from ase.build import molecule
from ase.md.langevin import Langevin
from torch import Tensor

from alloop.dynamics.integrators import LangevinBaoab, Response, State
from alloop.potentials.ani.interop import to_torchani
from alloop.potentials.ani.settings import AniSettings
from alloop.potentials.committee import Committee, build_committee
from alloop.potentials.member import Member

TIMESTEP, TEMPERATURE, FRICTION = 0.5, 300.0, 0.01
OUR_STEPS, PEER_STEPS = 4, 25


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicas", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("networks  members  forces    ours / ms  peer / ms   ratio (quartiles)")
    for size in ("small", "ani1x"):
        for n_members in (4, 8):
            members = [_member(size, seed) for seed in range(n_members)]
            _check(members)
            for forces in ("mean", "members"):
                _compare(size, members, forces == "members", options.replicas, options.rounds)
    print(
        f"ms per step of one replica, {options.replicas} replicas side by side against one after"
        " the other; forces: mean of the members, or of each of them (peer: its mean always)"
    )


def _member(size: str, seed: int) -> Member:
    """Return a member with random weights: time does not depend on what a network knows."""
    elements = (1, 6, 8)
    settings = AniSettings.of_size(size, elements)
    generator = torch.Generator().manual_seed(seed)
    # Small enough that the random forces keep the molecule where it is for a few steps.
    weights = {
        name: torch.randn(shape, generator=generator) * 0.5 * shape[-1] ** -0.5
        for name, shape in settings.shapes(elements).items()
    }
    energies = {1: -10.7, 6: -48.9, 8: -108.3}
    return Member("ani", elements, settings.to_plain(), weights, energies, "none", {})


def _check(members: list[Member]) -> None:
    """Refuse to time two programs that do not give the same answer."""
    atoms = molecule("CH3CH2OH")
    atoms.calc = _peer_calculator(members)
    committee = build_committee(members)
    answer = committee.evaluate(atoms.numbers, torch.tensor(atoms.positions)[None], forces="mean")
    if answer.forces is None:
        raise SystemExit("the committee gave no forces")
    off_force = np.abs(atoms.get_forces() - answer.forces[0].numpy()).max()
    off_energy = abs(atoms.get_potential_energy() - float(answer.energies.mean()))
    scale = np.abs(answer.forces.numpy()).max()
    # TorchANI adds atomic energies in float32, good to 1e-7 of 300 eV at best.
    if not (off_force < 1e-4 * max(scale, 1.0) and off_energy < 5e-4):
        raise SystemExit(f"answers differ by {off_energy:.1e} eV and {off_force:.1e} eV/Å")


def _peer_calculator(members: list[Member]) -> object:
    return to_torchani(members, torch.float32).ase()


def _compare(size: str, members: list[Member], each: bool, replicas: int, rounds: int) -> None:
    ours = _OurRun(build_committee(members), replicas, each)
    peer = _PeerRun(members)
    ours.run(OUR_STEPS)
    peer.run(PEER_STEPS)
    times = [(ours.run(OUR_STEPS) / replicas, peer.run(PEER_STEPS)) for _ in range(rounds)]
    ratios = [theirs / own for own, theirs in times]
    low, middle, high = statistics.quantiles(ratios, n=4)
    own, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    kind = "members" if each else "mean"
    print(
        f"{size:8s}  {len(members):7d}  {kind:8s}  {own * 1e3:9.3f}  {theirs * 1e3:9.2f}"
        f"   {middle:5.1f} ({low:.1f} .. {high:.1f})",
        flush=True,
    )


def _ethanol(seed: int) -> Atoms:
    atoms: Atoms = molecule("CH3CH2OH")
    speed = np.sqrt(ase.units.kB * TEMPERATURE / atoms.get_masses())[:, None]
    atoms.set_velocities(speed * np.random.default_rng(seed).normal(size=(len(atoms), 3)))
    return atoms


class _OurRun:
    def __init__(self, committee: Committee, replicas: int, each: bool) -> None:
        atoms = [_ethanol(seed) for seed in range(replicas)]
        self._committee, self._each = committee, each
        self._numbers = atoms[0].numbers.astype(np.int64)
        self._integrator = LangevinBaoab(
            torch.tensor(atoms[0].get_masses()),
            TIMESTEP,
            torch.full((replicas,), TEMPERATURE, dtype=torch.float64),
            FRICTION,
            range(replicas),
        )
        positions = torch.tensor(np.array([a.positions for a in atoms]))
        velocities = torch.tensor(np.array([a.get_velocities() for a in atoms])) * ase.units.fs
        self._state = State(positions, velocities, self._field(positions))

    def _field(self, positions: Tensor) -> Response:
        answer = self._committee.evaluate(
            self._numbers, positions, forces="members" if self._each else "mean"
        )
        if answer.forces is None:
            raise SystemExit("the committee gave no forces")
        return Response(answer.forces, answer.energies, None)

    def run(self, steps: int) -> float:
        """Take steps and return the seconds of one."""
        begin = time.perf_counter()
        for _ in range(steps):
            self._state = self._integrator.step(self._state, self._field)
        return (time.perf_counter() - begin) / steps


class _PeerRun:
    def __init__(self, members: list[Member]) -> None:
        atoms = _ethanol(0)
        atoms.calc = _peer_calculator(members)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of fixcm, whose default we take
            self._dynamics = Langevin(
                atoms,
                TIMESTEP * ase.units.fs,
                temperature_K=TEMPERATURE,
                friction=FRICTION / ase.units.fs,
                rng=np.random.default_rng(0),
            )

    def run(self, steps: int) -> float:
        """Take steps and return the seconds of one."""
        begin = time.perf_counter()
        self._dynamics.run(steps)
        return (time.perf_counter() - begin) / steps


if __name__ == "__main__":
    main()
