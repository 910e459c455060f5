"""A scan as it is written with Python's json: the whole answer, then filter, sort, and take the first ten."""

import json
import subprocess
import sys

listed = subprocess.run([sys.argv[1], "--json", "tape", "ls", "--all"], stdout=subprocess.PIPE, check=True)
tapes = json.loads(listed.stdout)
found = []
for tape in tapes:
    if tape["full"] and tape["state"] in ("ACTIVE", "DISABLED") and tape["tapepool"] != "quarantine":
        occupancy = int(tape["occupancy"])
        usage = int(tape["masterDataInBytes"]) / occupancy if occupancy else 0
        if usage < 0.4:
            found.append((usage, tape["vid"]))
print(*(vid for _, vid in sorted(found)[:10]))
