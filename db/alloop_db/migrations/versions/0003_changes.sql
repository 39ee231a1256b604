-- A campaign may climb from cheap labels to expensive ones: a frame has a label at each level.

CREATE TABLE new_level_of_theory (
    -- A reference method, as exactly as labels must agree to be used together.
    level_of_theory_id INTEGER NOT NULL, -- key
    name VARCHAR NOT NULL, -- such as GFN2-xTB or spGFN2-xTB
    tier VARCHAR NOT NULL, -- id of the tier in the config
    method JSON NOT NULL, -- engine and settings, as JSON
    seconds DOUBLE DEFAULT 0.0 NOT NULL, -- wall time of all tries at its labels, s, kept by a trigger
    CONSTRAINT pk_level_of_theory PRIMARY KEY (level_of_theory_id),
    CONSTRAINT uq_level_of_theory_name UNIQUE (name)
);

INSERT INTO new_level_of_theory
SELECT level_of_theory_id, name, tier, method, (
    SELECT coalesce(sum(seconds), 0.0) FROM label_attempt JOIN label USING (label_id)
    WHERE label.level_of_theory_id = level_of_theory.level_of_theory_id
) FROM level_of_theory;

DROP TABLE level_of_theory;

ALTER TABLE new_level_of_theory RENAME TO level_of_theory;

CREATE TABLE new_generation (
    -- One turn of the loop: explore, select, label, train, evaluate.
    generation_id INTEGER NOT NULL, -- key
    number INTEGER NOT NULL, -- 0 for the initial set, then 1, 2, ...
    level_of_theory_id INTEGER NOT NULL, -- what its committee imitates: that of the tier it is a turn of
    state VARCHAR NOT NULL, -- open or closed
    committee_id INTEGER, -- the committee that explored
    numbers JSON NOT NULL, -- counts and thresholds of triage and selection
    opened_at VARCHAR NOT NULL, -- instant
    closed_at VARCHAR, -- instant
    CONSTRAINT pk_generation PRIMARY KEY (generation_id),
    CONSTRAINT uq_generation_number UNIQUE (number),
    CONSTRAINT fk_generation_level_of_theory_id FOREIGN KEY(level_of_theory_id) REFERENCES level_of_theory (level_of_theory_id),
    CONSTRAINT fk_generation_committee_id FOREIGN KEY(committee_id) REFERENCES committee (committee_id)
);

INSERT INTO new_generation
SELECT generation_id, number, (SELECT min(level_of_theory_id) FROM level_of_theory), state, committee_id, numbers, opened_at, closed_at FROM generation;

DROP TABLE generation;

ALTER TABLE new_generation RENAME TO generation;

CREATE TABLE new_label (
    -- A frame's energy and forces at one level of theory.
    label_id INTEGER NOT NULL, -- key
    frame_id INTEGER NOT NULL, -- the frame
    level_of_theory_id INTEGER NOT NULL, -- the method
    generation_id INTEGER NOT NULL, -- the generation that asked for it
    status VARCHAR NOT NULL, -- pending, done, failed or skipped
    tries INTEGER NOT NULL, -- attempts that failed
    task_id INTEGER, -- the open task that is to make it
    alone BOOLEAN DEFAULT 0 NOT NULL, -- whether it gets a task of its own, since one that it shared failed
    energy DOUBLE, -- reference energy, eV
    forces BLOB, -- reference forces, float64 blob (n_atoms, 3), eV/Å; empty where the method has none
    diagnostics JSON, -- what the program says of its solution, such as gap (eV), spin_contamination, t1, as JSON
    done_at VARCHAR, -- instant of the commit
    CONSTRAINT pk_label PRIMARY KEY (label_id),
    CONSTRAINT ck_label_status CHECK (status IN ('pending', 'done', 'failed', 'skipped')),
    CONSTRAINT uq_label_frame_id_level_of_theory_id UNIQUE (frame_id, level_of_theory_id),
    CONSTRAINT ck_label_complete CHECK (status != 'done' OR energy IS NOT NULL),
    CONSTRAINT fk_label_frame_id FOREIGN KEY(frame_id) REFERENCES frame (frame_id),
    CONSTRAINT fk_label_level_of_theory_id FOREIGN KEY(level_of_theory_id) REFERENCES level_of_theory (level_of_theory_id),
    CONSTRAINT fk_label_generation_id FOREIGN KEY(generation_id) REFERENCES generation (generation_id),
    CONSTRAINT fk_label_task_id FOREIGN KEY(task_id) REFERENCES task (task_id)
);

