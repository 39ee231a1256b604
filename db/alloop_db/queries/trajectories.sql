-- How stable the dynamics is: trajectories by generation and the way they ended.
SELECT
    generation.number AS generation, route, ensemble, temperature, reason, count(*) AS n,
    sum(duration) / 1000.0 AS picoseconds, avg(1.0 * n_stable / n_frames) AS share_sound
FROM trajectory
JOIN generation ON generation.generation_id = trajectory.generation_id
GROUP BY generation.number, route, ensemble, temperature, reason
ORDER BY generation.number, route, temperature, reason;
