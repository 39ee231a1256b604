"""Why a frame is in the ledger: where it was found, who doubted it, what became of it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Engine

from alloop_db.functions import rmse
from alloop_db.identity import resolve

Record = dict[str, Any]
_SPINS = {1: "singlet", 2: "doublet", 3: "triplet", 4: "quartet", 5: "quintet"}

_FRAME = """
SELECT
    frame.frame_id, frame.key, frame.source, frame.split, frame.step, frame.time, frame.n_atoms,
    frame.trajectory_id, generation.number AS generation, system.name AS system, system.formula,
    system.charge, system.multiplicity
FROM frame
JOIN system ON system.system_id = frame.system_id
JOIN generation ON generation.generation_id = frame.generation_id
WHERE frame.frame_id = :frame"""
_TRAJECTORY = """
SELECT
    trajectory.trajectory_id, trajectory.route, trajectory.ensemble, trajectory.temperature,
    trajectory.timestep, trajectory.seed, trajectory.split, trajectory.n_frames,
    trajectory.n_stable, trajectory.reason, trajectory.replica, artifact.sha256 AS shard,
    trajectory.committee_id, generation.number AS generation
FROM frame
JOIN trajectory ON trajectory.trajectory_id = frame.trajectory_id
JOIN artifact ON artifact.artifact_id = trajectory.artifact_id
JOIN generation ON generation.generation_id = trajectory.generation_id
WHERE frame.frame_id = :frame"""
_COMMITTEE = """
SELECT
    committee_member.committee_id, model.model_id, model.member, model.snapshot_id,
    snapshot.n_labels, artifact.sha256 AS weights
FROM frame
JOIN trajectory ON trajectory.trajectory_id = frame.trajectory_id
JOIN committee_member ON committee_member.committee_id = trajectory.committee_id
JOIN model ON model.model_id = committee_member.model_id
JOIN snapshot ON snapshot.snapshot_id = model.snapshot_id
JOIN artifact ON artifact.artifact_id = model.artifact_id
WHERE frame.frame_id = :frame ORDER BY committee_member.position"""
_PREDICTIONS = """
SELECT
    prediction.committee_id, level_of_theory.name AS level_of_theory, energy, forces,
    energy_spread, force_spread_max, force_spread_mean, force_bound
FROM prediction
JOIN committee ON committee.committee_id = prediction.committee_id
JOIN level_of_theory ON level_of_theory.level_of_theory_id = committee.level_of_theory_id
WHERE frame_id = :frame ORDER BY prediction_id"""
_DECISIONS = """
SELECT decision.action, decision.rule, decision.numbers, generation.number AS generation
FROM decision
JOIN generation ON generation.generation_id = decision.generation_id
WHERE decision.frame_id = :frame ORDER BY decision.decision_id"""
_LABELS = """
SELECT
    label.label_id, level_of_theory.name AS level_of_theory, level_of_theory.tier, label.status,
    label.energy, label.forces, label.done_at
FROM label
JOIN level_of_theory ON level_of_theory.level_of_theory_id = label.level_of_theory_id
WHERE label.frame_id = :frame ORDER BY label.label_id"""
_ATTEMPTS = """
SELECT
    attempt.label_id, attempt.number, attempt.status, attempt.error_class, attempt.error_text,
    attempt.seconds, attempt.host, attempt.program, attempt.attempted_at
FROM label_attempt AS attempt
JOIN label ON label.label_id = attempt.label_id
WHERE label.frame_id = :frame ORDER BY attempt.label_id, attempt.number"""
_USES = """
SELECT
    snapshot.snapshot_id, level_of_theory.name AS level_of_theory, snapshot_member.split,
    generation.number AS generation,
    group_concat(DISTINCT model.model_id) AS models,
    group_concat(DISTINCT iif(committee_member.committee_id IS NULL, NULL, model.model_id))
        AS seated,
    group_concat(DISTINCT iif(committee_member.committee_id IS NULL, NULL, model.mode)) AS mode,
    group_concat(DISTINCT committee_member.committee_id) AS committees
