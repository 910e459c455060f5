"""A Celery worker: acknowledged late, one quorum queue, results ignored. As a program: publishes the VIDs on standard input."""

import os
import sys

import psycopg
from celery import Celery
from celery.signals import worker_process_init
from kombu import Queue
from work import work

QUEUE = os.environ["BENCH_QUEUE"]
app = Celery("bench", broker=os.environ["BENCH_AMQP"])
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=int(os.environ.get("BENCH_PREFETCH", "1")),
    worker_send_task_events=False,
    worker_detect_quorum_queues=True,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"confirm_publish": True},
    task_default_queue=QUEUE,
    task_create_missing_queue_type="quorum",
    task_queues=[Queue(QUEUE, durable=True, queue_arguments={"x-queue-type": "quorum"})],
)
connection = None


@worker_process_init.connect
def connect(**_):
    global connection
    connection = psycopg.connect(os.environ["BENCH_DSN"])


@app.task(name="finish")
def finish(vid):
    work(connection, vid)


if __name__ == "__main__":
    with app.connection_for_write(), app.amqp.producer_pool.acquire(block=True) as producer:
        for line in sys.stdin:
            finish.apply_async((line.strip(),), producer=producer)
