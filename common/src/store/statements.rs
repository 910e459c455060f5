//! The text of the statements for the configured table.

use super::concerns::{self, MAIL};
use super::edits::Edits;
use crate::journey::State;
use crate::settings::TableName;

/// The main row as the law reads it: zone-less stamps become instants by the session's zone.
pub(super) fn columns(alias: &str) -> String {
    let mut list: Vec<String> = State::ALL
        .map(|state| {
            let column = state.column();
            format!("{alias}.{column}::timestamptz AS {column}")
        })
        .into();
    list.push(format!("{alias}.last_write_date::timestamptz AS last_write_date"));
    for (column, kind) in [
        ("tape", "text"),
        ("mode", "text"),
        ("priority", "int4"),
        ("mediatype", "text"),
        ("tapepool", "text"),
        ("responsible", "text"),
        ("files", "int8"),
        ("bytes", "int8"),
        ("usage", "int4"),
    ] {
        list.push(format!("{alias}.{column}::{kind} AS {column}"));
    }
    list.push(format!("{alias}.xmin::text::int8 AS xmin"));
    list.join(", ")
}

/// Types of [`TASK_COLUMNS`], in their order.
const TASK_TYPES: &str = "text, text, int8, int8, timestamptz, text, timestamptz, jsonb, int4, int4, \
     timestamptz, timestamptz, timestamptz, text, int4, jsonb, timestamptz, text, text, text, \
     jsonb, int8, jsonb";

const TASK_COLUMNS: &str = "tape, stage, generation, epoch, dispatched_at, owner, lease_until, intent, attempts, crashes, \
     next_attempt_at, settle_until, slot_since, wanted, round, progress, progress_at, outcome, reason_code, reason, \
     memory, seen_xmin, seen";

pub(super) struct Statements {
    table: String,
    pub task_regclass: String,
    pub ready: String,
    pub lock_gate: String,
    pub lock_row: String,
    pub lock_task: String,
    pub lock_row_free: String,
    pub lock_task_free: String,
    pub lock_rows_together: String,
    pub lock_tasks_together: String,
    pub controls_together: String,
    pub save_together: String,
    pub set_mode: String,
    pub set_fields: String,
    pub enter: String,
    pub to_history: String,
    pub delete_row: String,
    pub make_task: String,
    pub save_task: String,
    pub renew: String,
    pub add_event: String,
    pub add_events: String,
    pub save_task_noted: String,
    pub add_statistic: String,
    pub changed: String,
    pub watch: String,
    pub compare: String,
    pub edits: String,
    pub followed: String,
    pub ask_to_compare: String,
    pub due: String,
    pub slots: String,
    pub mark: String,
    pub clear: String,
    pub closable: String,
    pub sweepable: String,
    pub holding: String,
    pub unwritten: String,
    pub written: String,
    pub export: String,
    /// Up to where the conditions begin.
    pub overview: String,
    pub events: String,
    pub holds: String,
    pub controls: String,
    pub set_control: String,
    pub drop_control: String,
    pub widths: String,
    pub ticked: String,
    pub ticks: String,
    pub site: String,
    pub count_finished: String,
    pub last_journey: String,
    pub count_events: String,
    pub picture: String,
    pub table_size: String,
    pub concerns: String,
    pub count_concerns: String,
    pub concern_told: String,
    pub lock_tasks: String,
    pub lock_tasks_free: String,
    pub mark_mailed: String,
    pub mail_tick: String,
}

