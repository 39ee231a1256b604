-- 4D models are judged before they are used, and their motion is probed.

-- Made anew, since SQLite adds no column with its meaning beside it.
CREATE TABLE new_spacetime_model (
    -- A 4D model R(t) = f(R0, v0, t).
    spacetime_model_id INTEGER NOT NULL, -- key
    artifact_id INTEGER NOT NULL, -- the weights
    system_id INTEGER NOT NULL, -- the molecule it moves
    committee_id INTEGER NOT NULL, -- the potential it imitates
    generation_id INTEGER NOT NULL, -- when
    task_id INTEGER NOT NULL, -- the task that fitted it
    cutoff DOUBLE NOT NULL, -- longest time it was fitted to, fs
    seed INTEGER NOT NULL, -- random seed
    metrics JSON NOT NULL, -- errors on held-out trajectories, as JSON
    status VARCHAR NOT NULL, -- promoted: in use from then on; held_back: worse than the one in use
    reason VARCHAR NOT NULL, -- why, in one line
    parent_spacetime_model_id INTEGER, -- the 4D model in use before, which it started from and was held against
    CONSTRAINT pk_spacetime_model PRIMARY KEY (spacetime_model_id),
    CONSTRAINT ck_spacetime_model_status CHECK (status IN ('promoted', 'held_back')),
    CONSTRAINT fk_spacetime_model_artifact_id FOREIGN KEY(artifact_id) REFERENCES artifact (artifact_id),
    CONSTRAINT fk_spacetime_model_system_id FOREIGN KEY(system_id) REFERENCES system (system_id),
    CONSTRAINT fk_spacetime_model_committee_id FOREIGN KEY(committee_id) REFERENCES committee (committee_id),
    CONSTRAINT fk_spacetime_model_generation_id FOREIGN KEY(generation_id) REFERENCES generation (generation_id),
    CONSTRAINT uq_spacetime_model_task_id UNIQUE (task_id),
    CONSTRAINT fk_spacetime_model_task_id FOREIGN KEY(task_id) REFERENCES task (task_id),
    CONSTRAINT fk_spacetime_model_parent_spacetime_model_id FOREIGN KEY(parent_spacetime_model_id) REFERENCES spacetime_model (spacetime_model_id)
);

INSERT INTO new_spacetime_model
SELECT *, 'promoted', 'fitted before there was a gate', NULL FROM spacetime_model;

DROP TABLE spacetime_model;

ALTER TABLE new_spacetime_model RENAME TO spacetime_model;

CREATE TABLE spacetime_exclusion (
    -- A trajectory that was at hand for a 4D model and was left out.
    spacetime_model_id INTEGER NOT NULL, -- the 4D model
    trajectory_id INTEGER NOT NULL, -- the trajectory
    reason VARCHAR NOT NULL, -- why, in one line
    CONSTRAINT pk_spacetime_exclusion PRIMARY KEY (spacetime_model_id, trajectory_id),
    CONSTRAINT fk_spacetime_exclusion_spacetime_model_id FOREIGN KEY(spacetime_model_id) REFERENCES spacetime_model (spacetime_model_id),
    CONSTRAINT fk_spacetime_exclusion_trajectory_id FOREIGN KEY(trajectory_id) REFERENCES trajectory (trajectory_id)
) WITHOUT ROWID;

CREATE INDEX ix_spacetime_exclusion_trajectory_id ON spacetime_exclusion (trajectory_id);

CREATE TABLE spacetime_probe (
    -- A search for motion that a 4D model cannot do; trajectories with its task_id begin there.
    spacetime_probe_id INTEGER NOT NULL, -- key
    spacetime_model_id INTEGER NOT NULL, -- the 4D model that was probed
    committee_id INTEGER NOT NULL, -- the potential that judged it and ran the trajectories
    generation_id INTEGER NOT NULL, -- that of the model
    task_id INTEGER NOT NULL, -- the task that probed
    artifact_id INTEGER, -- the HDF5 shard of the trajectories; empty if none was begun
    n_replicas INTEGER NOT NULL, -- replicas that the 4D model propagated
    n_segments INTEGER NOT NULL, -- segments whose starts were judged
    n_flagged INTEGER NOT NULL, -- segments with a signal beyond its threshold
    flagged JSON NOT NULL, -- how many by which signal, as JSON; a segment may have several
    thresholds JSON NOT NULL, -- limits of the signals and how well each ranks errors, as JSON
    numbers JSON NOT NULL, -- quantiles of the signals and how the replicas ended, as JSON
    segments JSON NOT NULL, -- where each trajectory begins and what flagged it, as JSON, in the order of their replicas
    CONSTRAINT pk_spacetime_probe PRIMARY KEY (spacetime_probe_id),
    CONSTRAINT fk_spacetime_probe_spacetime_model_id FOREIGN KEY(spacetime_model_id) REFERENCES spacetime_model (spacetime_model_id),
    CONSTRAINT fk_spacetime_probe_committee_id FOREIGN KEY(committee_id) REFERENCES committee (committee_id),
    CONSTRAINT fk_spacetime_probe_generation_id FOREIGN KEY(generation_id) REFERENCES generation (generation_id),
    CONSTRAINT uq_spacetime_probe_task_id UNIQUE (task_id),
    CONSTRAINT fk_spacetime_probe_task_id FOREIGN KEY(task_id) REFERENCES task (task_id),
    CONSTRAINT fk_spacetime_probe_artifact_id FOREIGN KEY(artifact_id) REFERENCES artifact (artifact_id)
);

CREATE TRIGGER spacetime_model_update BEFORE UPDATE ON spacetime_model
BEGIN
    SELECT RAISE(ABORT, 'a 4D model and the judgement on it cannot be changed: fit another');
END;

CREATE TRIGGER spacetime_probe_update BEFORE UPDATE ON spacetime_probe
BEGIN
    SELECT RAISE(ABORT, 'what a probe found cannot be changed');
END;
