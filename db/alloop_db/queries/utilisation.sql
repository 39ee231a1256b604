-- Core-hours by tier and stage, and how busy the workers were: the part of all workers' time that
-- went into each kind of task, and the idle rest. Time of all workers is wall time of the drivers
-- times `workers`: the slots that drivers noted when they began, or, where none did, the most tasks
-- that ever ran at once. Core-hours are wall time on the worker times its threads. Of a task the
-- last try counts, and those before it that were laid down because their block ended; one that still
-- runs does not count yet.
WITH paid AS (
    SELECT
        task_id, kind, generation, coalesce(seconds, 0.0) + earlier_seconds AS seconds,
        environment_id, started_at, submitted_at,
        -- Frames found in a turn of an upper tier are labelled at the tiers below, too.
        iif(kind = 'label', (
            SELECT label.level_of_theory_id FROM label
            WHERE label.status IN ('pending', 'done', 'failed') AND label.task_id = task.task_id
            LIMIT 1
        ), NULL) AS labelled
    FROM task WHERE seconds > 0.0 OR earlier_seconds > 0.0
),
spent AS MATERIALIZED (
    SELECT
        level_of_theory.level_of_theory_id AS level, level_of_theory.tier, paid.kind,
        min(paid.task_id) AS first, count(*) AS n, sum(paid.seconds) AS seconds,
        sum(paid.seconds * coalesce(environment.threads, 1)) / 3600.0 AS core_hours,
        avg(max(0.0, 86400.0 * (julianday(started_at) - julianday(submitted_at))))
            AS wait_seconds
    FROM paid
    LEFT JOIN generation ON generation.number = paid.generation
    LEFT JOIN level_of_theory
        ON level_of_theory.level_of_theory_id
        = coalesce(paid.labelled, generation.level_of_theory_id)
    LEFT JOIN environment ON environment.environment_id = paid.environment_id
    GROUP BY level_of_theory.level_of_theory_id, paid.kind
),
noted AS (
    SELECT
        json_extract(details, '$.slots') AS slots, json_extract(details, '$.seconds') AS began,
        lead(json_extract(details, '$.seconds'), 1, (SELECT seconds FROM campaign))
            OVER (ORDER BY event_id) AS ended
    FROM event WHERE kind = 'workers'
),
unnoted AS (
    SELECT coalesce((SELECT min(began) FROM noted), (SELECT seconds FROM campaign)) AS seconds
),
moment AS ( -- instants are cut to 1 ms: without that margin two tasks in a row could overlap
    SELECT 86400.0 * julianday(started_at) AS at, 1 AS change FROM task WHERE seconds > 0.0
    UNION ALL
    SELECT 86400.0 * julianday(started_at) + max(seconds - 0.001, 0.0), -1
    FROM task WHERE seconds > 0.0
),
at_once AS (SELECT sum(change) OVER (ORDER BY at, change) AS n FROM moment),
whole AS MATERIALIZED (
    SELECT
        max(
            (SELECT total(slots * (ended - began)) FROM noted)
                + iif(seconds > 0.0, seconds * (SELECT max(n) FROM at_once), 0.0),
            (SELECT total(seconds) FROM spent)
        ) AS seconds,
        CASE
            WHEN seconds <= 0.0 THEN 'slots'
            WHEN EXISTS (SELECT 1 FROM noted) THEN 'slots; at first the most at once'
            ELSE 'most at once'
        END AS counted
    FROM unnoted
),
share AS (
    SELECT
        level, first, tier, kind, n, spent.seconds, core_hours, wait_seconds, whole.seconds AS whole,
        counted
    FROM spent, whole
    UNION ALL
    SELECT
        1e9, 0, NULL, 'idle', NULL, max(seconds - (SELECT sum(seconds) FROM spent), 0.0), NULL,
        NULL, seconds, counted
    FROM whole WHERE EXISTS (SELECT 1 FROM spent)
)
SELECT
    share.tier, kind, n, share.seconds, core_hours, wait_seconds,
    round(100.0 * share.seconds / whole, 2) AS percent,
    round(whole / nullif(campaign.seconds, 0.0), 2) AS workers, counted AS workers_are
FROM share, campaign
ORDER BY level, first;
