"""The tiers of a campaign, cheap to expensive, by their ids."""

from __future__ import annotations

from alloop.config.model import Campaign, Target, Tier


def tier(config: Campaign, name: str) -> Tier:
    """Return the tier of this id."""
    return next(tier for tier in config.tiers if tier.id == name)


def below(config: Campaign, name: str) -> tuple[Tier, ...]:
    """Return the tiers below one, cheap to expensive; none for the first."""
    return config.tiers[: config.tiers.index(tier(config, name))]


def above(config: Campaign, name: str) -> Tier | None:
    """Return the next tier; None for the last."""
    later = config.tiers[config.tiers.index(tier(config, name)) + 1 :]
    return later[0] if later else None


def target(config: Campaign, name: str) -> Target:
    """Return what is good enough in a tier."""
    return tier(config, name).target or config.target
