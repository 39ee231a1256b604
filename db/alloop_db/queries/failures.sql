-- What failed and why: one row for each tier and reason code, the most frequent first.
SELECT
    kind, tier, code, count(*) AS n, sum(resolved) AS n_resolved, max(at) AS last_at,
    max(text) AS example
FROM v_failures
GROUP BY kind, tier, code
ORDER BY n DESC, kind, tier, code;
