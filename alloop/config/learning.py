"""Sections about learning: committee, training, selection and the 4D model."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, JsonValue

from alloop.config.quantities import GENERATIONS, LENGTH, TIME, Quantity
from alloop.config.section import Id, Many, Section, Text

Kind = Literal["ani", "newtonnet", "reann", "equireann", "egnn", "hipnn", "schnet", "mace"]

SIZES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ani": ("small", "ani1x"),
        "newtonnet": ("small", "paper", "v1"),
        "reann": ("small", "paper"),
        "equireann": ("small", "paper"),
        "egnn": ("small", "smooth", "paper"),
        "hipnn": ("small", "paper"),
        "schnet": ("small", "paper"),
        "mace": ("small", "paper"),
    }
)
"""Sizes of each kind, as the architectures define them; here so that a config needs no PyTorch."""


class Members(Section):
    """Members of the committee that share one architecture."""

    id: Id = Field(description="Name of this group of members.")
    kind: Kind = Field(
        default="ani",
        description="Architecture, see [potentials](potentials.md): ani is the fastest, newtonnet"
        " the most accurate with many labels; mace needs the extra 'mace'.",
    )
    members: int = Field(default=4, ge=1, le=64, description="Networks, each with its own seed.")
    size: Text = Field(
        default="small",
        description="Named shape of the architecture: small trains in minutes on a CPU, paper is"
        " the published one (ani1x for ani).",
    )
    settings: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="Settings of the architecture that differ from the size's, such as cutoff.",
    )
    pretrained: Literal["ANI-1x", "ANI-1ccx", "ANI-2x"] | None = Field(
        default=None,
        description="Start from published weights (kind ani) instead of random ones; shape and"
        " size are theirs. TorchANI fetches them, or finds them in $TORCHANI_DATA_DIR.",
    )
    layer_rates: dict[str, float] = Field(
        default_factory=dict,
        description="Learning rate of some pretrained weights, as a multiple of the others': a"
        " regular expression for their names, and the factor.",
    )
    freeze: Many[Text] = Field(
        default=(),
        description="Regular expressions for names of weights that keep their pretrained values;"
        " auto is the published choice for the architecture (ani: layers 0 and 2).",
    )


class Transfer(Section):
    """How the potential of a higher tier learns from the tier below."""

    modes: Many[Literal["scratch", "finetune", "freeze", "delta", "joint", "distil"]] = Field(
        default=("finetune", "delta"),
        min_length=1,
        description="All of these are tried in each generation of the tier, and the one with the"
        " least error on held-out labels is kept: scratch forgets the tier below, finetune trains"
        " all of its weights on, freeze only some, delta learns the difference between the tiers,"
        " joint learns both with a head for each, distil is for methods without forces.",
    )
    freeze: Many[Text] = Field(
        default=("auto",),
        min_length=1,
        description="Regular expressions for names of weights that mode freeze keeps; auto is the"
        " published choice for the architecture.",
    )
    max_steps: int = Field(
        default=1500, ge=1, description="At most this many optimiser steps of each fit."
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
    learning_rate: float | None = Field(
        default=None,
        gt=0.0,
        le=1.0,
        description="Longest step of the optimiser, AdamW. Default: what suits the architecture.",
    )
    schedule: Literal["cosine", "plateau"] = Field(
        default="cosine",
        description="How the learning rate falls: cosine to 0 at the end, plateau by halves when"
        " nothing improves.",
    )
    plateau_factor: float = Field(
        default=0.5, gt=0.0, lt=1.0, description="By what the rate falls on a plateau."
    )
    plateau_patience: int | None = Field(
        default=None,
        ge=1,
        description="Epochs without improvement that make a plateau. Default: a third of patience.",
    )
    min_learning_rate: float = Field(
        default=0.0, ge=0.0, description="Stop when plateaus have brought the rate below this."
    )
    loss: Literal["huber", "mse", "mepa"] = Field(
        default="huber",
        description="huber forgives outliers; mse is the mean square; mepa is the mean absolute"
        " error of forces, element by element, so that rare elements count as much as others.",
    )
    energy_weight: float = Field(default=1.0, ge=0.0, description="Weight of the energy loss.")
    force_weight: float = Field(default=1.0, ge=0.0, description="Weight of the force loss.")
    direction_weight: float = Field(
        default=0.0,
        ge=0.0,
        description="Weight of the loss that turns latent forces along the true ones (newtonnet).",
    )
    penalty_weight: float = Field(
        default=0.0,
        ge=0.0,
        description="Weight of the penalty on energy in higher orders of the hierarchy (hipnn).",
    )
    weight_decay: float = Field(
        default=0.0, ge=0.0, le=1.0, description="AdamW's decoupled decay of the weights."
    )
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


class Probe(Section):
    """A search for motion that the 4D model cannot do, after each fit that is promoted."""

    replicas: int = Field(
        default=16,
        ge=1,
        description="Replicas that the 4D model propagates, begun as on the first nve route.",
    )
    duration: Annotated[float, Quantity(TIME, above=0.0)] | None = Field(
        default=None, description="How far it propagates them. Default: 50 times the cutoff."
    )
    max_segments: int = Field(
        default=8,
        ge=1,
        description="At most this many trajectories of the committee are begun where a segment is"
        " flagged; they last 10 times the cutoff and join what the next fit learns from.",
    )
    quantile: float = Field(
        default=0.99,
        gt=0.5,
        lt=1.0,
        description="A segment is flagged when the model disagrees with itself half as much again"
        " as on this part of the segments of trajectories that it has not learnt from.",
    )
    rounds: int = Field(
        default=1,
        ge=0,
        description="At the end of the campaign the model is refitted to what its probe began, at"
        " most this often; after earlier probes the next fit sees to that.",
    )


def _off(value: object) -> object:
    """Return None for the word that turns a section off."""
    return None if value == "off" else value


class Spacetime(Section):
    """The 4D model, fitted to NVE trajectories of the committee."""

    kind: Literal["gicnet"] = Field(default="gicnet", description="Architecture.")
    tier: Id | None = Field(
        default=None,
        description="Tier whose committees it imitates. Default: the last tier.",
    )
    cutoff: Annotated[float, Quantity(TIME, above=0.0)] = Field(
        default=10.0, description="Longest time that one prediction spans."
    )
    every: Annotated[int, Quantity(GENERATIONS, least=1.0, whole=True)] = Field(
        default=3, description="Refit after this many generations; the last one always refits."
    )
    networks: int = Field(default=4, ge=1, description="Networks whose mean is predicted.")
    steps: int = Field(
        default=1000,
        ge=1,
        description="Optimiser steps of one fit; a quarter for a refit to what a probe has begun.",
    )
    hidden: Many[Annotated[int, Field(ge=1)]] = Field(
        default=(256, 256), min_length=1, description="Widths of the hidden layers."
    )
    windows: int = Field(
        default=72_000, ge=1, description="Stretches of trajectory that one fit learns from."
    )
    energy_weight: float = Field(
        default=0.0,
        ge=0.0,
        description="Weight of the loss that keeps the committee's potential energy along the"
        " motion; costs its evaluation at every step. 0 leaves it out.",
    )
    gate_tolerance: float = Field(
        default=0.02,
        ge=0.0,
        description="A refitted model takes the place of the one before unless its error on"
        " trajectories that neither has learnt from is larger by more than this part.",
    )
    probe: Annotated[
        Probe | None,
        BeforeValidator(_off, json_schema_input_type=Probe | Literal["off"] | None),
    ] = Field(
        default=Probe(),
        description="How the model is searched for motion that it cannot do; off for no search.",
    )
