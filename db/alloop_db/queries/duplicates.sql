-- Frames that were turned away because a near-equal one was there already.
SELECT
    generation.number AS generation, decision.frame_id, frame.trajectory_id, frame.step,
    decision.rule, decision.numbers
FROM decision
JOIN frame ON frame.frame_id = decision.frame_id
JOIN generation ON generation.generation_id = decision.generation_id
WHERE decision.action = 'duplicate'
ORDER BY decision.decision_id;
