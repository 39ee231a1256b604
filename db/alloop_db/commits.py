"""What the result of each kind of task means for the ledger.

Each function runs inside the transaction that marks its task done; it adds rows and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.dialects.sqlite import insert as insert_or
from sqlalchemy.orm import Session

from alloop.artifacts import ArtifactStore
from alloop_db import schema as t
from alloop_db.arrays import floats_to_blob
from alloop_db.frame_rows import add_frames, add_rows, request_labels
from alloop_db.label_rows import commit_label
from alloop_db.sessions import record_event

Result = dict[str, Any]


def record_environment(session: Session, environment: Result) -> int:
    """Return the row of an environment, adding it when it is new."""
    known = select(t.Environment.environment_id).where(
        t.Environment.sha256 == environment["sha256"]
    )
    found = session.scalar(known)
    if found is None:
        session.execute(insert_or(t.Environment).values(**environment).on_conflict_do_nothing())
        found = session.scalars(known).one()
    return found


def record_artifacts(session: Session, artifacts: Iterable[Result], task_id: int | None) -> None:
    """Add the files that a task has made; equal content is one artifact."""
    for artifact in artifacts:
        session.execute(
            insert_or(t.Artifact)
            .values(**artifact, created_at=t.now(), task_id=task_id)
            .on_conflict_do_nothing()
        )


def artifact_id(session: Session, sha256: str) -> int:
    """Return the key of an artifact."""
    return session.scalars(select(t.Artifact.artifact_id).where(t.Artifact.sha256 == sha256)).one()


def _system(session: Session, name: str) -> t.System:
    return session.scalars(select(t.System).where(t.System.name == name)).one()


def _generation(session: Session, task: t.Task) -> t.Generation:
    return session.scalars(select(t.Generation).where(t.Generation.number == task.generation)).one()


def _levels(session: Session, tiers: Sequence[str]) -> list[int]:
    """Return the levels of theory of tiers; that of the first tier if none is named."""
    query = select(t.LevelOfTheory.level_of_theory_id).order_by(t.LevelOfTheory.level_of_theory_id)
    if tiers:
        return list(session.scalars(query.where(t.LevelOfTheory.tier.in_(tiers))))
    return [session.scalars(query.limit(1)).one()]


def commit_prepare(session: Session, task: t.Task, result: Result, store: ArtifactStore) -> None:
    """Keep a system's minimum and Hessian; ask for labels of its initial frames."""
    system = _system(session, task.spec["system"]["name"])
    system.artifact_id = artifact_id(session, result["artifact"])
    generation = _generation(session, task)
    with np.load(store.get(result["artifact"], ".npz"), allow_pickle=False) as arrays:
        initial = arrays["initial"]
    about = {"generation_id": generation.generation_id, "source": result["sampler"]}
    frame_ids = add_frames(
        session, system, initial, [about | {"split": split} for split in result["splits"]]
    )
    chosen = [(index, frame_id) for index, frame_id in enumerate(frame_ids) if frame_id is not None]
    decisions = [
        {
            "frame_id": frame_id,
            "generation_id": generation.generation_id,
            "task_id": task.task_id,
            "action": "initial",
            "rule": result["sampler"],
            "numbers": result["numbers"] | {"draw": index},
        }
        for index, frame_id in chosen
    ]
    add_rows(session, t.Decision, decisions)
    wanted = [frame_id for _, frame_id in chosen]
    request_labels(session, wanted, generation.generation_id, _levels(session, ()))


def record_attempt(
    session: Session, label: t.LabelRow, task: t.Task, **columns: str | float | None
) -> None:
    """Add one try at a label, numbered after those before it."""
    before = session.scalar(select(func.count()).where(t.LabelAttempt.label_id == label.label_id))
    session.add(
        t.LabelAttempt(
            label_id=label.label_id,
            level_of_theory_id=label.level_of_theory_id,
            number=(before or 0) + 1,
            host=task.host,
            environment_id=task.environment_id,
            task_id=task.task_id,
            **columns,
        )
    )


def commit_explore(session: Session, task: t.Task, result: Result, _: ArtifactStore) -> None:
    """Add the trajectories of a shard."""
    about = {name: task.spec[name] for name in ("route", "ensemble", "timestep")}
    _add_trajectories(session, task, result, about)


def _add_trajectories(session: Session, task: t.Task, result: Result, about: Result) -> None:
    system = _system(session, task.spec["system"]["name"])
    generation = _generation(session, task)
    if not result["replicas"]:
        return
    about = about | {
        "artifact_id": artifact_id(session, result["artifact"]),
        "system_id": system.system_id,
        "generation_id": generation.generation_id,
        "committee_id": task.spec["committee_id"],
        "task_id": task.task_id,
    }
    add_rows(session, t.Trajectory, [about | replica for replica in result["replicas"]])


