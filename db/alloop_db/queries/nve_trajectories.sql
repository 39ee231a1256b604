-- Trajectories at constant energy, from which 4D models learn: where each lies, how it ended, and
-- how good its potential is beside that of a committee (audit force RMSE, eV/Å).
-- :system text = NULL  name of a system; without one, all
-- :committee integer = NULL  committee_id to compare with; without one, the latest with an error
WITH audit AS (
    SELECT evaluation.committee_id, evaluation.force_rmse
    FROM evaluation WHERE evaluation.kind = 'audit'
)
SELECT
    trajectory.trajectory_id, system.name AS system, trajectory.split,
    artifact.sha256 AS shard, trajectory.replica, trajectory.route, trajectory.committee_id,
    generation.number AS generation, trajectory.temperature, trajectory.timestep,
    trajectory.duration, trajectory.n_frames, trajectory.reason,
    audit.force_rmse AS committee_error,
    audit.force_rmse / (
        SELECT force_rmse FROM audit WHERE committee_id = coalesce(
            :committee, (SELECT max(committee_id) FROM audit)
        )
    ) AS relative_error
FROM trajectory
JOIN artifact ON artifact.artifact_id = trajectory.artifact_id
JOIN system ON system.system_id = trajectory.system_id
JOIN generation ON generation.generation_id = trajectory.generation_id
LEFT JOIN audit ON audit.committee_id = trajectory.committee_id
WHERE trajectory.ensemble = 'nve' AND system.name = coalesce(:system, system.name)
ORDER BY trajectory.trajectory_id;
