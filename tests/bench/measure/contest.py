"""A standing backlog of tasks, drained by us and by others: how fast, and what it costs whom.

Each run has a database and queues of its own. The tasks are in the queue before the worker starts, and time and cost are taken between
the moments when 10 % and 97 % of the rows are done: neither the publisher nor the start of the worker is in the figures.
"""

import os
import signal
import subprocess
import time

import proc
import place

# The table of ATRESYS as it is without us: the others work on a copy that has no index of ours.
PEER_TABLE = """
CREATE TYPE automation_modes AS ENUM ('auto', 'manual', 'error');
CREATE TABLE peer_status (tape varchar(20) PRIMARY KEY, entered timestamp(0) NOT NULL, started timestamp(0), repacked timestamp(0),
  quarantined timestamp(0), reclaimed timestamp(0), finished timestamp(0), files bigint NOT NULL, bytes bigint NOT NULL,
  usage smallint NOT NULL, last_write_date timestamp(0), mode automation_modes NOT NULL, priority smallint NOT NULL,
  mediatype varchar(20) NOT NULL, tapepool varchar(100) NOT NULL, responsible varchar(40) NOT NULL);
"""
STATES = ("entered", "started", "repacked", "quarantined", "reclaimed", "finished")
LIMIT = 300


def fill(database, table, tapes, state):
    """So many rows, all of them in this state."""
    reached = STATES.index(state)
    stamps = ", ".join(
        f"LOCALTIMESTAMP(0) - interval '{len(STATES) - number} day'" if number <= reached else "NULL"
        for number in range(len(STATES))
    )
    place.sql(
        database,
        f"INSERT INTO {table} SELECT 'L' || lpad(i::text, 6, '0'), {stamps}, 4, 400, 40, NULL, 'auto', 10, 'LTO8', 'raw', 'ops' "
        f"FROM generate_series(1, {tapes}) i; ANALYZE {table}; CHECKPOINT;",
    )


class Ours:
    """Our worker with this concurrency, as one process or several."""

    table = "repack_status"
    program = place.WORKER

    def __init__(self, stage, concurrency, copies="1"):
        self.stage, self.concurrency, self.copies = stage, concurrency, int(copies)

    def prepare(self, database, tapes, environment):
        self.config = place.configuration(database, database, redispatch_after_secs=3600)
        place.migrate(self.config)
        state = {"finish": "reclaimed", "quarantine": "repacked"}[self.stage]
        fill(database, self.table, tapes, state)
        begun = time.monotonic()
        place.ours(place.PRODUCER, self.config, "tick", **environment)
        published = time.monotonic() - begun
        # The tick has filled tables of its own: without statistics, which every server gathers within a minute, they are read whole.
        place.sql(database, "ANALYZE")
        return published

    def argv(self):
        return [self.program, "-C", self.config, "--stages", self.stage, "--concurrency", self.concurrency]

    def done(self):
        return {"finish": "finished", "quarantine": "quarantined"}[self.stage]


class Before(Ours):
    """Our worker as it was: to see in one run what a change is worth."""

    program = os.environ.get("BENCH_BEFORE", "")


class Peer:
    """Somebody else's worker, one commit for each task."""

    table = "peer_status"
    copies = 1

    def prepare(self, database, tapes, environment):
        place.sql(database, PEER_TABLE)
        fill(database, self.table, tapes, "reclaimed")
        self.environment = environment
        environment |= {"BENCH_DSN": place.dsn(database), "BENCH_AMQP": place.AMQP, "BENCH_QUEUE": database}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1", "C_FORCE_ROOT": "1", "PYTHONWARNINGS": "ignore"}
        begun = time.monotonic()
        if publisher := self.publisher(database):
            vids = "".join(f"L{number:06}\n" for number in range(1, tapes + 1))
            run = subprocess.run(
                publisher, input=vids, env={**os.environ, **environment}, cwd=place.PEERS, capture_output=True, text=True
            )
            if run.returncode != 0:
                raise RuntimeError(f"publishing failed: {run.stderr[-2000:]}")
        return time.monotonic() - begun

    def publisher(self, queue):
        return None

    def done(self):
        return "finished"


class Serial(Peer):
    def argv(self):
        return [place.PYTHON, "serial.py"]


class Celery(Peer):
    def __init__(self, processes, prefetch="1"):
        self.processes, self.prefetch = processes, prefetch

    def publisher(self, queue):
        self.queue = queue
        self.environment["BENCH_PREFETCH"] = self.prefetch
        return [place.PYTHON, "celery_app.py"]

    def argv(self):
        options = ["-c", self.processes, "-P", "prefork", "-Q", self.queue, "-l", "ERROR"]
        options += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        return [place.PYTHON, "-m", "celery", "-A", "celery_app", "worker", *options]


class Dramatiq(Peer):
    def __init__(self, processes, threads):
        self.processes, self.threads = processes, threads

    def publisher(self, queue):
        return [place.PYTHON, "dramatiq_app.py"]

    def argv(self):
        return [place.PYTHON, "-m", "dramatiq", "-p", self.processes, "-t", self.threads, "dramatiq_app"]


class Apalis(Peer):
    program = str(place.PEER_BIN / "peer-apalis")

    def __init__(self, concurrency):
        self.concurrency = concurrency

    def publisher(self, queue):
        self.queue = queue
        return [self.program, "publish", queue]

    def argv(self):
        return [self.program, "work", self.queue, self.concurrency]


