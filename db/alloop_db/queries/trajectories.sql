-- How stable the dynamics is: trajectories by generation, tier of the potential, and their ends.
SELECT
    generation.number AS generation, level_of_theory.tier, route, ensemble, temperature, reason,
    count(*) AS n, sum(duration) / 1000.0 AS picoseconds,
    avg(1.0 * n_stable / n_frames) AS share_sound
FROM trajectory
JOIN generation ON generation.generation_id = trajectory.generation_id
JOIN committee ON committee.committee_id = trajectory.committee_id
JOIN level_of_theory ON level_of_theory.level_of_theory_id = committee.level_of_theory_id
GROUP BY generation.number, level_of_theory.tier, route, ensemble, temperature, reason
ORDER BY generation.number, level_of_theory.tier, route, temperature, reason;
