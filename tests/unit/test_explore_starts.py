"""Runs begin in geometries that their temperature could have produced."""

from __future__ import annotations

import numpy as np

from alloop.datasets import Dataset
from alloop.frames import Frame
from alloop.units import KB
from alloop_tasks.explore import FEWEST_STARTS, plausible_starts

REST = np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])


def known(energies) -> Dataset:
    """Water with given energies above -100 eV: 3 vibrations."""
    n = len(energies)
    frames = tuple(Frame(np.array([8, 1, 1]), REST + 0.001 * i) for i in range(n))
    names = ("train",) * n
    values = np.array(energies) - 100.0
    return Dataset(frames, values, tuple(np.zeros((3, 3)) for _ in frames), names, names, names, "")


def test_strained_geometries_are_left_out_and_thermal_ones_are_not():
    kt = KB * 500.0
    limit = kt * (1.5 + 3 * np.sqrt(1.5))
    energies = [0.0, *np.linspace(0.01, 0.99 * limit, 20), 1.01 * limit, 40 * kt]

    assert set(plausible_starts(known(energies), 500.0)) == set(range(21))


def test_a_hotter_run_may_begin_in_more():
    energies = np.linspace(0.0, 2.0, 60)
    cold, hot = (set(plausible_starts(known(energies), t)) for t in (600.0, 1200.0))

    assert cold < hot


def test_there_is_always_something_to_begin_with():
    energies = [0.0, *np.linspace(5.0, 9.0, 30)]

    starts = plausible_starts(known(energies), 300.0)

    assert len(starts) == FEWEST_STARTS
    assert set(starts) == set(range(FEWEST_STARTS))
