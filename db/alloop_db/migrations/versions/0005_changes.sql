-- Planning looks for tasks and labels with every few that end: never among all that there are.

DROP INDEX ix_task_generation;

CREATE INDEX ix_task_generation_kind ON task (generation, kind);

DROP INDEX ix_label_level_of_theory_id_status;

CREATE INDEX ix_label_level_of_theory_id_status_task_id
ON label (level_of_theory_id, status, task_id);
