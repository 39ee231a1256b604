-- How each committee's spread translates into error, and the bound it promises.
SELECT
    generation.number AS generation, level_of_theory.tier, calibration.committee_id, measure,
    estimator, alpha, alpha_low, alpha_high, quantile, level, n, n_groups
FROM calibration
JOIN committee ON committee.committee_id = calibration.committee_id
JOIN generation ON generation.generation_id = committee.generation_id
JOIN level_of_theory ON level_of_theory.level_of_theory_id = committee.level_of_theory_id
ORDER BY generation.number, measure;