INSERT INTO new_label
SELECT label_id, frame_id, level_of_theory_id, generation_id, status, tries, task_id, alone,
    energy, forces, NULL, done_at FROM label;

DROP TABLE label;

ALTER TABLE new_label RENAME TO label;

CREATE INDEX ix_label_generation_id_status ON label (generation_id, status);

CREATE INDEX ix_label_status_task_id ON label (status, task_id);

CREATE INDEX ix_label_level_of_theory_id_status ON label (level_of_theory_id, status);

CREATE TRIGGER label_done_delete BEFORE DELETE ON label
WHEN OLD.status = 'done'
BEGIN
    SELECT RAISE(ABORT, 'this label is done: it cannot be deleted');
END;

CREATE TRIGGER label_done_update
BEFORE UPDATE OF label_id, frame_id, level_of_theory_id, status, energy, forces,
    diagnostics, done_at ON label
WHEN OLD.status = 'done'
BEGIN
    SELECT RAISE(ABORT, 'this label is done: it cannot be changed');
END;

CREATE TABLE new_label_attempt (
    -- One try at one label.
    label_attempt_id INTEGER NOT NULL, -- key
    label_id INTEGER NOT NULL, -- the label
    level_of_theory_id INTEGER NOT NULL, -- that of the label
    number INTEGER NOT NULL, -- 1 for the first try
    status VARCHAR NOT NULL, -- done or failed
    error_class VARCHAR, -- reason code of a failure
    error_text VARCHAR, -- the program's own words
    seconds DOUBLE NOT NULL, -- wall time, s
    host VARCHAR, -- host of the worker; empty if it was lost
    program VARCHAR NOT NULL, -- program and version
    environment_id INTEGER, -- software it ran with; empty if the worker was lost
    task_id INTEGER NOT NULL, -- the task it was part of
    attempted_at VARCHAR NOT NULL, -- instant
    CONSTRAINT pk_label_attempt PRIMARY KEY (label_attempt_id),
    CONSTRAINT uq_label_attempt_label_id_number UNIQUE (label_id, number),
    CONSTRAINT fk_label_attempt_label_id FOREIGN KEY(label_id) REFERENCES label (label_id),
    CONSTRAINT fk_label_attempt_level_of_theory_id FOREIGN KEY(level_of_theory_id) REFERENCES level_of_theory (level_of_theory_id),
    CONSTRAINT fk_label_attempt_environment_id FOREIGN KEY(environment_id) REFERENCES environment (environment_id),
    CONSTRAINT fk_label_attempt_task_id FOREIGN KEY(task_id) REFERENCES task (task_id)
);

INSERT INTO new_label_attempt
SELECT label_attempt_id, label_id, level_of_theory_id, number, label_attempt.status, error_class,
    error_text, seconds, host, program, environment_id, label_attempt.task_id, attempted_at
FROM label_attempt JOIN label USING (label_id);

DROP TABLE label_attempt;

ALTER TABLE new_label_attempt RENAME TO label_attempt;

CREATE INDEX ix_label_attempt_error_class ON label_attempt (error_class);

CREATE UNIQUE INDEX uq_label_attempt_done ON label_attempt (label_id) WHERE status = 'done';

CREATE INDEX ix_label_attempt_level_of_theory_id_label_attempt_id
ON label_attempt (level_of_theory_id, label_attempt_id);

CREATE TRIGGER level_of_theory_seconds AFTER INSERT ON label_attempt
BEGIN
    UPDATE level_of_theory SET seconds = seconds + NEW.seconds
    WHERE level_of_theory_id = NEW.level_of_theory_id;
END;

