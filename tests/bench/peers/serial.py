"""As a cron script does it: one connection, one loop over the tapes of the state."""

import os

import psycopg
from work import work

connection = psycopg.connect(os.environ["BENCH_DSN"])
rows = connection.execute(
    "SELECT tape FROM peer_status WHERE reclaimed IS NOT NULL AND finished IS NULL ORDER BY priority DESC, entered, tape"
).fetchall()
connection.commit()
for (vid,) in rows:
    work(connection, vid)
