-- What was once true stays written: these triggers refuse to rewrite or lose it, whoever asks.

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

CREATE TRIGGER label_done_update
BEFORE UPDATE OF label_id, frame_id, level_of_theory_id, status, energy, forces, done_at ON label
WHEN OLD.status = 'done'
BEGIN
    SELECT RAISE(ABORT, 'this label is done: it cannot be changed');
END;

CREATE TRIGGER label_done_delete BEFORE DELETE ON label
WHEN OLD.status = 'done'
BEGIN
    SELECT RAISE(ABORT, 'this label is done: it cannot be deleted');
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

CREATE TRIGGER decision_update BEFORE UPDATE ON decision
BEGIN
    SELECT RAISE(ABORT, 'a decision cannot be rewritten: a later one is another row');
END;

CREATE TRIGGER trajectory_origin_update
BEFORE UPDATE OF trajectory_id, artifact_id, replica, system_id, committee_id, seed, split
ON trajectory
BEGIN
    SELECT RAISE(ABORT, 'where a trajectory came from, and its split, cannot be changed');
END;

CREATE TRIGGER model_origin_update
BEFORE UPDATE OF model_id, artifact_id, snapshot_id, parent_model_id, seed ON model
BEGIN
    SELECT RAISE(ABORT, 'what a model was made from cannot be changed');
END;

-- The tally of labels: planning looks at it with every finished task, a campaign may have millions.

CREATE TRIGGER label_tally_insert AFTER INSERT ON label
BEGIN
    INSERT INTO label_tally (generation_id, status, n) VALUES (NEW.generation_id, NEW.status, 1)
    ON CONFLICT (generation_id, status) DO UPDATE SET n = n + 1;
END;

CREATE TRIGGER label_tally_update AFTER UPDATE OF generation_id, status ON label
BEGIN
    UPDATE label_tally SET n = n - 1
    WHERE generation_id = OLD.generation_id AND status = OLD.status;
    INSERT INTO label_tally (generation_id, status, n) VALUES (NEW.generation_id, NEW.status, 1)
    ON CONFLICT (generation_id, status) DO UPDATE SET n = n + 1;
END;

CREATE TRIGGER label_tally_delete AFTER DELETE ON label
BEGIN
    UPDATE label_tally SET n = n - 1
    WHERE generation_id = OLD.generation_id AND status = OLD.status;
END;
