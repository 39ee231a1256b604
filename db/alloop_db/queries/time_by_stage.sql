-- Where the time went: finished tasks by generation and kind, seconds on the workers.
SELECT
    generation, kind, count(*) AS n, sum(seconds) AS seconds, sum(cpu_seconds) AS cpu_seconds,
    round(100.0 * sum(seconds) / sum(sum(seconds)) OVER (), 1) AS percent,
    sum(tries) AS failures, sum(losses) AS losses
FROM task
WHERE status = 'done'
GROUP BY generation, kind
ORDER BY generation, kind;