CREATE TABLE new_label_tally (
    -- Labels counted by generation, level and status, kept by triggers: planning need not count.
    generation_id INTEGER NOT NULL, -- the generation that asked for them
    level_of_theory_id INTEGER NOT NULL, -- the method
    status VARCHAR NOT NULL, -- pending, done, failed or skipped
    n INTEGER NOT NULL, -- how many
    CONSTRAINT pk_label_tally PRIMARY KEY (generation_id, level_of_theory_id, status),
    CONSTRAINT fk_label_tally_generation_id FOREIGN KEY(generation_id) REFERENCES generation (generation_id),
    CONSTRAINT fk_label_tally_level_of_theory_id FOREIGN KEY(level_of_theory_id) REFERENCES level_of_theory (level_of_theory_id)
) WITHOUT ROWID;

INSERT INTO new_label_tally
SELECT generation_id, (SELECT min(level_of_theory_id) FROM level_of_theory), status, n FROM label_tally;

DROP TABLE label_tally;

ALTER TABLE new_label_tally RENAME TO label_tally;

CREATE TRIGGER label_tally_insert AFTER INSERT ON label
BEGIN
    INSERT INTO label_tally (generation_id, level_of_theory_id, status, n)
    VALUES (NEW.generation_id, NEW.level_of_theory_id, NEW.status, 1)
    ON CONFLICT (generation_id, level_of_theory_id, status) DO UPDATE SET n = n + 1;
END;

CREATE TRIGGER label_tally_update AFTER UPDATE OF generation_id, level_of_theory_id, status ON label
BEGIN
    UPDATE label_tally SET n = n - 1
    WHERE generation_id = OLD.generation_id
        AND level_of_theory_id = OLD.level_of_theory_id AND status = OLD.status;
    INSERT INTO label_tally (generation_id, level_of_theory_id, status, n)
    VALUES (NEW.generation_id, NEW.level_of_theory_id, NEW.status, 1)
    ON CONFLICT (generation_id, level_of_theory_id, status) DO UPDATE SET n = n + 1;
END;

CREATE TRIGGER label_tally_delete AFTER DELETE ON label
BEGIN
    UPDATE label_tally SET n = n - 1
    WHERE generation_id = OLD.generation_id
        AND level_of_theory_id = OLD.level_of_theory_id AND status = OLD.status;
END;

CREATE TABLE new_decision (
    -- What became of a frame, by which rule, with the rule's numbers.
    decision_id INTEGER NOT NULL, -- key
    frame_id INTEGER NOT NULL, -- the frame
    generation_id INTEGER NOT NULL, -- when
    task_id INTEGER NOT NULL, -- the task that decided
    action VARCHAR NOT NULL, -- initial, selected, audit, validation, rejected, duplicate, broken; promoted: its label at the level of a higher tier was asked for
    rule VARCHAR NOT NULL, -- name of the rule
    numbers JSON NOT NULL, -- what the rule compared, as JSON
    CONSTRAINT pk_decision PRIMARY KEY (decision_id),
    CONSTRAINT ck_decision_action CHECK (action IN ('initial', 'selected', 'audit', 'validation', 'rejected', 'duplicate', 'broken', 'promoted')),
    CONSTRAINT fk_decision_frame_id FOREIGN KEY(frame_id) REFERENCES frame (frame_id),
    CONSTRAINT fk_decision_generation_id FOREIGN KEY(generation_id) REFERENCES generation (generation_id),
    CONSTRAINT fk_decision_task_id FOREIGN KEY(task_id) REFERENCES task (task_id)
);

INSERT INTO new_decision
SELECT * FROM decision;

DROP TABLE decision;

ALTER TABLE new_decision RENAME TO decision;

CREATE INDEX ix_decision_frame_id ON decision (frame_id);

CREATE INDEX ix_decision_generation_id ON decision (generation_id);

CREATE TRIGGER decision_update BEFORE UPDATE ON decision
BEGIN
    SELECT RAISE(ABORT, 'a decision cannot be rewritten: a later one is another row');
END;

