"""Energies and forces of every member of a committee, against TorchANI's own ensemble.

    python benchmarks/committee_throughput.py [--rounds 9] [--members 8] [--weights FOLDER]
    python benchmarks/committee_throughput.py --quick

Both sides give the energy and the forces of each member, with the same weights, for batches of
ethanol, of aspirin and of a periodic box of 64 waters. TorchANI: ``members_forces`` of its
ensemble, for the box with whichever of its neighbour lists is faster. Both take turns in blocks
within one process on one thread; times are those of the processor for one replica, medians of
blocks; the ratio is that of blocks side by side, with its quartiles. Nothing is timed before both
sides agree. "One by one": the ratio to TorchANI asked for one replica at a time, as an MD program
asks it. "Committee": what all members cost us, as a multiple of one member alone.

Weights are random, in the shape of ANI-1x, as time does not depend on what a network knows; or,
with ``--weights``, those published: from a folder that holds ``StateDicts/ani1x_state_dict.pt``
(huggingface.co/roitberg-group/ani1x).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule
from scipy.spatial.transform import Rotation
from torch import Tensor

from alloop.potentials.ani.interop import to_torchani
from alloop.potentials.ani.pretrained import pretrained
from alloop.potentials.ani.settings import AniSettings
from alloop.potentials.committee import build_committee
from alloop.potentials.member import Member
from alloop.units import EV_PER_HARTREE

BLOCK_SECONDS = 0.4
BOX = 12.42
"""Å, the edge of 64 waters at 1 g/cm³."""
ASPIRIN = """
    3.03 1.16 -1.08; 2.00 0.50 -0.22; 1.84 0.67 0.96; 1.24 -0.35 -0.95; 0.10 -0.88 -0.39;
    -0.05 -2.26 -0.39; -1.19 -2.83 0.15; -2.18 -2.03 0.70; -2.04 -0.65 0.70; -0.91 -0.06 0.14;
    -0.79 1.42 0.09; -0.12 2.04 -0.70; -1.55 2.03 1.00; 2.57 2.05 -1.50; 3.32 0.50 -1.90;
    3.89 1.44 -0.48; 0.73 -2.87 -0.80; -1.30 -3.90 0.15; -3.06 -2.48 1.13; -2.80 -0.02 1.12;
    -1.43 2.99 0.94"""
"""Å, relaxed with GFN2-xTB."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--weights", type=Path, help="folder of TorchANI with ANI-1x")
    parser.add_argument("--quick", action="store_true", help="3 rounds, the smaller batches")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.weights:
        members = pretrained("ANI-1x", options.weights)[: options.members]
    else:
        members = [_member(seed) for seed in range(options.members)]
    rounds = 3 if options.quick else options.rounds
    print("| system | replicas | ours / ms | TorchANI / ms | ratio | one by one | committee |")
    print("|---|---|---|---|---|---|---|")
    for name, atoms, batches in (
        ("ethanol", molecule("CH3CH2OH"), (1, 32, 128)),
        ("aspirin", _aspirin(), (1, 32, 128)),
        ("64 waters, periodic", _water_box(), (1, 8)),
    ):
        single = 0.0
        for replicas in batches[: 2 if len(atoms) < 100 else 1] if options.quick else batches:
            row = _compare(members, atoms, replicas, rounds)
            single = single or row.theirs
            low, middle, high = row.ratio
            print(
                f"| {name} | {replicas} | {row.ours:.3f} | {row.theirs:.2f}"
                f" | **{middle:.1f}** ({low:.1f} .. {high:.1f}) | {single / row.ours:.1f}"
                f" | {row.committee:.2f} |",
                flush=True,
            )


def _member(seed: int) -> Member:
    elements = (1, 6, 7, 8)
    settings = AniSettings.of_size("ani1x", elements)
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: torch.randn(shape, generator=generator) * 0.5 * shape[-1] ** -0.5
        for name, shape in settings.shapes(elements).items()
    }
    energies = dict.fromkeys(elements, 0.0)
    return Member("ani", elements, settings.to_plain(), weights, energies, "none", {})


def _aspirin() -> Atoms:
    positions = [[float(x) for x in row.split()] for row in ASPIRIN.split(";")]
    return Atoms("CCOOCCCCCCCOOHHHHHHHH", positions)


def _water_box() -> Atoms:
    """Return 64 molecules on a grid, each turned at random."""
    rng = np.random.default_rng(0)
    box = Atoms(cell=[BOX] * 3, pbc=True)
    for place in np.ndindex(4, 4, 4):
        water = molecule("H2O")
        water.positions -= water.positions.mean(axis=0)
        water.positions = water.positions @ Rotation.random(rng=rng).as_matrix().T
        box += Atoms(water.symbols, water.positions + np.array(place) * BOX / 4)
    return box


