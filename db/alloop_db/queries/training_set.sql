-- The frames and labels of a training set; written as extxyz it is a data set.
-- :snapshot integer = NULL  snapshot_id; without one, the latest
SELECT
    snapshot_member.snapshot_id, snapshot_member.split, label.frame_id, label.label_id,
    label.energy, frame.source, frame.trajectory_id
FROM snapshot_member
JOIN label ON label.label_id = snapshot_member.label_id
JOIN frame ON frame.frame_id = label.frame_id
WHERE snapshot_member.snapshot_id = coalesce(:snapshot, (SELECT max(snapshot_id) FROM snapshot))
ORDER BY label.label_id;