CREATE TABLE new_model (
    -- One trained potential.
    model_id INTEGER NOT NULL, -- key
    artifact_id INTEGER NOT NULL, -- the weights
    snapshot_id INTEGER NOT NULL, -- the training set
    parent_model_id INTEGER, -- the model whose weights it started from
    generation_id INTEGER NOT NULL, -- when
    task_id INTEGER NOT NULL, -- the task that trained it
    member VARCHAR NOT NULL, -- place in the committee, such as ani/2
    mode VARCHAR NOT NULL, -- plain, or how it learnt from the tier below: scratch, finetune, freeze, delta, joint or distil
    kind VARCHAR NOT NULL, -- architecture
    architecture JSON NOT NULL, -- hyper-parameters of the network, as JSON
    seed INTEGER NOT NULL, -- random seed of weights, bootstrap and batches
    metrics JSON NOT NULL, -- errors of the fit, as JSON
    CONSTRAINT pk_model PRIMARY KEY (model_id),
    CONSTRAINT uq_model_snapshot_id_member_seed UNIQUE (snapshot_id, member, seed),
    CONSTRAINT fk_model_artifact_id FOREIGN KEY(artifact_id) REFERENCES artifact (artifact_id),
    CONSTRAINT fk_model_snapshot_id FOREIGN KEY(snapshot_id) REFERENCES snapshot (snapshot_id),
    CONSTRAINT fk_model_parent_model_id FOREIGN KEY(parent_model_id) REFERENCES model (model_id),
    CONSTRAINT fk_model_generation_id FOREIGN KEY(generation_id) REFERENCES generation (generation_id),
    CONSTRAINT fk_model_task_id FOREIGN KEY(task_id) REFERENCES task (task_id)
);

INSERT INTO new_model
SELECT model_id, artifact_id, snapshot_id, parent_model_id, generation_id, task_id, member,
    'plain', kind, architecture, seed, metrics FROM model;

DROP TABLE model;

ALTER TABLE new_model RENAME TO model;

CREATE INDEX ix_model_artifact_id ON model (artifact_id);

CREATE INDEX ix_model_generation_id ON model (generation_id);

CREATE TRIGGER model_origin_update
BEFORE UPDATE OF model_id, artifact_id, snapshot_id, parent_model_id, seed ON model
BEGIN
    SELECT RAISE(ABORT, 'what a model was made from cannot be changed');
END;

CREATE TABLE new_evaluation (
    -- An error estimate on frames that the committee has not seen.
    evaluation_id INTEGER NOT NULL, -- key
    committee_id INTEGER NOT NULL, -- the committee
    generation_id INTEGER NOT NULL, -- when
    kind VARCHAR NOT NULL, -- audit: all audit frames so far; prospective: the frames it chose, against their labels; prospective_audit: the audit frames of its own trajectories, against their labels; validation: the validation split
    n_frames INTEGER NOT NULL, -- number of frames
    n_groups INTEGER NOT NULL, -- number of independent trajectories
    force_rmse DOUBLE, -- root-mean-square error of a force component, eV/Å; empty where no frame has forces
    force_low DOUBLE, -- lower end of its confidence interval, eV/Å
    force_high DOUBLE, -- upper end of its confidence interval, eV/Å
    energy_rmse DOUBLE NOT NULL, -- root-mean-square error of the energy per atom, eV
    confidence DOUBLE NOT NULL, -- level of the interval
    coverage DOUBLE, -- share of frames whose force error lies within the bound given in advance
    spearman DOUBLE, -- rank correlation of spread and error
    CONSTRAINT pk_evaluation PRIMARY KEY (evaluation_id),
    CONSTRAINT uq_evaluation_committee_id_kind UNIQUE (committee_id, kind),
    CONSTRAINT fk_evaluation_committee_id FOREIGN KEY(committee_id) REFERENCES committee (committee_id),
    CONSTRAINT fk_evaluation_generation_id FOREIGN KEY(generation_id) REFERENCES generation (generation_id)
);

INSERT INTO new_evaluation
SELECT * FROM evaluation;

DROP TABLE evaluation;

ALTER TABLE new_evaluation RENAME TO evaluation;

