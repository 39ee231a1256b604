-- What happened to one frame, in order (`alloop why` tells it in words).
-- :frame integer  frame_id
SELECT event, at, generation, committee_id, level_of_theory, what
FROM v_frame_history
WHERE frame_id = :frame
ORDER BY generation, level_of_theory_id, stage, at;
