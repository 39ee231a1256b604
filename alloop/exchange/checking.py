"""Are these labels in the units that were declared? Held against what is known already.

Total energies of two levels of theory may differ by far more than any factor between units (one
counts core electrons, the other does not), so that nothing is judged by them: within a level
energies of a system lie within ``BOUND_PER_ATOM``; between levels, differences between frames and
forces nearly agree; and within a file forces are the slope of the energies. A declared unit is
refused where another one explains the same numbers clearly better, and only there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from alloop.exchange.units import LabelUnits
from alloop.units import ENERGY_UNITS, LENGTH_UNITS

if TYPE_CHECKING:
    from numpy.typing import NDArray

BOUND_PER_ATOM = 10.0
"""eV; no bond is stronger, so energies of one molecule at one level differ by less per atom."""
CLEARLY = 0.5
"""Another unit must leave less than this part of the values unexplained, and less than this part
of what the declared one leaves."""
FEWEST = 3
"""Frames of a system whose energy differences say something."""
FARTHEST = 0.3
"""Å; between frames farther apart the slope says nothing of the difference in energy."""
SMALLEST_ENERGY, SMALLEST_FORCE = 1e-3, 1e-2
"""eV and eV/Å, root mean square; smaller ones are noise of the programs."""


@dataclass(frozen=True, slots=True, eq=False)
class Other:
    """What another level says of the same frame: name, energy, eV, and forces, eV/Å, if any."""

    level_of_theory: str
    energy: float
    forces: NDArray[np.float64] | None


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """A new label, in eV and eV/Å by its declared units, in the orientation of its known frame.

    Attributes
    ----------
    system : its name.
    positions : (n_atoms, 3) float64, Å.
    energy, forces : the label.
    other : what another level says of this frame; None if no other has labelled it.

    """

    system: str
    positions: NDArray[np.float64]
    energy: float
    forces: NDArray[np.float64] | None
    other: Other | None


@dataclass(slots=True)
class Opinion:
    """What the units look like: reasons to refuse them, and what they were held against."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def judge_units(
    claims: Sequence[Claim], units: LabelUnits, same_level: Mapping[str, float]
) -> Opinion:
    """Hold labels against others; ``same_level`` is a typical energy, eV, of each system there."""
    opinion = Opinion()
    energies = {unit: ev / units.ev for unit, ev in ENERGY_UNITS.items()}
    forces = {
        f"{sign}{energy}/{length}": factor * ev / angstrom / units.ev_per_angstrom
        for (energy, ev), (length, angstrom) in product(ENERGY_UNITS.items(), LENGTH_UNITS.items())
        if length in ("Å", "bohr")
        for sign, factor in (("", 1.0), ("minus ", -1.0))
    }
    _judge_totals(claims, units, same_level, energies, opinion)
    kinds = {claim.other.level_of_theory for claim in claims if claim.other is not None}
    for level in sorted(kinds):
        chosen = [one for one in claims if one.other and one.other.level_of_theory == level]
        _judge(
            "energies", f"differences between frames at {level}", units.energy,
            _differences(chosen), energies, SMALLEST_ENERGY, opinion,
        )  # fmt: skip
        _judge(
            "forces", f"those of {level}", f"{units.force_energy}/{units.length}",
            _both_forces(chosen), forces, SMALLEST_FORCE, opinion,
        )  # fmt: skip
    if not any(problem.startswith("energies") for problem in opinion.problems):
        _judge(
            "forces", "the slope of their own energies", f"{units.force_energy}/{units.length}",
            _slopes(claims), forces, SMALLEST_ENERGY, opinion,
        )  # fmt: skip
    said = [*opinion.notes, *opinion.problems]
    if claims and not any(line.startswith("energies") for line in said):
        opinion.notes.append(
            f"nothing to hold the unit of the energies against: that it is {units.energy} was"
            " not checked"
        )
    return opinion


