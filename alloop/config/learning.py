"""Sections about learning: committee, training, selection and the 4D model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from alloop.config.quantities import GENERATIONS, LENGTH, TIME, Quantity
from alloop.config.section import Id, Many, Section


class Members(Section):
    """Members of the committee that share one architecture."""

    id: Id = Field(description="Name of this group of members.")
    kind: Literal["ani"] = Field(
        default="ani", description="Architecture: ani is the ANI potential (atomic environments)."
    )
    members: int = Field(default=4, ge=1, le=64, description="Networks, each with its own seed.")
    size: Literal["small", "ani1x"] = Field(
        default="small",
        description="small trains in seconds on a CPU; ani1x has the published ANI-1x shape.",
    )


class Train(Section):
    """How each member is fitted to energies and forces."""

    max_steps: int = Field(
        default=1500, ge=1, description="At most this many optimiser steps, from random weights."
    )
    warm_steps: int = Field(
        default=750, ge=1, description="The same from the weights of the last generation."
    )
    epochs: int = Field(default=500, ge=1, description="At most this many passes over the data.")
    batch_size: int = Field(default=32, ge=1, description="Frames per optimiser step.")
    learning_rate: float = Field(
        default=5e-3, gt=0.0, le=1.0, description="Longest step of the optimiser, AdamW."
    )
    schedule: Literal["cosine", "plateau"] = Field(
        default="cosine",
        description="How the learning rate falls: cosine to 0 at the end, plateau by halves when"
        " nothing improves.",
    )
    energy_weight: float = Field(default=1.0, ge=0.0, description="Weight of the energy loss.")
    force_weight: float = Field(default=1.0, ge=0.0, description="Weight of the force loss.")
    patience: int = Field(
        default=100, ge=1, description="Stop after this many epochs without improvement."
    )
    ema_decay: float = Field(
        default=0.99,
        ge=0.0,
        lt=1.0,
        description="Decay of the averaged weights that are kept; 0 keeps the last weights.",
    )
    max_gradient_norm: float = Field(
        default=10.0, gt=0.0, description="Longer gradients are shortened to this norm."
    )
    bootstrap: bool = Field(
        default=False,
        description="Every member sees its own draw of the frames, with replacement. Without it"
        " members differ by their seeds alone, which was measured to be more accurate.",
    )
    warm_start: bool = Field(
        default=True, description="Start from the weights of the last generation."
    )


class Select(Section):
    """Which of the explored frames are labelled."""

    measure: Literal["force", "energy"] = Field(
        default="force",
        description="Spread of the committee that ranks frames: largest atomic force, or energy"
        " per square root of the number of atoms.",
    )
    policy: Literal["uncertainty", "random"] = Field(
        default="uncertainty", description="random is the control: the same labels, drawn blindly."
    )
    per_generation: int = Field(
        default=50, ge=1, description="Frames labelled in one generation, audit included."
    )
    audit_fraction: float = Field(
        default=0.2,
        gt=0.0,
        lt=1.0,
        description="Part of them drawn at random, which alone measures the error.",
    )
    validation_fraction: float = Field(
        default=0.1, gt=0.0, lt=1.0, description="Part of the trajectories kept for early stopping."
    )
    thinning: Annotated[float, Quantity(TIME, least=0.0)] = Field(
        default=10.0, description="Shortest time between two candidates of one trajectory."
    )
    duplicate_tolerance: Annotated[float, Quantity(LENGTH, least=0.0)] = Field(
        default=0.02,
        description="Frames closer than this to one already chosen are duplicates (root mean"
        " square over atoms, after rotation and permutation).",
    )
    per_trajectory: int = Field(
        default=5, ge=1, description="At most this many frames of one trajectory per generation."
    )


class Spacetime(Section):
    """The 4D model, fitted to NVE trajectories of the committee."""

    kind: Literal["gicnet"] = Field(default="gicnet", description="Architecture.")
    cutoff: Annotated[float, Quantity(TIME, above=0.0)] = Field(
        default=10.0, description="Longest time that one prediction spans."
    )
    every: Annotated[int, Quantity(GENERATIONS, least=1.0, whole=True)] = Field(
        default=3, description="Refit after this many generations; the last one always refits."
    )
    networks: int = Field(default=4, ge=1, description="Networks whose mean is predicted.")
    steps: int = Field(default=1000, ge=1, description="Optimiser steps of one fit.")
    hidden: Many[Annotated[int, Field(ge=1)]] = Field(
        default=(256, 256), min_length=1, description="Widths of the hidden layers."
    )
