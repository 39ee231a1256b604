"""What a committee says of frames before anybody knows better, as rows of ``prediction``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from alloop.acquisition.calibration import Calibration
from alloop.acquisition.uncertainty import (
    energy_spread,
    energy_spread_per_sqrt_atom,
    force_spread,
)
from alloop.frames import Frame
from alloop.potentials.committee import Committee


def rebuilt(stored: dict[str, Any] | None) -> Calibration | None:
    """Rebuild a calibration; the ledger has no infinity and leaves such numbers empty."""
    if stored is None:
        return None
    unbounded = {"alpha": np.inf, "alpha_low": 0.0, "alpha_high": np.inf, "quantile": np.inf}
    numbers = {
        name: default if stored[name] is None else stored[name]
        for name, default in unbounded.items()
    }
    return Calibration(**(stored | numbers))


def predict(
    committee: Committee, frames: Sequence[Frame], calibrated: dict[str, Any] | None
) -> list[dict[str, Any] | None]:
    """Return a row for each frame of one system; see the table ``prediction`` for its columns.

    None for a frame of which some member says nothing.
    """
    first = frames[0]
    positions = torch.tensor(np.array([frame.positions for frame in frames]))
    cell = None if first.cell is None else torch.tensor(first.cell)
    answer = committee.evaluate(first.numbers, positions, forces="members", cell=cell)
    if answer.member_forces is None:
        raise ValueError("the committee gave no member forces")
    energies, forces = answer.energies.numpy(), answer.member_forces.numpy().astype(np.float64)
    of_atoms = force_spread(forces)
    bounds = rebuilt(calibrated)
    largest = of_atoms.max(axis=-1)
    bound = None if bounds is None else bounds.bound(largest)
    return [
        {
            "energy": float(energies[:, i].mean()),
            "forces": forces[:, i].mean(axis=0).tolist(),
            "energy_spread": float(energy_spread(energies)[i]),
            "energy_spread_per_sqrt_atom": float(
                energy_spread_per_sqrt_atom(energies, first.n_atoms)[i]
            ),
            "force_spread_max": float(largest[i]),
            "force_spread_mean": float(of_atoms[i].mean()),
            "force_bound": None if bound is None else float(bound[i]),
        }
        if np.isfinite(largest[i]) and np.isfinite(energies[:, i]).all()
        else None
        for i in range(len(frames))
    ]
