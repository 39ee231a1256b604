"""Do the published ANI models come out as published?

    python benchmarks/published_ani.py --data FOLDER [--quick]

Methane of TorchANI's README next to the energy printed there; the largest difference to TorchANI,
over members and atoms, in float64; and the error of the ensemble against labels of its level of
theory: frames of the ANI-1x and ANI-1ccx sets (DOI 10.1038/s41597-020-0473-z), many of which the
models learned. FOLDER (or the environment variable ALLOOP_DATA) holds, at any depth,
StateDicts/ani1x_state_dict.pt and StateDicts/ani1ccx_state_dict.pt (huggingface.co/roitberg-group),
ani1x_sample.h5 (the release's layout) and ani1ccx_val_625.npz (Z, R, E_ccsdt_cbs_Ha).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from alloop.potentials.ani.pretrained import assemble, pretrained
from alloop.potentials.committee import Committee, build_committee
from alloop.potentials.member import Member
from alloop.units import EV_PER_HARTREE

METHANE = [
    [0.03192167, 0.00638559, 0.01301679],
    [-0.83140486, 0.39370209, -0.26395324],
    [-0.66518241, -0.84461308, 0.20759389],
    [0.45554739, 0.54289633, 0.81170881],
    [0.66091919, -0.16799635, -0.91037834],
]
PUBLISHED = {"ANI-1x": -40.459021, "ANI-1ccx": -40.425622}
EV_PER_KCAL_PER_MOL = EV_PER_HARTREE / 627.509474


def main() -> None:
    """Load, compare, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("ALLOOP_DATA"))
    parser.add_argument("--quick", action="store_true", help="every tenth frame")
    options = parser.parse_args()
    torch.set_num_threads(1)
    weights = _find(options.data, "ani1x_state_dict.pt").parent
    sets = {
        "ANI-1x": _dft_frames(_find(options.data, "ani1x_sample.h5")),
        "ANI-1ccx": _coupled_cluster_frames(_find(options.data, "ani1ccx_val_625.npz")),
    }
    print(
        "| model | methane, Ha | printed in README | largest ΔE, eV | largest ΔF, eV/Å | frames"
        " | MAE, kcal/mol | RMSE | CPU ms/frame |\n|:--|--:|--:|--:|--:|--:|--:|--:|--:|"
    )
    both = []
    for name, frames in sets.items():
        frames = frames[:: 10 if options.quick else 1]
        both.append(pretrained(name, weights.parent))
        exact = build_committee(both[-1], dtype=torch.float64)
        energy = _energies(exact, [(np.array([6, 1, 1, 1, 1]), np.array(METHANE), 0.0)])[0]
        by_energy, by_force = _differences(name, weights, exact, frames[::5])
        began = time.process_time()
        found = _energies(build_committee(both[-1]), frames)
        seconds = (time.process_time() - began) / len(frames)
        errors = (found - np.array([label for _, _, label in frames])) / EV_PER_KCAL_PER_MOL
        print(
            f"| {name} | {energy / EV_PER_HARTREE:.9f} | {PUBLISHED[name]} | {by_energy:.0e}"
            f" | {by_force:.0e} | {len(frames)} | {np.abs(errors).mean():.2f}"
            f" | {np.sqrt(np.square(errors).mean()):.2f} | {1e3 * seconds:.1f} |"
        )
    print(f"\nequal in both, bit for bit: linear layers {_equal_layers(*both)}")


def _differences(
    name: str, weights: Path, committee: Committee, frames: list[tuple[Any, Any, float]]
) -> tuple[float, float]:
    """Return the largest differences of energies and forces to TorchANI."""
    model = assemble(name)
    file = weights / f"{name.lower().replace('-', '')}_state_dict.pt"
    model.load_state_dict(torch.load(file, weights_only=True))
    by_energy, by_force = 0.0, 0.0
    for numbers, positions, _ in frames:
        x = torch.tensor(positions)[None].requires_grad_()
        energies = model((torch.tensor(numbers)[None], x), ensemble_values=True).energies[:, 0]
        answer = committee.evaluate(numbers, x.detach(), forces="members")
        change = energies.detach() * EV_PER_HARTREE - answer.energies[:, 0]
        by_energy = max(by_energy, float(change.abs().max()))
        for index, energy in enumerate(energies):
            (slope,) = torch.autograd.grad(energy, x, retain_graph=True)
            force = answer.member_forces[index, 0]
            by_force = max(by_force, float((force + slope[0] * EV_PER_HARTREE).abs().max()))
    return by_energy, by_force


def _energies(committee: Committee, frames: list[tuple[Any, Any, float]]) -> np.ndarray:
    """Return the mean energy of the members for each frame, eV."""
    return np.array(
        [
            float(
                committee.evaluate(
                    numbers, torch.tensor(positions)[None], forces="none"
                ).energies.mean()
            )
            for numbers, positions, _ in frames
        ]
    )


def _equal_layers(before: list[Member], after: list[Member]) -> str:
    """Name the layers that are equal in all members and elements."""
    layers: dict[str, bool] = {}
    for old, new in zip(before, after, strict=True):
        for key, weight in old.weights.items():
            layer = key.split(".")[1]
            same = torch.equal(weight, new.weights[key])
            layers[layer] = layers.get(layer, True) and same
    return " and ".join(layer for layer, same in layers.items() if same)


def _coupled_cluster_frames(path: Path) -> list[tuple[Any, Any, float]]:
    """Return numbers, positions and CCSD(T)*/CBS energies (eV) without the padding."""
    data = np.load(path)
    return [
        (z[z > 0].astype(np.int64), r[z > 0].astype(np.float64), float(e) * EV_PER_HARTREE)
        for z, r, e in zip(data["Z"], data["R"], data["E_ccsdt_cbs_Ha"], strict=True)
    ]


def _dft_frames(path: Path) -> list[tuple[Any, Any, float]]:
    """Return numbers, positions and wB97X/6-31G* energies (eV)."""
    with h5py.File(path) as file:
        return [
            (z, r.astype(np.float64), float(e) * EV_PER_HARTREE)
            for group in file.values()
            for z in [group["atomic_numbers"][:].astype(np.int64)]
            for r, e in zip(group["coordinates"][:], group["wb97x_dz.energy"][:], strict=True)
        ]


def _find(folder: Path | None, name: str) -> Path:
    path = next(Path(folder).rglob(name), None) if folder else None
    if path is None:
        print(
            f"{name} is not in {folder or '--data or ALLOOP_DATA, which are not set'}:"
            " see the top of this file for where to get it",
            file=sys.stderr,
        )
        sys.exit(2)
    return path


if __name__ == "__main__":
    main()
