-- Every label behind a model (and behind the models whose weights it started from), with method,
-- program version, trajectory and the committee that asked for it; mode says how the model learnt.
-- :model text  sha256 of the weight file, or how it begins
WITH RECURSIVE ancestor(model_id, depth) AS (
    SELECT model.model_id, 0
    FROM model JOIN artifact USING (artifact_id)
    WHERE artifact.sha256 >= :model AND artifact.sha256 < :model || 'g'
    UNION
    SELECT model.parent_model_id, depth + 1
    FROM ancestor JOIN model USING (model_id)
    WHERE model.parent_model_id IS NOT NULL
)
SELECT
    v_lineage.model_id, depth, mode, label_id, split, energy, level_of_theory, tier, program,
    frame_id, frame_key, system, source, action, trajectory_id, trajectory_sha256, replica, step,
    asked_by_committee_id
FROM ancestor JOIN v_lineage USING (model_id)
ORDER BY depth, v_lineage.model_id, label_id;