@dataclass(frozen=True, slots=True)
class Row:
    """Milliseconds of one replica, quartiles of their ratio, and members by one member."""

    ours: float
    theirs: float
    ratio: tuple[float, float, float]
    committee: float


Answer = tuple[Tensor, Tensor]
"""Energies (n_members, n_replicas) and forces (n_members, n_replicas, n_atoms, 3), eV and Å."""


def _compare(members: list[Member], atoms: Atoms, replicas: int, rounds: int) -> Row:
    noise = np.random.default_rng(1).normal(0.0, 0.03, (replicas, len(atoms), 3))
    positions = torch.tensor(atoms.positions + noise)
    ours, alone = _ours(members, atoms, positions), _ours(members[:1], atoms, positions)
    peers = _peers(members, atoms, positions)
    for peer in peers:
        _check(ours(), peer())
    peer = min(peers, key=_seconds)
    calls = [max(1, round(BLOCK_SECONDS / _seconds(call))) for call in (ours, peer, alone)]
    blocks = [
        [_block(call, n) / replicas for call, n in zip((ours, peer, alone), calls, strict=True)]
        for _ in range(rounds)
    ]
    own, theirs, _ = (1e3 * statistics.median(column) for column in zip(*blocks, strict=True))
    low, middle, high = statistics.quantiles([block[1] / block[0] for block in blocks], n=4)
    share = statistics.median(block[0] / block[2] for block in blocks)
    return Row(own, theirs, (low, middle, high), share)


def _ours(members: list[Member], atoms: Atoms, positions: Tensor) -> Callable[[], Answer]:
    committee = build_committee(members)
    cell = torch.tensor(atoms.cell.array) if atoms.pbc.any() else None

    def evaluate() -> Answer:
        answer = committee.evaluate(atoms.numbers, positions, forces="members", cell=cell)
        if answer.member_forces is None:
            raise SystemExit("the committee gave no forces")
        return answer.energies, answer.member_forces

    return evaluate


def _peers(members: list[Member], atoms: Atoms, positions: Tensor) -> list[Callable[[], Answer]]:
    """Return the ways to ask TorchANI: in periodic cells it can take one replica at a time only."""
    model = to_torchani(members, torch.float32)
    model.requires_grad_(requires_grad=False)
    numbers = torch.tensor(atoms.numbers).repeat(len(positions), 1)
    single = positions.float()
    if not atoms.pbc.any():
        return [lambda: _ask(model, numbers, single)]
    # Not before the model is built: TorchANI warns about missing extensions when it is imported.
    from torchani.neighbors import AllPairs, CellList

    cell, pbc = torch.tensor(atoms.cell.array).float(), torch.tensor(atoms.pbc)

    def one_by_one(neighbours: torch.nn.Module) -> Answer:
        model.neighborlist = neighbours
        rows = [_ask(model, numbers[:1], row[None], cell, pbc) for row in single]
        return torch.cat([row[0] for row in rows], 1), torch.cat([row[1] for row in rows], 1)

    return [partial(one_by_one, neighbours) for neighbours in (AllPairs(), CellList())]


def _ask(model: Any, numbers: Tensor, positions: Tensor, *lattice: Tensor) -> Answer:
    answer = model.members_forces((numbers, positions.clone()), *lattice)
    return answer.energies.detach() * EV_PER_HARTREE, answer.forces * EV_PER_HARTREE


def _check(ours: Answer, theirs: Answer) -> None:
    """Refuse to time two programs that do not give the same answer."""
    scale = max(1.0, float(ours[1].abs().max()))
    off_force = float((ours[1] - theirs[1]).abs().max())
    # TorchANI adds up energies in float32, which is good to some 1e-7 of their sum.
    off_energy = float(((ours[0] - theirs[0]) / (1.0 + ours[0].abs())).abs().max())
    if not (off_force < 1e-4 * scale and off_energy < 1e-5):
        raise SystemExit(f"answers differ by {off_force:.1e} eV/Å, energies by {off_energy:.1e}")


def _seconds(call: Callable[[], Answer]) -> float:
    return _block(call, 2)


def _block(call: Callable[[], Answer], n: int) -> float:
    """Return the processor seconds of one call, the first of which finds cold caches."""
    call()
    begin = time.process_time()
    for _ in range(n):
        call()
    return (time.process_time() - begin) / n


if __name__ == "__main__":
    main()
