"""The ledger's tables. Names here are public: add freely, rename never.

Energies are in eV, lengths in Å, times in fs, temperatures in K, wall times in s, instants are
aware UTC written as ISO 8601. Arrays are little-endian float64 (or int64) blobs in C order.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    CheckConstraint,
    ForeignKey,
    Index,
    MetaData,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

SPLITS = ("train", "validation", "audit")
LABEL_STATES = ("pending", "done", "failed", "skipped")
TASK_STATES = ("pending", "running", "done", "failed")
JUDGEMENTS = ("promoted", "held_back")
PROBE_ROUTE = "4d"
"""Route of trajectories that a probe has begun; no id in a config begins with a digit."""
ACTIONS = (
    *("initial", "selected", "audit", "validation", "rejected", "duplicate", "broken"),
    "promoted",
)


def now() -> str:
    """Return the present instant as ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


def _column(comment: str, **options: Any) -> Any:
    return mapped_column(comment=comment, **options)


def _reference(target: str, comment: str, **options: Any) -> Any:
    return mapped_column(ForeignKey(f"{target}.{target}_id"), comment=comment, **options)


class Base(DeclarativeBase):
    """Declarative base with named constraints, so that migrations can address them."""

    metadata = MetaData(naming_convention=CONVENTION)
    type_annotation_map = {  # noqa: RUF012  SQLAlchemy reads this attribute
        dict[str, Any]: JSON(none_as_null=True),
        list[dict[str, Any]]: JSON(none_as_null=True),
    }


class CampaignRow(Base):
    """The one campaign that this file belongs to."""

    __tablename__ = "campaign"
    __table_args__ = (CheckConstraint("campaign_id = 1", name="only_one"),)
    campaign_id: Mapped[int] = _column("always 1", primary_key=True)
    name: Mapped[str] = _column("name from the config")
    seed: Mapped[int] = _column("root of the tree of random seeds")
    created_at: Mapped[str] = _column("instant of the first start")
    alloop_version: Mapped[str] = _column("version that created the campaign")
    state: Mapped[str] = _column("running, converged, budget, stalled, paused or stopped")
    exit_code: Mapped[int | None] = _column("exit code of the verdict; empty while running")
    verdict: Mapped[str | None] = _column("the verdict in words")
    epoch: Mapped[int] = _column("how many drivers have held the campaign")
    seconds: Mapped[float] = _column("wall time of all drivers together, s")


class ConfigVersion(Base):
    """One row for each version of the config that a driver was started with."""

    __tablename__ = "config_version"
    config_version_id: Mapped[int] = _column("key", primary_key=True)
    sha256: Mapped[str] = _column("hash of the resolved config", unique=True)
    source: Mapped[str] = _column("the YAML text as the user wrote it")
    resolved: Mapped[dict[str, Any]] = _column("every key with its default filled in, as JSON")
    changes: Mapped[dict[str, Any] | None] = _column("what differs from the version before")
    created_at: Mapped[str] = _column("instant of the start that brought it")


class Environment(Base):
    """Software and machine in which tasks ran."""

    __tablename__ = "environment"
    environment_id: Mapped[int] = _column("key", primary_key=True)
    sha256: Mapped[str] = _column("hash of the content", unique=True)
    host: Mapped[str] = _column("host name")
    python: Mapped[str] = _column("Python version")
    platform: Mapped[str] = _column("operating system and processor")
    packages: Mapped[dict[str, Any]] = _column("package versions, as JSON")
    git: Mapped[str | None] = _column("commit of the source tree, with -dirty if it was changed")
    threads: Mapped[int] = _column("threads per task")


class Artifact(Base):
    """A file under artifacts/, named by the hash of its content."""

    __tablename__ = "artifact"
    artifact_id: Mapped[int] = _column("key", primary_key=True)
    sha256: Mapped[str] = _column("hash of the file's bytes", unique=True)
    suffix: Mapped[str] = _column("file name suffix")
    kind: Mapped[str] = _column(
        "preparation, trajectory, snapshot, held_out, model or spacetime_model"
    )
    bytes: Mapped[int] = _column("size in bytes")
    created_at: Mapped[str] = _column("instant of the commit")
    task_id: Mapped[int | None] = _reference("task", "the task that made it")


