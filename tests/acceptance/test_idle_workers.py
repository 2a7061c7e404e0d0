"""What workers that have nothing to do cost the database."""

from __future__ import annotations

from contextlib import ExitStack

import psycopg
from psycopg.conninfo import conninfo_to_dict

from perdure import Queue
from perdure.sync import Perdure
from tests.api_tools import until
from tests.servers import TestServer

WORKERS, QUEUES, BEATS = 10, 10, 6
LEASE = 15.0
SENT = ("LOG:  execute ", "LOG:  statement: ")


def test_ten_idle_workers_of_ten_queues_send_a_statement_a_second_each(
    server: TestServer, database_url: str
) -> None:
    """All that they send is counted, in the server's log, from one heartbeat of the last one to a later one."""
    with Perdure(database_url):
        pass  # migrates, which is not to be counted
    name = conninfo_to_dict(database_url)["dbname"]
    with psycopg.connect(database_url, autocommit=True) as connection, ExitStack() as workers:
        connection.execute(f"alter database {name} set log_statement = 'all'".encode())
        queues = [Queue(f"queue-{number}", concurrency=5) for number in range(QUEUES)]
        for number in range(WORKERS):
            workers.enter_context(Perdure(database_url, name=f"worker-{number}", queues=queues, lease=LEASE))

        def expires() -> object:
            last = "select expires from perdure.workers where name = %s"
            return connection.execute(last, [f"worker-{WORKERS - 1}"]).fetchall()

        def beat() -> None:
            before = expires()
            until(lambda: expires() != before, LEASE)

        beat()  # what they send when they begin is over
        began = len(server.log.read_text())
        for _ in range(BEATS):
            beat()
        sent = server.log.read_text()[began:]
    statements = sum(sent.count(word) for word in SENT)
    seconds = BEATS * LEASE / 3
    assert statements > WORKERS * BEATS, "nothing was logged"
    assert statements <= WORKERS * seconds, sent
