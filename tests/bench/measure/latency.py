"""Little to do: how long one tape waits, from the operator's word to the claim by a worker that has nothing else."""

import math
import os
import subprocess
import time

import contest
import place

INTERVAL = 0.25
# When the row became due, was marked as published, and was claimed, by the one clock that all of them share. Each is the moment of the
# statement, just before its commit: the commit that marks a row is in the time to its claim.
TRACE = """
CREATE TABLE traced (tape text PRIMARY KEY, due timestamptz, published timestamptz, claimed timestamptz);
CREATE FUNCTION trace() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.generation <> OLD.generation AND NEW.owner IS NULL THEN
    INSERT INTO traced (tape, due) VALUES (NEW.tape, clock_timestamp()) ON CONFLICT DO NOTHING;
  ELSIF NEW.dispatched_at IS NOT NULL AND OLD.dispatched_at IS NULL THEN
    UPDATE traced SET published = clock_timestamp() WHERE tape = NEW.tape AND published IS NULL;
  ELSIF NEW.owner IS NOT NULL AND OLD.owner IS NULL THEN
    UPDATE traced SET claimed = clock_timestamp() WHERE tape = NEW.tape AND claimed IS NULL;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER traced AFTER UPDATE ON repack_status_task FOR EACH ROW EXECUTE FUNCTION trace();
"""
TRACED = """
SELECT round(1e3 * extract(epoch FROM claimed - published), 3) || ' ' || round(1e3 * extract(epoch FROM claimed - due), 3)
FROM traced WHERE claimed IS NOT NULL AND published IS NOT NULL ORDER BY due
"""


def run(number, tapes):
    """One round: for each tape the milliseconds from published to claimed, and from requeued to claimed with a tick in between."""
    database = f"bench_latency_{number}"
    place.make_database(database)
    try:
        config = place.configuration(database, database, redispatch_after_secs=3600)
        place.migrate(config)
        contest.fill(database, "repack_status", tapes, "reclaimed")
        place.sql(database, "UPDATE repack_status SET mode = 'manual'")
        # Makes the task rows and declares the queues; a tape in mode manual is not due.
        place.ours(place.PRODUCER, config, "tick")
        place.sql(database, TRACE)
        return measured(database, config, tapes)
    finally:
        place.delete_queues(database)
        place.drop_database(database)


def measured(database, config, tapes):
    log = place.WORK / f"{database}.log"
    command = ["setpriv", "--pdeathsig", "KILL", "--", place.WORKER, "-C", config, "--stages", "finish"]
    worker = contest.start(command, {**os.environ, "BENCH_CTA_ADMIN": place.CTA_ADMIN}, log)
    session = place.Session(database)
    try:
        for tape in range(1, tapes + 1):
            begun = time.monotonic()
            place.ours(place.MANAGER, config, "requeue", f"L{tape:06}", "--yes")
            place.ours(place.PRODUCER, config, "finish")
            finished(session, tape, worker, log)
            time.sleep(max(0.0, begun + INTERVAL - time.monotonic()))
        lines = [line.split() for line in place.sql(database, TRACED).splitlines()]
    finally:
        contest.end(worker)
        session.close()
    if len(lines) != tapes:
        raise RuntimeError(f"{len(lines)} of {tapes} claims were seen")
    log.unlink()
    return {"published_ms": [float(line[0]) for line in lines], "requeued_ms": [float(line[1]) for line in lines]}


def finished(session, tape, worker, log):
    """The next tape comes when this one is done: a worker with nothing else to do is what is asked about."""
    patience = time.monotonic() + 30
    question = f"SELECT finished IS NOT NULL FROM repack_status WHERE tape = 'L{tape:06}'"
    while session.ask(question) != "t":
        if time.monotonic() > patience or worker.poll() is not None:
            raise RuntimeError(f"tape {tape} is not finished: {subprocess.list2cmdline(worker.args)}: {log.read_text()[-2000:]}")
        time.sleep(0.01)


def percentile(values, share):
    """The smallest value that so large a share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