class System(Base):
    """A molecule or cell that the campaign is about."""

    __tablename__ = "system"
    system_id: Mapped[int] = _column("key", primary_key=True)
    name: Mapped[str] = _column("id in the config", unique=True)
    formula: Mapped[str] = _column("chemical formula, Hill order")
    n_atoms: Mapped[int] = _column("number of atoms")
    charge: Mapped[int] = _column("total charge, e")
    multiplicity: Mapped[int] = _column("spin multiplicity 2S + 1")
    numbers: Mapped[bytes] = _column("atomic numbers, int64 blob (n_atoms)")
    positions: Mapped[bytes] = _column(
        "coordinates given by the user, float64 blob (n_atoms, 3), Å"
    )
    cell: Mapped[bytes | None] = _column("lattice vectors, float64 blob (3, 3), Å")
    pbc: Mapped[str] = _column("which lattice vectors are periodic, such as TTF")
    artifact_id: Mapped[int | None] = _reference("artifact", "minimum and Hessian (.npz)")


class LevelOfTheory(Base):
    """A reference method, as exactly as labels must agree to be used together."""

    __tablename__ = "level_of_theory"
    level_of_theory_id: Mapped[int] = _column("key", primary_key=True)
    name: Mapped[str] = _column("such as GFN2-xTB or spGFN2-xTB", unique=True)
    tier: Mapped[str] = _column("id of the tier in the config")
    method: Mapped[dict[str, Any]] = _column("engine and settings, as JSON")
    seconds: Mapped[float] = _column(
        "wall time of all tries at its labels, s, kept by a trigger", server_default=text("0.0")
    )


class AtomEnergy(Base):
    """Energy of an atom fitted to the labels of a snapshot, the zero of its models."""

    __tablename__ = "atom_energy"
    __table_args__ = (UniqueConstraint("snapshot_id", "number"),)
    atom_energy_id: Mapped[int] = _column("key", primary_key=True)
    level_of_theory_id: Mapped[int] = _reference("level_of_theory", "whose labels were fitted")
    snapshot_id: Mapped[int] = _reference("snapshot", "the training set that was fitted")
    number: Mapped[int] = _column("atomic number")
    energy: Mapped[float] = _column("energy of the atom, eV")


class Generation(Base):
    """One turn of the loop: explore, select, label, train, evaluate."""

    __tablename__ = "generation"
    generation_id: Mapped[int] = _column("key", primary_key=True)
    number: Mapped[int] = _column("0 for the initial set, then 1, 2, ...", unique=True)
    level_of_theory_id: Mapped[int] = _reference(
        "level_of_theory", "what its committee imitates: that of the tier it is a turn of"
    )
    state: Mapped[str] = _column("open or closed")
    committee_id: Mapped[int | None] = mapped_column(
        # committee and generation name each other: SQLAlchemy sorts tables without this one
        ForeignKey("committee.committee_id", use_alter=True),
        comment="the committee that explored",
    )
    numbers: Mapped[dict[str, Any]] = _column("counts and thresholds of triage and selection")
    opened_at: Mapped[str] = _column("instant")
    closed_at: Mapped[str | None] = _column("instant")


class Task(Base):
    """Work sent to a worker: the intent is committed before it is submitted."""

    __tablename__ = "task"
    __table_args__ = (
        _one_of("status", TASK_STATES),
        Index(None, "status", "priority"),
        Index(None, "status", "kind", "priority"),
        # With every plan those of a generation are looked at, but not its labels', which are many.
        Index(None, "generation", "kind"),
    )
    task_id: Mapped[int] = _column("key", primary_key=True)
    key: Mapped[str] = _column("hash of kind and spec: equal work is recognised", unique=True)
    kind: Mapped[str] = _column(
        "prepare, explore, select, promote, label, train, transfer, score, evaluate, fit_spacetime,"
        " probe_spacetime, or import for labels made elsewhere"
    )
    generation: Mapped[int] = _column("number of the generation it serves")
    spec: Mapped[dict[str, Any]] = _column("everything the worker needs, as JSON")
    priority: Mapped[int] = _column("lower goes first")
    status: Mapped[str] = _column("pending, running, done or failed")
    tries: Mapped[int] = _column("attempts that ended in a failure of the task itself")
    losses: Mapped[int] = _column(
        "attempts in a row that got no further: lost with their worker, or out of time"
    )
    hand_backs: Mapped[int] = _column(
        "how often it was laid down because its block ended, to go on elsewhere",
        server_default=text("0"),
    )
    earlier_seconds: Mapped[float] = _column(
        "wall time of the attempts that laid it down, s", server_default=text("0.0")
    )
    epoch: Mapped[int | None] = _column("the driver that last submitted it")
    created_at: Mapped[str] = _column("instant of the intent")
    submitted_at: Mapped[str | None] = _column("instant of the last submission")
    started_at: Mapped[str | None] = _column("instant at which the worker began")
    finished_at: Mapped[str | None] = _column("instant of the commit")
    seconds: Mapped[float | None] = _column("wall time on the worker, s")
    cpu_seconds: Mapped[float | None] = _column("processor time on the worker, s")
    host: Mapped[str | None] = _column("host of the worker")
    pool: Mapped[str | None] = _column("pool of the worker, where the site has pools")
    job: Mapped[str | None] = _column("job of the batch system that the worker was part of")
    peak_memory: Mapped[float | None] = _column("most memory the worker used at a time, MB")
    environment_id: Mapped[int | None] = _reference("environment", "software it ran with")
    error_class: Mapped[str | None] = _column("class of the last error")
    error_text: Mapped[str | None] = _column("text of the last error")