def _judge_totals(
    claims: Sequence[Claim],
    units: LabelUnits,
    same_level: Mapping[str, float],
    factors: Mapping[str, float],
    opinion: Opinion,
) -> None:
    """Hold energies against labels of the same level and system."""
    held = [claim for claim in claims if claim.system in same_level]
    if not held:
        return
    energies = np.array([claim.energy for claim in held])
    known = np.array([same_level[claim.system] for claim in held])
    bound = np.array([BOUND_PER_ATOM * len(claim.positions) for claim in held])

    def fits(factor: float) -> bool:
        return bool((np.abs(factor * energies - known) <= bound).all())

    if fits(1.0):
        opinion.notes.append("energies lie where those of this level and system do")
        return
    better = [unit for unit, factor in factors.items() if fits(factor)]
    worst = int(np.argmax(np.abs(energies - known) / bound))
    opinion.problems.append(
        f"energies, {units.energy} as declared, lie up to {abs(energies - known)[worst]:.0f} eV"
        f" from those that {held[worst].system} has at this level"
        + (f"; they fit in {better[0]}" if better else ": they are of another level, or relative")
    )


def _judge(
    what: str,
    against: str,
    declared: str,
    pairs: tuple[NDArray[np.float64], NDArray[np.float64]],
    factors: Mapping[str, float],
    smallest: float,
    opinion: Opinion,
) -> None:
    values, expected = pairs
    size = float(np.linalg.norm(expected))
    if not size > smallest * np.sqrt(max(len(expected), 1)):
        return
    left = {
        unit: float(np.linalg.norm(factor * values - expected)) / size
        for unit, factor in factors.items()
    }
    as_declared = float(np.linalg.norm(values - expected)) / size
    best = min(left, key=lambda unit: left[unit])
    if left[best] < CLEARLY and left[best] < CLEARLY * as_declared:
        sign = " (gradients, not forces?)" if best.startswith("minus ") else ""
        opinion.problems.append(
            f"{what}, {declared} as declared, are no match for {against}: {as_declared:.0%} off;"
            f" as {best}{sign} they would be {left[best]:.0%} off"
        )
        return
    doubt = "" if as_declared < CLEARLY else ": look at them, though no other unit fits better"
    opinion.notes.append(f"{what} are {as_declared:.0%} off {against}{doubt}")


def _differences(claims: Sequence[Claim]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return energies and those of the other level, less their means over each system."""
    values, expected = [np.empty(0)], [np.empty(0)]
    for system in sorted({claim.system for claim in claims}):
        chosen = [claim for claim in claims if claim.system == system and claim.other]
        if len(chosen) >= FEWEST:
            energies = np.array([claim.energy for claim in chosen])
            others = np.array([claim.other.energy for claim in chosen if claim.other])
            values.append(energies - energies.mean())
            expected.append(others - others.mean())
    return np.concatenate(values), np.concatenate(expected)


def _both_forces(claims: Sequence[Claim]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    values, expected = [np.empty(0)], [np.empty(0)]
    for claim in claims:
        if claim.forces is not None and claim.other and claim.other.forces is not None:
            values.append(claim.forces.ravel())
            expected.append(claim.other.forces.ravel())
    return np.concatenate(values), np.concatenate(expected)


def _slopes(claims: Sequence[Claim]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return -F·ΔR, with the mean force of two frames, and ΔE: equal where energy is quadratic.

    Frames of one system are compared, low ones with high ones; those too far apart are not.
    """
    values, expected = [], []
    for system in sorted({claim.system for claim in claims}):
        chosen = [one for one in claims if one.system == system and one.forces is not None]
        chosen.sort(key=lambda one: float(one.energy))
        for a, b in zip(chosen, chosen[max(len(chosen) // 2, 1) :], strict=False):
            step = b.positions - a.positions
            if a.forces is not None and b.forces is not None and np.abs(step).max() < FARTHEST:
                values.append(float(-0.5 * ((a.forces + b.forces) * step).sum()))
                expected.append(b.energy - a.energy)
    return np.array(values), np.array(expected)
