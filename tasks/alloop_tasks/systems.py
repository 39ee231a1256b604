"""Frames and systems as plain JSON, the form in which they travel inside specs."""

from __future__ import annotations

from typing import Any

import numpy as np

from alloop.frames import Frame


def system_record(name: str, frame: Frame) -> dict[str, Any]:
    """Return a system as JSON: what every frame of it has in common, and its first geometry."""
    return {
        "name": name,
        "numbers": frame.numbers.tolist(),
        "positions": frame.positions.tolist(),
        "charge": frame.charge,
        "multiplicity": frame.multiplicity,
        "cell": None if frame.cell is None else frame.cell.tolist(),
        "pbc": list(frame.pbc),
    }


def frame_of(system: dict[str, Any], positions: Any = None) -> Frame:
    """Return a frame of a system, at given positions (n_atoms, 3) or at its first geometry."""
    return Frame(
        numbers=np.asarray(system["numbers"]),
        positions=np.asarray(system["positions"] if positions is None else positions),
        charge=system["charge"],
        multiplicity=system["multiplicity"],
        cell=None if system["cell"] is None else np.asarray(system["cell"]),
        pbc=tuple(system["pbc"]),
    )
