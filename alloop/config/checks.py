"""What several sections, or a section and a structure, must agree on; each finding says why."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Final

from alloop.config.checks_of_sampling import (
    check_budget,
    check_initial,
    check_route,
    check_spacetime,
    check_splits,
    warn_of_supply,
    with_hydrogen,
)
from alloop.config.checks_of_systems import (
    Geometries,
    check_confounded,
    check_systems,
    check_tier,
)
from alloop.config.checks_of_tiers import check_tiers, warn_of_energies_alone
from alloop.config.learning import SIZES
from alloop.config.problems import Path, Problem, did_you_mean
from alloop.config.shipped import shipped

if TYPE_CHECKING:
    from alloop.config.model import Campaign, Members

MIN_MEMBERS: Final = 3


@dataclass(frozen=True, slots=True)
class Whole:
    """A campaign with the geometries that could be read, and the folder it is written in."""

    campaign: Campaign
    geometries: Geometries
    folder: FilePath


def check(whole: Whole) -> Iterator[Problem]:
    """Yield everything that does not go together."""
    campaign, geometries = whole.campaign, whole.geometries
    yield from check_systems(campaign, geometries)
    yield from check_confounded(campaign, geometries)
    for tier in campaign.tiers:
        yield from check_tier(tier, campaign, geometries)
    yield from check_tiers(campaign)
    yield from _check_committee(campaign)
    yield from _check_train(campaign)
    yield from check_splits(campaign)
    yield from check_budget(campaign)
    for route in campaign.explore.routes:
        yield from check_route(route, geometries)
    yield from check_initial(campaign)
    yield from check_spacetime(campaign)
    yield from _check_stop(campaign)
    yield from _check_site(whole)


def warn(whole: Whole) -> Iterator[Problem]:
    """Yield what is allowed but perhaps not meant."""
    yield from warn_of_supply(whole.campaign)
    yield from warn_of_energies_alone(whole.campaign)
    explored = {name for route in whole.campaign.explore.routes for name in route.systems}
    for name in whole.campaign.systems:
        if name not in explored:
            yield Problem(
                ("systems", name), "no route starts from it: only its initial frames count"
            )
    for route in whole.campaign.explore.routes:
        if with_hydrogen(route, whole.geometries) and route.timestep > 0.5:
            yield Problem(
                ("explore", "routes", route.id, "timestep"),
                f"{route.timestep:g} fs is coarse for bonds to hydrogen: 0.5 fs conserves energy",
            )


def _check_committee(campaign: Campaign) -> Iterator[Problem]:
    total = sum(group.members for group in campaign.committee)
    if total < MIN_MEMBERS:
        what = (
            f"{total} in all: a committee needs at least {MIN_MEMBERS}, or its spread"
            " says nothing about its error"
        )
        yield Problem(("committee",), what)
    for group in campaign.committee:
        yield from _check_members(group)


def _check_members(group: Members) -> Iterator[Problem]:
    place = ("committee", group.id)
    if group.size not in SIZES[group.kind]:
        known = SIZES[group.kind]
        what = f"{group.kind} has no size {group.size!r}, want one of {', '.join(known)}"
        yield Problem((*place, "size"), what + did_you_mean(group.size, list(known)))
    elif group.settings:
        yield from _check_settings(group)
    if group.pretrained is not None and group.kind != "ani":
        what = f"{group.pretrained} are weights of kind ani, not of {group.kind}"
        yield Problem((*place, "pretrained"), what, needs=((*place, "kind"),))
    if group.pretrained is not None and (group.settings or group.size != "small"):
        what = f"the shape is that of {group.pretrained}: leave out size and settings"
        yield Problem((*place, "pretrained"), what)
    for key, patterns in (("freeze", group.freeze), ("layer_rates", tuple(group.layer_rates))):
        if patterns and group.pretrained is None:
            what = "is for pretrained weights, and these members start from random ones"
            yield Problem((*place, key), what)
        yield from _check_patterns((*place, key), patterns)
    if group.kind == "mace" and importlib.util.find_spec("mace") is None:
        what = "mace-torch is not installed: pip install 'alloop[mace]'"
        yield Problem((*place, "kind"), what)


def _check_patterns(place: Path, patterns: Sequence[str]) -> Iterator[Problem]:
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            yield Problem(place, f"{pattern!r} is no regular expression: {error}")


def _check_settings(group: Members) -> Iterator[Problem]:
    # The architectures need PyTorch: load them only for a campaign that changes one.
    from alloop.errors import ModelError
    from alloop.potentials.architectures import shaped

    try:
        shaped(group.kind, group.size, (1,), group.settings)
    except ModelError as error:
        yield Problem(("committee", group.id, "settings"), str(error))


def _check_train(campaign: Campaign) -> Iterator[Problem]:
    if not campaign.train.energy_weight + campaign.train.force_weight > 0.0:
        what = "energy_weight and force_weight are both 0: there is nothing to learn"
        yield Problem(("train", "energy_weight"), what, needs=(("train", "force_weight"),))
    for key, kind, thing in (
        ("direction_weight", "newtonnet", "latent forces"),
        ("penalty_weight", "hipnn", "a hierarchy of energies"),
    ):
        others = [group.id for group in campaign.committee if group.kind != kind]
        if getattr(campaign.train, key) and others:
            what = f"only {kind} has {thing}, and members {', '.join(others)} are of other kinds"
            yield Problem(("train", key), what, needs=(("committee",),))


def _check_stop(campaign: Campaign) -> Iterator[Problem]:
    stop = campaign.stop
    if stop.for_generations > stop.max_generations:
        what = f"{stop.for_generations} in a row never happen within {stop.max_generations}"
        yield Problem(("stop", "for_generations"), what, needs=(("stop", "max_generations"),))


def _check_site(whole: Whole) -> Iterator[Problem]:
    site = whole.campaign.site
    known = [path.stem for path in sorted(shipped("deploy").glob("*.yaml"))]
    if site not in known and not (whole.folder / site).is_file():
        what = f"{site!r} is neither a site of alloop ({', '.join(known)}) nor a file here"
        yield Problem(("site",), f"{what}, {whole.folder / site}{did_you_mean(site, known)}")