def commit_select(session: Session, task: t.Task, result: Result, _: ArtifactStore) -> None:
    """Store what was considered, what the committee said of it, and why it was chosen or not."""
    system = _system(session, task.spec["system"]["name"])
    generation = _generation(session, task)
    generation.numbers = generation.numbers | {system.name: result["numbers"]}
    items = result["decisions"]
    frame_ids = add_frames(
        session,
        system,
        [item["positions"] for item in items],
        [_found(item) | {"generation_id": generation.generation_id} for item in items],
    )
    new = [(item, frame) for item, frame in zip(items, frame_ids, strict=True) if frame is not None]
    committee_id = task.spec["committee_id"]
    predictions = [
        {"frame_id": frame, "committee_id": committee_id, **_as_columns(item["prediction"])}
        for item, frame in new
    ]
    add_rows(session, t.Prediction, predictions)
    about = {"generation_id": generation.generation_id, "task_id": task.task_id}
    add_rows(session, t.Decision, [_decided(item, frame) | about for item, frame in new])
    wanted = [frame for item, frame in new if item["action"] in ("selected", "audit", "validation")]
    levels = _levels(session, task.spec.get("tiers", ()))
    request_labels(session, wanted, generation.generation_id, levels)


def _found(item: Result) -> Result:
    """Return where a frame was found, as columns."""
    names = ("trajectory_id", "step", "time", "split")
    return {name: item[name] for name in names} | {"source": item["route"]}


def _decided(item: Result, frame_id: int) -> Result:
    names = ("action", "rule", "numbers")
    return {name: item[name] for name in names} | {"frame_id": frame_id}


def commit_train(session: Session, task: t.Task, result: Result, _: ArtifactStore) -> None:
    """Add a model, and the atomic energies of its training set when they are new."""
    _add_model(session, task, result, "plain")


def commit_transfer(session: Session, task: t.Task, result: Result, _: ArtifactStore) -> None:
    """Add a model that learnt from the tier below."""
    _add_model(session, task, result, task.spec["mode"])


def _add_model(session: Session, task: t.Task, result: Result, mode: str) -> None:
    spec = task.spec
    snapshot = session.scalars(
        select(t.Snapshot).where(t.Snapshot.sha256 == spec["snapshot"])
    ).one()
    place = {"snapshot_id": snapshot.snapshot_id, "member": spec["member"], "seed": spec["seed"]}
    if session.scalars(select(t.Model).filter_by(**place)).first():
        return  # fitted with the settings of before a config was changed, or after: the first stays
    parent = None
    if spec["parent"] is not None and mode != "scratch":  # which takes nothing from it
        parent = session.scalars(
            select(t.Model.model_id)
            .join(t.Artifact, t.Artifact.artifact_id == t.Model.artifact_id)
            .where(t.Artifact.sha256 == spec["parent"])
        ).one()
    session.add(
        t.Model(
            artifact_id=artifact_id(session, result["artifact"]),
            snapshot_id=snapshot.snapshot_id,
            parent_model_id=parent,
            generation_id=_generation(session, task).generation_id,
            task_id=task.task_id,
            member=spec["member"],
            mode=mode,
            kind=spec["architecture"]["kind"],
            architecture=spec["architecture"],
            seed=spec["seed"],
            metrics=result["metrics"],
        )
    )
    for number, energy in result["atom_energies"].items():
        session.execute(
            insert_or(t.AtomEnergy)
            .values(
                level_of_theory_id=snapshot.level_of_theory_id,
                snapshot_id=snapshot.snapshot_id,
                number=int(number),
                energy=energy,
            )
            .on_conflict_do_nothing()
        )


def commit_promote(session: Session, task: t.Task, result: Result, _: ArtifactStore) -> None:
    """Ask for labels of a higher tier; store the choice, its price, and what was said before.

    The first choice of a generation stands: another one is of a config that has changed since, or
    knew fewer attempts at labels.
    """
    generation, tier = _generation(session, task), task.spec["tier"]
    if _is_there(session, t.Promotion, generation):
        return
    (level,) = _levels(session, [tier])
    for item in result["decisions"]:
        frame = session.scalars(select(t.FrameRow).where(t.FrameRow.key == item["frame_key"])).one()
        session.add(
            t.Decision(
                frame_id=frame.frame_id,
                generation_id=generation.generation_id,
                task_id=task.task_id,
                action="promoted",
                rule=item["rule"],
                numbers=item["numbers"] | {"tier": tier},
            )
        )
        request_labels(session, [frame.frame_id], generation.generation_id, [level])
        if item["prediction"] is not None:
            session.execute(
                insert_or(t.Prediction)
                .values(
                    frame_id=frame.frame_id,
                    committee_id=task.spec["committee_id"],
                    **_as_columns(item["prediction"]),
                )
                .on_conflict_do_nothing()
            )
    about = result["promotion"]
    session.add(
        t.Promotion(
            generation_id=generation.generation_id,
            level_of_theory_id=level,
            task_id=task.task_id,
            **about,
        )
    )
    text = f"{about['n_promoted']} of {about['n_candidates']} frames promoted to tier {tier}"
    record_event(session, "promotion", text, {k: v for k, v in about.items() if k != "numbers"})


