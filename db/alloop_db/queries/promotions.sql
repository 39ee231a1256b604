-- Frames promoted to a tier, one row a round: the choice, its price as said beforehand (core-hours,
-- with an interval) and as paid, what was expected of it, and the audit errors around it (forces in
-- eV/Å, energies in eV/atom; each on the audit frames of its time).
WITH audit AS (
    SELECT committee.generation_id, committee.level_of_theory_id, force_rmse, energy_rmse
    FROM evaluation JOIN committee USING (committee_id)
    WHERE evaluation.kind = 'audit'
)
SELECT
    generation.number AS generation, level_of_theory.tier,
    level_of_theory.name AS level_of_theory, promotion.policy, promotion.n_candidates,
    promotion.n_promoted, label.n_done, label.n_failed,
    promotion.seconds / 3600.0 AS core_hours_expected,
    promotion.seconds_low / 3600.0 AS core_hours_low,
    promotion.seconds_high / 3600.0 AS core_hours_high,
    label.seconds / 3600.0 AS core_hours_paid, promotion.expected_ratio,
    before.force_rmse AS audit_force_before, after.force_rmse AS audit_force_after,
    before.energy_rmse AS audit_energy_before, after.energy_rmse AS audit_energy_after
FROM promotion
JOIN generation ON generation.generation_id = promotion.generation_id
JOIN level_of_theory ON level_of_theory.level_of_theory_id = promotion.level_of_theory_id
LEFT JOIN (
    SELECT
        label.generation_id, label.level_of_theory_id,
        count(DISTINCT iif(label.status = 'done', label.label_id, NULL)) AS n_done,
        count(DISTINCT iif(label.status = 'failed', label.label_id, NULL)) AS n_failed,
        total(label_attempt.seconds) AS seconds
    FROM label LEFT JOIN label_attempt USING (label_id)
    GROUP BY label.generation_id, label.level_of_theory_id
) AS label
    ON label.generation_id = promotion.generation_id
    AND label.level_of_theory_id = promotion.level_of_theory_id
LEFT JOIN audit AS after
    ON after.generation_id = promotion.generation_id
    AND after.level_of_theory_id = promotion.level_of_theory_id
LEFT JOIN audit AS before
    ON before.level_of_theory_id = promotion.level_of_theory_id
    AND before.generation_id = (
        SELECT max(generation_id) FROM audit
        WHERE audit.level_of_theory_id = promotion.level_of_theory_id
            AND audit.generation_id < promotion.generation_id
    )
ORDER BY generation.number;
