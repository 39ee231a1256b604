-- What happened to one frame, in order (`alloop why` tells it in words).
-- :frame integer  frame_id
SELECT event, at, committee_id, what
FROM v_frame_history
WHERE frame_id = :frame
ORDER BY stage, at;