class Trajectory(Base):
    """One replica of molecular dynamics, kept in an HDF5 shard."""

    __tablename__ = "trajectory"
    __table_args__ = (
        _one_of("split", SPLITS),
        UniqueConstraint("artifact_id", "replica"),
    )
    trajectory_id: Mapped[int] = _column("key", primary_key=True)
    artifact_id: Mapped[int] = _reference("artifact", "the HDF5 shard")
    replica: Mapped[int] = _column("index within the shard")
    system_id: Mapped[int] = _reference("system", "what moved")
    generation_id: Mapped[int] = _reference("generation", "when", index=True)
    committee_id: Mapped[int] = _reference("committee", "the potential", index=True)
    task_id: Mapped[int] = _reference("task", "the task that ran it")
    route: Mapped[str] = _column("id of the route in the config; 4d if a probe began it")
    ensemble: Mapped[str] = _column("nve or nvt")
    temperature: Mapped[float] = _column("of the bath, or of the start for nve, K")
    timestep: Mapped[float] = _column("integration step, fs")
    seed: Mapped[str] = _column("random seed of the replica")
    split: Mapped[str] = _column("train, validation or audit: decided at birth, for ever")
    n_frames: Mapped[int] = _column("recorded frames")
    n_stable: Mapped[int] = _column("recorded frames judged sound")
    duration: Mapped[float] = _column("simulated time, fs")
    reason: Mapped[str] = _column(
        "how it ended: completed, deadline, or the reason code that stopped it"
    )


class FrameRow(Base):
    """A geometry that was considered for labelling."""

    __tablename__ = "frame"
    __table_args__ = (_one_of("split", SPLITS),)
    frame_id: Mapped[int] = _column("key", primary_key=True)
    key: Mapped[str] = _column("hash of the content, coordinates to 1e-8 Å", unique=True)
    system_id: Mapped[int] = _reference("system", "what it is a geometry of")
    generation_id: Mapped[int] = _reference("generation", "when it was found", index=True)
    trajectory_id: Mapped[int | None] = _reference(
        "trajectory", "where it was found; empty for the initial set", index=True
    )
    step: Mapped[int | None] = _column("integration step within the trajectory")
    time: Mapped[float | None] = _column("time within the trajectory, fs")
    source: Mapped[str] = _column("the initial sampler, or the route that found it")
    split: Mapped[str] = _column("train, validation or audit: that of its trajectory")
    n_atoms: Mapped[int] = _column("number of atoms")
    positions: Mapped[bytes] = _column("coordinates, float64 blob (n_atoms, 3), Å")
    cell: Mapped[bytes | None] = _column("lattice vectors, float64 blob (3, 3), Å")


class Prediction(Base):
    """What a committee said of a frame when the frame was chosen, before any label existed."""

    __tablename__ = "prediction"
    __table_args__ = (UniqueConstraint("frame_id", "committee_id"),)
    prediction_id: Mapped[int] = _column("key", primary_key=True)
    frame_id: Mapped[int] = _reference("frame", "the frame")
    committee_id: Mapped[int] = _reference("committee", "who said it", index=True)
    energy: Mapped[float] = _column("mean energy, eV")
    forces: Mapped[bytes] = _column("mean forces, float64 blob (n_atoms, 3), eV/Å")
    energy_spread: Mapped[float] = _column("standard deviation of the members' energies, eV")
    energy_spread_per_sqrt_atom: Mapped[float] = _column("the same over sqrt(n_atoms), eV")
    force_spread_max: Mapped[float] = _column("largest force spread of an atom, eV/Å")
    force_spread_mean: Mapped[float] = _column("mean force spread over the atoms, eV/Å")
    force_bound: Mapped[float | None] = _column(
        "calibrated bound on the RMSE of its force components, eV/Å; empty before calibration"
    )


