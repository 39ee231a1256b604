"""What the planner may know of a campaign: plain values, read from the ledger in one go."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class SystemState:
    """A system: its record as it travels in specs, and its preparation once there is one."""

    system_id: int
    record: dict[str, Any]
    preparation: str | None


@dataclass(frozen=True, slots=True)
class LabelNeed:
    """A pending label that no open task is making."""

    label_id: int
    tier: str
    frame_key: str
    system: str
    positions: list[list[float]]
    tries: int
    alone: bool
    short_of_memory: int = 0
    """How many of the tries ran out of memory."""


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """A trajectory of a shard, as selection and the 4D fit need it."""

    trajectory_id: int
    replica: int
    split: str
    seed: str
    n_stable: int
    reason: str


@dataclass(frozen=True, slots=True)
class ShardState:
    """An HDF5 shard of trajectories of one system, run by one committee on one route."""

    sha256: str
    system: str
    route: str
    ensemble: str
    committee_id: int
    tier: str
    """The tier that its committee imitates."""
    generation: int
    replicas: tuple[ReplicaState, ...]


@dataclass(frozen=True, slots=True)
class AttemptState:
    """One try at a label: what it cost, by the size of the system."""

    n_atoms: int
    n_basis: int | None
    seconds: float
    done: bool


@dataclass(frozen=True, slots=True)
class TierState:
    """The labels of one tier, of the whole campaign.

    Attributes
    ----------
    requested, done, failed : counts.
    core_seconds : spent on them, failures included.
    attempts : the latest, newest first.
    consecutive_failures : labels that failed under this driver since the last success.
    last_failures : the latest failures in the program's words, newest first.

    """

    requested: int = 0
    done: int = 0
    failed: int = 0
    core_seconds: float = 0.0
    attempts: tuple[AttemptState, ...] = ()
    consecutive_failures: int = 0
    last_failures: tuple[str, ...] = ()

    @property
    def seconds_per_label(self) -> float | None:
        """Median of the latest attempts, s; None before the first."""
        return statistics.median(a.seconds for a in self.attempts) if self.attempts else None

    @property
    def to_go(self) -> int:
        """Labels that are neither done nor given up."""
        return self.requested - self.done - self.failed


@dataclass(frozen=True, slots=True)
class EvaluationState:
    """One error estimate of one committee."""

    committee_id: int
    generation: int
    kind: str
    n_frames: int
    n_groups: int
    force_rmse: float | None
    force_low: float | None
    force_high: float | None
    energy_rmse: float


@dataclass(frozen=True, slots=True)
class CommitteeState:
    """A committee and what is known of its errors."""

    committee_id: int
    generation: int
    tier: str
    members: tuple[tuple[str, str], ...]
    """(member, sha256 of its weights) in seat order."""
    evaluated: bool
    calibration: dict[str, Any] | None
    """How its force spread translates into error: the columns of its ``calibration`` row."""


@dataclass(frozen=True, slots=True)
class SnapshotState:
    """A sealed training set and the held-out set sealed with it."""

    sha256: str
    artifact: str
    held_out: str | None
    n_labels: int


@dataclass(frozen=True, slots=True)
class PriceState:
    """What the promoted frames of a generation will cost, processor seconds; None if unknown."""

    n_promoted: int
    seconds: float | None
    seconds_low: float | None
    seconds_high: float | None


@dataclass(frozen=True, slots=True)
class GenerationState:
    """The generation that is open.

    Attributes
    ----------
    number : from 0.
    tier : the tier that it is a turn of.
    labels : by tier, how many that it asked for are in which status.
    snapshots : training sets sealed in it, by tier.
    models : by mode and member, the sha256 of the weights trained in it.
    committee : the one formed at its end.
    shards : trajectories run in it.
    promotion : frames promoted to its tier; None before the choice, and in the first tier.
    approved : whether a person has agreed to the price.
    asked : keys of the frames whose label in its tier was asked for before, above the first tier.
    best_mode : the mode whose scores were best; None before they are known.

    """

    number: int
    tier: str
    labels: Mapping[str, Mapping[str, int]]
    snapshots: Mapping[str, SnapshotState]
    models: Mapping[str, Mapping[str, str]]
    committee: CommitteeState | None
    shards: tuple[ShardState, ...]
    promotion: PriceState | None = None
    approved: bool = False
    asked: tuple[str, ...] = ()
    best_mode: str | None = None

    @property
    def snapshot(self) -> SnapshotState | None:
        """The training set of its own tier."""
        return self.snapshots.get(self.tier)


@dataclass(frozen=True, slots=True)
class SpacetimeState:
    """A fitted 4D model.

    Attributes
    ----------
    turn : counts the fits for one committee, from 0.
    committee : hashes of its members' weights.
    snapshot : the data they were trained on.
    thresholds : limits of what a probe looks at; None where none are known.

    """

    system: str
    committee_id: int
    generation: int
    sha256: str
    turn: int = 0
    promoted: bool = True
    committee: tuple[str, ...] = ()
    snapshot: str | None = None
    thresholds: Mapping[str, Any] | None = None

    @property
    def place(self) -> tuple[str, int, int]:
        """What it is of: system, committee and turn."""
        return self.system, self.committee_id, self.turn


@dataclass(frozen=True, slots=True)
class CampaignState:
    """Everything that ``plan`` looks at.

    Attributes
    ----------
    systems : by id, in the order of the config.
    generation : the open generation.
    explorer : the committee of the generation before, which explores for this one.
    explorer_snapshots : training sets sealed in its generation, by tier.
    below : the latest committee of the tier below that of the generation; None in the first tier.
    tasks : key -> status of every task of the open generation, labels apart.
    needs : a bounded window of pending labels that no open task is making.
    open_label_tasks : number of label tasks pending or running.
    tiers : labels of each tier, of the whole campaign.
    seconds : wall time spent by all drivers before this one.
    evaluations : all of them, oldest first.
    nve_shards : every shard of NVE trajectories, for the 4D model.
    spacetime : fitted 4D models, oldest first.
    fits : (system, committee_id, turn) -> status of the task that fits a 4D model.
    probes : (system, committee_id, turn) -> status of the task that probes it.
    begun : (system, committee_id, turn) -> trajectories that its probe has begun.
    stability : generation -> (trajectories run, trajectories that came to their end).
    tier_of : generation -> the tier that it is a turn of.

    """

    systems: Mapping[str, SystemState]
    generation: GenerationState
    explorer: CommitteeState | None
    explorer_snapshots: Mapping[str, SnapshotState]
    tasks: Mapping[str, str]
    needs: tuple[LabelNeed, ...]
    open_label_tasks: int
    tiers: Mapping[str, TierState]
    tier_of: Mapping[int, str]
    seconds: float
    evaluations: tuple[EvaluationState, ...]
    nve_shards: tuple[ShardState, ...]
    spacetime: tuple[SpacetimeState, ...]
    fits: Mapping[tuple[str, int, int], str]
    stability: Mapping[int, tuple[int, int]]
    below: CommitteeState | None = None
    probes: Mapping[tuple[str, int, int], str] = field(default_factory=dict)
    begun: Mapping[tuple[str, int, int], int] = field(default_factory=dict)
