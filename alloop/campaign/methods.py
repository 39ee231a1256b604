"""The reference methods of a campaign's tiers, as they travel in specs."""

from __future__ import annotations

from typing import Any

from alloop.config.methods import AniMethod, AseMethod, ExternalMethod, PyscfMethod
from alloop.config.model import Campaign, Tier
from alloop.reference.method import MethodSpec
from alloop.reference.pyscf.options import PyscfOptions


def method_of(config: Campaign, tier: Tier) -> dict[str, Any]:
    """Return a tier's reference method, with the spin treatment that the systems demand.

    A tier has one level of theory: one open shell makes all of its labels spin-polarised, which
    leaves closed shells unchanged.
    """
    chosen = tier.method
    if isinstance(chosen, AseMethod):
        return MethodSpec(chosen.engine, chosen.name, chosen.options()).to_json()
    if isinstance(chosen, PyscfMethod):
        return MethodSpec(chosen.engine, options=chosen.options()).to_json()
    if isinstance(chosen, ExternalMethod):
        return MethodSpec(chosen.engine, chosen.name, {"forces": chosen.forces}).to_json()
    if isinstance(chosen, AniMethod):
        return MethodSpec(chosen.engine, chosen.model).to_json()
    most = max(system.multiplicity for system in config.systems.values())
    spec = MethodSpec(chosen.engine, chosen.model)
    return MethodSpec(chosen.engine, spec.level_of_theory(most)).to_json()


def gives_forces(config: Campaign, tier: Tier) -> bool:
    """Return whether the labels of all systems have forces in a tier."""
    spec = MethodSpec.from_json(method_of(config, tier))
    if spec.engine != "pyscf":
        return spec.gives_forces
    options = PyscfOptions.from_mapping(spec.options)
    return all(options.gives_forces(system.multiplicity) for system in config.systems.values())
