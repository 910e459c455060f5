"""How often cta-admin is called for a tape from scan to finished, by whom, beside the least that the invariants allow.

The real programs and the simulated CTA, which keeps a journal of every call. Every program has a client configuration of its own, a copy
of the same one, and every stage a worker of its own: the `--config` of a call says who made it.
"""

import collections
import json
import os
import shutil
import time

import contest
import place

SIMULATED = str(place.RELEASE / "cta-admin")
TAPES = (1, 10, 100)
# Of those whose repack is made to last: how many, and how much slower than in the simulated world CTA's time goes.
WAITING, SLOW, FAST = 10, "0.25", "1000"
PATIENCE = 240

# ---- the least ----------------------------------------------------------------------------------------------------------------
# Nothing is believed that a look has not shown: before the first command, after each command, before the stamp. A look after a command is
# the look before the next one, and what was seen of the tape before a command counts for nothing after it. The order is that of the calls.

TAPE, REQUEST, ALL_REQUESTS, FILES = "tape ls --vid", "repack ls --vid", "repack ls", "tapefile ls --vid"
# That there is none is shown by two answers: the refusal to list it, and the complete list of all.
NO_REQUEST = [REQUEST, ALL_REQUESTS]
# Two complete empty lists: every release of CTA can give them.
NO_FILES = [FILES, FILES]
RECYCLED = "recycletf ls --vid"
REFERENCE = ["tapepool ls", "mountpolicy ls", "virtualorganization ls"]
MINIMUM = {
    "prepare": [TAPE, REQUEST],
    # The checks of prepare once more, the listing, the state, the request; done when the request is seen.
    "start": [*NO_REQUEST, TAPE, *REFERENCE, FILES, "tape ch --state", *NO_REQUEST, TAPE, "repack add", REQUEST],
    # Complete, and no file is left. While the repack runs, the one list of the tick must do.
    "end": [REQUEST, *NO_FILES],
    # Our request, final, no file; no request, the state; the state left, the pool; done when all three are seen.
    "quarantine": [
        REQUEST, *NO_FILES, "repack rm", *NO_REQUEST, TAPE, "tape ch --state", *NO_REQUEST, TAPE, "tape ch --tapepool", *NO_REQUEST, TAPE,
    ],
    # The gate; done when the tape and its recycle log are empty.
    "reclaim": [TAPE, *NO_REQUEST, "archiveroute ls", RECYCLED, *NO_FILES, "tape reclaim", TAPE, RECYCLED],
    # The gate; the pool; the state given back; done when both are seen.
    "finish": [TAPE, *NO_REQUEST, *NO_FILES, "tape ch --tapepool", TAPE, "tape ch --state", TAPE],
}
# Once for a run of the program, whatever the number of tapes.
SHARED = {"scan": ["tape ls --all", ALL_REQUESTS], "prepare": [*REFERENCE, ALL_REQUESTS], "tick": [ALL_REQUESTS]}
WORKERS = ("start", "end", "quarantine", "reclaim", "finish")


def least(role, tapes, runs):
    """Calls by name that this role cannot do without."""
    calls = collections.Counter()
    for name in MINIMUM.get(role, []):
        calls[name] += tapes
    for name in SHARED.get(role, []):
        calls[name] += runs
    return calls


# ---- the journey --------------------------------------------------------------------------------------------------------------


def configured(database, world):
    """A configuration for each role: they differ in the client configuration alone."""
    path = place.configuration(
        database, database, max_active_repacks=1000, quarantine_days=2 / 86400, redispatch_after_secs=600,
        default_priority=10, priorities={"10": {"name": "low", "mount_policy": "repack_low_priority", "default_dst_pool_prefix": "tolabel"}},
        **{"cta-ops-repack-0-scan": {"tape_usage_threshold": 0.5, "number_of_tapes": 1000, "ignore_pools": []}},
    )
    document = json.loads(open(path, encoding="utf-8").read())
    document["global"]["binaries"]["cta-admin"] = SIMULATED
    document["global"]["tape"]["lib_to_pool_map"] = {
        library: {"LTO8": f"_{library}L8", "LTO9": f"_{library}L9"} for library in ("IBM1", "IBM2")
    }
    paths = {}
    for role in ("scan", "prepare", "tick", *WORKERS):
        client = world / f"{role}.conf"
        shutil.copy(world / "all.conf", client)
        document["global"]["tape"]["cta-admin_config"] = str(client)
        paths[role] = f"{path}.{role}"
        os.close(os.open(paths[role], os.O_WRONLY | os.O_CREAT, 0o600))
        with open(paths[role], "w", encoding="utf-8") as out:
            json.dump(document, out)
    return paths


def chosen(listed, world, tapes):
    """The first so many that scan has found of the plain kind: ACTIVE, with files, and none of them unreadable."""
    known = json.loads((world / "world.json").read_text())["tapes"]

    def plain(vid):
        tape = known[vid]
        return tape.get("files") and not tape.get("state") and not tape.get("plan", {}).get("fail_files")

    vids = [vid for vid in listed if plain(vid)][:tapes]
    if len(vids) != tapes:
        raise RuntimeError(f"{len(vids)} of {tapes} tapes are there to be repacked")
    return vids


