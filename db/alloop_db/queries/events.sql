-- What happened last: starts, stops, losses, retries, verdicts.
-- :limit integer = 30  how many
SELECT at, kind, text, details
FROM (SELECT * FROM event ORDER BY event_id DESC LIMIT :limit)
ORDER BY event_id;
