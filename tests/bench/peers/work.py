"""The work of one task, as somebody writes it in Python: lock the row, ask cta-admin, stamp the row, commit."""

import json
import os
import subprocess

CTA_ADMIN = os.environ["BENCH_CTA_ADMIN"]
LOCK = """SELECT tape, mode::text, priority, mediatype FROM peer_status
          WHERE tape = %s AND mode = 'auto' AND finished IS NULL FOR UPDATE"""


def work(connection, vid):
    with connection.cursor() as cursor:
        row = cursor.execute(LOCK, (vid,)).fetchone()
        if row is not None:
            listed = subprocess.run(
                [CTA_ADMIN, "--json", "tape", "ls", "--vid", vid],
                stdin=subprocess.DEVNULL, capture_output=True, check=True,
            )
            (tape,) = json.loads(listed.stdout)
            if tape["vid"] != vid or tape["tapepool"] != f"tolabel_{row[3]}" or int(tape["occupancy"]) != 0:
                raise ValueError(f"{vid} is not where it should be")
            cursor.execute("UPDATE peer_status SET finished = now() WHERE tape = %s", (vid,))
    connection.commit()
