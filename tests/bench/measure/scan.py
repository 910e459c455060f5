"""The list of all tapes through a pipe: our scan, Python's json, and the least that a streaming reader has to do."""

import json
import os
import random

import place
import proc

STATES = ["ACTIVE"] * 94 + ["DISABLED", "REPACKING", "REPACKING_DISABLED", "EXPORTED", "BROKEN", "ACTIVE"]
VOS = ["north", "south", "east", "west", "backup", "archive"]
PROBE = str(place.CACHE / "probe/release/probe-scan")


def template(number, chance):
    """A tape whose VID and figures are still to be filled in: in pieces around them, and its capacity."""

    def drive(shift):
        moment = 1_500_000_000 + (chance >> shift) % 200_000_000
        return {"drive": f"LIB{number % 6}-DRIVE{(chance >> shift) % 40:02}", "time": str(moment)}

    def person(shift):
        moment = 1_500_000_000 + (chance >> shift) % 200_000_000
        return {"username": f"operator{chance % 30:02}", "host": f"frontend{chance % 12:02}.example.org", "time": str(moment)}

    capacity = (12, 18, 20)[number % 3] * 10**12
    comments = ("", f'brought over from the old system, ticket "{chance % 10**7:07}", caf\u00e9', "moved between libraries in a campaign")
    tape = {
        "vid": "@", "mediaType": ("LTO8", "LTO9", "LTO10")[number % 3], "vendor": ("MAKER-A", "MAKER-B")[number % 2],
        "logicalLibrary": f"LIB{number % 6}-LTO", "tapepool": f"r_{VOS[number % 6]}_{number % 40}", "vo": VOS[number % 6],
        "encryptionKeyName": "" if number % 3 else f"key-{number % 50:02}", "capacity": str(capacity), "occupancy": "@",
        "lastFseq": str(1 + chance % 300_000), "full": number % 5 != 0, "dirty": False, "fromCastor": number % 4 == 0,
        "readMountCount": str(chance % 900), "writeMountCount": str(chance % 500), "nbMasterFiles": str(chance % 290_000),
        "masterDataInBytes": "@", "labelLog": drive(0), "lastWrittenLog": drive(2), "lastReadLog": drive(3),
        "creationLog": person(0), "lastModificationLog": person(1), "comment": comments[number % 3],
        "state": STATES[number % 100], "stateReason": "" if number % 7 else "media warnings, checked by an operator",
        "purchaseOrder": f"PO-{chance % 10**8:08}", "physicalLibrary": f"LIB{number % 6}",
        "stateUpdateTime": str(1_600_000_000 + chance % 90_000_000), "stateModifiedBy": f"operator{chance % 30:02}",
    }
    return json.dumps(tape, separators=(",", ":")).split("@"), capacity


def generate(path, tapes):
    """The answer to `tape ls --all`, about 1 kB a tape, the same every time."""
    chance = random.Random(7)
    templates = [template(number, chance.getrandbits(30)) for number in range(4096)]
    with open(path, "w", encoding="utf-8") as out:
        for number in range(tapes):
            (before, to_occupancy, to_live, after), capacity = templates[chance.getrandbits(12)]
            occupancy = int(capacity * (0.1 + 0.9 * chance.random()))
            live = int(occupancy * chance.random())
            comma = "," if number else "["
            out.write(f"{comma}{before}L{number:06}{to_occupancy}{occupancy}{to_live}{live}{after}")
        out.write("]\n")


def prepare(tapes):
    place.make_database("bench_scan")
    config = place.configuration("bench_scan")
    place.migrate(config)
    path = place.WORK / "tapes.json"
    generate(path, tapes)
    return config, path


def commands(config):
    return {
        "ours": [place.PRODUCER, "-C", config, "scan"],
        "python": [place.PYTHON, str(place.PEERS / "scan.py"), place.CTA_ADMIN],
        "probe": [PROBE, place.CTA_ADMIN],
    }


def run(_number, prepared):
    """One round: each reads the whole list, and all must find the same tapes."""
    config, path = prepared
    environment = {**os.environ, "BENCH_CTA_TAPES": str(path)}
    output = place.WORK / "scan.out"
    # Into the page cache, for the first as for the last.
    with open(path, "rb") as cached:
        while cached.read(1 << 20):
            pass
    result, found = {}, {}
    megabytes = path.stat().st_size / 1e6
    for name, argv in commands(config).items():
        timed = proc.timed(argv, environment, output, watch=True)
        found[name] = output.read_text().split()
        result[name] = {
            "wall_s": round(timed["wall_s"], 3), "cpu_s": round(timed["cpu_s"], 3),
            "mb_per_s": round(megabytes / timed["wall_s"]), "peak_mib": round(timed["peak_mib"], 1),
        }
    if len(found["ours"]) != 10 or any(vids != found["ours"] for vids in found.values()):
        raise RuntimeError(f"they do not find the same tapes: {found}")
    return result
