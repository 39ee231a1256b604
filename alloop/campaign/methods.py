"""The reference methods of a campaign's tiers, as they travel in specs."""

from __future__ import annotations

from typing import Any

from alloop.config.methods import AniMethod, AseMethod
from alloop.config.model import Campaign, Tier
from alloop.reference.method import MethodSpec


def method_of(config: Campaign, tier: Tier) -> dict[str, Any]:
    """Return a tier's reference method, with the spin treatment that the systems demand.

    A tier has one level of theory: one open shell makes all of its labels spin-polarised, which
    leaves closed shells unchanged.
    """
    chosen = tier.method
    if isinstance(chosen, AseMethod):
        options = {"calculator": chosen.calculator, "kwargs": chosen.kwargs, "info": chosen.info}
        return MethodSpec(chosen.engine, chosen.name, options).to_json()
    if isinstance(chosen, AniMethod):
        return MethodSpec(chosen.engine, chosen.model).to_json()
    most = max(system.multiplicity for system in config.systems.values())
    spec = MethodSpec(chosen.engine, chosen.model)
    return MethodSpec(chosen.engine, spec.level_of_theory(most)).to_json()