class Graphile(Peer):
    program = str(place.PEER_BIN / "peer-graphile")

    def __init__(self, concurrency):
        self.concurrency = concurrency

    def publisher(self, queue):
        return [self.program, "publish"]

    def argv(self):
        return [self.program, "work", self.concurrency]


OURS = {"ours": Ours, "before": Before}
KINDS = {"serial": Serial, "celery": Celery, "dramatiq": Dramatiq, "apalis": Apalis, "graphile": Graphile}


def contestant(name, stage):
    kind, *settings = name.split(":")
    if kind in OURS:
        return OURS[kind](stage, *settings)
    return KINDS[kind](*settings)


def run(name, number, stage, tapes, execs, environment):
    """One run of one contestant: its figures."""
    database = f"bench_{name.replace(':', '_')}_{number}"
    place.make_database(database)
    try:
        worker = contestant(name, stage)
        environment = {"BENCH_CTA_ADMIN": place.CTA_ADMIN, **environment}
        publishing = worker.prepare(database, tapes, environment)
        figures = drained(worker, database, tapes, execs, environment)
        return {**figures, "publish_s": round(publishing, 2)}
    finally:
        place.delete_queues(database)
        place.drop_database(database)


# How often the write-ahead log was written through to the disk, and the milliseconds that took: all databases together.
SYNCED = "SELECT wal_sync || ' ' || wal_sync_time FROM pg_stat_wal"


def sample(session, done, pids):
    at = time.monotonic()
    known = proc.children()
    cpu = [proc.worker_cpu(pid, known) for pid in pids]
    synced, milliseconds = session.ask(SYNCED).split()
    return {
        "at": at, "done": done, "own": (sum(own for own, _ in cpu), sum(others for _, others in cpu)),
        "postgres": proc.tree_cpu(place.server_pid("postgres"), known), "broker": proc.tree_cpu(place.server_pid("rabbitmq"), known),
        "machine": proc.machine_busy(), "syncs": int(synced), "sync_s": float(milliseconds) / 1e3,
    }


def drained(worker, database, tapes, execs, environment):
    # Should this program be killed, the workers must not stay behind.
    command = ["setpriv", "--pdeathsig", "KILL", "--", *worker.argv()]
    logs = [place.WORK / f"{database}.{copy}.log" for copy in range(worker.copies)]
    session = place.Session(database)
    question = f"SELECT count(*) FROM {worker.table} WHERE {worker.done()} IS NOT NULL"
    processes = [start(command, {**os.environ, **environment}, log) for log in logs]
    pids = [process.pid for process in processes]
    begun, first = time.monotonic(), None
    try:
        while True:
            done = int(session.ask(question))
            if first is None and done >= tapes * 0.1:
                first = sample(session, done, pids)
            if first and done >= tapes * 0.97:
                last = sample(session, done, pids)
                memory = sum(proc.pss_mib(pid) for pid in pids)
                break
            # A loop has an end of its own: its last rows count even if nobody saw 97 % of them while it ran.
            ended = any(process.poll() is not None for process in processes)
            if time.monotonic() - begun > LIMIT or (ended and int(session.ask(question)) < tapes):
                said = "\n".join(log.read_text(errors="replace")[-2000:] for log in logs)
                raise RuntimeError(f"{done} of {tapes} are done: {said}")
            time.sleep(0.02)
        settle(session, question, tapes)
    finally:
        for process in processes:
            end(process)
        session.close()
    for log in logs:
        log.unlink()
    return figures(first, last, memory, execs, first["at"] - begun)


def start(command, environment, log):
    with open(log, "wb") as out:
        return subprocess.Popen(command, env=environment, cwd=place.PEERS, stdin=subprocess.DEVNULL, stdout=out, stderr=out)


def settle(session, question, tapes):
    """Lets the last few come to their end, so that the worker is stopped with nothing in hand."""
    patience = time.monotonic() + 30
    while int(session.ask(question)) < tapes and time.monotonic() < patience:
        time.sleep(0.05)


def end(process):
    """Ends a worker and whatever it started, by their pids."""
    family = [(pid, proc.start_time(pid)) for pid in proc.tree(process.pid)]
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid, started in family:
        if started is not None and proc.start_time(pid) == started:
            os.kill(pid, signal.SIGKILL)


def figures(first, last, memory, execs, start):
    tasks = last["done"] - first["done"]
    took = last["at"] - first["at"]

    def each(seconds):
        return round(seconds * 1e6 / tasks)

    return {
        "tasks_per_s": round(tasks / took, 1),
        "execs_per_s": round(tasks * execs / took, 1),
        "own_us": each(last["own"][0] - first["own"][0]),
        "exec_us": each(last["own"][1] - first["own"][1]),
        "postgres_us": each(last["postgres"] - first["postgres"]),
        "broker_us": each(last["broker"] - first["broker"]),
        "machine_us": each(last["machine"] - first["machine"]),
        "pss_mib": round(memory, 1),
        "to_first_tenth_s": round(start, 2),
        # Of all processors, and of the time that the log may be written through in.
        "machine_busy": round((last["machine"] - first["machine"]) / took / os.cpu_count(), 3),
        "sync_busy": round((last["sync_s"] - first["sync_s"]) / took, 3),
        "tasks_per_sync": round(tasks / max(1, last["syncs"] - first["syncs"]), 2),
    }
