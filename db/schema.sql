-- Written by `python -m alloop_db.documentation` from the migrations; do not edit.

CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

CREATE TABLE campaign (
    -- The one campaign that this file belongs to.
    campaign_id INTEGER NOT NULL, -- always 1
    name VARCHAR NOT NULL, -- name from the config
    seed INTEGER NOT NULL, -- root of the tree of random seeds
    created_at VARCHAR NOT NULL, -- instant of the first start
    alloop_version VARCHAR NOT NULL, -- version that created the campaign
    state VARCHAR NOT NULL, -- running, converged, budget, stalled, paused or stopped
    exit_code INTEGER, -- exit code of the verdict; empty while running
    verdict VARCHAR, -- the verdict in words
    epoch INTEGER NOT NULL, -- how many drivers have held the campaign
    seconds DOUBLE NOT NULL, -- wall time of all drivers together, s
    CONSTRAINT pk_campaign PRIMARY KEY (campaign_id),
    CONSTRAINT ck_campaign_only_one CHECK (campaign_id = 1)
);

CREATE TABLE config_version (
    -- One row for each version of the config that a driver was started with.
    config_version_id INTEGER NOT NULL, -- key
    sha256 VARCHAR NOT NULL, -- hash of the resolved config
    source VARCHAR NOT NULL, -- the YAML text as the user wrote it
    resolved JSON NOT NULL, -- every key with its default filled in, as JSON
    changes JSON, -- what differs from the version before
    created_at VARCHAR NOT NULL, -- instant of the start that brought it
    CONSTRAINT pk_config_version PRIMARY KEY (config_version_id),
    CONSTRAINT uq_config_version_sha256 UNIQUE (sha256)
);

CREATE TABLE environment (
    -- Software and machine in which tasks ran.
    environment_id INTEGER NOT NULL, -- key
    sha256 VARCHAR NOT NULL, -- hash of the content
    host VARCHAR NOT NULL, -- host name
    python VARCHAR NOT NULL, -- Python version
    platform VARCHAR NOT NULL, -- operating system and processor
    packages JSON NOT NULL, -- package versions, as JSON
    git VARCHAR, -- commit of the source tree, with -dirty if it was changed
    threads INTEGER NOT NULL, -- threads per task
    CONSTRAINT pk_environment PRIMARY KEY (environment_id),
    CONSTRAINT uq_environment_sha256 UNIQUE (sha256)
);

CREATE TABLE event (
    -- What happened, for people: starts, stops, losses, retries, verdicts.
    event_id INTEGER NOT NULL, -- key
    at VARCHAR NOT NULL, -- instant
    kind VARCHAR NOT NULL, -- start, stop, loss, retry, failure, breaker, generation, verdict, ...
    text VARCHAR NOT NULL, -- one line in words
    details JSON, -- numbers behind it, as JSON
    CONSTRAINT pk_event PRIMARY KEY (event_id)
);

CREATE TABLE committee (
    -- The models that vote together.
    committee_id INTEGER NOT NULL, -- key
    sha256 VARCHAR NOT NULL, -- hash over the members' weights
    generation_id INTEGER NOT NULL, -- when
    level_of_theory_id INTEGER NOT NULL, -- what it imitates
    created_at VARCHAR NOT NULL, -- instant
    CONSTRAINT pk_committee PRIMARY KEY (committee_id),
    CONSTRAINT uq_committee_sha256 UNIQUE (sha256),
    CONSTRAINT uq_committee_generation_id UNIQUE (generation_id),
    CONSTRAINT fk_committee_generation_id FOREIGN KEY(generation_id) REFERENCES generation (generation_id),
    CONSTRAINT fk_committee_level_of_theory_id FOREIGN KEY(level_of_theory_id) REFERENCES level_of_theory (level_of_theory_id)
);