class Decision(Base):
    """What became of a frame, by which rule, with the rule's numbers."""

    __tablename__ = "decision"
    __table_args__ = (_one_of("action", ACTIONS),)
    decision_id: Mapped[int] = _column("key", primary_key=True)
    frame_id: Mapped[int] = _reference("frame", "the frame", index=True)
    generation_id: Mapped[int] = _reference("generation", "when", index=True)
    task_id: Mapped[int] = _reference("task", "the task that decided")
    action: Mapped[str] = _column(
        "initial, selected, audit, validation, rejected, duplicate, broken; promoted: its label at"
        " the level of a higher tier was asked for"
    )
    rule: Mapped[str] = _column("name of the rule")
    numbers: Mapped[dict[str, Any]] = _column("what the rule compared, as JSON")


class LabelRow(Base):
    """A frame's energy and forces at one level of theory."""

    __tablename__ = "label"
    __table_args__ = (
        _one_of("status", LABEL_STATES),
        UniqueConstraint("frame_id", "level_of_theory_id"),
        CheckConstraint("status != 'done' OR energy IS NOT NULL", name="complete"),
        Index(None, "generation_id", "status"),
        Index(None, "status", "task_id"),
        # With every plan the pending ones are looked for that no open task is to make.
        Index(None, "level_of_theory_id", "status", "task_id"),
    )
    label_id: Mapped[int] = _column("key", primary_key=True)
    frame_id: Mapped[int] = _reference("frame", "the frame")
    level_of_theory_id: Mapped[int] = _reference("level_of_theory", "the method")
    generation_id: Mapped[int] = _reference("generation", "the generation that asked for it")
    status: Mapped[str] = _column("pending, done, failed or skipped")
    tries: Mapped[int] = _column("attempts that failed")
    task_id: Mapped[int | None] = _reference("task", "the open task that is to make it")
    alone: Mapped[bool] = _column(
        "whether it gets a task of its own, since one that it shared failed",
        server_default=text("0"),
    )
    energy: Mapped[float | None] = _column("reference energy, eV")
    forces: Mapped[bytes | None] = _column(
        "reference forces, float64 blob (n_atoms, 3), eV/Å; empty where the method has none"
    )
    diagnostics: Mapped[dict[str, Any] | None] = _column(
        "what the program says of its solution, such as gap (eV), spin_contamination, t1, as JSON"
    )
    done_at: Mapped[str | None] = _column("instant of the commit")


class LabelTally(Base):
    """Labels counted by generation, level and status, kept by triggers: planning need not count."""

    __tablename__ = "label_tally"
    __table_args__ = ({"sqlite_with_rowid": False},)
    generation_id: Mapped[int] = _reference(
        "generation", "the generation that asked for them", primary_key=True
    )
    level_of_theory_id: Mapped[int] = _reference("level_of_theory", "the method", primary_key=True)
    status: Mapped[str] = _column("pending, done, failed or skipped", primary_key=True)
    n: Mapped[int] = _column("how many")


class LabelAttempt(Base):
    """One try at one label."""

    __tablename__ = "label_attempt"
    __table_args__ = (
        UniqueConstraint("label_id", "number"),
        # Each label comes once, whatever was submitted twice.
        Index(
            "uq_label_attempt_done", "label_id", unique=True, sqlite_where=text("status = 'done'")
        ),
        # The latest of a level are looked at with every finished task.
        Index(None, "level_of_theory_id", "label_attempt_id"),
    )
    label_attempt_id: Mapped[int] = _column("key", primary_key=True)
    label_id: Mapped[int] = _reference("label", "the label")
    level_of_theory_id: Mapped[int] = _reference("level_of_theory", "that of the label")
    number: Mapped[int] = _column("1 for the first try")
    status: Mapped[str] = _column("done or failed")
    error_class: Mapped[str | None] = _column("reason code of a failure", index=True)
    error_text: Mapped[str | None] = _column("the program's own words")
    seconds: Mapped[float] = _column("wall time, s")
    host: Mapped[str | None] = _column("host of the worker; empty if it was lost")
    program: Mapped[str] = _column("program and version")
    environment_id: Mapped[int | None] = _reference(
        "environment", "software it ran with; empty if the worker was lost"
    )
    task_id: Mapped[int] = _reference("task", "the task it was part of")
    attempted_at: Mapped[str] = _column("instant")