def journey(tapes, speed):
    """Takes so many tapes from scan to finished: calls by role and name, and how many ticks that took."""
    database = f"bench_calls_{tapes}"
    home = place.WORK / "worlds" / database
    shutil.rmtree(home, ignore_errors=True)
    home.parent.mkdir(exist_ok=True)
    create = [SIMULATED, "--sim-create", str(home), "--profile", "quickstart", "--tapes", str(max(12, tapes * 2)), "--speed", speed]
    place.checked(create)
    place.make_database(database)
    environment = {"CTA_SIM_WORLD": str(home)}
    workers = []
    try:
        configs = configured(database, home)
        place.migrate(configs["tick"])
        listed = place.ours(place.PRODUCER, configs["scan"], "scan", **environment).split()
        place.ours(place.PRODUCER, configs["prepare"], "prepare", *chosen(listed, home, tapes), **environment)
        for stage in WORKERS:
            command = ["setpriv", "--pdeathsig", "KILL", "--", place.WORKER, "-C", configs[stage], "--stages", stage]
            log = place.WORK / f"{database}.{stage}.log"
            workers.append(contest.start(command, {**os.environ, **environment}, log))
        ticks = until_finished(database, configs["tick"], environment, tapes)
        return counted(home / "journal.jsonl"), ticks
    finally:
        for worker in workers:
            contest.end(worker)
        place.delete_queues(database)
        place.drop_database(database)


def until_finished(database, config, environment, tapes):
    patience = time.monotonic() + PATIENCE
    ticks = 0
    while int(place.sql(database, "SELECT count(*) FROM repack_status WHERE finished IS NOT NULL")) < tapes:
        stopped = place.sql(database, "SELECT string_agg(tape || ' ' || coalesce(reason, ''), '; ') FROM repack_status_task WHERE outcome = 'failed'")
        if stopped or time.monotonic() > patience:
            left = place.sql(database, "SELECT tape, stage, reason FROM repack_status_task WHERE stage IS NOT NULL LIMIT 5")
            raise RuntimeError(f"not all of {tapes} tapes are finished: {stopped or left}")
        place.ours(place.PRODUCER, config, "tick", **environment)
        ticks += 1
        time.sleep(0.5)
    return ticks


def counted(journal):
    """Calls by role and name."""
    calls = collections.defaultdict(collections.Counter)
    with open(journal, encoding="utf-8") as lines:
        for entry in map(json.loads, lines):
            if entry["kind"] == "begin":
                words = entry["argv"]
                role = os.path.basename(words[words.index("--config") + 1]).removesuffix(".conf")
                calls[role][named(entry["command"], words)] += 1
    return calls


def named(command, words):
    options = {"tape ch": ("--state", "--tapepool")}.get(command, ("--all", "--vid") if command.endswith(" ls") else ())
    return " ".join([command, *(option for option in options if option in words)])


# ---- the figures --------------------------------------------------------------------------------------------------------------


def run(_number, _prepared):
    """All sizes at once: a count is a count, however often it is made."""
    result = {}
    for tapes, speed in [*((tapes, FAST) for tapes in TAPES), (WAITING, SLOW)]:
        calls, ticks = journey(tapes, speed)
        name = str(tapes) if speed == FAST else "waiting"
        result[name] = {"tapes": tapes, "ticks": ticks, "calls": {role: dict(sorted(made.items())) for role, made in calls.items()}}
    return result


def size(name, part):
    """How many tapes, in words."""
    return f"{part['tapes']} tape{'s' if part['tapes'] > 1 else ''}{' whose repack lasts' if name == 'waiting' else ''}"


def rows(result):
    """Role, call, how often for each number of tapes, and the least for the largest number of them."""
    most = result[str(TAPES[-1])]
    table = []
    for role in ("scan", "prepare", "tick", *WORKERS):
        allowed = least(role, most["tapes"], most["ticks"] if role == "tick" else 1)
        for name in sorted({*allowed, *(name for part in result.values() for name in part["calls"].get(role, {}))}):
            made = [part["calls"].get(role, {}).get(name, 0) for part in result.values()]
            table.append((role, name, *made, allowed[name]))
    return table


def above(part):
    """Calls for each tape above the least, by stage."""
    over = {}
    for role in ("prepare", *WORKERS):
        spared = sum(part["calls"].get(role, {}).values()) - least(role, part["tapes"], 1).total()
        over[role] = round(spared / part["tapes"], 2)
    return over


def per_tape(part):
    """Calls for each tape, without those that are shared by all."""
    made = sum(sum(part["calls"].get(role, {}).values()) for role in ("prepare", *WORKERS))
    return round((made - len(SHARED["prepare"])) / part["tapes"], 2)
