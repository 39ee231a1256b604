-- Which software on which host did how much of the work.
SELECT
    environment.environment_id, environment.host, task.kind, count(*) AS n_tasks,
    sum(task.seconds) AS seconds, environment.python, environment.threads, environment.git,
    environment.packages
FROM task
JOIN environment ON environment.environment_id = task.environment_id
GROUP BY environment.environment_id, task.kind
ORDER BY environment.environment_id, task.kind;
