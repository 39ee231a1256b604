-- The audit frames and their labels at one level of theory: what the error is measured on, never
-- trained on.
-- :tier text = NULL  tier whose labels; without one, that of the latest generation
SELECT
    label.frame_id, label.label_id, level_of_theory.tier, level_of_theory.name AS level_of_theory,
    label.status, label.energy, frame.trajectory_id, frame.step
FROM frame
JOIN label ON label.frame_id = frame.frame_id
JOIN level_of_theory ON level_of_theory.level_of_theory_id = label.level_of_theory_id
WHERE frame.split = 'audit' AND level_of_theory.tier = coalesce(:tier, (
    SELECT latest.tier FROM generation
    JOIN level_of_theory AS latest USING (level_of_theory_id)
    ORDER BY generation.number DESC LIMIT 1
))
ORDER BY label.label_id;
