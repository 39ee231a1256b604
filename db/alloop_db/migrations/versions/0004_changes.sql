-- Workers live in blocks that end: tasks are handed back, and tell where they ran.

ALTER TABLE task ADD COLUMN hand_backs INTEGER DEFAULT 0 NOT NULL;
-- how often it was laid down because its block ended, to go on elsewhere

ALTER TABLE task ADD COLUMN earlier_seconds DOUBLE DEFAULT 0.0 NOT NULL;
-- wall time of the attempts that laid it down, s

ALTER TABLE task ADD COLUMN pool VARCHAR; -- pool of the worker, where the site has pools

ALTER TABLE task ADD COLUMN job VARCHAR; -- job of the batch system that the worker was part of

ALTER TABLE task ADD COLUMN peak_memory DOUBLE; -- most memory the worker used at a time, MB

CREATE INDEX ix_task_status_kind_priority ON task (status, kind, priority);
