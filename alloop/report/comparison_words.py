"""What a comparison of trajectories has found, as text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final

from alloop.report.spacetime_errors import aligned
from alloop.units import EV_PER_KCAL_MOL

_HEADS: Final = ("", "candidate", "5 %", "95 %", "floor", "5 %", "95 %")
_NAMES: Final = ("value", "value_low", "value_high", "floor", "floor_low", "floor_high")


def comparison_words(values: Mapping[str, Any]) -> str:
    """Return what :func:`alloop.report.comparison.compare_motions` gave, for people."""
    n_candidate, n_reference = values["n_candidate"], values["n_reference"]
    lines = [f"{n_candidate} candidate and {n_reference} reference trajectories"]
    lines[0] += ", paired by their places" if values["paired"] else ", not paired"
    scores = [*_spectra(values), *_distributions(values)]
    if scores:
        lines += [aligned([_HEADS, *scores]), "floor: one half of the reference against the other"]
    return "\n".join([*lines, *_kinetic(values), *_rmsd(values), *_energy(values)])


def _spectra(values: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    found = values["spectra"]
    if found:
        yield "similarity of power spectra", *(f"{found[name]:.4f}" for name in _NAMES)


def _kinetic(values: Mapping[str, Any]) -> Iterator[str]:
    if values["spectra"]:
        known = values["spectra"]["kinetic_energy"]
        candidate, reference = (
            known[name] / EV_PER_KCAL_MOL for name in ("candidate", "reference")
        )
        yield f"mean kinetic energy, kcal/mol: candidate {candidate:.3f}, reference {reference:.3f}"


def _distributions(values: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield for each kind of coordinate the mean overlap, and the coordinate farthest below."""
    found = values["distributions"] or {}
    kinds = defaultdict(list)
    for name in found:
        kinds[name.split()[0]].append(name)
    for kind, names in kinds.items():
        means = [sum(found[name][key] for name in names) / len(names) for key in _NAMES]
        yield f"overlap, mean of {len(names)}: {kind}", *(f"{mean:.4f}" for mean in means)
    if found:
        worst = min(found, key=lambda name: found[name]["value"] - found[name]["floor"])
        yield f"least beside its floor: {worst}", *(f"{found[worst][k]:.4f}" for k in _NAMES)


def _rmsd(values: Mapping[str, Any]) -> Iterator[str]:
    found = values["rmsd"]
    if found:
        unrelated = found["unrelated"]
        beside = "" if unrelated is None else f"; unrelated reference frames {unrelated:.3f}"
        yield (
            f"RMSD of pairs, Å: {found['at_start']:.4f} at most at the start,"
            f" {found['mean'][-1]:.3f} mean and {found['largest'][-1]:.3f} at most after"
            f" {found['times'][-1]:g} fs{beside}"
        )
    found = values["rmsd_map"]
    if found:
        yield (
            f"{found['of'][1]}: its frames are {found['nearest_mean']:.3f} Å (mean),"
            f" {found['nearest_largest']:.3f} (at most) from the nearest of {found['of'][0]}"
        )


def _energy(values: Mapping[str, Any]) -> Iterator[str]:
    for name, drift in (values["energy"] or {}).items():
        if drift is None:
            yield f"total energy of the {name}: no potential energies"
            continue
        slope, rms, largest = (drift[k] / EV_PER_KCAL_MOL for k in ("slope", "rms", "largest"))
        yield (
            f"total energy of the {name}, kcal/mol: drift {slope:+.4f} per ps, deviation"
            f" {rms:.4f} (root mean square), {largest:.4f} at most,"
            f" of {len(drift['trajectories'])} trajectories"
        )