CREATE TABLE task (
    -- Work sent to a worker: the intent is committed before it is submitted.
    task_id INTEGER NOT NULL, -- key
    "key" VARCHAR NOT NULL, -- hash of kind and spec: equal work is recognised
    kind VARCHAR NOT NULL, -- prepare, explore, select, label, train, evaluate or fit_spacetime
    generation INTEGER NOT NULL, -- number of the generation it serves
    spec JSON NOT NULL, -- everything the worker needs, as JSON
    priority INTEGER NOT NULL, -- lower goes first
    status VARCHAR NOT NULL, -- pending, running, done or failed
    tries INTEGER NOT NULL, -- attempts that ended in a failure of the task itself
    losses INTEGER NOT NULL, -- attempts lost with their worker, node or driver
    epoch INTEGER, -- the driver that last submitted it
    created_at VARCHAR NOT NULL, -- instant of the intent
    submitted_at VARCHAR, -- instant of the last submission
    started_at VARCHAR, -- instant at which the worker began
    finished_at VARCHAR, -- instant of the commit
    seconds DOUBLE, -- wall time on the worker, s
    cpu_seconds DOUBLE, -- processor time on the worker, s
    host VARCHAR, -- host of the worker
    environment_id INTEGER, -- software it ran with
    error_class VARCHAR, -- class of the last error
    error_text VARCHAR, hand_backs INTEGER DEFAULT 0 NOT NULL, earlier_seconds DOUBLE DEFAULT 0.0 NOT NULL, pool VARCHAR, job VARCHAR, peak_memory DOUBLE, -- text of the last error
    CONSTRAINT pk_task PRIMARY KEY (task_id),
    CONSTRAINT ck_task_status CHECK (status IN ('pending', 'running', 'done', 'failed')),
    CONSTRAINT uq_task_key UNIQUE ("key"),
    CONSTRAINT fk_task_environment_id FOREIGN KEY(environment_id) REFERENCES environment (environment_id)
);

CREATE TABLE artifact (
    -- A file under artifacts/, named by the hash of its content.
    artifact_id INTEGER NOT NULL, -- key
    sha256 VARCHAR NOT NULL, -- hash of the file's bytes
    suffix VARCHAR NOT NULL, -- file name suffix
    kind VARCHAR NOT NULL, -- preparation, trajectory, snapshot, held_out, model or spacetime_model
    bytes INTEGER NOT NULL, -- size in bytes
    created_at VARCHAR NOT NULL, -- instant of the commit
    task_id INTEGER, -- the task that made it
    CONSTRAINT pk_artifact PRIMARY KEY (artifact_id),
    CONSTRAINT uq_artifact_sha256 UNIQUE (sha256),
    CONSTRAINT fk_artifact_task_id FOREIGN KEY(task_id) REFERENCES task (task_id)
);

CREATE TABLE calibration (
    -- How a committee's spread translates into error, from frames no member was trained on.
    calibration_id INTEGER NOT NULL, -- key
    committee_id INTEGER NOT NULL, -- the committee
    measure VARCHAR NOT NULL, -- force or energy
    estimator VARCHAR NOT NULL, -- name of the formula behind alpha
    n_members INTEGER, -- members it corrects for; empty if it need not
    alpha DOUBLE, -- factor from spread to root-mean-square error
    alpha_low DOUBLE, -- lower end of its confidence interval
    alpha_high DOUBLE, -- upper end of its confidence interval
    quantile DOUBLE, -- split-conformal factor from spread to a bound
    level DOUBLE NOT NULL, -- coverage that the bound promises
    confidence DOUBLE NOT NULL, -- confidence level of alpha's interval
    n INTEGER NOT NULL, -- number of frames behind it
    n_groups INTEGER NOT NULL, -- number of independent trajectories behind it
    CONSTRAINT pk_calibration PRIMARY KEY (calibration_id),
    CONSTRAINT uq_calibration_committee_id_measure UNIQUE (committee_id, measure),
    CONSTRAINT fk_calibration_committee_id FOREIGN KEY(committee_id) REFERENCES committee (committee_id)
);

