"""Where everything is: the private servers, databases, configurations, programs."""

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEERS = HERE.parent / "peers"
WORK = Path(os.environ["BENCH_WORK"])
CACHE = Path(os.environ["BENCH_CACHE"])
SERVICES = Path(os.environ["BENCH_SERVICES"])
RELEASE = Path(os.environ["BENCH_RELEASE"])
PSQL = str(Path(os.environ["BENCH_PG_BIN"]) / "psql")
PG_PORT = int(os.environ["PG_PORT"])
AMQP_PORT = int(os.environ["AMQP_PORT"])
MGMT_PORT = int(os.environ["MGMT_PORT"])
PYTHON = str(CACHE / "venv/bin/python")
PEER_BIN = CACHE / "peers/release"
CTA_ADMIN = str(CACHE / "cta-admin")
AMQP = f"amqp://guest:guest@127.0.0.1:{AMQP_PORT}/%2f"
PRODUCER, WORKER, MANAGER = (str(RELEASE / f"cta-ops-repack-{name}") for name in ("producer", "worker", "manager"))


def server_pid(name):
    """The process that services.sh started under this name."""
    lines = (line.split() for line in (SERVICES / "processes").read_text().splitlines())
    return [int(line[1]) for line in lines if line[0] == name][-1]


def dsn(database):
    return f"postgresql://postgres@127.0.0.1:{PG_PORT}/{database}"


def sql(database, statement):
    """Runs statements, answers what they print, unaligned."""
    command = [PSQL, "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", dsn(database), "-f", "-"]
    run = subprocess.run(command, input=statement, capture_output=True, text=True)
    if run.returncode != 0:
        raise RuntimeError(f"psql: {run.stderr.strip()}")
    return run.stdout.strip()


# Rows that were filled in together with their task rows count as written by us, not as an edit that a tick has to follow.
FOLLOWED = """
DO $$ BEGIN
  IF to_regclass('repack_status_edited') IS NOT NULL THEN DELETE FROM repack_status_edited WHERE tape <> '*'; END IF;
END $$;
"""


class Session:
    """One psql that stays connected: a question a few hundred times a second costs next to nothing."""

    def __init__(self, database):
        command = [PSQL, "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", dsn(database)]
        self.psql = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def ask(self, statement):
        self.psql.stdin.write(f"{statement};\n")
        self.psql.stdin.flush()
        line = self.psql.stdout.readline()
        if not line:
            raise RuntimeError("psql has ended")
        return line.strip()

    def close(self):
        self.psql.stdin.close()
        self.psql.wait()


def make_database(name):
    sql("postgres", f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE); CREATE DATABASE "{name}"')


def drop_database(name):
    sql("postgres", f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def configuration(database, prefix=None, **more):
    """Writes a configuration and answers its path. `prefix` names the queues; without it there is no broker."""
    home = WORK / "sites" / database
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    tool = {
        "logging": {"log_dir": str(home / "log")},
        "database": {
            "username": "postgres", "name": database, "host": "127.0.0.1", "port": PG_PORT,
            "repack_table_name": "repack_status", "sslmode": "disable",
        },
        "cta-ops-repack-2-start": {"existing_files_on_tape": str(home / "listing-$DATE-$TAPE.txt")},
        "cta-ops-repack-3-end": {"repack-end-json-path": str(home / "end.log")},
        "cta-ops-repack-monitor": {"ls_out": str(home / "ls.log")},
        "cta-ops-repack-producer": {"metrics_listen": None},
        "cta-ops-repack-worker": {"metrics_listen": None},
        "priorities": {"10": {"name": "low", "mount_policy": "low", "default_dst_pool_prefix": "tolabel"}},
        **more,
    }
    if prefix:
        tool["broker"] = {"url": f"amqp://guest:guest@127.0.0.1:{AMQP_PORT}/%2f", "prefix": prefix}
    document = {
        "global": {"binaries": {"cta-admin": CTA_ADMIN}, "tape": {}},
        "tools": {"cta-ops-repack-automation": tool},
    }
    path = home / "cta-ops-config.yaml"
    path.touch(mode=0o600)
    path.write_text(json.dumps(document, indent=1))
    return str(path)


def ours(program, config, *arguments, **environment):
    """Runs one of our programs to its end, answers what it prints."""
    return checked([program, "-C", config, *arguments], **environment)


def checked(command, **environment):
    """Runs a program to its end, answers what it prints; it must not fail."""
    run = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    if run.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit {run.returncode}: {run.stderr[-2000:]}")
    return run.stdout


def migrate(config):
    ours(MANAGER, config, "migrate")


def delete_queues(prefix):
    """Deletes the queues and exchanges whose name begins so: a standing queue costs the broker something."""
    for kind in ("queues", "exchanges"):
        delete(kind, prefix)


def purge_queues(prefix):
    """Takes all that is ready out of the queues whose name begins so."""
    delete("queues", prefix, "/contents")


def delete(kind, prefix, part=""):
    """Deletes these things of the broker, or a part of each."""
    credentials = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    base = f"http://127.0.0.1:{MGMT_PORT}/api/"
    credentials.add_password(None, base, "guest", "guest")
    opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(credentials))
    for name in (item["name"] for item in json.load(opener.open(f"{base}{kind}/%2f"))):
        if name.startswith(prefix):
            url = f"{base}{kind}/%2f/{urllib.parse.quote(name, safe='')}{part}"
            try:
                opener.open(urllib.request.Request(url, method="DELETE")).close()
            except urllib.error.HTTPError as error:
                if error.code != 404:
                    raise
