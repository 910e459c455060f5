"""A dramatiq worker; its queue is a classic durable one, for it has no other. As a program: publishes the VIDs on standard input."""

import os
import sys
import threading

import dramatiq
import psycopg
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from work import work

dramatiq.set_broker(RabbitmqBroker(url=os.environ["BENCH_AMQP"], confirm_delivery=True))
mine = threading.local()


@dramatiq.actor(queue_name=os.environ["BENCH_QUEUE"])
def finish(vid):
    if not hasattr(mine, "connection"):
        mine.connection = psycopg.connect(os.environ["BENCH_DSN"])
    work(mine.connection, vid)


if __name__ == "__main__":
    for line in sys.stdin:
        finish.send(line.strip())
