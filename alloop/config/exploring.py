"""Section ``explore``: where new geometries come from, and which are too broken to use."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from alloop.config.quantities import (
    ENERGY_PER_ATOM,
    FORCE,
    LENGTH,
    RATE,
    TEMPERATURE,
    TIME,
    Quantity,
)
from alloop.config.section import Id, Many, Section

Kelvin = Annotated[float, Quantity(TEMPERATURE, above=0.0)]
Duration = Annotated[float, Quantity(TIME, above=0.0)]


def _listed(value: object) -> object:
    """Return a lone value as a list of one: ``temperature: 300 K`` is one temperature."""
    return value if isinstance(value, list | tuple) else [value]


def _duration(route: dict[str, Any]) -> float:
    """Return the default length of a trajectory, fs: whole steps, about 2 ps."""
    timestep = float(route["timestep"])
    return float(f"{timestep * max(1, round(2000.0 / timestep)):.12g}")


def _record_every(route: dict[str, Any]) -> float:
    """Return the default sampling interval, fs: every step of NVE, about 5 fs of NVT."""
    timestep = float(route["timestep"])
    if route["ensemble"] == "nve":
        return timestep
    return float(f"{timestep * max(1, round(5.0 / timestep)):.12g}")


class Initial(Section):
    """The first labelled frames, from which the first committee learns."""

    sampler: Literal["wigner", "thermal", "rattle"] = Field(
        default="wigner",
        description="wigner: quantum harmonic distribution about the optimised structure; thermal:"
        " the classical one; rattle: normal displacements of every atom.",
    )
    frames: int = Field(default=100, ge=10, description="Frames labelled per system.")
    temperature: Kelvin = Field(default=300.0, description="Temperature of wigner and thermal.")
    amplitude: Annotated[float, Quantity(LENGTH, above=0.0, most=0.5)] = Field(
        default=0.08, description="Standard deviation of the displacements of rattle."
    )


class Route(Section):
    """One kind of trajectory, run by the committee in every generation."""

    id: Id = Field(description="Name of the route.")
    systems: Many[Id] = Field(
        default=(), description="Ids of the systems it starts from; all of them if left out."
    )
    ensemble: Literal["nvt", "nve"] = Field(
        default="nvt", description="nvt: Langevin dynamics; nve: constant energy."
    )
    temperature: Annotated[
        Many[Kelvin], BeforeValidator(_listed, json_schema_input_type=Kelvin | Many[Kelvin])
    ] = Field(
        default=(300.0,),
        min_length=1,
        description="One temperature or a list of them, over which the replicas are spread.",
    )
    timestep: Duration = Field(default=0.5, description="Time step of the integrator.")
    duration: Duration = Field(
        default_factory=_duration,
        description="Length of each trajectory, a multiple of the time step. Default: about 2 ps.",
    )
    replicas: int = Field(default=16, ge=1, description="Trajectories per system and generation.")
    batch: int = Field(
        default=8,
        ge=1,
        description="Trajectories that run as one task. Fixed here, so that results do not depend"
        " on the number of workers.",
    )
    start: Literal["frames", "wigner", "thermal"] = Field(
        default="frames",
        description="frames: labelled training frames with Maxwell-Boltzmann velocities; wigner,"
        " thermal: drawn from the normal modes.",
    )
    friction: Annotated[float, Quantity(RATE, above=0.0)] = Field(
        default=0.01, description="Coupling to the heat bath, nvt only."
    )
    record_every: Duration = Field(
        default_factory=_record_every,
        description="Time between recorded frames, a multiple of the time step. Default: the time"
        " step for nve (the 4D model learns from it), about 5 fs for nvt.",
    )


class Health(Section):
    """Limits beyond which a trajectory counts as broken and is stopped."""

    max_force: Annotated[float, Quantity(FORCE, above=0.0)] = Field(
        default=100.0, description="Largest force on one atom."
    )
    spike_factor: float = Field(
        default=2.0,
        ge=1.0,
        description="Safety factor on the kinetic energy that the temperature allows.",
    )
    max_drift: Annotated[float, Quantity(ENERGY_PER_ATOM, above=0.0)] = Field(
        default=0.05, description="Largest drift of the total energy, nve only."
    )
    min_contact: float = Field(
        default=0.5,
        gt=0.0,
        lt=1.0,
        description="Shortest distance of two atoms, in units of the sum of their covalent radii.",
    )
    max_stretch: float = Field(
        default=1.5,
        gt=1.0,
        description="Longest bond in units of its length in the structure, unless the system is"
        " reactive.",
    )
    max_force_spread: Annotated[float, Quantity(FORCE, above=0.0)] = Field(
        default=5.0,
        description="Spread of the committee's forces on one atom at which a trajectory ends:"
        " beyond, the potentials know nothing.",
    )
    pre_failure: Annotated[float, Quantity(TIME, above=0.0)] = Field(
        default=20.0, description="How long before its end a broken trajectory is suspect."
    )


class Explore(Section):
    """Where new geometries come from."""

    initial: Initial = Field(default=Initial(), description="The first labelled frames.")
    routes: Many[Route] = Field(
        default_factory=lambda: (
            Route.model_validate({"id": "warm", "temperature": ["300 K", "600 K"]}),
            Route.model_validate({"id": "free", "ensemble": "nve", "duration": "500 fs"}),
        ),
        min_length=1,
        description="The trajectories of one generation. Default: warm (nvt, 300 K and 600 K, 2 ps)"
        " and free (nve, 300 K, 500 fs).",
    )
    health: Health = Field(default=Health(), description="Limits of a sound trajectory.")

    @property
    def nve_interval(self) -> float | None:
        """Time between the recorded frames of the nve routes, fs; None without such a route."""
        intervals = [r.record_every for r in self.routes if r.ensemble == "nve"]
        return intervals[0] if intervals else None