impl Statements {
    pub(super) fn new(name: &TableName) -> Statements {
        let t = name.to_string();
        let [task_table, event, history, control, statistic, tick, generation_seq, epoch_seq] =
            ["_task", "_event", "_history", "_control", "_statistic", "_tick", "_generation_seq", "_epoch_seq"]
                .map(|suffix| name.with_suffix(suffix));
        let edits = Edits::new(name);
        let row = columns("m");
        // Owed to a slot: a start, or a retry, of a row that holds none.
        let needs = "((k.wanted IS NULL AND k.stage = 'start') OR k.wanted IS NOT DISTINCT FROM 'retry') AND k.slot_since IS NULL";
        let held = format!(
            "EXISTS (SELECT 1 FROM {control} c WHERE c.kind = 'hold' AND c.name = k.tape \
             AND (c.until IS NULL OR c.until > clock_timestamp()))"
        );
        let task: String =
            TASK_COLUMNS.split(", ").map(|column| format!("k.{}", column.trim())).collect::<Vec<_>>().join(", ");
        let concerned = concerns::source(&t, &task_table);
        // The task row under its lock, and what must be read under all locks. It has a line of its own beside it, so that
        // the rest is told where there is no task row; what is selected beside it is evaluated when the lock is held.
        // The main row is locked by a statement before: a task row that was made meanwhile must be seen.
        let lock_task = |lock: &str| {
            format!(
                "SELECT k.*, clock_timestamp() AS now, nextval('{generation_seq}') AS next_generation, nextval('{epoch_seq}') AS next_epoch, \
             random() AS jitter, set_config('cta_repack.followed', 'on', true) AS followed, \
             extract(timezone FROM '2026-01-15 12:00Z'::timestamptz) <> extract(timezone FROM '2026-07-15 12:00Z'::timestamptz) AS summer, \
             CASE WHEN $2 THEN (SELECT count(*) FROM {task_table} WHERE slot_since IS NOT NULL AND tape <> $1) END AS other_slots, \
             (SELECT jsonb_agg(jsonb_build_object('kind', kind, 'name', name, 'who', who, 'why', why, \
              'until', CASE WHEN isfinite(until) THEN until END)) FROM {control} \
              WHERE ((kind = 'hold' AND name = $1) OR kind = 'pause') AND (until IS NULL OR until > clock_timestamp())) AS controls \
             FROM (SELECT 1) one LEFT JOIN LATERAL (SELECT {TASK_COLUMNS} FROM {task_table} WHERE tape = $1 {lock}) k ON true"
            )
        };
        Statements {
            concerns: concerns::new_ones(&concerned),
            count_concerns: concerns::counted(&concerned),
            concern_told: concerns::told(&event),
            lock_tasks: concerns::lock(&task_table, false),
            lock_tasks_free: concerns::lock(&task_table, true),
            mark_mailed: concerns::mark(&task_table, &concerned),
            mail_tick: format!(
                "SELECT k.stage, k.at, k.who, k.trouble, k.trouble_since, clock_timestamp() AS now \
                 FROM (SELECT 1) one LEFT JOIN {tick} k ON k.stage = '{MAIL}'"
            ),
            task_regclass: task_table.clone(),
            ready: "SELECT current_setting('transaction_read_only') = 'on' OR pg_is_in_recovery(), to_regclass($1) IS NOT NULL"
                .to_owned(),
            lock_gate: format!("SELECT 1 FROM {control} WHERE kind = 'gate' AND name = 'slots' FOR UPDATE"),
            lock_row: format!("SELECT {row} FROM {t} m WHERE m.tape = $1 FOR UPDATE"),
            lock_task: lock_task("FOR UPDATE"),
            // Of rows that somebody else has locked nothing is found, as if they were not there.
            lock_row_free: format!("SELECT {row} FROM {t} m WHERE m.tape = $1 FOR UPDATE SKIP LOCKED"),
            lock_task_free: lock_task("FOR UPDATE SKIP LOCKED"),
            // As the two above for several tapes: whatever somebody else has locked is left out.
            lock_rows_together: format!("SELECT {row} FROM {t} m WHERE m.tape = ANY($1) FOR UPDATE SKIP LOCKED"),
            lock_tasks_together: format!(
                "SELECT k.*, clock_timestamp() AS now, nextval('{generation_seq}') AS next_generation, nextval('{epoch_seq}') AS next_epoch, \
                 random() AS jitter, (SELECT set_config('cta_repack.followed', 'on', true)) AS followed, \
                 (SELECT extract(timezone FROM '2026-01-15 12:00Z'::timestamptz) <> extract(timezone FROM '2026-07-15 12:00Z'::timestamptz)) \
                 AS summer, NULL::int8 AS other_slots \
                 FROM (SELECT {TASK_COLUMNS} FROM {task_table} WHERE tape = ANY($1) FOR UPDATE SKIP LOCKED) k"
            ),
            controls_together: format!(
                "SELECT kind, name, who, why, CASE WHEN isfinite(until) THEN until END AS until FROM {control} \
                 WHERE ((kind = 'hold' AND name = ANY($1)) OR kind = 'pause') AND (until IS NULL OR until > clock_timestamp())"
            ),
            save_together: save_together(&task_table, &event),
            set_mode: format!("UPDATE {t} m SET mode = $2::text::{} WHERE tape = $1 RETURNING {row}", mode_type(name)),
            set_fields: format!(
                "UPDATE {t} m SET priority = COALESCE($2::int4, priority), responsible = COALESCE($3::text, responsible) \
                 WHERE tape = $1 RETURNING {row}"
            ),
            enter: format!(
                "INSERT INTO {t} AS m (tape, entered, files, bytes, usage, last_write_date, mode, priority, mediatype, tapepool, responsible) \
                 VALUES ($1, LOCALTIMESTAMP(0), $2, $3, $4::int4, to_timestamp($5::float8)::timestamp(0), 'auto', $6::int4, $7, $8, $9) \
                 RETURNING {row}"
            ),
            to_history: format!(
                "INSERT INTO {history} (why, tape, row, task) SELECT $2, m.tape, to_jsonb(m), $3 FROM {t} m WHERE m.tape = $1"
            ),
            delete_row: format!("DELETE FROM {t} WHERE tape = $1"),
            make_task: make_task(&task_table),
            save_task: save_task(&task_table),
            save_task_noted: format!(
                "WITH noted AS ({}) {}",
                add_events(&event, 1 + TASK_COLUMNS.split(", ").count()),
                save_task(&task_table)
            ),
            renew: format!(
                "UPDATE {task_table} SET lease_until = clock_timestamp() + make_interval(secs => $3) \
                 WHERE tape = $1 AND epoch = $2 AND owner IS NOT NULL AND lease_until > clock_timestamp()"
            ),
            add_event: format!(
                "INSERT INTO {event} (tape, journey, stage, kind, actor, detail) VALUES ($1, $2::timestamptz::timestamp(0), $3, $4, $5, $6)"
            ),
            add_events: add_events(&event, 2),
            add_statistic: format!(
                "INSERT INTO {statistic} (tape, entered, round, line) \
                 SELECT m.tape, m.entered, $2, jsonb_build_object('tape', m.tape, 'entered', m.entered, 'round', $2::int4, \
                 'repack', $3::jsonb, 'row', to_jsonb(m)) FROM {t} m WHERE m.tape = $1"
            ),
            changed: edits.changed,
            watch: edits.watch,
            compare: edits.compare,
            edits: edits.page,
            followed: edits.followed,
            ask_to_compare: edits.ask,
            // The time of the statement, not the one that runs on while it is carried out: only such a time is looked up in an
            // index. The index knows no infinity.
            due: format!(
                "SELECT k.tape, k.generation, m.priority::int4 AS priority, extract(epoch FROM m.entered)::float8 AS entered \
                 FROM {task_table} k JOIN {t} m ON m.tape = k.tape \
                 WHERE k.stage = $1 AND m.mode = 'auto' AND m.finished IS NULL AND k.next_attempt_at IS DISTINCT FROM 'infinity' \
                 AND (k.next_attempt_at IS NULL OR k.next_attempt_at <= statement_timestamp()) \
                 AND (k.owner IS NULL OR k.lease_until <= clock_timestamp()) \
                 AND (k.owner IS NOT NULL OR k.dispatched_at IS NULL \
                      OR k.dispatched_at <= clock_timestamp() - make_interval(secs => $2)) \
                 AND NOT {held} AND ({needs}) = $3 \
                 AND NOT EXISTS (SELECT 1 FROM {control} c WHERE c.kind = 'pause' AND c.name = k.stage \
                                 AND (c.until IS NULL OR c.until > clock_timestamp())) \
                 AND k.seen_xmin IS NOT DISTINCT FROM m.xmin::text::int8 \
                 AND ($7::text IS NULL OR (-m.priority::int4, extract(epoch FROM m.entered)::float8, m.tape::text) > (-$5::int4, $6::float8, $7::text)) \
                 ORDER BY m.priority DESC, m.entered, m.tape LIMIT $4"
            ),
            slots: format!(
                "SELECT (SELECT count(*) FROM {task_table} WHERE slot_since IS NOT NULL) AS taken, \
                 (SELECT count(*) FROM {task_table} k WHERE {needs} AND k.dispatched_at IS NOT NULL \
                 AND k.dispatched_at > statement_timestamp() - make_interval(secs => $1)) AS asked"
            ),
            mark: format!(
                "UPDATE {task_table} k SET dispatched_at = clock_timestamp() \
                 FROM unnest($1::text[], $2::int8[]) AS wanted (tape, generation) \
                 WHERE k.tape = wanted.tape AND k.generation = wanted.generation RETURNING k.tape"
            ),
            clear: format!(
                "UPDATE {task_table} k SET dispatched_at = NULL FROM unnest($1::text[], $2::int8[]) AS wanted (tape, generation) \
                 WHERE k.tape = wanted.tape AND k.generation = wanted.generation"
            ),
            closable: format!(
                "SELECT k.tape FROM {task_table} k LEFT JOIN {t} m ON m.tape = k.tape \
                 WHERE k.owner IS NOT NULL AND k.lease_until <= clock_timestamp() \
                 AND (m.tape IS NULL OR m.mode <> 'auto' OR m.finished IS NOT NULL OR {held} \
                      OR EXISTS (SELECT 1 FROM {control} c WHERE c.kind = 'pause' AND c.name = k.stage \
                                 AND (c.until IS NULL OR c.until > clock_timestamp())))"
            ),
            sweepable: format!(
                "SELECT k.tape FROM {task_table} k JOIN {t} m ON m.tape = k.tape \
                 WHERE k.outcome = 'failed' AND m.mode = 'auto' AND m.finished IS NULL \
                 AND (k.memory->>'stopped_at')::timestamptz <= clock_timestamp() - make_interval(secs => $1)"
            ),
            holding: format!(
                "SELECT k.tape, k.stage, k.epoch, k.slot_since, k.outcome, k.progress, k.progress_at, clock_timestamp() AS now, m.mode::text AS mode, \
                 (k.owner IS NOT NULL OR k.intent IS NOT NULL OR coalesce(k.settle_until > clock_timestamp(), false)) AS open, \
                 (m.tape IS NULL OR m.mode <> 'auto' OR m.finished IS NOT NULL OR {held} OR coalesce(k.stage NOT IN ('start', 'end'), true) \
                  OR coalesce(k.outcome = 'failed', false)) AS idle \
                 FROM {task_table} k LEFT JOIN {t} m ON m.tape = k.tape WHERE k.slot_since IS NOT NULL"
            ),
            unwritten: format!("SELECT id, line::text FROM {statistic} WHERE written_at IS NULL ORDER BY id LIMIT 500"),
            written: format!("UPDATE {statistic} SET written_at = clock_timestamp() WHERE id = ANY($1)"),
            export: format!("SELECT row_to_json(m)::text FROM {t} m ORDER BY m.tape"),
            overview: format!(
                "SELECT {row}, {}, c.who AS hold_who, c.why AS hold_why, c.until AS hold_until, clock_timestamp() AS now \
                 FROM {t} m LEFT JOIN {task_table} k ON k.tape = m.tape \
                 LEFT JOIN {control} c ON c.kind = 'hold' AND c.name = m.tape AND (c.until IS NULL OR c.until > clock_timestamp()) ",
                task.split(", ")
                    .map(|column| match column {
                        // A row that nobody else has written since looks as it did: its stamps need not be sent twice.
                        "k.seen" => "CASE WHEN k.seen_xmin IS DISTINCT FROM m.xmin::text::int8 THEN k.seen END AS k_seen".to_owned(),
                        "k.seen_xmin" => "CASE WHEN k.seen IS NOT NULL THEN k.seen_xmin END AS k_seen_xmin".to_owned(),
                        _ => format!("{column} AS k_{}", column.trim_start_matches("k.")),
                    })
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
            events: format!(
                "SELECT id, at, tape, journey, stage, kind, actor, detail FROM (SELECT * FROM {event} \
                 WHERE ($1::text IS NULL OR tape = $1) AND ($2::text IS NULL OR kind = $2) AND ($3::text IS NULL OR stage = $3) \
                 AND ($4::text IS NULL OR actor = $4) AND ($5::timestamptz IS NULL OR at >= $5) \
                 ORDER BY id DESC LIMIT $6) newest ORDER BY id"
            ),
            holds: format!(
                "SELECT name FROM {control} WHERE kind = 'hold' AND (until IS NULL OR until > clock_timestamp()) ORDER BY name"
            ),
            controls: format!(
                "SELECT kind, name, who, why, since, until FROM {control} WHERE kind <> 'gate' \
                 AND (until IS NULL OR until > clock_timestamp()) ORDER BY kind, name"
            ),
            set_control: format!(
                "INSERT INTO {control} AS c (kind, name, who, why, until) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (kind, name) DO UPDATE SET who = $3, why = $4, until = $5, since = clock_timestamp() \
                 WHERE $5::timestamptz IS NULL OR $5 >= c.until"
            ),
            drop_control: format!("DELETE FROM {control} WHERE kind = $1 AND name = $2"),
            widths: "SELECT attname::text, atttypmod - 4 FROM pg_attribute WHERE attrelid = to_regclass($1) AND atttypmod > 4 \
                     AND attname IN ('tape', 'mediatype', 'tapepool', 'responsible')"
                .to_owned(),
            ticked: format!(
                "INSERT INTO {tick} AS k (stage, who, trouble, trouble_since) \
                 SELECT stage, $2::text, $3::text, CASE WHEN $3::text IS NOT NULL THEN clock_timestamp() END FROM unnest($1::text[]) AS s (stage) \
                 ON CONFLICT (stage) DO UPDATE SET at = clock_timestamp(), who = EXCLUDED.who, trouble = EXCLUDED.trouble, \
                 trouble_since = CASE WHEN EXCLUDED.trouble IS NOT NULL THEN COALESCE(k.trouble_since, clock_timestamp()) END"
            ),
            ticks: format!("SELECT stage, at, who, trouble, trouble_since FROM {tick} WHERE stage <> '{MAIL}' ORDER BY at DESC, stage"),
            site: format!(
                "SELECT (SELECT count(*) FROM {t} WHERE mode = 'error' AND finished IS NULL) AS errors, \
                 (SELECT count(*) FROM {task_table} k JOIN {t} m ON m.tape = k.tape \
                  WHERE k.reason_code = 'site-trouble' AND k.outcome <> 'failed' AND m.mode = 'auto' AND m.finished IS NULL) AS site_tapes, \
                 (SELECT k.reason FROM {task_table} k JOIN {t} m ON m.tape = k.tape \
                  WHERE k.reason_code = 'site-trouble' AND k.outcome <> 'failed' AND m.mode = 'auto' AND m.finished IS NULL \
                  LIMIT 1) AS site_text, clock_timestamp() AS now"
            ),
            count_finished: format!("SELECT count(*) FROM {t} WHERE finished IS NOT NULL"),
            // A row that is due waits since it is; any other since its last stamp.
            picture: format!(
                "SELECT state, mode, class, code, count(*) AS tapes, \
                 max(extract(epoch FROM clock_timestamp() - CASE WHEN class IN ('due', 'slot') THEN GREATEST(stamp, due_at) ELSE stamp END))::float8 AS oldest \
                 FROM (SELECT CASE WHEN m.reclaimed IS NOT NULL THEN 'reclaimed' WHEN m.quarantined IS NOT NULL THEN 'quarantined' \
                   WHEN m.repacked IS NOT NULL THEN 'repacked' WHEN m.started IS NOT NULL THEN 'started' ELSE 'entered' END AS state, \
                   m.mode::text AS mode, \
                   CASE WHEN m.mode = 'manual' THEN 'manual' WHEN m.mode = 'error' OR k.outcome = 'failed' THEN 'failed' \
                     WHEN k.tape IS NULL THEN 'unseen' WHEN {held} THEN 'held' \
                     WHEN k.owner IS NOT NULL AND k.lease_until > clock_timestamp() THEN 'working' \
                     WHEN k.outcome = 'stalled' THEN 'stalled' \
                     WHEN k.next_attempt_at > clock_timestamp() THEN coalesce(k.outcome, 'not-due') \
                     WHEN EXISTS (SELECT 1 FROM {control} c WHERE c.kind = 'pause' AND c.name = k.stage \
                                  AND (c.until IS NULL OR c.until > clock_timestamp())) THEN 'paused' \
                     WHEN {needs} THEN 'slot' ELSE 'due' END AS class, \
                   CASE WHEN k.outcome IS NOT NULL THEN coalesce(k.reason_code, '') ELSE '' END AS code, \
                   COALESCE(m.reclaimed, m.quarantined, m.repacked, m.started, m.entered)::timestamptz AS stamp, \
                   CASE WHEN isfinite(k.next_attempt_at) THEN k.next_attempt_at END AS due_at \
                   FROM {t} m LEFT JOIN {task_table} k ON k.tape = m.tape WHERE m.finished IS NULL) rows \
                 GROUP BY state, mode, class, code"
            ),
            table_size: "SELECT pg_relation_size(c.oid) > 16777216 AND c.reltuples > 0 AS large, c.reltuples::int8 AS estimate, \
                         extract(epoch FROM clock_timestamp())::float8 AS now FROM pg_class c WHERE c.oid = to_regclass($1)"
                .to_owned(),
            count_events: format!("SELECT count(*) FROM {event} WHERE tape = $1"),
            last_journey: format!(
                "SELECT moved_at, why, row FROM {history} WHERE tape = $1 ORDER BY id DESC LIMIT 1"
            ),
            table: t,
        }
    }

    pub(super) fn table(&self) -> &str {
        &self.table
    }

    /// Sets a stamp, of one tape or of several: never before the one that precedes it, and only where it is not set.
    pub(super) fn stamp(&self, to: State, several: bool) -> String {
        let (table, row) = (&self.table, columns("m"));
        let column = to.column();
        let previous = State::ALL[(to as usize).saturating_sub(1)].column();
        let which = if several { "ANY($1)" } else { "$1" };
        format!(
            "UPDATE {table} m SET {column} = GREATEST(LOCALTIMESTAMP(0), {previous}) \
             WHERE tape = {which} AND {column} IS NULL AND {previous} IS NOT NULL RETURNING {row}"
        )
    }
}

/// The enum lives in the table's schema where one is configured, else it is found by the search path.
fn mode_type(name: &TableName) -> String {
    match &name.schema {
        Some(schema) => format!("\"{schema}\".automation_modes"),
        None => "automation_modes".to_owned(),
    }
}

/// The values of a task row, in the order of its columns.
fn values() -> String {
    let numbers: Vec<String> = (1..=TASK_COLUMNS.split(", ").count()).map(|number| format!("${number}")).collect();
    numbers.join(", ")
}

/// What a task row becomes, of the same values.
fn updates() -> String {
    let columns = TASK_COLUMNS.split(", ").map(str::trim).zip(1..).skip(1);
    columns.map(|(column, number)| format!("{column} = ${number}")).collect::<Vec<_>>().join(", ")
}

fn make_task(table: &str) -> String {
    format!("INSERT INTO {table} ({TASK_COLUMNS}) VALUES ({}) ON CONFLICT (tape) DO UPDATE SET {}", values(), updates())
}

/// Lines of the history of tape $1, in their order. The values that follow begin at `first`: journey, actor; stages, kinds
/// and details of the lines.
fn add_events(event: &str, first: usize) -> String {
    let [journey, actor, stages, kinds, details] = [0, 1, 2, 3, 4].map(|number| first + number);
    format!(
        "INSERT INTO {event} (tape, journey, stage, kind, actor, detail) \
         SELECT $1::text, ${journey}::timestamptz::timestamp(0), n.stage, n.kind, ${actor}::text, n.detail \
         FROM unnest(${stages}::text[], ${kinds}::text[], ${details}::jsonb[]) WITH ORDINALITY AS n (stage, kind, detail, number) ORDER BY n.number"
    )
}

/// Of a row that is there, and locked.
fn save_task(table: &str) -> String {
    format!("UPDATE {table} SET {} WHERE tape = $1", updates())
}

/// Of rows that are there, and locked; with lines of the history in their order.
fn save_together(table: &str, event: &str) -> String {
    let columns: Vec<&str> = TASK_COLUMNS.split(", ").map(str::trim).collect();
    let updates: Vec<String> = columns.iter().skip(1).map(|column| format!("{column} = s.{column}")).collect();
    let values: Vec<String> =
        TASK_TYPES.split(", ").zip(1..).map(|(kind, number)| format!("${number}::{}[]", kind.trim())).collect();
    let [tape, journey, actor, stage, kind, detail] = [1, 2, 3, 4, 5, 6].map(|number| columns.len() + number);
    format!(
        "WITH noted AS (INSERT INTO {event} (tape, journey, stage, kind, actor, detail) \
         SELECT n.tape, n.journey::timestamp(0), n.stage, n.kind, n.actor, n.detail \
         FROM unnest(${tape}::text[], ${journey}::timestamptz[], ${actor}::text[], ${stage}::text[], ${kind}::text[], ${detail}::jsonb[]) \
         WITH ORDINALITY AS n (tape, journey, actor, stage, kind, detail, number) ORDER BY n.number) \
         UPDATE {table} k SET {} FROM unnest({}) AS s ({}) WHERE k.tape = s.tape",
        updates.join(", "),
        values.join(", "),
        columns.join(", ")
    )
}
