"""Trajectories, frames drawn from them and the 4D model: time steps, splits, budgets."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from alloop.config.problems import Path, Problem

if TYPE_CHECKING:
    from alloop.config.checks_of_systems import Geometries
    from alloop.config.model import Campaign, Route

MIN_TRAINING_FRAMES: Final = 8
MIN_REPLICAS: Final = 3
MAX_HYDROGEN_TIMESTEP: Final = 1.0
MAX_TIMESTEP: Final = 4.0
POINTS_PER_CUTOFF: Final = 5
"""Recorded frames that the 4D model must see within the longest time it predicts."""


def check_splits(campaign: Campaign) -> Iterator[Problem]:
    """Yield sets of frames that audit and validation would use up."""
    select, frames = campaign.select, campaign.explore.initial.frames
    validation, audit = select.validation_fraction, select.audit_fraction
    if validation + audit >= 1.0:
        what = f"with {validation:g} for validation nothing is left to train on"
        yield Problem(
            ("select", "audit_fraction"), what, needs=(("select", "validation_fraction"),)
        )
        return
    left = frames - math.ceil(frames * validation)
    if left < MIN_TRAINING_FRAMES:
        what = f"{frames} leave {left} to train on, want at least {MIN_TRAINING_FRAMES}"
        needs: tuple[Path, ...] = (("select", "validation_fraction"),)
        yield Problem(("explore", "initial", "frames"), what, needs=needs)
    share = select.per_generation // len(campaign.systems)
    left = share - math.ceil(share * audit) - math.ceil(share * validation)
    if left < 1:
        what = (
            f"{share} for each system, less {audit:g} of them for audit and {validation:g} for"
            " validation, leave none to train on"
        )
        needs = (("select", "audit_fraction"), ("select", "validation_fraction"), ("systems",))
        yield Problem(("select", "per_generation"), what, needs=needs)
    if all(route.replicas < MIN_REPLICAS for route in campaign.explore.routes):
        what = (
            f"no route has {MIN_REPLICAS} replicas: one each is set aside for audit and for"
            " validation, and without audit frames no error is known"
        )
        yield Problem(("explore", "routes"), what)


def check_budget(campaign: Campaign) -> Iterator[Problem]:
    """Yield tiers whose labels do not last for the first generation."""
    initial = campaign.explore.initial.frames * len(campaign.systems)
    needed = initial + campaign.select.per_generation
    cheapest, *higher = campaign.tiers
    labels = cheapest.budget.labels
    if labels < needed:
        what = (
            f"{labels} labels do not last for the initial set ({initial}) and one"
            f" generation ({campaign.select.per_generation}): want at least {needed}"
        )
        initial_frames = ("explore", "initial", "frames")
        needs = (initial_frames, ("select", "per_generation"), ("systems",))
        yield Problem(("tiers", cheapest.id, "budget", "labels"), what, needs=needs)
    for tier in higher:
        if tier.budget.labels < tier.escalate.per_round:
            what = (
                f"{tier.budget.labels} labels do not last for one round of"
                f" {tier.escalate.per_round}"
            )
            place: Path = ("tiers", tier.id, "escalate", "per_round")
            yield Problem(("tiers", tier.id, "budget", "labels"), what, needs=(place,))


def check_route(route: Route, geometries: Geometries) -> Iterator[Problem]:
    """Yield times of a route that do not fit the molecule or each other."""
    place = ("explore", "routes", route.id)
    yield from _check_timestep(route, geometries)
    if not _multiple(route.record_every, route.timestep):
        what = f"{route.record_every:g} fs is no multiple of the time step, {route.timestep:g} fs"
        yield Problem((*place, "record_every"), what, needs=((*place, "timestep"),))
    if not _multiple(route.duration, route.timestep):
        what = f"{route.duration:g} fs is no multiple of the time step, {route.timestep:g} fs"
        yield Problem((*place, "duration"), what, needs=((*place, "timestep"),))
    if route.duration < route.record_every:
        what = f"{route.duration:g} fs ends before the first frame, {route.record_every:g} fs"
        yield Problem((*place, "duration"), what, needs=(place,))
    if len(route.temperature) > route.replicas:
        what = f"{len(route.temperature)} temperatures need as many replicas, got {route.replicas}"
        yield Problem((*place, "replicas"), what, needs=((*place, "temperature"),))
    if route.ensemble == "nve" and "friction" in route.model_fields_set:
        yield Problem((*place, "friction"), "has no effect in nve: leave it out", needs=(place,))


def _check_timestep(route: Route, geometries: Geometries) -> Iterator[Problem]:
    hydrogen = with_hydrogen(route, geometries)
    limit = MAX_HYDROGEN_TIMESTEP if hydrogen else MAX_TIMESTEP
    if route.timestep > limit:
        reason = (
            "a bond to hydrogen vibrates once in 9 to 11 fs and takes about ten steps to follow"
            if hydrogen
            else "the stiffest bonds vibrate once in about 20 fs and want several steps for that"
        )
        what = f"{route.timestep:g} fs is too long for {hydrogen or 'any molecule'}: {reason}"
        place = ("explore", "routes", route.id)
        yield Problem(
            (*place, "timestep"),
            f"{what}; at most {limit:g} fs",
            needs=((*place, "systems"),),
        )


def with_hydrogen(route: Route, geometries: Geometries) -> str:
    """Return the first system of a route that has hydrogen; an empty string if there is none."""
    for name in route.systems:
        geometry = geometries.get(name)
        if geometry is not None and 1 in geometry.numbers:
            return name
    return ""


def check_initial(campaign: Campaign) -> Iterator[Problem]:
    """Yield what the chosen sampler would ignore."""
    initial = campaign.explore.initial
    useless = "temperature" if initial.sampler == "rattle" else "amplitude"
    if useless in initial.model_fields_set:
        place = ("explore", "initial")
        what = f"has no effect with sampler {initial.sampler}: leave it out"
        yield Problem((*place, useless), what, needs=((*place, "sampler"),))


def warn_of_supply(campaign: Campaign) -> Iterator[Problem]:
    """Yield a warning if the trajectories of a generation cannot offer enough frames."""
    select = campaign.select
    offered = 0
    for route in campaign.explore.routes:
        apart = max(select.thinning, route.record_every)
        per_trajectory = min(select.per_trajectory, int(route.duration / apart) + 1)
        offered += per_trajectory * route.replicas * len(route.systems)
    if offered < select.per_generation:
        what = (
            f"{select.per_generation} frames are more than the {offered} that all trajectories of"
            " a generation can offer (replicas, duration, thinning and per_trajectory limit them)"
        )
        yield Problem(("select", "per_generation"), what)


def check_spacetime(campaign: Campaign) -> Iterator[Problem]:
    """Yield reasons why the trajectories cannot teach a 4D model."""
    spacetime = campaign.spacetime
    if spacetime is None:
        return
    routes = [route for route in campaign.explore.routes if route.ensemble == "nve"]
    probe = spacetime.probe
    if probe is not None and probe.duration is not None and probe.duration < spacetime.cutoff:
        what = f"{probe.duration:g} fs is shorter than one segment, {spacetime.cutoff:g} fs"
        place: Path = ("spacetime", "probe", "duration")
        yield Problem(place, what, needs=(("spacetime", "cutoff"),))
    if not routes:
        what = "needs a route with 'ensemble: nve': the 4D model learns from free trajectories"
        yield Problem(("spacetime",), what, needs=(("explore", "routes"),))
    for route in routes:
        place = ("explore", "routes", route.id)
        needs = (place, ("spacetime", "cutoff"))
        if route.duration < spacetime.cutoff:
            what = f"{route.duration:g} fs is shorter than the 4D cutoff, {spacetime.cutoff:g} fs"
            yield Problem((*place, "duration"), what, needs=needs)
        if route.record_every * POINTS_PER_CUTOFF > spacetime.cutoff * (1 + 1e-9):
            what = (
                f"{route.record_every:g} fs is too coarse for a 4D cutoff of"
                f" {spacetime.cutoff:g} fs: at most {spacetime.cutoff / POINTS_PER_CUTOFF:g} fs"
            )
            yield Problem((*place, "record_every"), what, needs=needs)
        elif not _multiple(spacetime.cutoff, route.record_every):
            what = f"must divide the 4D cutoff, {spacetime.cutoff:g} fs"
            yield Problem((*place, "record_every"), what, needs=needs)
        elif route.record_every != campaign.explore.nve_interval:
            what = (
                f"differs from {campaign.explore.nve_interval:g} fs in the first nve route: one 4D"
                " model learns from all of them"
            )
            yield Problem((*place, "record_every"), what, needs=needs)


def _multiple(long: float, short: float) -> bool:
    """Say whether ``long`` is a whole number (at least one) of ``short``, but for rounding."""
    ratio = long / short
    return ratio > 0.5 and abs(ratio - round(ratio)) <= 1e-6 * max(1.0, ratio)
