-- The trajectories that a 4D model saw, and in which role.
-- :model integer = NULL  spacetime_model_id; without one, the latest
SELECT
    spacetime_model_id, spacetime_trajectory.split, trajectory.trajectory_id,
    artifact.sha256 AS shard, trajectory.replica, trajectory.committee_id, level_of_theory.tier,
    generation.number AS generation, trajectory.ensemble, trajectory.temperature,
    trajectory.duration
FROM spacetime_trajectory
JOIN trajectory ON trajectory.trajectory_id = spacetime_trajectory.trajectory_id
JOIN artifact ON artifact.artifact_id = trajectory.artifact_id
JOIN committee ON committee.committee_id = trajectory.committee_id
JOIN level_of_theory ON level_of_theory.level_of_theory_id = committee.level_of_theory_id
JOIN generation ON generation.generation_id = trajectory.generation_id
WHERE spacetime_model_id = coalesce(
    :model, (SELECT max(spacetime_model_id) FROM spacetime_model)
)
ORDER BY spacetime_trajectory.split, trajectory.trajectory_id;
