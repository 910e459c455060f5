"""What a tick and a delivery cost the database, by the size of the table: the times and plans that the server itself logs."""

import json
import os
import re
import subprocess
import time

import contest
import place

DUE = 100
# Where deliveries share transactions, by other statements than one that goes alone.
TOGETHER = 64
LOG = place.SERVICES / "log" / "postgres.log"
# Every statement of this database: how long each of its steps took, and the plan that was carried out.
LOGGING = """
ALTER DATABASE "{0}" SET session_preload_libraries = 'auto_explain';
ALTER DATABASE "{0}" SET auto_explain.log_min_duration = 0;
ALTER DATABASE "{0}" SET auto_explain.log_format = json;
ALTER DATABASE "{0}" SET log_min_duration_statement = 0;
ALTER DATABASE "{0}" SET track_io_timing = on;
"""
OFF = "-c log_min_duration_statement=-1 -c auto_explain.log_min_duration=-1"
# What a commit has to get to the disk: bytes of the write-ahead log.
WRITTEN = "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"
HEAD = re.compile(r"LOG:  duration: ([0-9.]+) ms(.*)")

# Quarantined long ago or finished: what a table that has grown for years holds. Nothing of it is due.
ROWS = """
INSERT INTO repack_status SELECT 'G' || lpad(i::text, 8, '0'), t.then, t.then, t.then, t.then,
  CASE WHEN i % {share} <> 0 THEN t.then END, CASE WHEN i % {share} <> 0 THEN t.then END,
  1000, 12000000000000, 90, t.then, 'auto', 10, 'LTO8', 'raw', 'ops'
  FROM generate_series(1, {rows}) i, (SELECT LOCALTIMESTAMP(0) - interval '9 days' AS then) t;
INSERT INTO repack_status_task (tape, stage, generation, epoch, next_attempt_at, seen_xmin)
  SELECT tape, CASE WHEN finished IS NULL THEN 'reclaim' END, nextval('repack_status_generation_seq'), 0,
  CASE WHEN finished IS NULL THEN now() + interval '22 days' ELSE 'infinity' END, xmin::text::int8 FROM repack_status;
"""
EVENTS = """
DROP INDEX {index};
INSERT INTO repack_status_event (at, tape, journey, stage, kind, actor, detail)
  SELECT now() - interval '5 years' + i * interval '10 s', 'G' || lpad((1 + i % {rows})::text, 8, '0'), '2026-01-01', 'end', 'done',
  'worker@host#1', '{{"command": "cta-admin repack rm --vid V01007", "answer": "accepted", "text": ""}}'
  FROM generate_series(1, {events}) i;
{definition};
"""


def quiet(database, statement):
    """As place.sql, and the log does not tell."""
    command = [place.PSQL, "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", place.dsn(database), "-f", "-"]
    run = subprocess.run(command, input=statement, capture_output=True, text=True, env={**os.environ, "PGOPTIONS": OFF})
    if run.returncode != 0:
        raise RuntimeError(f"psql: {run.stderr.strip()}")
    return run.stdout.strip()


def make(database, rows, share, events):
    """A table of so many rows, one in `share` of them still on its way."""
    place.make_database(database)
    config = place.configuration(database, database, redispatch_after_secs=36000)
    place.migrate(config)
    quiet(database, ROWS.format(rows=rows, share=share) + place.FOLLOWED)
    named = "SELECT indexrelid::regclass, pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class c ON c.oid = indexrelid " \
            "WHERE indrelid = 'repack_status_event'::regclass AND c.relname LIKE '%event_tape'"
    index, definition = quiet(database, named).split("|")
    quiet(database, EVENTS.format(rows=rows, events=events, index=index, definition=definition))
    quiet(database, "VACUUM (FREEZE, ANALYZE); CHECKPOINT;")
    # Freezing leaves xmin as it was.
    place.sql("postgres", LOGGING.format(database))
    return config


