-- Which rows somebody else wrote, so that a tick need not read them all; and what else it looks for among a million rows.
-- On {table} triggers are added: they note VIDs in {edited}, and do nothing else. Whoever wants them gone:
-- DROP FUNCTION {edited}() CASCADE. Without them every tick compares all rows, as before.

-- Rows that were asked to take a slot. The condition is that of the statement, word by word: only then is the index found.
CREATE INDEX IF NOT EXISTS "{index}_task_asked" ON {task} (dispatched_at)
    WHERE ((wanted IS NULL AND stage = 'start') OR wanted IS NOT DISTINCT FROM 'retry') AND slot_since IS NULL
      AND dispatched_at IS NOT NULL;
-- Tapes of which a person may want to hear.
CREATE INDEX IF NOT EXISTS "{index}_task_waits" ON {task} (tape) WHERE outcome IN ('waiting', 'stalled');

-- A line for each row that was written without our knowing, removed by the tick that followed it; '*': any of them.
CREATE TABLE IF NOT EXISTS {edited} (
    id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tape text   NOT NULL
);

CREATE INDEX IF NOT EXISTS "{index}_edited_any" ON {edited} (tape) WHERE tape = '*';

-- When all rows were last compared, and which triggers were in force then.
CREATE TABLE IF NOT EXISTS {compared} (
    one      boolean     PRIMARY KEY DEFAULT true CHECK (one),
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    triggers text
);

-- With the rights of the owner, so that whoever may write the table needs no others. It never fails: a line that is missing
-- is made good when all rows are compared, a statement of somebody else that failed would not be.
DO $do$
DECLARE
    lines text := (SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                   WHERE c.oid = to_regclass('{edited}'));
BEGIN
    EXECUTE format($make$
CREATE OR REPLACE FUNCTION %1$s() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    BEGIN
        IF TG_OP = 'UPDATE' THEN
            INSERT INTO %1$s (tape) SELECT tape FROM new_rows UNION SELECT tape FROM old_rows;
        ELSIF TG_OP = 'INSERT' THEN
            INSERT INTO %1$s (tape) SELECT tape FROM new_rows;
        ELSIF TG_OP = 'DELETE' THEN
            INSERT INTO %1$s (tape) SELECT tape FROM old_rows;
        ELSE
            INSERT INTO %1$s (tape) VALUES ('*');
        END IF;
    EXCEPTION WHEN OTHERS THEN
        NULL;
    END;
    RETURN NULL;
END
$body$
$make$, lines);
END $do$;

-- Where a transaction of ours updates a row it says so by a setting, for it keeps in {task} what the row looks like then.
-- Triggers that fire ALWAYS are not passed by with session_replication_role.
DO $do$
DECLARE
    ours text := 'WHEN (current_setting(''cta_repack.followed'', true) IS DISTINCT FROM ''on'')';
    made record;
BEGIN
    FOR made IN
        SELECT * FROM (VALUES
            ('{table}', 'insert', 'INSERT', 'REFERENCING NEW TABLE AS new_rows', ''),
            ('{table}', 'update', 'UPDATE', 'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows', ours),
            ('{table}', 'delete', 'DELETE', 'REFERENCING OLD TABLE AS old_rows', ''),
            ('{table}', 'truncate', 'TRUNCATE', '', ''),
            ('{task}', 'delete', 'DELETE', 'REFERENCING OLD TABLE AS old_rows', ''),
            ('{task}', 'truncate', 'TRUNCATE', '', '')
        ) AS x (on_table, word, event, rows, condition)
    LOOP
        -- Anew, for one that is there may call a function that is elsewhere.
        EXECUTE format('DROP TRIGGER IF EXISTS cta_repack_%s ON %s', made.word, made.on_table);
        EXECUTE format('CREATE TRIGGER cta_repack_%s AFTER %s ON %s %s FOR EACH STATEMENT %s EXECUTE FUNCTION {edited}()',
                       made.word, made.event, made.on_table, made.rows, made.condition);
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER cta_repack_%s', made.on_table, made.word);
    END LOOP;
END $do$;

-- What was written before now is found by comparing.
INSERT INTO {edited} (tape) VALUES ('*');
