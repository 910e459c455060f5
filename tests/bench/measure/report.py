"""Medians, ratios, targets, tables."""

import json
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path

import place


def first_line(*command):
    run = subprocess.run(command, capture_output=True, text=True)
    return (run.stdout.strip() or run.stderr.strip()).split("\n")[0]


def machine():
    """What it was measured on, and with what."""
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    memory = next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemTotal"))
    pip = subprocess.run([place.PYTHON, "-m", "pip", "freeze"], capture_output=True, text=True).stdout.split()
    lock = (place.PEERS / "rust/Cargo.lock").read_text().split("[[package]]")
    crates = {}
    for package in lock:
        name = package.partition('name = "')[2].partition('"')[0]
        if name in ("apalis", "apalis-amqp", "graphile_worker", "serde_json", "tokio", "lapin"):
            crates[name] = package.partition('version = "')[2].partition('"')[0]
    wanted = ("celery", "dramatiq", "kombu", "pika", "psycopg")
    broker = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", "rabbitmq-server"], capture_output=True, text=True).stdout
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu": cpu, "cores": os.cpu_count(), "memory_gib": round(memory / 2**20, 1), "kernel": platform.release(),
        "load_at_start": os.getloadavg()[0],
        "postgresql": place.sql("postgres", "SHOW server_version"), "rabbitmq": broker, "rust": first_line("rustc", "--version"),
        "python": first_line(place.PYTHON, "--version"), "ours": first_line(place.WORKER, "--version"),
        "pip": {line.split("==")[0]: line.split("==")[1] for line in pip if line.split("==")[0] in wanted},
        "crates": crates,
    }


def median(runs, *path):
    """The median over the rounds of one figure."""
    return round(statistics.median(_at(run, path) for run in runs), 3)


def ratio(rounds, one, other, figure):
    """The median over the rounds of a quotient: what one round saw of the machine, both of them saw."""
    quotients = [one_run[figure] / other_run[figure] for one_run, other_run in zip(rounds[one], rounds[other]) if other_run[figure]]
    return statistics.median(quotients) if quotients else None


def _at(run, path):
    for key in path:
        run = run[key]
    return run


def judged(what, value, limit, at_least=True):
    """A target, and whether it was met; none without a value."""
    met = None if value is None else (value >= limit if at_least else value <= limit)
    return {"what": what, "value": value if value is None else round(value, 2), "limit": limit, "at_least": at_least, "met": met}


def show(title, header, rows):
    """Prints a table in Markdown."""
    print(f"\n### {title}\n")
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |", flush=True)


def show_targets(targets):
    rows = []
    for target in targets:
        met = {True: "met", False: "**missed**", None: "not measured"}[target["met"]]
        limit = f"{'at least' if target['at_least'] else 'at most'} {target['limit']}"
        rows.append((target["what"], limit, target["value"], met))
    if rows:
        show("Targets", ("target", "limit", "measured", ""), rows)


def save(path, result):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