CREATE TABLE snapshot (
    -- An immutable training set, sealed by triggers.
    snapshot_id INTEGER NOT NULL, -- key
    sha256 VARCHAR NOT NULL, -- hash over its labels and splits
    level_of_theory_id INTEGER NOT NULL, -- of all its labels
    generation_id INTEGER NOT NULL, -- whose models it trains
    artifact_id INTEGER NOT NULL, -- the same data as arrays (.npz)
    held_out VARCHAR, -- hash of the held-out frames that judge its models (.npz); empty when there are none
    n_labels INTEGER NOT NULL, -- number of labels
    sealed_at VARCHAR, -- instant; once set nothing can change
    CONSTRAINT pk_snapshot PRIMARY KEY (snapshot_id),
    CONSTRAINT uq_snapshot_sha256 UNIQUE (sha256),
    CONSTRAINT fk_snapshot_level_of_theory_id FOREIGN KEY(level_of_theory_id) REFERENCES level_of_theory (level_of_theory_id),
    CONSTRAINT fk_snapshot_generation_id FOREIGN KEY(generation_id) REFERENCES generation (generation_id),
    CONSTRAINT fk_snapshot_artifact_id FOREIGN KEY(artifact_id) REFERENCES artifact (artifact_id)
);

CREATE TABLE system (
    -- A molecule or cell that the campaign is about.
    system_id INTEGER NOT NULL, -- key
    name VARCHAR NOT NULL, -- id in the config
    formula VARCHAR NOT NULL, -- chemical formula, Hill order
    n_atoms INTEGER NOT NULL, -- number of atoms
    charge INTEGER NOT NULL, -- total charge, e
    multiplicity INTEGER NOT NULL, -- spin multiplicity 2S + 1
    numbers BLOB NOT NULL, -- atomic numbers, int64 blob (n_atoms)
    positions BLOB NOT NULL, -- coordinates given by the user, float64 blob (n_atoms, 3), Å
    cell BLOB, -- lattice vectors, float64 blob (3, 3), Å
    pbc VARCHAR NOT NULL, -- which lattice vectors are periodic, such as TTF
    artifact_id INTEGER, -- minimum and Hessian (.npz)
    CONSTRAINT pk_system PRIMARY KEY (system_id),
    CONSTRAINT uq_system_name UNIQUE (name),
    CONSTRAINT fk_system_artifact_id FOREIGN KEY(artifact_id) REFERENCES artifact (artifact_id)
);

CREATE TABLE atom_energy (
    -- Energy of an atom fitted to the labels of a snapshot, the zero of its models.
    atom_energy_id INTEGER NOT NULL, -- key
    level_of_theory_id INTEGER NOT NULL, -- whose labels were fitted
    snapshot_id INTEGER NOT NULL, -- the training set that was fitted
    number INTEGER NOT NULL, -- atomic number
    energy DOUBLE NOT NULL, -- energy of the atom, eV
    CONSTRAINT pk_atom_energy PRIMARY KEY (atom_energy_id),
    CONSTRAINT uq_atom_energy_snapshot_id_number UNIQUE (snapshot_id, number),
    CONSTRAINT fk_atom_energy_level_of_theory_id FOREIGN KEY(level_of_theory_id) REFERENCES level_of_theory (level_of_theory_id),
    CONSTRAINT fk_atom_energy_snapshot_id FOREIGN KEY(snapshot_id) REFERENCES snapshot (snapshot_id)
);

