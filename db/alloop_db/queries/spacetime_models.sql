-- 4D models with the tier they imitate, their errors on trajectories they have not seen, the
-- judgement, and their probes.
-- :system text = NULL  name of a system; without one, all
SELECT
    spacetime_model.spacetime_model_id, system.name AS system, generation.number AS generation,
    level_of_theory.tier, spacetime_model.status, spacetime_model.reason,
    spacetime_model.parent_spacetime_model_id, spacetime_model.cutoff, artifact.sha256,
    (
        SELECT count(*) FROM spacetime_trajectory AS seen
        WHERE seen.spacetime_model_id = spacetime_model.spacetime_model_id
            AND seen.split = 'train'
    ) AS n_train,
    (
        SELECT count(*) FROM spacetime_exclusion AS left_out
        WHERE left_out.spacetime_model_id = spacetime_model.spacetime_model_id
    ) AS n_excluded,
    json_extract(metrics, '$.test.ensemble.bond') AS bond,
    json_extract(metrics, '$.test.ensemble.angle') AS angle,
    json_extract(metrics, '$.test.ensemble.dihedral') AS dihedral,
    json_extract(metrics, '$.test.ensemble.rmsd_end') AS rmsd_end,
    count(probe.spacetime_probe_id) AS n_probes,
    sum(probe.n_segments) AS n_segments, sum(probe.n_flagged) AS n_flagged,
    1.0 * sum(probe.n_flagged) / sum(probe.n_segments) AS flagged_fraction,
    (
        SELECT count(*) FROM trajectory
        JOIN spacetime_probe AS own ON own.task_id = trajectory.task_id
        WHERE own.spacetime_model_id = spacetime_model.spacetime_model_id
    ) AS n_trajectories_begun
FROM spacetime_model
JOIN system ON system.system_id = spacetime_model.system_id
JOIN generation ON generation.generation_id = spacetime_model.generation_id
JOIN artifact ON artifact.artifact_id = spacetime_model.artifact_id
JOIN committee ON committee.committee_id = spacetime_model.committee_id
JOIN level_of_theory ON level_of_theory.level_of_theory_id = committee.level_of_theory_id
LEFT JOIN spacetime_probe AS probe
    ON probe.spacetime_model_id = spacetime_model.spacetime_model_id
WHERE :system IS NULL OR system.name = :system
GROUP BY spacetime_model.spacetime_model_id
ORDER BY system.system_id, spacetime_model.spacetime_model_id;
