"""What a person at a terminal waits for: the start of each program, and a list of ten thousand tapes."""

import os

import contest
import place
import proc

ROWS = 10_000
# What a Python tool of this kind imports before it does anything.
PYTHON_START = "import argparse, json, psycopg; argparse.ArgumentParser().parse_args([])"
# What a list is told from: the tape, what the programs know of it, its hold. One server process makes the text of it.
# `seen` is not sent of a row that nobody else has written, and here nobody has.
TASK = """stage, generation, epoch, dispatched_at, owner, lease_until, intent, attempts, crashes, next_attempt_at, settle_until, slot_since, wanted,
 round, progress, progress_at, outcome, reason_code, reason, memory, seen_xmin"""
COPY_ALL = f"""COPY (SELECT m.*, {", ".join(f"k.{column.strip()}" for column in TASK.split(","))}, c.who, c.why, c.until, clock_timestamp()
 FROM repack_status m LEFT JOIN repack_status_task k USING (tape)
 LEFT JOIN repack_status_control c ON c.kind = 'hold' AND c.name = m.tape ORDER BY m.tape) TO STDOUT"""


def prepare():
    place.make_database("bench_startup")
    config = place.configuration("bench_startup")
    place.migrate(config)
    contest.fill("bench_startup", "repack_status", ROWS, "quarantined")
    # Makes the task rows; the quarantine of none of them is over.
    place.sql("bench_startup", "UPDATE repack_status SET quarantined = LOCALTIMESTAMP(0) - interval '1 hour'")
    place.ours(place.PRODUCER, config, "tick")
    place.sql("bench_startup", "VACUUM ANALYZE")
    return config


def commands(config):
    copy = "COPY (SELECT * FROM repack_status ORDER BY tape) TO STDOUT"
    psql = [place.PSQL, "-X", "-d", place.dsn("bench_startup"), "-c"]
    return {
        "true": ["/bin/true"],
        "producer --version": [place.PRODUCER, "--version"],
        "worker --version": [place.WORKER, "--version"],
        "manager --version": [place.MANAGER, "--version"],
        "python imports": [place.PYTHON, "-c", PYTHON_START],
        "psql COPY": [*psql, copy],
        "psql COPY, all": [*psql, COPY_ALL],
        "psql aligned": [*psql, "TABLE repack_status"],
        "manager ls": [place.MANAGER, "-C", config, "ls"],
        "manager ls --jsonl": [place.MANAGER, "-C", config, "ls", "--jsonl"],
    }


def run(_number, config):
    """One round: milliseconds of each command."""
    environment = {**os.environ, "PAGER": "cat"}
    output = place.WORK / "startup.out"
    result = {}
    for name, argv in commands(config).items():
        repeats = 9 if name.endswith("--version") or name == "true" else 3
        runs = sorted((proc.timed(argv, environment, output) for _ in range(repeats)), key=lambda timed: timed["wall_s"])
        middle = runs[len(runs) // 2]
        lines = output.read_bytes().count(b"\n")
        if name.startswith(("psql", "manager ls")) and lines < ROWS:
            raise RuntimeError(f"{name} printed {lines} lines")
        result[name] = {"wall_ms": round(middle["wall_s"] * 1e3, 2), "cpu_ms": round(middle["cpu_s"] * 1e3, 2)}
    return result
