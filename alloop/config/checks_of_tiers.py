"""Tiers against each other: what climbs must have something to climb from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from alloop.config.methods import AseMethod, ExternalMethod
from alloop.config.problems import Path, Problem, did_you_mean
from alloop.reference.pyscf.options import PyscfOptions

if TYPE_CHECKING:
    from alloop.config.model import Campaign, Tier

LEAST_TRAINING: Final = 4
"""Frames of a round that are left to train on."""


def check_tiers(campaign: Campaign) -> Iterator[Problem]:
    """Yield tiers that cannot stand where they are."""
    first, *higher = campaign.tiers
    yield from _check_first(first, campaign)
    seen = {_level(first): first.id}
    for tier in higher:
        level = _level(tier)
        other = seen.setdefault(level, tier.id)
        if other != tier.id:
            what = f"{level} is that of tier {other!r}: want another level of theory"
            yield Problem(("tiers", tier.id, "method"), what, needs=(("tiers", other),))
        yield from _check_round(tier, campaign)
    if not higher and "transfer" in campaign.model_fields_set:
        what = "has no effect with one tier: leave it out, or add a tier"
        yield Problem(("transfer",), what, needs=(("tiers",),))
    yield from _check_spacetime(campaign)


def warn_of_energies_alone(campaign: Campaign) -> Iterator[Problem]:
    """Yield tiers that cannot converge: energies alone have no target but that of the energy."""
    if "audit_below_target" not in campaign.stop.when:
        return
    for tier in campaign.tiers:
        target = tier.target or campaign.target
        if target.energy_rmse is None and not _gives_forces(tier, campaign):
            what = (
                f"labels of {_level(tier)} are energies alone: without this target the tier cannot"
                " converge, and ends with its budget or without progress"
            )
            yield Problem(("tiers", tier.id, "target", "energy_rmse"), what)


def _gives_forces(tier: Tier, campaign: Campaign) -> bool:
    """Return whether the labels of all systems have forces."""
    method = tier.method
    if method.engine == "external":
        return method.forces
    if method.engine != "pyscf":
        return True
    options = PyscfOptions.from_mapping(method.options())
    return all(options.gives_forces(system.multiplicity) for system in campaign.systems.values())


def _level(tier: Tier) -> str:
    """Return the level of theory: two programs may compute the same one."""
    method = tier.method
    if method.engine == "pyscf":
        return PyscfOptions.from_mapping(method.options()).name
    return method.name if isinstance(method, AseMethod | ExternalMethod) else method.model


def _check_first(tier: Tier, campaign: Campaign) -> Iterator[Problem]:
    if "escalate" in tier.model_fields_set:
        what = "has no effect in the first tier, to which nothing climbs: leave it out"
        yield Problem(("tiers", tier.id, "escalate"), what)
    if tier.method.engine == "external":
        what = "the first tier explores with its own labels by the thousand: want a program"
        yield Problem(("tiers", tier.id, "method", "engine"), what)
    elif not _gives_forces(tier, campaign):
        what = f"{_level(tier)} has no forces, and the first tier optimises structures with them"
        yield Problem(("tiers", tier.id, "method"), what)


def _check_round(tier: Tier, campaign: Campaign) -> Iterator[Problem]:
    n, select = tier.escalate.per_round, campaign.select
    left = n - max(2, round(select.audit_fraction * n))
    left -= max(1, round(select.validation_fraction * n))
    if left < LEAST_TRAINING:
        place: Path = ("tiers", tier.id, "escalate", "per_round")
        what = (
            f"{n}, less {select.audit_fraction:g} of them for audit and"
            f" {select.validation_fraction:g} for validation, leave {left} to train on, want"
            f" {LEAST_TRAINING} or more"
        )
        needs = (("select", "audit_fraction"), ("select", "validation_fraction"))
        yield Problem(place, what, needs=needs)


def _check_spacetime(campaign: Campaign) -> Iterator[Problem]:
    settings = campaign.spacetime
    known = [tier.id for tier in campaign.tiers]
    if settings is not None and settings.tier is not None and settings.tier not in known:
        what = f"there is no tier {settings.tier!r}, only {', '.join(known)}"
        what += did_you_mean(settings.tier, known)
        yield Problem(("spacetime", "tier"), what, needs=(("tiers",),))
