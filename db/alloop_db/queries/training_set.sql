-- The frames and labels of a training set, all of one level of theory.
-- :snapshot integer = NULL  snapshot_id; without one, the latest
-- :tier text = NULL  tier whose latest snapshot is meant; without one, any
SELECT
    snapshot_member.snapshot_id, snapshot_member.split, label.frame_id, label.label_id,
    level_of_theory.name AS level_of_theory, label.energy, frame.source, frame.trajectory_id
FROM snapshot_member
JOIN label ON label.label_id = snapshot_member.label_id
JOIN level_of_theory ON level_of_theory.level_of_theory_id = label.level_of_theory_id
JOIN frame ON frame.frame_id = label.frame_id
WHERE snapshot_member.snapshot_id = coalesce(:snapshot, (
    SELECT max(snapshot_id) FROM snapshot
    JOIN level_of_theory AS wanted ON wanted.level_of_theory_id = snapshot.level_of_theory_id
    WHERE :tier IS NULL OR wanted.tier = :tier
))
ORDER BY label.label_id;
