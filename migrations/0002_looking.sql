-- What the operator's tool looks for among a million rows, and when each stage was last ticked.
-- On {table} only indexes are added.

CREATE INDEX IF NOT EXISTS "{index}_not_auto" ON {table} (mode, tape) WHERE mode <> 'auto';
CREATE INDEX IF NOT EXISTS "{index}_vid_like" ON {table} ((tape::text) text_pattern_ops);
CREATE INDEX IF NOT EXISTS "{index}_task_site" ON {task} (tape) WHERE reason_code = 'site-trouble';

-- One row per stage, overwritten by every tick. Nothing is decided by it.
CREATE TABLE IF NOT EXISTS {tick} (
    stage         text        PRIMARY KEY,
    at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    who           text        NOT NULL,
    trouble       text,
    trouble_since timestamptz
);