CREATE TABLE promotion (
    -- A choice of frames whose labels at the level of a higher tier are worth their price.
    promotion_id INTEGER NOT NULL, -- key
    generation_id INTEGER NOT NULL, -- when
    level_of_theory_id INTEGER NOT NULL, -- promoted to
    task_id INTEGER NOT NULL, -- the task that chose
    policy VARCHAR NOT NULL, -- value_per_cost or random
    n_candidates INTEGER NOT NULL, -- frames with a label at the tier below and none at this
    n_promoted INTEGER NOT NULL, -- frames promoted, those of validation and audit included
    seconds DOUBLE, -- expected processor time of these labels, s; empty before any label of the tier is known
    seconds_low DOUBLE, -- lower end of its interval, s
    seconds_high DOUBLE, -- upper end of its interval, s
    expected_ratio DOUBLE, -- root-mean-square difference between the tiers that is left unexplained after these labels, as a part of what is before, as the policy expects
    numbers JSON NOT NULL, -- model of the price and of the choice, as JSON
    CONSTRAINT pk_promotion PRIMARY KEY (promotion_id),
    CONSTRAINT uq_promotion_generation_id UNIQUE (generation_id),
    CONSTRAINT fk_promotion_generation_id FOREIGN KEY(generation_id) REFERENCES generation (generation_id),
    CONSTRAINT fk_promotion_level_of_theory_id FOREIGN KEY(level_of_theory_id) REFERENCES level_of_theory (level_of_theory_id),
    CONSTRAINT fk_promotion_task_id FOREIGN KEY(task_id) REFERENCES task (task_id)
);

CREATE TABLE mode_score (
    -- What came of one way to learn from the tier below, on labels that no model has seen.
    mode_score_id INTEGER NOT NULL, -- key
    generation_id INTEGER NOT NULL, -- when
    task_id INTEGER NOT NULL, -- the task that scored
    mode VARCHAR NOT NULL, -- scratch, finetune, freeze, delta, joint or distil
    split VARCHAR NOT NULL, -- what was judged: audit, or validation where there is no audit
    n_frames INTEGER NOT NULL, -- number of frames
    n_groups INTEGER NOT NULL, -- number of independent trajectories
    force_rmse DOUBLE, -- root-mean-square error of a force component, eV/Å; empty where no frame has forces
    energy_rmse DOUBLE NOT NULL, -- root-mean-square error of the energy per atom, eV
    relative DOUBLE NOT NULL, -- its error as a multiple of the best mode's
    promoted BOOLEAN NOT NULL, -- whether its models are the committee of the generation
    CONSTRAINT pk_mode_score PRIMARY KEY (mode_score_id),
    CONSTRAINT uq_mode_score_generation_id_mode UNIQUE (generation_id, mode),
    CONSTRAINT fk_mode_score_generation_id FOREIGN KEY(generation_id) REFERENCES generation (generation_id),
    CONSTRAINT fk_mode_score_task_id FOREIGN KEY(task_id) REFERENCES task (task_id)
);

CREATE TRIGGER promotion_update BEFORE UPDATE ON promotion
BEGIN
    SELECT RAISE(ABORT, 'a promotion cannot be rewritten');
END;

CREATE TRIGGER mode_score_update BEFORE UPDATE ON mode_score
BEGIN
    SELECT RAISE(ABORT, 'a score cannot be rewritten');
END;

DROP VIEW v_learning_curve;

