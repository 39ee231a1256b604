-- Where the committees erred most when they predicted frames before any label existed: force RMSE
-- in eV/Å, energy error in eV per atom, beside the spread and the bound given in advance.
-- :limit integer = 20  how many frames
SELECT
    frame.frame_id, prediction.committee_id, decision.action,
    rmse(prediction.forces, label.forces) AS force_rmse,
    (prediction.energy - label.energy) / frame.n_atoms AS energy_error_per_atom,
    prediction.force_spread_max, prediction.force_bound, frame.trajectory_id, frame.step
FROM prediction
JOIN frame ON frame.frame_id = prediction.frame_id
JOIN label ON label.frame_id = prediction.frame_id AND label.status = 'done'
LEFT JOIN decision ON decision.frame_id = frame.frame_id
    AND decision.action IN ('selected', 'audit', 'validation')
ORDER BY force_rmse DESC
LIMIT :limit;
