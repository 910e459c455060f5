-- The tables beside ATRESYS's own, which is created where there is none and otherwise left as it is (but for an index).
-- {table} is the configured table; {task} and the others carry its name with a suffix, in its schema.

DO $$ BEGIN
    IF to_regtype('{schema_dot}automation_modes') IS NULL THEN
        CREATE TYPE {schema_dot}automation_modes AS ENUM ('auto', 'manual', 'error');
    END IF;
END $$;

CREATE TABLE IF NOT EXISTS {table} (
    tape            varchar(20)  PRIMARY KEY,
    entered         timestamp(0) NOT NULL,
    started         timestamp(0),
    repacked        timestamp(0),
    quarantined     timestamp(0),
    reclaimed       timestamp(0),
    finished        timestamp(0),
    files           bigint       NOT NULL,
    bytes           bigint       NOT NULL,
    usage           smallint     NOT NULL,
    last_write_date timestamp(0),
    mode            {schema_dot}automation_modes NOT NULL,
    priority        smallint     NOT NULL,
    mediatype       varchar(20)  NOT NULL,
    tapepool        varchar(100) NOT NULL,
    responsible     varchar(40)  NOT NULL
);

CREATE INDEX IF NOT EXISTS "{index}_open" ON {table} (tape) WHERE finished IS NULL;

CREATE SEQUENCE IF NOT EXISTS {generation_seq};
CREATE SEQUENCE IF NOT EXISTS {epoch_seq};

-- One row per VID, whatever the journey. Losing it loses no tape: missing rows are made from {table}.
CREATE TABLE IF NOT EXISTS {task} (
    tape            text        PRIMARY KEY,
    stage           text,
    generation      bigint      NOT NULL,
    epoch           bigint      NOT NULL,
    dispatched_at   timestamptz,
    owner           text,
    lease_until     timestamptz,
    intent          jsonb,
    attempts        integer     NOT NULL DEFAULT 0,
    crashes         integer     NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    settle_until    timestamptz,
    slot_since      timestamptz,
    wanted          text        CHECK (wanted IN ('retry', 'give_back', 'unstick')),
    round           integer     NOT NULL DEFAULT 0,
    progress        jsonb,
    progress_at     timestamptz,
    outcome         text        CHECK (outcome IN ('waiting', 'retrying', 'stalled', 'failed')),
    reason_code     text,
    reason          text,
    memory          jsonb       NOT NULL DEFAULT '{}',
    seen_xmin       bigint,
    seen            jsonb
);

CREATE INDEX IF NOT EXISTS "{index}_task_due" ON {task} (stage, next_attempt_at NULLS FIRST)
    WHERE next_attempt_at IS DISTINCT FROM 'infinity';
CREATE INDEX IF NOT EXISTS "{index}_task_slot" ON {task} (tape) WHERE slot_since IS NOT NULL;
CREATE INDEX IF NOT EXISTS "{index}_task_lease" ON {task} (lease_until) WHERE owner IS NOT NULL;
CREATE INDEX IF NOT EXISTS "{index}_task_failed" ON {task} (tape) WHERE outcome = 'failed';

-- What happened, for ever. Append-only.
CREATE TABLE IF NOT EXISTS {event} (
    id      bigint       GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz  NOT NULL DEFAULT clock_timestamp(),
    tape    text         NOT NULL,
    journey timestamp(0),
    stage   text,
    kind    text         NOT NULL,
    actor   text         NOT NULL,
    detail  jsonb        NOT NULL DEFAULT '{}'
);

CREATE INDEX IF NOT EXISTS "{index}_event_tape" ON {event} (tape, at);
CREATE INDEX IF NOT EXISTS "{index}_event_at" ON {event} USING brin (at);

-- Rows of journeys that are over: finished and prepared again, or given back.
CREATE TABLE IF NOT EXISTS {history} (
    id       bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    moved_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    why      text        NOT NULL,
    tape     text        NOT NULL,
    row      jsonb       NOT NULL,
    task     jsonb
);

CREATE INDEX IF NOT EXISTS "{index}_history_tape" ON {history} (tape);

-- The gate of the slots, paused stages, held tapes.
CREATE TABLE IF NOT EXISTS {control} (
    kind  text        NOT NULL CHECK (kind IN ('gate', 'pause', 'hold')),
    name  text        NOT NULL,
    who   text        NOT NULL,
    why   text        NOT NULL,
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    until timestamptz,
    PRIMARY KEY (kind, name)
);

INSERT INTO {control} (kind, name, who, why)
VALUES ('gate', 'slots', 'migration', 'locked while slots are counted') ON CONFLICT DO NOTHING;

-- End-of-repack statistics on their way to the file that monitoring reads.
CREATE TABLE IF NOT EXISTS {statistic} (
    id         bigint       GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz  NOT NULL DEFAULT clock_timestamp(),
    tape       text         NOT NULL,
    entered    timestamp(0),
    round      integer      NOT NULL,
    line       jsonb        NOT NULL,
    written_at timestamptz
);

CREATE INDEX IF NOT EXISTS "{index}_stat_todo" ON {statistic} (id) WHERE written_at IS NULL;