CREATE TABLE trajectory (
    -- One replica of molecular dynamics, kept in an HDF5 shard.
    trajectory_id INTEGER NOT NULL, -- key
    artifact_id INTEGER NOT NULL, -- the HDF5 shard
    replica INTEGER NOT NULL, -- index within the shard
    system_id INTEGER NOT NULL, -- what moved
    generation_id INTEGER NOT NULL, -- when
    committee_id INTEGER NOT NULL, -- the potential
    task_id INTEGER NOT NULL, -- the task that ran it
    route VARCHAR NOT NULL, -- id of the route in the config
    ensemble VARCHAR NOT NULL, -- nve or nvt
    temperature DOUBLE NOT NULL, -- of the bath, or of the start for nve, K
    timestep DOUBLE NOT NULL, -- integration step, fs
    seed VARCHAR NOT NULL, -- random seed of the replica
    split VARCHAR NOT NULL, -- train, validation or audit: decided at birth, for ever
    n_frames INTEGER NOT NULL, -- recorded frames
    n_stable INTEGER NOT NULL, -- recorded frames judged sound
    duration DOUBLE NOT NULL, -- simulated time, fs
    reason VARCHAR NOT NULL, -- how it ended: completed, deadline, or the reason code that stopped it
    CONSTRAINT pk_trajectory PRIMARY KEY (trajectory_id),
    CONSTRAINT ck_trajectory_split CHECK (split IN ('train', 'validation', 'audit')),
    CONSTRAINT uq_trajectory_artifact_id_replica UNIQUE (artifact_id, replica),
    CONSTRAINT fk_trajectory_artifact_id FOREIGN KEY(artifact_id) REFERENCES artifact (artifact_id),
    CONSTRAINT fk_trajectory_system_id FOREIGN KEY(system_id) REFERENCES system (system_id),
    CONSTRAINT fk_trajectory_generation_id FOREIGN KEY(generation_id) REFERENCES generation (generation_id),
    CONSTRAINT fk_trajectory_committee_id FOREIGN KEY(committee_id) REFERENCES committee (committee_id),
    CONSTRAINT fk_trajectory_task_id FOREIGN KEY(task_id) REFERENCES task (task_id)
);

CREATE TABLE committee_member (
    -- A model's seat in a committee.
    committee_id INTEGER NOT NULL, -- the committee
    position INTEGER NOT NULL, -- seat, from 0
    model_id INTEGER NOT NULL, -- the model
    CONSTRAINT pk_committee_member PRIMARY KEY (committee_id, position),
    CONSTRAINT fk_committee_member_committee_id FOREIGN KEY(committee_id) REFERENCES committee (committee_id),
    CONSTRAINT fk_committee_member_model_id FOREIGN KEY(model_id) REFERENCES model (model_id)
) WITHOUT ROWID;

CREATE TABLE frame (
    -- A geometry that was considered for labelling.
    frame_id INTEGER NOT NULL, -- key
    "key" VARCHAR NOT NULL, -- hash of the content, coordinates to 1e-8 Å
    system_id INTEGER NOT NULL, -- what it is a geometry of
    generation_id INTEGER NOT NULL, -- when it was found
    trajectory_id INTEGER, -- where it was found; empty for the initial set
    step INTEGER, -- integration step within the trajectory
    time DOUBLE, -- time within the trajectory, fs
    source VARCHAR NOT NULL, -- the initial sampler, or the route that found it
    split VARCHAR NOT NULL, -- train, validation or audit: that of its trajectory
    n_atoms INTEGER NOT NULL, -- number of atoms
    positions BLOB NOT NULL, -- coordinates, float64 blob (n_atoms, 3), Å
    cell BLOB, -- lattice vectors, float64 blob (3, 3), Å
    CONSTRAINT pk_frame PRIMARY KEY (frame_id),
    CONSTRAINT ck_frame_split CHECK (split IN ('train', 'validation', 'audit')),
    CONSTRAINT uq_frame_key UNIQUE ("key"),
    CONSTRAINT fk_frame_system_id FOREIGN KEY(system_id) REFERENCES system (system_id),
    CONSTRAINT fk_frame_generation_id FOREIGN KEY(generation_id) REFERENCES generation (generation_id),
    CONSTRAINT fk_frame_trajectory_id FOREIGN KEY(trajectory_id) REFERENCES trajectory (trajectory_id)
);

