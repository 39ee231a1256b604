-- Where the committees erred most when they predicted frames before any label existed, against the
-- labels of the committee's level of theory: force RMSE in eV/Å, energy error in eV per atom,
-- beside the spread and the bound given in advance.
-- :limit integer = 20  how many frames
SELECT
    frame.frame_id, prediction.committee_id, level_of_theory.tier,
    coalesce(
        (
            SELECT action FROM decision
            WHERE decision.frame_id = frame.frame_id AND action = 'promoted'
                AND json_extract(decision.numbers, '$.tier') = level_of_theory.tier
        ),
        (
            SELECT action FROM decision
            WHERE decision.frame_id = frame.frame_id
                AND action IN ('selected', 'audit', 'validation')
            ORDER BY decision_id LIMIT 1
        )
    ) AS action,
    rmse(prediction.forces, label.forces) AS force_rmse,
    (prediction.energy - label.energy) / frame.n_atoms AS energy_error_per_atom,
    prediction.force_spread_max, prediction.force_bound, frame.trajectory_id, frame.step
FROM prediction
JOIN frame ON frame.frame_id = prediction.frame_id
JOIN committee ON committee.committee_id = prediction.committee_id
JOIN level_of_theory ON level_of_theory.level_of_theory_id = committee.level_of_theory_id
JOIN label ON label.frame_id = prediction.frame_id AND label.status = 'done'
    AND label.level_of_theory_id = committee.level_of_theory_id
ORDER BY force_rmse DESC, abs(energy_error_per_atom) DESC
LIMIT :limit;