def _is_there(
    session: Session, table: type[t.Promotion | t.ModeScore], generation: t.Generation
) -> bool:
    query = select(func.count()).where(table.generation_id == generation.generation_id)
    return bool(session.scalar(query))


def _as_columns(prediction: Result) -> Result:
    return prediction | {"forces": floats_to_blob(prediction["forces"])}


def commit_score(session: Session, task: t.Task, result: Result, _: ArtifactStore) -> None:
    """Add what came of each mode; the first scores of a generation stand."""
    generation = _generation(session, task)
    if _is_there(session, t.ModeScore, generation):
        return
    for score in result["scores"]:
        session.add(
            t.ModeScore(generation_id=generation.generation_id, task_id=task.task_id, **score)
        )
    record_event(session, "mode_score", result["text"], None)


def commit_evaluate(session: Session, task: t.Task, result: Result, _: ArtifactStore) -> None:
    """Add error estimates and calibrations of a committee."""
    generation = _generation(session, task)
    committee_id = task.spec["committee_id"]
    add_evaluations(session, committee_id, generation.generation_id, result["evaluations"])
    for calibration in result["calibrations"]:
        session.add(t.Calibration(committee_id=committee_id, **calibration))


def add_evaluations(
    session: Session, committee_id: int, generation_id: int, evaluations: Iterable[Result]
) -> None:
    """Add error estimates, once for each committee and kind."""
    for evaluation in evaluations:
        session.execute(
            insert_or(t.Evaluation)
            .values(committee_id=committee_id, generation_id=generation_id, **evaluation)
            .on_conflict_do_nothing()
        )


def commit_fit_spacetime(session: Session, task: t.Task, result: Result, _: ArtifactStore) -> None:
    """Add a 4D model with the judgement on it, what it saw and what it was not shown."""
    spec = task.spec
    name, generation = spec["system"]["name"], _generation(session, task)
    model = t.SpacetimeModel(
        artifact_id=artifact_id(session, result["artifact"]),
        system_id=_system(session, name).system_id,
        committee_id=spec["committee_id"],
        generation_id=generation.generation_id,
        task_id=task.task_id,
        cutoff=spec["settings"]["cutoff"],
        seed=spec["seed"],
        metrics=result["metrics"],
        status=result["status"],
        reason=result["reason"],
        parent_spacetime_model_id=spec["parent"] and _spacetime_model(session, spec["parent"]),
    )
    session.add(model)
    session.flush()
    for trajectory in result["trajectories"]:
        session.add(
            t.SpacetimeTrajectory(spacetime_model_id=model.spacetime_model_id, **trajectory)
        )
    for trajectory in result["excluded"]:
        session.add(t.SpacetimeExclusion(spacetime_model_id=model.spacetime_model_id, **trajectory))
    judged = result["status"].replace("_", " ")
    text = f"4D model of {name} after generation {generation.number} {judged}: {result['reason']}"
    record_event(session, "spacetime_model", text, result["metrics"].get("gate"))


def _spacetime_model(session: Session, sha256: str) -> int:
    return session.scalars(
        select(t.SpacetimeModel.spacetime_model_id)
        .join(t.Artifact, t.Artifact.artifact_id == t.SpacetimeModel.artifact_id)
        .where(t.Artifact.sha256 == sha256)
        .order_by(t.SpacetimeModel.spacetime_model_id.desc())
        .limit(1)
    ).one()


def commit_probe_spacetime(
    session: Session, task: t.Task, result: Result, _: ArtifactStore
) -> None:
    """Add a probe of a 4D model and the trajectories that it has begun."""
    spec, shard = task.spec, result["artifact"]
    generation = _generation(session, task)
    columns = ("n_replicas", "n_segments", "n_flagged", "flagged", "numbers", "segments")
    session.add(
        t.SpacetimeProbe(
            spacetime_model_id=_spacetime_model(session, spec["model"]),
            committee_id=spec["committee_id"],
            generation_id=generation.generation_id,
            task_id=task.task_id,
            artifact_id=shard and artifact_id(session, shard),
            thresholds=spec["thresholds"],
            **{name: result[name] for name in columns},
        )
    )
    about = {
        "route": t.PROBE_ROUTE,
        "ensemble": "nve",
        "timestep": spec["reference"]["timestep"],
    }
    _add_trajectories(session, task, result, about)
    text = (
        f"probe of the 4D model of {spec['system']['name']} after generation {generation.number}:"
        f" {result['n_flagged']} of {result['n_segments']} segments flagged,"
        f" {len(result['replicas'])} reference trajectories added"
    )
    record_event(session, "spacetime_probe", text, {"flagged": result["flagged"]})


COMMITS: dict[str, Callable[[Session, t.Task, Result, ArtifactStore], None]] = {
    "prepare": commit_prepare,
    "label": commit_label,
    "explore": commit_explore,
    "select": commit_select,
    "promote": commit_promote,
    "train": commit_train,
    "transfer": commit_transfer,
    "score": commit_score,
    "evaluate": commit_evaluate,
    "fit_spacetime": commit_fit_spacetime,
    "probe_spacetime": commit_probe_spacetime,
}