CREATE TABLE spacetime_trajectory (
    -- A trajectory that a 4D model saw, and in which role.
    spacetime_model_id INTEGER NOT NULL, -- the 4D model
    trajectory_id INTEGER NOT NULL, -- the trajectory
    split VARCHAR NOT NULL, -- train, validation, or audit for the held-out error
    CONSTRAINT pk_spacetime_trajectory PRIMARY KEY (spacetime_model_id, trajectory_id),
    CONSTRAINT ck_spacetime_trajectory_split CHECK (split IN ('train', 'validation', 'audit')),
    CONSTRAINT fk_spacetime_trajectory_spacetime_model_id FOREIGN KEY(spacetime_model_id) REFERENCES spacetime_model (spacetime_model_id),
    CONSTRAINT fk_spacetime_trajectory_trajectory_id FOREIGN KEY(trajectory_id) REFERENCES trajectory (trajectory_id)
) WITHOUT ROWID;

CREATE TABLE prediction (
    -- What a committee said of a frame when the frame was chosen, before any label existed.
    prediction_id INTEGER NOT NULL, -- key
    frame_id INTEGER NOT NULL, -- the frame
    committee_id INTEGER NOT NULL, -- who said it
    energy DOUBLE NOT NULL, -- mean energy, eV
    forces BLOB NOT NULL, -- mean forces, float64 blob (n_atoms, 3), eV/Å
    energy_spread DOUBLE NOT NULL, -- standard deviation of the members' energies, eV
    energy_spread_per_sqrt_atom DOUBLE NOT NULL, -- the same over sqrt(n_atoms), eV
    force_spread_max DOUBLE NOT NULL, -- largest force spread of an atom, eV/Å
    force_spread_mean DOUBLE NOT NULL, -- mean force spread over the atoms, eV/Å
    force_bound DOUBLE, -- calibrated bound on the RMSE of its force components, eV/Å; empty before calibration
    CONSTRAINT pk_prediction PRIMARY KEY (prediction_id),
    CONSTRAINT uq_prediction_frame_id_committee_id UNIQUE (frame_id, committee_id),
    CONSTRAINT fk_prediction_frame_id FOREIGN KEY(frame_id) REFERENCES frame (frame_id),
    CONSTRAINT fk_prediction_committee_id FOREIGN KEY(committee_id) REFERENCES committee (committee_id)
);

CREATE TABLE snapshot_member (
    -- A label that belongs to a snapshot.
    snapshot_id INTEGER NOT NULL, -- the snapshot
    label_id INTEGER NOT NULL, -- the label
    split VARCHAR NOT NULL, -- train or validation; audit labels are never members
    CONSTRAINT pk_snapshot_member PRIMARY KEY (snapshot_id, label_id),
    CONSTRAINT ck_snapshot_member_split CHECK (split IN ('train', 'validation', 'audit')),
    CONSTRAINT fk_snapshot_member_snapshot_id FOREIGN KEY(snapshot_id) REFERENCES snapshot (snapshot_id),
    CONSTRAINT fk_snapshot_member_label_id FOREIGN KEY(label_id) REFERENCES label (label_id)
) WITHOUT ROWID;