FROM label
JOIN level_of_theory ON level_of_theory.level_of_theory_id = label.level_of_theory_id
JOIN snapshot_member ON snapshot_member.label_id = label.label_id
JOIN snapshot ON snapshot.snapshot_id = snapshot_member.snapshot_id
JOIN generation ON generation.generation_id = snapshot.generation_id
LEFT JOIN model ON model.snapshot_id = snapshot.snapshot_id
LEFT JOIN committee_member ON committee_member.model_id = model.model_id
WHERE label.frame_id = :frame
GROUP BY snapshot.snapshot_id ORDER BY snapshot.snapshot_id"""


@dataclass(frozen=True, slots=True)
class Why:
    """The history of one frame, as records of what the ledger says.

    Attributes
    ----------
    frame : the frame and its system.
    trajectory : where it was found; None for the initial set.
    committee : the models that ran that trajectory, one record each.
    predictions : what committees said of it before any label of their level of theory existed;
        ``force_rmse``, eV/Å, and ``energy_error``, eV, compare that with the label that came.
    decisions : what became of it, with the rule and its numbers.
    labels : at each level of theory, with its ``attempts``.
    uses : the training sets it is in, with the ``models`` and ``committees`` that came of them;
        ``seated`` are the models in these committees, ``mode`` how they learnt.

    """

    frame: Record
    trajectory: Record | None
    committee: tuple[Record, ...]
    predictions: tuple[Record, ...]
    decisions: tuple[Record, ...]
    labels: tuple[Record, ...]
    uses: tuple[Record, ...]

    def text(self) -> str:
        """Return the history in plain words, one line for each step."""
        lines = [("Frame", _say_frame(self.frame)), ("Found", _say_origin(self))]
        several = (
            len({record["level_of_theory"] for record in (*self.predictions, *self.labels)}) > 1
        )
        lines += [("Predicted", _say_prediction(record, several)) for record in self.predictions]
        lines += [("Decided", _say_decision(record)) for record in self.decisions]
        lines += [("Labelled", _say_label(record)) for record in self.labels]
        lines += [("Error", said) for said in map(_say_error, self.predictions) if said]
        lines += [("Used", _say_use(record, several)) for record in self.uses]
        if not self.labels:
            lines.append(("Labelled", "no label was asked for"))
        if not self.uses:
            audit = self.frame["split"] == "audit"
            reason = ": audit frames only measure the error" if audit else ""
            lines.append(("Used", f"in no training set{reason}"))
        return "\n".join(f"{title:<10} {words}" for title, words in lines)

    def json(self) -> str:
        """Return the history as JSON."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False)


def why(engine: Engine, frame: int | str) -> Why:
    """Return the history of a frame, given its ``frame_id`` or the beginning of its key.

    Raises LedgerError, with the candidates, if it is unknown or ambiguous.
    """
    with engine.connect() as connection:
        frame_id = resolve(connection, str(frame), kinds=("frame",)).id
        trajectories = _rows(connection, _TRAJECTORY, frame_id)
        labels = _rows(connection, _LABELS, frame_id)
        attempts = _rows(connection, _ATTEMPTS, frame_id)
        predictions = _rows(connection, _PREDICTIONS, frame_id)
        decisions = _rows(connection, _DECISIONS, frame_id)
        uses = _rows(connection, _USES, frame_id)
        found = _rows(connection, _FRAME, frame_id)[0]
        committee = _rows(connection, _COMMITTEE, frame_id)
    _compare(predictions, labels)
    for label in labels:
        label["attempts"] = [row for row in attempts if row["label_id"] == label["label_id"]]
    for decision in decisions:
        decision["numbers"] = json.loads(decision["numbers"])
    for use in uses:
        for members in ("models", "seated", "committees"):
            use[members] = sorted(int(word) for word in (use[members] or "").split(",") if word)
    return Why(
        frame=found,
        trajectory=trajectories[0] if trajectories else None,
        committee=tuple(committee),
        predictions=tuple(predictions),
        decisions=tuple(decisions),
        labels=tuple(labels),
        uses=tuple(uses),
    )


def _rows(connection: Connection, query: str, frame_id: int) -> list[Record]:
    rows = connection.exec_driver_sql(query, {"frame": frame_id}).mappings()
    return [dict(row) for row in rows]


def _compare(predictions: list[Record], labels: list[Record]) -> None:
    """Replace the arrays by the error between prediction and label."""
    finished = {label["level_of_theory"]: label for label in labels if label["status"] == "done"}
    for prediction in predictions:
        forces, done = prediction.pop("forces"), finished.get(prediction["level_of_theory"])
        error = None if done is None else rmse(forces, done["forces"])
        finite = error is not None and math.isfinite(error)
        prediction["force_rmse"] = error if finite else None
        prediction["energy_error"] = None if done is None else prediction["energy"] - done["energy"]
    for label in labels:
        del label["forces"]