class Snapshot(Base):
    """An immutable training set, sealed by triggers."""

    __tablename__ = "snapshot"
    snapshot_id: Mapped[int] = _column("key", primary_key=True)
    sha256: Mapped[str] = _column("hash over its labels and splits", unique=True)
    level_of_theory_id: Mapped[int] = _reference("level_of_theory", "of all its labels")
    generation_id: Mapped[int] = _reference("generation", "whose models it trains", index=True)
    artifact_id: Mapped[int] = _reference("artifact", "the same data as arrays (.npz)")
    held_out: Mapped[str | None] = _column(
        "hash of the held-out frames that judge its models (.npz); empty when there are none"
    )
    n_labels: Mapped[int] = _column("number of labels")
    sealed_at: Mapped[str | None] = _column("instant; once set nothing can change")


class SnapshotMember(Base):
    """A label that belongs to a snapshot."""

    __tablename__ = "snapshot_member"
    __table_args__ = (_one_of("split", SPLITS), {"sqlite_with_rowid": False})
    snapshot_id: Mapped[int] = _reference("snapshot", "the snapshot", primary_key=True)
    label_id: Mapped[int] = _reference("label", "the label", primary_key=True, index=True)
    split: Mapped[str] = _column("train or validation; audit labels are never members")


class Model(Base):
    """One trained potential."""

    __tablename__ = "model"
    __table_args__ = (UniqueConstraint("snapshot_id", "member", "seed"),)
    model_id: Mapped[int] = _column("key", primary_key=True)
    artifact_id: Mapped[int] = _reference("artifact", "the weights", index=True)
    snapshot_id: Mapped[int] = _reference("snapshot", "the training set")
    parent_model_id: Mapped[int | None] = mapped_column(
        ForeignKey("model.model_id"), comment="the model whose weights it started from"
    )
    generation_id: Mapped[int] = _reference("generation", "when", index=True)
    task_id: Mapped[int] = _reference("task", "the task that trained it")
    member: Mapped[str] = _column("place in the committee, such as ani/2")
    mode: Mapped[str] = _column(
        "plain, or how it learnt from the tier below: scratch, finetune, freeze, delta, joint or"
        " distil"
    )
    kind: Mapped[str] = _column("architecture")
    architecture: Mapped[dict[str, Any]] = _column("hyper-parameters of the network, as JSON")
    seed: Mapped[int] = _column("random seed of weights, bootstrap and batches")
    metrics: Mapped[dict[str, Any]] = _column("errors of the fit, as JSON")


class Committee(Base):
    """The models that vote together."""

    __tablename__ = "committee"
    committee_id: Mapped[int] = _column("key", primary_key=True)
    sha256: Mapped[str] = _column("hash over the members' weights", unique=True)
    generation_id: Mapped[int] = _reference("generation", "when", unique=True)
    level_of_theory_id: Mapped[int] = _reference("level_of_theory", "what it imitates")
    created_at: Mapped[str] = _column("instant")


class CommitteeMember(Base):
    """A model's seat in a committee."""

    __tablename__ = "committee_member"
    __table_args__ = ({"sqlite_with_rowid": False},)
    committee_id: Mapped[int] = _reference("committee", "the committee", primary_key=True)
    position: Mapped[int] = _column("seat, from 0", primary_key=True)
    model_id: Mapped[int] = _reference("model", "the model", index=True)