CREATE TABLE "spacetime_model" (
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

CREATE TABLE spacetime_exclusion (
    -- A trajectory that was at hand for a 4D model and was left out.
    spacetime_model_id INTEGER NOT NULL, -- the 4D model
    trajectory_id INTEGER NOT NULL, -- the trajectory
    reason VARCHAR NOT NULL, -- why, in one line
    CONSTRAINT pk_spacetime_exclusion PRIMARY KEY (spacetime_model_id, trajectory_id),
    CONSTRAINT fk_spacetime_exclusion_spacetime_model_id FOREIGN KEY(spacetime_model_id) REFERENCES spacetime_model (spacetime_model_id),
    CONSTRAINT fk_spacetime_exclusion_trajectory_id FOREIGN KEY(trajectory_id) REFERENCES trajectory (trajectory_id)
) WITHOUT ROWID;

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

CREATE TABLE "level_of_theory" (
    -- A reference method, as exactly as labels must agree to be used together.
    level_of_theory_id INTEGER NOT NULL, -- key
    name VARCHAR NOT NULL, -- such as GFN2-xTB or spGFN2-xTB
    tier VARCHAR NOT NULL, -- id of the tier in the config
    method JSON NOT NULL, -- engine and settings, as JSON
    seconds DOUBLE DEFAULT 0.0 NOT NULL, -- wall time of all tries at its labels, s, kept by a trigger
    CONSTRAINT pk_level_of_theory PRIMARY KEY (level_of_theory_id),
    CONSTRAINT uq_level_of_theory_name UNIQUE (name)
);

CREATE TABLE "generation" (
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

CREATE TABLE "label" (
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

CREATE TABLE "label_attempt" (
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

CREATE TABLE "label_tally" (
    -- Labels counted by generation, level and status, kept by triggers: planning need not count.
    generation_id INTEGER NOT NULL, -- the generation that asked for them
    level_of_theory_id INTEGER NOT NULL, -- the method
    status VARCHAR NOT NULL, -- pending, done, failed or skipped
    n INTEGER NOT NULL, -- how many
    CONSTRAINT pk_label_tally PRIMARY KEY (generation_id, level_of_theory_id, status),
    CONSTRAINT fk_label_tally_generation_id FOREIGN KEY(generation_id) REFERENCES generation (generation_id),
    CONSTRAINT fk_label_tally_level_of_theory_id FOREIGN KEY(level_of_theory_id) REFERENCES level_of_theory (level_of_theory_id)
) WITHOUT ROWID;

CREATE TABLE "decision" (
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

CREATE TABLE "model" (
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

CREATE TABLE "evaluation" (
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

CREATE INDEX ix_task_status_priority ON task (status, priority);

CREATE INDEX ix_snapshot_generation_id ON snapshot (generation_id);

CREATE INDEX ix_trajectory_committee_id ON trajectory (committee_id);

CREATE INDEX ix_trajectory_generation_id ON trajectory (generation_id);

CREATE INDEX ix_committee_member_model_id ON committee_member (model_id);

CREATE INDEX ix_frame_generation_id ON frame (generation_id);

CREATE INDEX ix_frame_trajectory_id ON frame (trajectory_id);

CREATE INDEX ix_spacetime_trajectory_trajectory_id ON spacetime_trajectory (trajectory_id);

CREATE INDEX ix_prediction_committee_id ON prediction (committee_id);

CREATE INDEX ix_snapshot_member_label_id ON snapshot_member (label_id);

CREATE INDEX ix_spacetime_exclusion_trajectory_id ON spacetime_exclusion (trajectory_id);

CREATE INDEX ix_label_generation_id_status ON label (generation_id, status);

CREATE INDEX ix_label_status_task_id ON label (status, task_id);

CREATE INDEX ix_label_attempt_error_class ON label_attempt (error_class);

CREATE UNIQUE INDEX uq_label_attempt_done ON label_attempt (label_id) WHERE status = 'done';

CREATE INDEX ix_label_attempt_level_of_theory_id_label_attempt_id
ON label_attempt (level_of_theory_id, label_attempt_id);

CREATE INDEX ix_decision_frame_id ON decision (frame_id);

CREATE INDEX ix_decision_generation_id ON decision (generation_id);

CREATE INDEX ix_model_artifact_id ON model (artifact_id);

CREATE INDEX ix_model_generation_id ON model (generation_id);

CREATE INDEX ix_task_status_kind_priority ON task (status, kind, priority);

CREATE INDEX ix_task_generation_kind ON task (generation, kind);

CREATE INDEX ix_label_level_of_theory_id_status_task_id
ON label (level_of_theory_id, status, task_id);

CREATE TRIGGER snapshot_sealed_update BEFORE UPDATE ON snapshot
WHEN OLD.sealed_at IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'this snapshot is sealed: it cannot be changed');
END;

CREATE TRIGGER snapshot_sealed_delete BEFORE DELETE ON snapshot
WHEN OLD.sealed_at IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'this snapshot is sealed: it cannot be deleted');
END;

CREATE TRIGGER snapshot_member_sealed_insert BEFORE INSERT ON snapshot_member
WHEN (SELECT sealed_at FROM snapshot WHERE snapshot_id = NEW.snapshot_id) IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'the snapshot is sealed: no label can be added');
END;

CREATE TRIGGER snapshot_member_sealed_update BEFORE UPDATE ON snapshot_member
WHEN EXISTS (
    SELECT 1 FROM snapshot
    WHERE snapshot_id IN (OLD.snapshot_id, NEW.snapshot_id) AND sealed_at IS NOT NULL
)
BEGIN
    SELECT RAISE(ABORT, 'the snapshot is sealed: its labels cannot be changed');
END;

CREATE TRIGGER snapshot_member_sealed_delete BEFORE DELETE ON snapshot_member
WHEN (SELECT sealed_at FROM snapshot WHERE snapshot_id = OLD.snapshot_id) IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'the snapshot is sealed: no label can be removed');
END;

CREATE TRIGGER snapshot_member_sound BEFORE INSERT ON snapshot_member
WHEN NEW.split = 'audit' OR EXISTS (
    SELECT 1 FROM label JOIN frame USING (frame_id)
    WHERE label_id = NEW.label_id AND (label.status != 'done' OR frame.split = 'audit')
)
BEGIN
    SELECT RAISE(ABORT, 'only finished labels of frames outside the audit can be trained on');
END;

CREATE TRIGGER frame_update BEFORE UPDATE ON frame
BEGIN
    SELECT RAISE(ABORT, 'a frame cannot be changed: another geometry is another frame');
END;

CREATE TRIGGER prediction_update BEFORE UPDATE ON prediction
BEGIN
    SELECT RAISE(ABORT, 'a prediction cannot be changed after it was made');
END;

CREATE TRIGGER prediction_delete BEFORE DELETE ON prediction
BEGIN
    SELECT RAISE(ABORT, 'a prediction cannot be deleted after it was made');
END;

CREATE TRIGGER trajectory_origin_update
BEFORE UPDATE OF trajectory_id, artifact_id, replica, system_id, committee_id, seed, split
ON trajectory
BEGIN
    SELECT RAISE(ABORT, 'where a trajectory came from, and its split, cannot be changed');
END;

CREATE TRIGGER spacetime_model_update BEFORE UPDATE ON spacetime_model
BEGIN
    SELECT RAISE(ABORT, 'a 4D model and the judgement on it cannot be changed: fit another');
END;

CREATE TRIGGER spacetime_probe_update BEFORE UPDATE ON spacetime_probe
BEGIN
    SELECT RAISE(ABORT, 'what a probe found cannot be changed');
END;

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

CREATE TRIGGER level_of_theory_seconds AFTER INSERT ON label_attempt
BEGIN
    UPDATE level_of_theory SET seconds = seconds + NEW.seconds
    WHERE level_of_theory_id = NEW.level_of_theory_id;
END;

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

CREATE TRIGGER decision_update BEFORE UPDATE ON decision
BEGIN
    SELECT RAISE(ABORT, 'a decision cannot be rewritten: a later one is another row');
END;

CREATE TRIGGER model_origin_update
BEFORE UPDATE OF model_id, artifact_id, snapshot_id, parent_model_id, seed ON model
BEGIN
    SELECT RAISE(ABORT, 'what a model was made from cannot be changed');
END;

CREATE TRIGGER promotion_update BEFORE UPDATE ON promotion
BEGIN
    SELECT RAISE(ABORT, 'a promotion cannot be rewritten');
END;

CREATE TRIGGER mode_score_update BEFORE UPDATE ON mode_score
BEGIN
    SELECT RAISE(ABORT, 'a score cannot be rewritten');
END;

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
