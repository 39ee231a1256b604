"""Systems and the methods that label them: electrons, elements, what a structure file says."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from ase.data import chemical_symbols

from alloop.config.problems import Path, Problem
from alloop.errors import FrameError, MethodError
from alloop.frames import check_spin

if TYPE_CHECKING:
    from alloop.config.methods import AseMethod, PyscfMethod
    from alloop.config.model import Campaign, System, Tier
    from alloop.config.structures import Geometry

LARGEST_GFN_ELEMENT: Final = 86
_HCNO: Final = frozenset({1, 6, 7, 8})
ANI_ELEMENTS: Final = {"ANI-1x": _HCNO, "ANI-1ccx": _HCNO, "ANI-2x": _HCNO | {9, 16, 17}}
"""Atomic numbers that the published ANI models describe."""

Geometries = Mapping[str, "Geometry"]
"""Geometry of each system whose source could be read, by id."""


def check_systems(campaign: Campaign, geometries: Geometries) -> Iterator[Problem]:
    """Yield systems that cannot exist, or contradict the file they come from."""
    for name, geometry in geometries.items():
        system = campaign.systems[name]
        place = ("systems", name)
        disagreements = list(_check_source(name, system, geometry))
        yield from disagreements
        try:
            check_spin(geometry.numbers, system.charge, system.multiplicity)
        except FrameError as error:
            if not disagreements:
                yield Problem((*place, "multiplicity"), str(error), needs=(place,))
        if len(geometry.numbers) == 1:
            what = "a single atom feels no forces: there is nothing to learn"
            yield Problem((*place, _source_key(system)), what)


def _check_source(name: str, system: System, geometry: Geometry) -> Iterator[Problem]:
    """Yield disagreements with what the structure's source says, unless the file insists."""
    for key, said, used in (
        ("charge", geometry.charge, system.charge),
        ("multiplicity", geometry.multiplicity, system.multiplicity),
    ):
        if said is not None and said != used and key not in system.model_fields_set:
            what = (
                f"{geometry.source} says {key} {said}, the default is {used}: write the one meant"
            )
            yield Problem(("systems", name, key), what, needs=(("systems", name),))


def check_confounded(campaign: Campaign, geometries: Geometries) -> Iterator[Problem]:
    """Yield systems that differ in charge or spin only: the potential cannot tell them apart."""
    seen: dict[tuple[int, ...], str] = {}
    for name, geometry in geometries.items():
        atoms = tuple(sorted(geometry.numbers.tolist()))
        other = seen.setdefault(atoms, name)
        one, two = campaign.systems[name], campaign.systems[other]
        if (one.charge, one.multiplicity) != (two.charge, two.multiplicity):
            what = (
                f"same atoms as {other!r} but another charge or multiplicity: potentials see"
                " positions only, so their labels contradict each other; use one campaign for each"
            )
            yield Problem(("systems", name), what, needs=(("systems", other),))


def check_tier(tier: Tier, campaign: Campaign, geometries: Geometries) -> Iterator[Problem]:
    """Yield methods that are not installed or cannot describe a system."""
    place = ("tiers", tier.id, "method")
    method = tier.method
    if method.engine == "ase":
        package = method.calculator.partition(":")[0].partition(".")[0]
        if importlib.util.find_spec(package) is None:
            yield Problem((*place, "calculator"), f"no package {package!r} is installed here")
        yield from _check_electrons_told(tier, method, campaign)
        return
    if method.engine == "ani":
        yield from _check_ani(method.model, campaign, geometries)
        return
    if method.engine == "external":
        return
    if method.engine == "pyscf":
        yield from _check_pyscf(place, method, campaign, geometries)
        return
    if method.engine == "xtb":
        yield from _check_xtb(place, campaign)
    for name, geometry in geometries.items():
        heavy = sorted({int(z) for z in geometry.numbers if z > LARGEST_GFN_ELEMENT})
        if heavy:
            found = ", ".join(chemical_symbols[z] for z in heavy)
            what = f"{method.model} describes H to Rn only, {geometry.source} has {found}"
            yield Problem(("systems", name, _source_key(campaign.systems[name])), what)


def _check_ani(model: str, campaign: Campaign, geometries: Geometries) -> Iterator[Problem]:
    for name, geometry in geometries.items():
        unknown = sorted({int(z) for z in geometry.numbers} - ANI_ELEMENTS[model])
        if unknown:
            found = ", ".join(chemical_symbols[z] for z in unknown)
            known = ", ".join(chemical_symbols[z] for z in sorted(ANI_ELEMENTS[model]))
            what = f"{model} describes {known} only, {geometry.source} has {found}"
            yield Problem(("systems", name, _source_key(campaign.systems[name])), what)
    for name, system in campaign.systems.items():
        if (system.charge, system.multiplicity) != (0, 1):
            what = f"{model} knows neutral closed shells only: use another method for it"
            yield Problem(("systems", name), what)


def _check_pyscf(
    place: Path, method: PyscfMethod, campaign: Campaign, geometries: Geometries
) -> Iterator[Problem]:
    # PySCF is loaded for campaigns that use it alone.
    from alloop.reference.method import MethodSpec, build_reference

    spec = MethodSpec("pyscf", options=method.options())
    seen = set()
    for name, geometry in geometries.items():
        system = campaign.systems[name]
        try:
            build_reference(spec, geometry.numbers, system.charge, system.multiplicity)
        except MethodError as error:
            seen.add(str(error))
        except FrameError:  # impossible electrons: said above
            continue
    yield from (Problem(place, what) for what in sorted(seen))


def _check_xtb(place: Path, campaign: Campaign) -> Iterator[Problem]:
    if importlib.util.find_spec("xtb") is None:
        yield Problem((*place, "engine"), "xtb is not installed: pip install 'alloop[xtb]'")
    for name, system in campaign.systems.items():
        if system.multiplicity > 1:
            what = (
                f"xtb cannot polarise spins, and {name} has multiplicity {system.multiplicity}:"
                " use tblite"
            )
            yield Problem((*place, "engine"), what, needs=(("systems", name),))


def _check_electrons_told(tier: Tier, method: AseMethod, campaign: Campaign) -> Iterator[Problem]:
    """Yield systems of whose charge or spin nothing would tell the calculator."""
    words = str([method.kwargs, method.info])
    for name, system in campaign.systems.items():
        for key, value, usual in (
            ("charge", system.charge, 0),
            ("multiplicity", system.multiplicity, 1),
        ):
            if value != usual and f"{{{key}}}" not in words:
                what = (
                    f"nothing tells the calculator that {name} has {key} {value}: write the value"
                    f" '{{{key}}}' in kwargs or info, under the name by which it knows it"
                )
                yield Problem(("tiers", tier.id, "method"), what, needs=(("systems", name),))


def _source_key(system: System) -> str:
    return "structure" if system.structure is not None else "smiles"