class Calibration(Base):
    """How a committee's spread translates into error, from frames no member was trained on."""

    __tablename__ = "calibration"
    __table_args__ = (UniqueConstraint("committee_id", "measure"),)
    calibration_id: Mapped[int] = _column("key", primary_key=True)
    committee_id: Mapped[int] = _reference("committee", "the committee")
    measure: Mapped[str] = _column("force or energy")
    estimator: Mapped[str] = _column("name of the formula behind alpha")
    n_members: Mapped[int | None] = _column("members it corrects for; empty if it need not")
    alpha: Mapped[float | None] = _column("factor from spread to root-mean-square error")
    alpha_low: Mapped[float | None] = _column("lower end of its confidence interval")
    alpha_high: Mapped[float | None] = _column("upper end of its confidence interval")
    quantile: Mapped[float | None] = _column("split-conformal factor from spread to a bound")
    level: Mapped[float] = _column("coverage that the bound promises")
    confidence: Mapped[float] = _column("confidence level of alpha's interval")
    n: Mapped[int] = _column("number of frames behind it")
    n_groups: Mapped[int] = _column("number of independent trajectories behind it")


class Evaluation(Base):
    """An error estimate on frames that the committee has not seen."""

    __tablename__ = "evaluation"
    __table_args__ = (UniqueConstraint("committee_id", "kind"),)
    evaluation_id: Mapped[int] = _column("key", primary_key=True)
    committee_id: Mapped[int] = _reference("committee", "the committee")
    generation_id: Mapped[int] = _reference("generation", "when")
    kind: Mapped[str] = _column(
        "audit: all audit frames so far; prospective: the frames it chose, against their labels;"
        " prospective_audit: the audit frames of its own trajectories, against their labels;"
        " validation: the validation split"
    )
    n_frames: Mapped[int] = _column("number of frames")
    n_groups: Mapped[int] = _column("number of independent trajectories")
    force_rmse: Mapped[float | None] = _column(
        "root-mean-square error of a force component, eV/Å; empty where no frame has forces"
    )
    force_low: Mapped[float | None] = _column("lower end of its confidence interval, eV/Å")
    force_high: Mapped[float | None] = _column("upper end of its confidence interval, eV/Å")
    energy_rmse: Mapped[float] = _column("root-mean-square error of the energy per atom, eV")
    confidence: Mapped[float] = _column("level of the interval")
    coverage: Mapped[float | None] = _column(
        "share of frames whose force error lies within the bound given in advance"
    )
    spearman: Mapped[float | None] = _column("rank correlation of spread and error")


class Promotion(Base):
    """A choice of frames whose labels at the level of a higher tier are worth their price."""

    __tablename__ = "promotion"
    promotion_id: Mapped[int] = _column("key", primary_key=True)
    generation_id: Mapped[int] = _reference("generation", "when", unique=True)
    level_of_theory_id: Mapped[int] = _reference("level_of_theory", "promoted to")
    task_id: Mapped[int] = _reference("task", "the task that chose")
    policy: Mapped[str] = _column("value_per_cost or random")
    n_candidates: Mapped[int] = _column("frames with a label at the tier below and none at this")
    n_promoted: Mapped[int] = _column("frames promoted, those of validation and audit included")
    seconds: Mapped[float | None] = _column(
        "expected processor time of these labels, s; empty before any label of the tier is known"
    )
    seconds_low: Mapped[float | None] = _column("lower end of its interval, s")
    seconds_high: Mapped[float | None] = _column("upper end of its interval, s")
    expected_ratio: Mapped[float | None] = _column(
        "root-mean-square difference between the tiers that is left unexplained after these labels,"
        " as a part of what is before, as the policy expects"
    )
    numbers: Mapped[dict[str, Any]] = _column("model of the price and of the choice, as JSON")


class ModeScore(Base):
    """What came of one way to learn from the tier below, on labels that no model has seen."""

    __tablename__ = "mode_score"
    __table_args__ = (UniqueConstraint("generation_id", "mode"),)
    mode_score_id: Mapped[int] = _column("key", primary_key=True)
    generation_id: Mapped[int] = _reference("generation", "when")
    task_id: Mapped[int] = _reference("task", "the task that scored")
    mode: Mapped[str] = _column("scratch, finetune, freeze, delta, joint or distil")
    split: Mapped[str] = _column("what was judged: audit, or validation where there is no audit")
    n_frames: Mapped[int] = _column("number of frames")
    n_groups: Mapped[int] = _column("number of independent trajectories")
    force_rmse: Mapped[float | None] = _column(
        "root-mean-square error of a force component, eV/Å; empty where no frame has forces"
    )
    energy_rmse: Mapped[float] = _column("root-mean-square error of the energy per atom, eV")
    relative: Mapped[float] = _column("its error as a multiple of the best mode's")
    promoted: Mapped[bool] = _column("whether its models are the committee of the generation")


