"""A payment provider: a process of its own, with a database of its own, and as reliable as such are.

It charges once for an idempotency key, however often it is asked. Some requests it refuses before charging,
some it answers late or too late, and after some it charges and then breaks the connection, so that
whoever asked cannot know. Run: `python provider.py FILE`; it prints where it listens, and ends with its input.
"""

from __future__ import annotations

import json
import random
import sqlite3
import sys
import threading
import time
from contextlib import suppress
from decimal import Decimal
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

REFUSED, BROKEN, TOO_LATE, SLOW = 0.03, 0.02, 0.005, 0.03
"""Shares of the requests: answered 500, charged but not answered, answered after 1.5 s, after 0.2 s."""


class Charges:
    """The provider's database."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.execute("pragma journal_mode = wal")
        self._database.execute("pragma synchronous = normal")
        self._database.execute(
            "create table charges (payment integer primary key, key text unique, order_number integer, "
            "amount text, asked integer default 0)"
        )

    def charge(self, key: str, order: int, amount: Decimal) -> str:
        """Charge, unless it was done for this key; return the number of the payment."""
        with self._lock, self._database:
            self._database.execute("begin")
            self._database.execute(
                "insert or ignore into charges (key, order_number, amount) values (?, ?, ?)",
                (key, order, str(amount)),
            )
            self._database.execute("update charges set asked = asked + 1 where key = ?", (key,))
            (payment,) = self._database.execute(
                "select payment from charges where key = ?", (key,)
            ).fetchone()
        return f"payment-{payment}"


class Handler(BaseHTTPRequestHandler):
    """Answers one request, or does not."""

    charges: Charges

    def do_POST(self) -> None:
        """Charge, with the trouble that providers have."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        trouble = random.choices(
            ("refused", "broken", "too late", "slow", ""),
            (REFUSED, BROKEN, TOO_LATE, SLOW, 1 - REFUSED - BROKEN - TOO_LATE - SLOW),
        )[0]
        if trouble == "refused":
            return self.answer(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "try again"})
        payment = self.charges.charge(
            self.headers["Idempotency-Key"], int(body["order"]), Decimal(body["amount"])
        )
        if trouble == "broken":
            return None
        time.sleep({"too late": 1.5, "slow": 0.2}.get(trouble, 0))
        return self.answer(HTTPStatus.OK, {"payment": payment})

    def answer(self, status: HTTPStatus, content: dict[str, str]) -> None:
        """Answer, if anybody still listens."""
        with suppress(ConnectionError):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """A thread for each request; one that breaks off says nothing."""

    request_queue_size = 256

    def handle_error(self, request: object, client_address: object) -> None:
        """The client was killed, or did not want to wait any more."""


def main() -> None:
    """Serve until the input is closed."""
    Handler.charges = Charges(Path(sys.argv[1]))
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"127.0.0.1:{server.server_port}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
