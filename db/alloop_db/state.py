"""What the planner may know of a campaign: plain values, read from the ledger in one go."""

from __future__ import annotations

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
    frame_key: str
    system: str
    positions: list[list[float]]
    tries: int
    alone: bool


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
    generation: int
    replicas: tuple[ReplicaState, ...]


@dataclass(frozen=True, slots=True)
class EvaluationState:
    """One error estimate of one committee."""

    committee_id: int
    generation: int
    kind: str
    n_frames: int
    n_groups: int
    force_rmse: float
    force_low: float | None
    force_high: float | None


@dataclass(frozen=True, slots=True)
class CommitteeState:
    """A committee and what is known of its errors."""

    committee_id: int
    generation: int
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
class GenerationState:
    """The generation that is open."""

    number: int
    labels: Mapping[str, int]
    snapshot: SnapshotState | None
    models: Mapping[str, str]
    """member -> sha256 of the weights trained in this generation."""
    committee: CommitteeState | None
    """The committee formed at its end."""
    shards: tuple[ShardState, ...]


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
    explorer_snapshot : what that committee was trained on.
    tasks : key -> status of every task of the open generation, labels apart.
    needs : a bounded window of pending labels that no open task is making.
    open_label_tasks : number of label tasks pending or running.
    seconds_per_label : median of the latest attempts; None before the first.
    consecutive_failures : labels that failed under this driver since the last success of any.
    requested, done, failed : labels of the whole campaign.
    seconds : wall time spent by all drivers before this one.
    evaluations : all of them, oldest first.
    nve_shards : every shard of NVE trajectories, for the 4D model.
    spacetime : fitted 4D models, oldest first.
    fits : (system, committee_id, turn) -> status of the task that fits a 4D model.
    probes : (system, committee_id, turn) -> status of the task that probes it.
    begun : (system, committee_id, turn) -> trajectories that its probe has begun.
    stability : generation -> (trajectories run, trajectories that came to their end).
    last_failures : the latest label failures in the program's words, newest first.

    """

    systems: Mapping[str, SystemState]
    generation: GenerationState
    explorer: CommitteeState | None
    explorer_snapshot: SnapshotState | None
    tasks: Mapping[str, str]
    needs: tuple[LabelNeed, ...]
    open_label_tasks: int
    seconds_per_label: float | None
    consecutive_failures: int
    requested: int
    done: int
    failed: int
    seconds: float
    evaluations: tuple[EvaluationState, ...]
    nve_shards: tuple[ShardState, ...]
    spacetime: tuple[SpacetimeState, ...]
    fits: Mapping[tuple[str, int, int], str]
    stability: Mapping[int, tuple[int, int]]
    last_failures: tuple[str, ...] = field(default=())
    probes: Mapping[tuple[str, int, int], str] = field(default_factory=dict)
    begun: Mapping[tuple[str, int, int], int] = field(default_factory=dict)
