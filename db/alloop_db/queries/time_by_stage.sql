-- Where the time went: finished tasks by generation and kind, seconds on the workers, core-hours.
SELECT
    generation, kind, count(*) AS n, sum(paid) AS seconds, sum(cpu_seconds) AS cpu_seconds,
    round(100.0 * sum(paid) / sum(sum(paid)) OVER (), 1) AS percent,
    sum(tries) AS failures, sum(losses) AS losses, sum(hand_backs) AS hand_backs,
    sum(paid * coalesce(environment.threads, 1)) / 3600.0 AS core_hours
FROM (SELECT *, seconds + earlier_seconds AS paid FROM task) AS task
LEFT JOIN environment ON environment.environment_id = task.environment_id
WHERE status = 'done'
GROUP BY generation, kind
ORDER BY generation, kind;
