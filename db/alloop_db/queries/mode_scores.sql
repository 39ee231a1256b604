-- How each way to learn from the tier below did on labels that none of its models has seen: one row
-- for each generation and mode, the best first; forces in eV/Å, energies in eV/atom.
SELECT
    generation.number AS generation, level_of_theory.tier,
    level_of_theory.name AS level_of_theory, mode_score.mode, mode_score.promoted,
    mode_score.relative, mode_score.force_rmse, mode_score.energy_rmse, mode_score.split,
    mode_score.n_frames, mode_score.n_groups
FROM mode_score
JOIN generation ON generation.generation_id = mode_score.generation_id
JOIN level_of_theory ON level_of_theory.level_of_theory_id = generation.level_of_theory_id
ORDER BY generation.number, mode_score.relative, mode_score.mode;
