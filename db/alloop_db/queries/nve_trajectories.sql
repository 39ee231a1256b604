-- Trajectories at constant energy, from which 4D models learn: where each lies, how it ended, and
-- how good its potential is beside that of a committee of the same level of theory (audit force
-- RMSE, eV/Å).
-- :system text = NULL  name of a system; without one, all
-- :committee integer = NULL  committee_id to compare with; without one, the latest with an error
WITH audit AS (
    SELECT committee.committee_id, committee.level_of_theory_id, evaluation.force_rmse
    FROM committee JOIN evaluation ON evaluation.committee_id = committee.committee_id
    WHERE evaluation.kind = 'audit' AND evaluation.force_rmse IS NOT NULL
)
SELECT
    trajectory.trajectory_id, system.name AS system, trajectory.split,
    artifact.sha256 AS shard, trajectory.replica, trajectory.route, trajectory.committee_id,
    level_of_theory.tier, generation.number AS generation, trajectory.temperature,
    trajectory.timestep, trajectory.duration, trajectory.n_frames, trajectory.reason,
    audit.force_rmse AS committee_error,
    audit.force_rmse / (
        SELECT other.force_rmse FROM audit AS other
        WHERE other.committee_id = coalesce(:committee, (SELECT max(committee_id) FROM audit))
            AND other.level_of_theory_id = committee.level_of_theory_id
    ) AS relative_error
FROM trajectory
JOIN artifact ON artifact.artifact_id = trajectory.artifact_id
JOIN system ON system.system_id = trajectory.system_id
JOIN generation ON generation.generation_id = trajectory.generation_id
JOIN committee ON committee.committee_id = trajectory.committee_id
JOIN level_of_theory ON level_of_theory.level_of_theory_id = committee.level_of_theory_id
LEFT JOIN audit ON audit.committee_id = trajectory.committee_id
WHERE trajectory.ensemble = 'nve' AND system.name = coalesce(:system, system.name)
ORDER BY trajectory.trajectory_id;
