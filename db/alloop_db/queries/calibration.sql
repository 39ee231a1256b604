-- How each committee's spread translates into error, and the bound it promises.
SELECT
    generation.number AS generation, calibration.committee_id, measure, estimator, alpha,
    alpha_low, alpha_high, quantile, level, n, n_groups
FROM calibration
JOIN committee ON committee.committee_id = calibration.committee_id
JOIN generation ON generation.generation_id = committee.generation_id
ORDER BY generation.number, measure;