CREATE VIEW v_learning_curve AS
-- Error against number of labels: one row for each committee.
SELECT
    generation.number AS generation, -- generation that trained the committee
    committee.committee_id AS committee_id, -- the committee
    level_of_theory.name AS level_of_theory, -- reference method that it imitates
    level_of_theory.tier AS tier, -- tier of that method in the config
    model.mode AS mode, -- plain, or how it learnt from the tier below
    snapshot.snapshot_id AS snapshot_id, -- training set of its first member
    snapshot.n_labels AS n_labels, -- labels in that training set
    audit.force_rmse AS audit_force_rmse, -- error on all audit frames so far, eV/Å
    audit.force_low AS audit_force_low, -- lower end of its confidence interval, eV/Å
    audit.force_high AS audit_force_high, -- upper end of its confidence interval, eV/Å
    audit.energy_rmse AS audit_energy_rmse, -- energy error per atom on the same frames, eV
    audit.n_frames AS n_audit, -- number of audit frames
    audit.coverage AS audit_coverage, -- share of frames within the bound given in advance
    prospective.force_rmse AS prospective_force_rmse, -- error on frames it chose itself, eV/Å
    prospective.n_frames AS n_prospective, -- number of those frames
    prospective.spearman AS spearman, -- rank correlation of spread and error on those frames
    own_audit.force_rmse AS own_audit_force_rmse, -- error on audit frames of its own runs, eV/Å
    validation.force_rmse AS validation_force_rmse, -- error on the validation split, eV/Å
    calibration.alpha AS force_alpha, -- factor from force spread to force error
    committee.created_at AS created_at -- instant
FROM committee
JOIN generation ON generation.generation_id = committee.generation_id
JOIN level_of_theory ON level_of_theory.level_of_theory_id = committee.level_of_theory_id
LEFT JOIN committee_member
    ON committee_member.committee_id = committee.committee_id AND committee_member.position = 0
LEFT JOIN model ON model.model_id = committee_member.model_id
LEFT JOIN snapshot ON snapshot.snapshot_id = model.snapshot_id
LEFT JOIN evaluation AS audit
    ON audit.committee_id = committee.committee_id AND audit.kind = 'audit'
LEFT JOIN evaluation AS prospective
    ON prospective.committee_id = committee.committee_id AND prospective.kind = 'prospective'
LEFT JOIN evaluation AS own_audit
    ON own_audit.committee_id = committee.committee_id AND own_audit.kind = 'prospective_audit'
LEFT JOIN evaluation AS validation
    ON validation.committee_id = committee.committee_id AND validation.kind = 'validation'
LEFT JOIN calibration
    ON calibration.committee_id = committee.committee_id AND calibration.measure = 'force'
ORDER BY generation.number;

DROP VIEW v_label_cost;

CREATE VIEW v_label_cost AS
-- What labels cost: one row for each reference method and system.
SELECT
    level_of_theory.tier AS tier, -- tier of the method in the config
    level_of_theory.name AS level_of_theory, -- reference method
    system.name AS system, -- what was labelled
    system.n_atoms AS n_atoms, -- its number of atoms
    count(*) AS n_labels, -- labels asked for
    sum(label.status = 'done') AS n_done, -- labels that came
    sum(label.status = 'failed') AS n_failed, -- labels given up
    sum(label.status = 'pending') AS n_pending, -- labels still to come
    sum(coalesce(attempt.n, 0)) AS n_attempts, -- tries, failures included
    sum(coalesce(attempt.seconds, 0.0)) AS seconds, -- wall time of all tries, s
    sum(coalesce(attempt.seconds_failed, 0.0)) AS seconds_failed, -- of those that failed, s
    sum(coalesce(attempt.seconds, 0.0)) / nullif(sum(label.status = 'done'), 0)
        AS seconds_per_label, -- price of a label, its failures included, s
    sum(coalesce(attempt.seconds, 0.0)) / 3600.0 AS core_hours -- all of it, h
FROM label
JOIN level_of_theory ON level_of_theory.level_of_theory_id = label.level_of_theory_id
JOIN frame ON frame.frame_id = label.frame_id
JOIN system ON system.system_id = frame.system_id
LEFT JOIN (
    SELECT
        label_id,
        count(*) AS n,
        sum(seconds) AS seconds,
        sum(seconds * (status = 'failed')) AS seconds_failed
    FROM label_attempt GROUP BY label_id
) AS attempt ON attempt.label_id = label.label_id
GROUP BY label.level_of_theory_id, frame.system_id;

DROP VIEW v_lineage;

