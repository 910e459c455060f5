"""Very many rows that are due at once: one tick of ours, beside a bare publisher that has as many channels and no database."""

import json
import os
import time

import place
import proc

# A round of it takes minutes: more than so many are not needed.
ROUNDS = 3
# As the producer has them, one publish in flight on each.
CHANNELS = 4
BARE = str(place.PEER_BIN / "bare-publisher")
# Rows with their task rows, all of them due for `finish`: what is measured is the publishing, not the making of task rows.
ROWS = """
INSERT INTO repack_status SELECT 'L' || lpad(i::text, 6, '0'), t.then, t.then, t.then, t.then, t.then, NULL,
  4, 400, 40, NULL, 'auto', 10, 'LTO8', 'raw', 'ops'
  FROM generate_series(1, {rows}) i, (SELECT LOCALTIMESTAMP(0) - interval '2 days' AS then) t;
INSERT INTO repack_status_task (tape, stage, generation, epoch, seen_xmin)
  SELECT tape, 'finish', nextval('repack_status_generation_seq'), 0, xmin::text::int8 FROM repack_status;
"""
PUBLISHED = "SELECT count(*) FROM repack_status_task WHERE dispatched_at IS NOT NULL"


def sizes(due):
    """The whole, and a tenth of it: memory must not grow with what is due."""
    return {"tenth": max(1, due // 10), "all": due}


def run(number, due):
    """One round: rows a second and peak memory of ours for each size, and of the bare publisher."""
    result = {name: ours(f"bench_publish_{name}_{number}", rows) for name, rows in sizes(due).items()}
    # As many: a quorum queue takes messages more slowly the more are in it.
    result["bare"] = bare(f"bench_publish_bare_{number}", due)
    return result


def ours(database, rows):
    place.make_database(database)
    try:
        config = place.configuration(database, database, redispatch_after_secs=36000)
        place.migrate(config)
        place.sql(database, ROWS.format(rows=rows) + place.FOLLOWED + "VACUUM ANALYZE; CHECKPOINT;")
        # Nothing is due for `start`: that tick connects, declares queues and fills the caches.
        place.ours(place.PRODUCER, config, "start")
        output = place.WORK / "publish.out"
        environment = {**os.environ, "BENCH_CTA_ADMIN": place.CTA_ADMIN}
        # Of the database what has ended counts: the producer's connection does, with its program.
        postgres, broker = proc.ended_cpu(place.server_pid("postgres")), broker_cpu()
        timed = proc.timed([place.PRODUCER, "-C", config, "finish", "-j"], environment, output, watch=True)
        broker = broker_cpu() - broker
        time.sleep(0.5)
        postgres = proc.ended_cpu(place.server_pid("postgres")) - postgres
        told = sum(len(stage["published"]) for stage in json.loads(output.read_text())["stages"])
        marked = int(place.sql(database, PUBLISHED))
        if told != rows or marked != rows:
            raise RuntimeError(f"of {rows} due rows {told} were published and {marked} are marked so")
        return {
            **figures(timed, rows), "postgres_us": round(postgres * 1e6 / rows), "broker_us": round(broker * 1e6 / rows),
        }
    finally:
        place.delete_queues(database)
        place.drop_database(database)


def bare(queue, messages):
    output = place.WORK / "publish.out"
    try:
        broker = broker_cpu()
        argv = [BARE, queue, str(messages), str(CHANNELS)]
        timed = proc.timed(argv, {**os.environ, "BENCH_AMQP": place.AMQP}, output, watch=True)
        broker = broker_cpu() - broker
        # Connecting is not in it; it is in ours.
        timed["wall_s"] = float(output.read_text())
        return {**figures(timed, messages), "postgres_us": 0, "broker_us": round(broker * 1e6 / messages)}
    finally:
        place.delete_queues(queue)


def broker_cpu():
    return proc.tree_cpu(place.server_pid("rabbitmq"))


def figures(timed, rows):
    return {
        "rows": rows, "rows_per_s": round(rows / timed["wall_s"]), "wall_s": round(timed["wall_s"], 2),
        "own_us": round(timed["cpu_s"] * 1e6 / rows), "peak_mib": round(timed["peak_mib"], 1),
    }