def _say_frame(frame: Record) -> str:
    spin = _SPINS.get(frame["multiplicity"], f"multiplicity {frame['multiplicity']}")
    charge = f"{frame['charge']:+d}" if frame["charge"] else "0"
    return (
        f"{frame['frame_id']} ({frame['key'][:12]}): a geometry of {frame['system']}"
        f" ({frame['formula']}, charge {charge}, {spin}), {frame['split']} split"
    )


def _say_origin(history: Why) -> str:
    frame, trajectory = history.frame, history.trajectory
    if trajectory is None:
        return f"in the initial set, drawn by {frame['source']}, generation {frame['generation']}"
    words = (
        f"at step {frame['step']} ({frame['time']:g} fs) of trajectory"
        f" {trajectory['trajectory_id']}: {trajectory['ensemble'].upper()} at"
        f" {trajectory['temperature']:g} K, route {trajectory['route']}, generation"
        f" {trajectory['generation']}, run by committee {trajectory['committee_id']}"
    )
    models = history.committee
    if models:
        words += f" ({len(models)} models trained on {models[0]['n_labels']} labels)"
    if trajectory["reason"] != "completed":
        words += f"; the trajectory ended early: {trajectory['reason']}"
    return words


def _say_prediction(record: Record, several: bool) -> str:
    of = f" of {record['level_of_theory']}" if several else ""
    words = (
        f"by committee {record['committee_id']}, before any label{of}: energy"
        f" {record['energy']:.4f} eV; its members differ by up to"
        f" {record['force_spread_max']:.3g} eV/Å on an atom"
    )
    if record["force_bound"] is None:
        return f"{words} (not yet calibrated)"
    return f"{words} (error bound {record['force_bound']:.3g} eV/Å)"


def _say_decision(record: Record) -> str:
    found = dict(record["numbers"])
    to = f" to tier {found.pop('tier', '?')}" if record["action"] == "promoted" else ""
    numbers = ", ".join(f"{name} {_short(value)}" for name, value in found.items())
    words = f"{record['action']}{to} by rule {record['rule']} in generation {record['generation']}"
    return f"{words}: {numbers}" if numbers else words


def _say_label(record: Record) -> str:
    said = [_say_attempt(attempt, record["energy"]) for attempt in record["attempts"]]
    if record["status"] != "done":
        outcome = {"pending": "still to come", "failed": "given up", "skipped": "left out"}
        said.append(outcome[record["status"]])
    return f"{record['level_of_theory']}: " + "; ".join(said)


def _say_attempt(attempt: Record, energy: float | None) -> str:
    cost = f"after {attempt['seconds']:.3g} s on {attempt['host']} by {attempt['program']}"
    if attempt["status"] == "done":
        return f"try {attempt['number']} gave energy {energy:.4f} eV {cost}"
    return (
        f"try {attempt['number']} failed {cost} ({attempt['error_class']}: {attempt['error_text']})"
    )


def _say_error(record: Record) -> str:
    if record["force_rmse"] is None and record["energy_error"] is None:
        return ""
    if record["force_rmse"] is None:
        return f"committee {record['committee_id']} was off by {record['energy_error']:+.3g} eV"
    bound = record["force_bound"]
    return (
        f"committee {record['committee_id']} was off by {record['force_rmse']:.3g} eV/Å (RMS over"
        f" force components) and {record['energy_error']:+.3g} eV"
        + (
            ""
            if bound is None
            else f"; it had promised at most {bound:.3g} eV/Å, nine times in ten"
        )
    )


def _say_use(record: Record, several: bool) -> str:
    words = f"for {record['split']} in snapshot {record['snapshot_id']}"
    words += f" of {record['level_of_theory']}" if several else ""
    if not record["committees"]:
        return words + (f": {_count('model', record['models'])}" if record["models"] else "")
    seats, mode = record["seated"], record["mode"]
    words += f": {_count('model', seats)} of {_count('committee', record['committees'])}"
    words += "" if mode == "plain" else f" (mode {mode})"
    others = len(record["models"]) - len(seats)
    return words + (f"; {others} of other modes" if others else "")


def _count(noun: str, ids: list[int]) -> str:
    return f"{noun}{'s' if len(ids) > 1 else ''} {', '.join(map(str, ids))}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