CREATE VIEW v_lineage AS
-- From a model to every label that it was trained on, and where each came from.
SELECT
    model.model_id AS model_id, -- the model
    weights.sha256 AS model_sha256, -- hash of its weight file
    model.member AS member, -- its place in the committee
    model.mode AS mode, -- plain, or how it learnt from the tier below
    model.parent_model_id AS parent_model_id, -- model whose weights it started from, if any
    model.snapshot_id AS snapshot_id, -- its training set
    snapshot_member.split AS split, -- how it used the label: train or validation
    label.label_id AS label_id, -- the label
    label.energy AS energy, -- reference energy, eV
    level_of_theory.name AS level_of_theory, -- reference method
    level_of_theory.tier AS tier, -- tier of the method in the config
    label_attempt.program AS program, -- program and version that made the label
    label_attempt.host AS host, -- where it was made
    label.generation_id AS generation_id, -- generation that asked for the label
    frame.frame_id AS frame_id, -- the geometry
    frame.key AS frame_key, -- hash of the geometry
    system.name AS system, -- what it is a geometry of
    frame.source AS source, -- initial sampler or route that found it
    coalesce(
        (
            SELECT action FROM decision
            WHERE decision.frame_id = frame.frame_id AND action = 'promoted'
                AND json_extract(decision.numbers, '$.tier') = level_of_theory.tier
            LIMIT 1
        ),
        (
            SELECT action FROM decision
            WHERE decision.frame_id = frame.frame_id
                AND action IN ('initial', 'selected', 'audit', 'validation')
            ORDER BY decision_id LIMIT 1
        )
    ) AS action, -- why it was labelled: initial, selected, audit, validation or promoted
    frame.trajectory_id AS trajectory_id, -- trajectory it was found in; empty for the initial set
    shard.sha256 AS trajectory_sha256, -- hash of the HDF5 file of that trajectory
    trajectory.replica AS replica, -- index of the trajectory within that file
    frame.step AS step, -- integration step within the trajectory
    trajectory.committee_id AS asked_by_committee_id -- committee that ran it and asked for the label
FROM model
JOIN artifact AS weights ON weights.artifact_id = model.artifact_id
JOIN snapshot_member ON snapshot_member.snapshot_id = model.snapshot_id
JOIN label ON label.label_id = snapshot_member.label_id
JOIN level_of_theory ON level_of_theory.level_of_theory_id = label.level_of_theory_id
JOIN frame ON frame.frame_id = label.frame_id
JOIN system ON system.system_id = frame.system_id
LEFT JOIN label_attempt
    ON label_attempt.label_id = label.label_id AND label_attempt.status = 'done'
LEFT JOIN trajectory ON trajectory.trajectory_id = frame.trajectory_id
LEFT JOIN artifact AS shard ON shard.artifact_id = trajectory.artifact_id;

DROP VIEW v_frame_history;

CREATE VIEW v_frame_history AS
-- What happened to a frame: one row for each event. Ask for one frame_id, order by generation,
-- level_of_theory_id, stage, at.
SELECT
    frame.frame_id AS frame_id, -- the frame
    1 AS stage, -- order of the events in a generation: 1 found ... 5 used
    'found' AS event, -- found, predicted, decided, promoted, labelled, failed or used
    task.finished_at AS at, -- instant, where one was recorded
    trajectory.committee_id AS committee_id, -- committee concerned, if any
    iif(
        frame.trajectory_id IS NULL,
        'initial set (' || frame.source || ')',
        'route ' || frame.source || ', trajectory ' || frame.trajectory_id
            || ', step ' || frame.step
    ) AS what, -- the event in words
    generation.number AS generation, -- generation in which it happened
    NULL AS level_of_theory_id, -- level concerned, from the label on
    NULL AS level_of_theory -- its name
FROM frame
JOIN generation ON generation.generation_id = frame.generation_id
LEFT JOIN trajectory ON trajectory.trajectory_id = frame.trajectory_id
LEFT JOIN task ON task.task_id = trajectory.task_id
UNION ALL
SELECT
    prediction.frame_id, 2, 'predicted', NULL, prediction.committee_id,
    'largest force spread ' || round(force_spread_max, 4) || ' eV/Å'
        || coalesce(', error bound ' || round(force_bound, 4) || ' eV/Å', ''),
    generation.number + 1, NULL, level_of_theory.name -- a committee looks for the next generation
