-- What each tier has cost and what that bought: labels, core-hours with failures included, audit
-- error of its first and of its latest committee, and how much error a core-hour took away between
-- them (eV/Å, or eV/atom, per core-hour).
WITH spent AS (
    SELECT
        label.level_of_theory_id, generation.number,
        count(DISTINCT label.label_id) AS n_labels,
        count(DISTINCT iif(label.status = 'done', label.label_id, NULL)) AS n_done,
        count(DISTINCT iif(label.status = 'failed', label.label_id, NULL)) AS n_failed,
        total(label_attempt.seconds) / 3600.0 AS core_hours
    FROM label
    JOIN generation ON generation.generation_id = label.generation_id
    LEFT JOIN label_attempt USING (label_id)
    GROUP BY label.level_of_theory_id, generation.number
),
audit AS (
    SELECT committee.level_of_theory_id, generation.number, force_rmse, energy_rmse
    FROM evaluation
    JOIN committee USING (committee_id)
    JOIN generation ON generation.generation_id = committee.generation_id
    WHERE evaluation.kind = 'audit'
),
ends AS (
    SELECT level_of_theory_id, min(number) AS first, max(number) AS last
    FROM audit GROUP BY level_of_theory_id
),
paid AS (
    SELECT
        spent.level_of_theory_id, sum(n_labels) AS n_labels, sum(n_done) AS n_done,
        sum(n_failed) AS n_failed, sum(core_hours) AS core_hours,
        sum(iif(number > first AND number <= last, core_hours, 0.0)) AS core_hours_between
    FROM spent LEFT JOIN ends USING (level_of_theory_id)
    GROUP BY spent.level_of_theory_id
)
SELECT
    level_of_theory.tier, level_of_theory.name AS level_of_theory, paid.n_labels, paid.n_done,
    paid.n_failed, paid.core_hours,
    3600.0 * paid.core_hours / nullif(paid.n_done, 0) AS seconds_per_label,
    one.force_rmse AS first_force_rmse, other.force_rmse AS last_force_rmse,
    one.energy_rmse AS first_energy_rmse, other.energy_rmse AS last_energy_rmse,
    (one.force_rmse - other.force_rmse) / nullif(paid.core_hours_between, 0.0)
        AS force_rmse_per_core_hour,
    (one.energy_rmse - other.energy_rmse) / nullif(paid.core_hours_between, 0.0)
        AS energy_rmse_per_core_hour
FROM level_of_theory
JOIN paid ON paid.level_of_theory_id = level_of_theory.level_of_theory_id
LEFT JOIN ends ON ends.level_of_theory_id = level_of_theory.level_of_theory_id
LEFT JOIN audit AS one
    ON one.level_of_theory_id = ends.level_of_theory_id AND one.number = ends.first
LEFT JOIN audit AS other
    ON other.level_of_theory_id = ends.level_of_theory_id AND other.number = ends.last
ORDER BY level_of_theory.level_of_theory_id;