class Logged:
    """What the server logs between the beginning and the end of a `with`."""

    def __enter__(self):
        self.begun = LOG.stat().st_size
        return self

    def __exit__(self, *_):
        with open(LOG, encoding="utf-8", errors="replace") as log:
            log.seek(self.begun)
            self.lines = log.read().splitlines()

    def entries(self):
        """Milliseconds, what follows them, and the indented lines behind."""
        entries = []
        for line in self.lines:
            if found := HEAD.search(line):
                entries.append((float(found[1]), found[2].strip(), []))
            elif line.startswith("\t") and entries:
                entries[-1][2].append(line[1:])
        return entries

    def figures(self, tables):
        """Milliseconds in all, the slowest statements, and sequential scans of these tables."""
        total, commits, statements, scans = 0.0, 0.0, {}, {}
        for milliseconds, what, more in self.entries():
            if what.startswith("plan:"):
                plan = json.loads("\n".join(more))
                for table in sequential(plan["Plan"], tables):
                    scans[f"{table}: {shortened(plan['Query Text'])}"] = round(milliseconds, 2)
                continue
            total += milliseconds
            text = shortened(what.partition(":")[2])
            commits += milliseconds if text == "COMMIT" else 0.0
            statements[text] = statements.get(text, 0.0) + milliseconds
        slowest = sorted(statements.items(), key=lambda item: -item[1])[:8]
        return {
            "database_ms": round(total, 2), "statements_ms": round(total - commits, 2),
            "slowest_ms": {text: round(milliseconds, 2) for text, milliseconds in slowest},
            "sequential_scans_ms": scans,
        }


def shortened(statement):
    return " ".join(statement.split())[:150]


def sequential(plan, tables):
    """The large tables that a plan reads from end to end."""
    if "Seq Scan" in plan["Node Type"] and plan["Relation Name"] in tables:
        yield plan["Relation Name"]
    for part in plan.get("Plans", []):
        yield from sequential(part, tables)


def large(database):
    """Tables where reading all is reading much."""
    names = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname LIKE 'repack_status%' AND reltuples > 5000"
    return set(quiet(database, names).split())


def enter_due(database, which):
    """Rows that `finish` will be done with at its first look; `which` begins their VIDs."""
    stamps = ", ".join(["LOCALTIMESTAMP(0) - interval '2 days'"] * 5)
    quiet(
        database,
        f"INSERT INTO repack_status SELECT '{which}' || lpad(i::text, 5, '0'), {stamps}, NULL, 4, 400, 40, NULL, 'auto', 10, "
        f"'LTO8', 'raw', 'ops' FROM generate_series(1, {DUE}) i",
    )


def run(number, prepared):
    """One round on each size."""
    result = {}
    for name, (database, config) in prepared.items():
        tables = large(database)
        which = f"D{number:02}"
        enter_due(database, which)
        # The task rows are made, and all is in the caches.
        place.ours(place.PRODUCER, config, "tick")
        quiet(database, f"UPDATE repack_status_task SET dispatched_at = NULL WHERE tape LIKE '{which}%'")
        place.purge_queues(database)
        begun = time.monotonic()
        with Logged() as logged:
            report = json.loads(place.ours(place.PRODUCER, config, "tick", "-j"))
        took = time.monotonic() - begun
        published = sum(len(stage["published"]) for stage in report["stages"])
        if published != DUE:
            raise RuntimeError(f"{published} of {DUE} due tapes were published")
        figures = logged.figures(tables) | {"wall_ms": round(took * 1e3)}
        result[name] = figures | {"delivery": deliveries(database, config, which, tables, 1)}
        enter_due(database, f"E{number:02}")
        place.ours(place.PRODUCER, config, "tick")
        result[name]["together"] = deliveries(database, config, f"E{number:02}", tables, TOGETHER)
    return result


def deliveries(database, config, which, tables, concurrency):
    """The database time of a delivery, so many at a time."""
    environment = {**os.environ, "BENCH_CTA_ADMIN": place.CTA_ADMIN}
    command = ["setpriv", "--pdeathsig", "KILL", "--", place.WORKER, "-C", config, "--stages", "finish", "--concurrency", str(concurrency)]
    written = int(quiet(database, WRITTEN))
    with Logged() as logged:
        worker = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            patience = time.monotonic() + 120
            left = f"SELECT count(*) FROM repack_status WHERE tape LIKE '{which}%' AND finished IS NULL"
            while int(quiet(database, left)) > 0:
                if time.monotonic() > patience or worker.poll() is not None:
                    raise RuntimeError("the due tapes are not finished")
                time.sleep(0.1)
        finally:
            contest.end(worker)
    figures = logged.figures(tables) | {"wal_kib_each": round((int(quiet(database, WRITTEN)) - written) / 1024 / DUE, 1)}
    return figures | {f"{each}_each": round(figures[each] / DUE, 3) for each in ("database_ms", "statements_ms")}


def prepare(rows, events):
    """Three sizes with all rows on their way, and the largest once more with most of them finished."""
    prepared = {}
    for size, share in ((min(1000, rows), 1), (min(100_000, rows), 1), (rows, 1), (rows, 10)):
        name = f"{size} rows, {'all' if share == 1 else 'one in ten'} on the way"
        database = f"bench_tick_{size}_{share}"
        many = events if size == rows else size * 10
        prepared[name] = (database, make(database, size, share, min(many, events)))
    return prepared