FROM prediction
JOIN committee ON committee.committee_id = prediction.committee_id
JOIN generation ON generation.generation_id = committee.generation_id
JOIN level_of_theory ON level_of_theory.level_of_theory_id = committee.level_of_theory_id
UNION ALL
SELECT
    decision.frame_id, 3, iif(decision.action = 'promoted', 'promoted', 'decided'),
    task.finished_at, NULL,
    decision.action || ' by rule ' || decision.rule || ' ' || decision.numbers,
    generation.number, level_of_theory.level_of_theory_id, level_of_theory.name
FROM decision
JOIN generation ON generation.generation_id = decision.generation_id
LEFT JOIN task ON task.task_id = decision.task_id
LEFT JOIN level_of_theory
    ON decision.action = 'promoted'
    AND level_of_theory.tier = json_extract(decision.numbers, '$.tier')
UNION ALL
SELECT
    label.frame_id, 4, iif(label_attempt.status = 'done', 'labelled', 'failed'),
    label_attempt.attempted_at, NULL,
    level_of_theory.name || ' try ' || label_attempt.number || ' by ' || label_attempt.program
        || coalesce(' on ' || label_attempt.host, '') || ': '
        || coalesce(label_attempt.error_class, 'energy ' || round(label.energy, 4) || ' eV'),
    generation.number, label.level_of_theory_id, level_of_theory.name
FROM label
JOIN generation ON generation.generation_id = label.generation_id
JOIN level_of_theory ON level_of_theory.level_of_theory_id = label.level_of_theory_id
JOIN label_attempt ON label_attempt.label_id = label.label_id
UNION ALL
SELECT
    label.frame_id, 5, 'used', snapshot.sealed_at, NULL,
    'in snapshot ' || snapshot.snapshot_id || ' for ' || snapshot_member.split,
    generation.number, label.level_of_theory_id, level_of_theory.name
FROM label
JOIN snapshot_member ON snapshot_member.label_id = label.label_id
JOIN snapshot ON snapshot.snapshot_id = snapshot_member.snapshot_id
JOIN generation ON generation.generation_id = snapshot.generation_id
JOIN level_of_theory ON level_of_theory.level_of_theory_id = label.level_of_theory_id;

DROP VIEW v_failures;

CREATE VIEW v_failures AS
-- Everything that failed: one row for each label attempt, trajectory or task.
SELECT
    'label' AS kind, -- label, trajectory or task
    label.label_id AS id, -- label_id, trajectory_id or task_id
    generation.number AS generation, -- generation it served
    level_of_theory.tier AS tier, -- tier of the label, or of the potential that moved the atoms
    label_attempt.error_class AS code, -- reason code
    label_attempt.error_text AS text, -- in the words of the program
    label_attempt.host AS host, -- where
    label_attempt.attempted_at AS at, -- instant
    label.status = 'done' AS resolved -- 1 if a later try succeeded
FROM label_attempt
JOIN label ON label.label_id = label_attempt.label_id
JOIN generation ON generation.generation_id = label.generation_id
JOIN level_of_theory ON level_of_theory.level_of_theory_id = label.level_of_theory_id
WHERE label_attempt.status = 'failed'
UNION ALL
SELECT
    'trajectory', trajectory.trajectory_id, generation.number, level_of_theory.tier,
    trajectory.reason,
    trajectory.n_stable || ' of ' || trajectory.n_frames || ' recorded frames are sound',
    task.host, task.finished_at, 0
FROM trajectory
JOIN generation ON generation.generation_id = trajectory.generation_id
JOIN committee ON committee.committee_id = trajectory.committee_id
JOIN level_of_theory ON level_of_theory.level_of_theory_id = committee.level_of_theory_id
LEFT JOIN task ON task.task_id = trajectory.task_id
WHERE trajectory.reason != 'completed'
UNION ALL
SELECT
    'task', task_id, generation, NULL, error_class, kind || ': ' || error_text, host, finished_at,
    status = 'done'
FROM task
WHERE error_class IS NOT NULL;
