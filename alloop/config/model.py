"""The campaign file as data: strict, frozen pydantic models.

Quantities are floats in eV, Å, fs, K and s once validated; lists are tuples. What one section alone
can tell is checked here, what needs several sections or a structure in :mod:`alloop.config.checks`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    StringConstraints,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from alloop.config.exploring import Explore, Health, Initial, Route
from alloop.config.learning import Members, Probe, Select, Spacetime, Train, Transfer
from alloop.config.methods import Method
from alloop.config.quantities import ENERGY_PER_ATOM, FORCE, WALL_TIME, Quantity
from alloop.config.section import Id, Many, Section, Text

__all__ = [
    "Budget", "Campaign", "CampaignSection", "Escalate", "Explore", "Health", "Initial",
    "Members", "Method", "Probe", "Route", "Select", "Spacetime", "Stop", "System", "Target",
    "Tier", "Train", "Transfer",
]  # fmt: skip

Name = Annotated[
    str, StringConstraints(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)
]


class CampaignSection(Section):
    """Identity of the campaign."""

    name: Name = Field(description="Name of the campaign; letters, digits, '.', '_' and '-'.")
    seed: int = Field(
        default=1, ge=0, lt=2**63, description="Root of all random numbers of the campaign."
    )
    directory: Text = Field(
        default_factory=lambda section: f"runs/{section['name']}",
        description="Folder of the ledger and all files, relative to this file."
        " Default: `runs/<name>`.",
    )


class System(Section):
    """One molecule or crystal."""

    structure: Text | None = Field(
        default=None,
        description="File with its geometry in any format that ASE reads, relative to this file;"
        " file.xyz@2 is the third structure of a file with several.",
    )
    smiles: Text | None = Field(
        default=None, description="SMILES instead of a file (needs the extra 'smiles')."
    )
    charge: int = Field(default=0, ge=-20, le=20, description="Total charge, e.")
    multiplicity: int = Field(default=1, ge=1, le=30, description="Spin multiplicity 2S + 1.")
    reactive: bool = Field(
        default=False, description="Bonds may break: fragments do not count as failures."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.structure is None) == (self.smiles is None):
            raise PydanticCustomError(
                "one_source", "needs exactly one of 'structure' (a file) and 'smiles'"
            )
        return self


class Target(Section):
    """What a good potential is; the campaign has converged when it is one."""

    force_rmse: Annotated[float, Quantity(FORCE, above=0.0)] = Field(
        default=0.1, description="Root-mean-square error of force components on audit frames."
    )
    energy_rmse: Annotated[float, Quantity(ENERGY_PER_ATOM, above=0.0)] | None = Field(
        default=None,
        description="Root-mean-square error of the energy per atom on the same frames; left out, it"
        " does not count. Methods without forces have no other.",
    )
    confidence: float = Field(
        default=0.95, gt=0.5, lt=1.0, description="Confidence level of every interval."
    )


class Budget(Section):
    """What a tier may cost."""

    labels: int = Field(default=2000, ge=1, description="Most labels, failed ones included.")
    core_time: Annotated[float, Quantity(WALL_TIME, above=0.0)] | None = Field(
        default=None,
        description="Most processor time for labels, failed ones included, such as 100 h.",
    )


class Escalate(Section):
    """How frames climb to a tier from the one below."""

    per_round: int = Field(
        default=25,
        ge=8,
        description="Frames promoted in one generation, those of audit and validation included.",
    )
    policy: Literal["value_per_cost", "random"] = Field(
        default="value_per_cost",
        description="value_per_cost: the frames whose labels reduce the expected error most for"
        " their price; random is the control.",
    )
    approve: bool = Field(
        default=False,
        description="Before each round the campaign pauses and says its price; `alloop start"
        " --approve` goes on.",
    )


class Tier(Section):
    """One reference method and what may be spent on it."""

    id: Id = Field(description="Name of the tier.")
    method: Method = Field(description="The reference method.")
    budget: Budget = Field(default=Budget(), description="What the tier may cost.")
    target: Target | None = Field(
        default=None, description="What is good enough in this tier. Default: the campaign's."
    )
    escalate: Escalate = Field(
        default=Escalate(), description="How frames climb to it; for all tiers but the first."
    )
    retries: int = Field(
        default=2, ge=0, le=10, description="Further attempts at a label, with safer settings."
    )
    give_up_after: int = Field(
        default=20, ge=1, description="Failures in a row after which the tier is stopped."
    )
    close_at: float = Field(
        default=1.0,
        gt=0.0,
        le=1.0,
        description="Fraction of a generation's labels after which it closes; the rest join the"
        " next one.",
    )


class Stop(Section):
    """When the campaign ends."""

    when: Many[Literal["audit_below_target", "stable"]] = Field(
        default=("audit_below_target",),
        min_length=1,
        description="All of these must hold: audit_below_target (upper bound of the audit error is"
        " below the target), stable (no trajectory broke).",
    )
    max_generations: int = Field(
        default=20, ge=1, description="End after this many generations of a tier."
    )
    for_generations: int = Field(
        default_factory=lambda stop: min(2, stop.get("max_generations", 2)),
        ge=1,
        description="For this many generations in a row: the first audits know only where the"
        " first trajectories have been. Default: 2, or fewer if there are fewer.",
    )
    wall_clock: Annotated[float, Quantity(WALL_TIME, above=0.0)] | None = Field(
        default=None, description="End after this much run time, all starts together."
    )
    patience: int = Field(
        default=3, ge=1, description="Generations without improvement that count as stalled."
    )


class Campaign(Section):
    """The whole campaign file."""

    schema_: Literal[1] = Field(alias="schema", description="Version of this file's format.")
    campaign: CampaignSection = Field(description="Identity of the campaign.")
    systems: dict[Id, System] = Field(min_length=1, description="The molecules, by id.")
    target: Target = Field(default=Target(), description="What a good potential is.")
    tiers: Many[Tier] = Field(min_length=1, description="Reference methods, cheap to expensive.")
    committee: Many[Members] = Field(
        default=(Members(id="ani"),),
        min_length=1,
        description="Potentials that vote, at least three.",
    )
    train: Train = Field(default=Train(), description="How members are fitted.")
    transfer: Transfer = Field(
        default=Transfer(), description="How higher tiers learn from the tier below."
    )
    explore: Explore = Field(default_factory=Explore, description="Where geometries come from.")
    select: Select = Field(default=Select(), description="Which geometries are labelled.")
    spacetime: Spacetime | None = Field(
        default=None, description="The 4D model; left out, none is fitted."
    )
    stop: Stop = Field(default=Stop(), description="When the campaign ends.")
    site: Text = Field(
        default="local",
        description="Where tasks run: local (Parsl on this machine), inprocess, or a site file,"
        " relative to this file.",
    )

    @field_validator("schema_", mode="before")
    @classmethod
    def _whole(cls, version: object) -> object:
        """Refuse ``true`` and ``1.0``, which are equal to 1."""
        if type(version) is not int:
            raise PydanticCustomError("int_type", "want an integer")
        return version

    @model_validator(mode="wrap")
    @classmethod
    def _routes_name_their_systems(cls, data: Any, check: ModelWrapValidatorHandler[Self]) -> Self:
        """Give routes that name no system all of them, so that nothing is left to be guessed."""
        campaign = check(data)
        everything = tuple(campaign.systems)
        routes = tuple(
            route if route.systems else route.model_copy(update={"systems": everything})
            for route in campaign.explore.routes
        )
        explore = campaign.explore.model_copy(update={"routes": routes})
        return campaign.model_copy(update={"explore": explore})