class SpacetimeModel(Base):
    """A 4D model R(t) = f(R0, v0, t)."""

    __tablename__ = "spacetime_model"
    __table_args__ = (_one_of("status", JUDGEMENTS),)
    spacetime_model_id: Mapped[int] = _column("key", primary_key=True)
    artifact_id: Mapped[int] = _reference("artifact", "the weights")
    system_id: Mapped[int] = _reference("system", "the molecule it moves")
    committee_id: Mapped[int] = _reference("committee", "the potential it imitates")
    generation_id: Mapped[int] = _reference("generation", "when")
    task_id: Mapped[int] = _reference("task", "the task that fitted it", unique=True)
    cutoff: Mapped[float] = _column("longest time it was fitted to, fs")
    seed: Mapped[int] = _column("random seed")
    metrics: Mapped[dict[str, Any]] = _column("errors on held-out trajectories, as JSON")
    status: Mapped[str] = _column(
        "promoted: in use from then on; held_back: worse than the one in use"
    )
    reason: Mapped[str] = _column("why, in one line")
    parent_spacetime_model_id: Mapped[int | None] = mapped_column(
        ForeignKey("spacetime_model.spacetime_model_id"),
        comment="the 4D model in use before, which it started from and was held against",
    )


class SpacetimeTrajectory(Base):
    """A trajectory that a 4D model saw, and in which role."""

    __tablename__ = "spacetime_trajectory"
    __table_args__ = (_one_of("split", SPLITS), {"sqlite_with_rowid": False})
    spacetime_model_id: Mapped[int] = _reference(
        "spacetime_model", "the 4D model", primary_key=True
    )
    trajectory_id: Mapped[int] = _reference(
        "trajectory", "the trajectory", primary_key=True, index=True
    )
    split: Mapped[str] = _column("train, validation, or audit for the held-out error")


class SpacetimeExclusion(Base):
    """A trajectory that was at hand for a 4D model and was left out."""

    __tablename__ = "spacetime_exclusion"
    __table_args__ = ({"sqlite_with_rowid": False},)
    spacetime_model_id: Mapped[int] = _reference(
        "spacetime_model", "the 4D model", primary_key=True
    )
    trajectory_id: Mapped[int] = _reference(
        "trajectory", "the trajectory", primary_key=True, index=True
    )
    reason: Mapped[str] = _column("why, in one line")


class SpacetimeProbe(Base):
    """A search for motion that a 4D model cannot do; trajectories with its task_id begin there."""

    __tablename__ = "spacetime_probe"
    spacetime_probe_id: Mapped[int] = _column("key", primary_key=True)
    spacetime_model_id: Mapped[int] = _reference("spacetime_model", "the 4D model that was probed")
    committee_id: Mapped[int] = _reference(
        "committee", "the potential that judged it and ran the trajectories"
    )
    generation_id: Mapped[int] = _reference("generation", "that of the model")
    task_id: Mapped[int] = _reference("task", "the task that probed", unique=True)
    artifact_id: Mapped[int | None] = _reference(
        "artifact", "the HDF5 shard of the trajectories; empty if none was begun"
    )
    n_replicas: Mapped[int] = _column("replicas that the 4D model propagated")
    n_segments: Mapped[int] = _column("segments whose starts were judged")
    n_flagged: Mapped[int] = _column("segments with a signal beyond its threshold")
    flagged: Mapped[dict[str, Any]] = _column(
        "how many by which signal, as JSON; a segment may have several"
    )
    thresholds: Mapped[dict[str, Any]] = _column(
        "limits of the signals and how well each ranks errors, as JSON"
    )
    numbers: Mapped[dict[str, Any]] = _column(
        "quantiles of the signals and how the replicas ended, as JSON"
    )
    segments: Mapped[list[dict[str, Any]]] = _column(
        "where each trajectory begins and what flagged it, as JSON, in the order of their replicas"
    )


class Event(Base):
    """What happened, for people: starts, stops, losses, retries, verdicts."""

    __tablename__ = "event"
    event_id: Mapped[int] = _column("key", primary_key=True)
    at: Mapped[str] = _column("instant")
    kind: Mapped[str] = _column(
        "start, stop, loss, retry, failure, breaker, generation, verdict, ..."
    )
    text: Mapped[str] = _column("one line in words")
    details: Mapped[dict[str, Any] | None] = _column("numbers behind it, as JSON")
