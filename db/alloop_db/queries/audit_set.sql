-- The audit frames and their labels: what the error is measured on, never trained on.
SELECT label.frame_id, label.label_id, label.status, label.energy, frame.trajectory_id, frame.step
FROM frame
JOIN label ON label.frame_id = frame.frame_id
WHERE frame.split = 'audit'
ORDER BY label.label_id;
