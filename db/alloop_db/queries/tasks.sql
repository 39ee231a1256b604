-- Tasks that ended last: when each was queued, began and ended, where it ran, what it used. Memory is
-- the most at a time, in MB; seconds of attempts that were laid down with their block come on top.
-- :limit integer = 50  how many
SELECT
    substr(key, 1, 12) AS task, kind, generation, status, created_at AS queued_at, started_at,
    finished_at AS ended_at, pool, job, host, seconds, cpu_seconds, peak_memory, tries, losses,
    hand_backs, earlier_seconds, error_text
FROM task
WHERE status IN ('done', 'failed')
ORDER BY coalesce(finished_at, submitted_at) DESC, task_id DESC
LIMIT :limit;
