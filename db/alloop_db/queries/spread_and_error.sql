-- Spread of the committee beside the error that it turned out to make, for each frame that it had
-- predicted and that is labelled at the committee's level of theory; forces in eV/Å.
SELECT
    prediction.frame_id, prediction.committee_id, level_of_theory.tier, frame.split,
    prediction.force_spread_max, prediction.force_spread_mean, prediction.force_bound,
    rmse(prediction.forces, label.forces) AS force_rmse
FROM prediction
JOIN frame ON frame.frame_id = prediction.frame_id
JOIN committee ON committee.committee_id = prediction.committee_id
JOIN level_of_theory ON level_of_theory.level_of_theory_id = committee.level_of_theory_id
JOIN label ON label.frame_id = prediction.frame_id AND label.status = 'done'
    AND label.level_of_theory_id = committee.level_of_theory_id
ORDER BY prediction.prediction_id;
