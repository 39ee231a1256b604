-- Views for people. Each column carries its meaning; docs/ledger.md is made from these comments.

CREATE VIEW v_lineage AS
-- From a model to every label that it was trained on, and where each came from.
SELECT
    model.model_id AS model_id, -- the model
    weights.sha256 AS model_sha256, -- hash of its weight file
    model.member AS member, -- its place in the committee
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
    (
        SELECT action FROM decision
        WHERE decision.frame_id = frame.frame_id
            AND action IN ('initial', 'selected', 'audit', 'validation')
        ORDER BY decision_id LIMIT 1
    ) AS action, -- why it was labelled: initial, selected, audit or validation
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

CREATE VIEW v_learning_curve AS
-- Error against number of labels: one row for each committee.
SELECT
    generation.number AS generation, -- generation that trained the committee
    committee.committee_id AS committee_id, -- the committee
    level_of_theory.name AS level_of_theory, -- reference method that it imitates
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
        AS seconds_per_label -- price of a label, its failures included, s
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

CREATE VIEW v_frame_history AS
-- What happened to a frame, in order: one row for each event. Ask for one frame_id.
SELECT
    frame.frame_id AS frame_id, -- the frame
    1 AS stage, -- order of the events: 1 found ... 5 used
    'found' AS event, -- found, predicted, decided, labelled, failed or used
    task.finished_at AS at, -- instant, where one was recorded
    trajectory.committee_id AS committee_id, -- committee concerned, if any
    iif(
        frame.trajectory_id IS NULL,
        'initial set (' || frame.source || ')',
        'route ' || frame.source || ', trajectory ' || frame.trajectory_id
            || ', step ' || frame.step
    ) AS what -- the event in words
FROM frame
LEFT JOIN trajectory ON trajectory.trajectory_id = frame.trajectory_id
LEFT JOIN task ON task.task_id = trajectory.task_id
UNION ALL
SELECT
    frame_id, 2, 'predicted', NULL, committee_id,
    'largest force spread ' || round(force_spread_max, 4) || ' eV/Å'
        || coalesce(', error bound ' || round(force_bound, 4) || ' eV/Å', '')
FROM prediction
UNION ALL
SELECT
    decision.frame_id, 3, 'decided', task.finished_at, NULL,
    decision.action || ' by rule ' || decision.rule || ' ' || decision.numbers
FROM decision
LEFT JOIN task ON task.task_id = decision.task_id
UNION ALL
SELECT
    label.frame_id, 4, iif(label_attempt.status = 'done', 'labelled', 'failed'),
    label_attempt.attempted_at, NULL,
    level_of_theory.name || ' try ' || label_attempt.number || ' by ' || label_attempt.program
        || ' on ' || label_attempt.host || ': '
        || coalesce(label_attempt.error_class, 'energy ' || round(label.energy, 4) || ' eV')
FROM label
JOIN level_of_theory ON level_of_theory.level_of_theory_id = label.level_of_theory_id
JOIN label_attempt ON label_attempt.label_id = label.label_id
UNION ALL
SELECT
    label.frame_id, 5, 'used', snapshot.sealed_at, NULL,
    'in snapshot ' || snapshot.snapshot_id || ' for ' || snapshot_member.split
FROM label
JOIN snapshot_member ON snapshot_member.label_id = label.label_id
JOIN snapshot ON snapshot.snapshot_id = snapshot_member.snapshot_id;

CREATE VIEW v_failures AS
-- Everything that failed: one row for each label attempt, trajectory or task.
SELECT
    'label' AS kind, -- label, trajectory or task
    label.label_id AS id, -- label_id, trajectory_id or task_id
    generation.number AS generation, -- generation it served
    label_attempt.error_class AS code, -- reason code
    label_attempt.error_text AS text, -- in the words of the program
    label_attempt.host AS host, -- where
    label_attempt.attempted_at AS at, -- instant
    label.status = 'done' AS resolved -- 1 if a later try succeeded
FROM label_attempt
JOIN label ON label.label_id = label_attempt.label_id
JOIN generation ON generation.generation_id = label.generation_id
WHERE label_attempt.status = 'failed'
UNION ALL
SELECT
    'trajectory', trajectory.trajectory_id, generation.number, trajectory.reason,
    trajectory.n_stable || ' of ' || trajectory.n_frames || ' recorded frames are sound',
    task.host, task.finished_at, 0
FROM trajectory
JOIN generation ON generation.generation_id = trajectory.generation_id
LEFT JOIN task ON task.task_id = trajectory.task_id
WHERE trajectory.reason != 'completed'
UNION ALL
SELECT
    'task', task_id, generation, error_class, kind || ': ' || error_text, host, finished_at,
    status = 'done'
FROM task
WHERE error_class IS NOT NULL;
