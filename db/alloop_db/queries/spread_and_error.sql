-- Spread of the committee beside the error that it turned out to make, for each labelled frame
-- that it had predicted; forces in eV/Å.
SELECT
    prediction.frame_id, prediction.committee_id, frame.split,
    prediction.force_spread_max, prediction.force_spread_mean, prediction.force_bound,
    rmse(prediction.forces, label.forces) AS force_rmse
FROM prediction
JOIN frame ON frame.frame_id = prediction.frame_id
JOIN label ON label.frame_id = prediction.frame_id AND label.status = 'done'
ORDER BY prediction.prediction_id;
