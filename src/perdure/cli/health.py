"""`perdure worker --health HOST:PORT`: whether the worker lives and is ready, over HTTP, for probes.

It answers from what the process knows of itself, so that a probe costs the database nothing, and says nothing of runs but
how many they are. It listens on the loopback interface unless a host is given.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from perdure.cli.exits import Exit, Failure
from perdure.worker.health import Health

LOOPBACK: Final = "127.0.0.1"
ASKER_SECONDS: Final = 5.0
"""Seconds that somebody who asks may take to do so."""


class HealthServer:
    """Answers `/live` and `/ready` in threads of its own.

    Args:
        host: where to listen.
        port: where to listen; 0 takes a free one.
        look: how the worker is now, or None if it has not begun yet.

    Raises:
        Failure: it cannot listen there.
    """

    def __init__(self, host: str, port: int, look: Callable[[], Health | None]) -> None:
        try:
            self._server = _Server((host, port), _Handler)
        except OSError as error:
            raise Failure(Exit.USAGE, f"--health cannot listen on {host}:{port}: {error.strerror}") from None
        self._server.look = look
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="perdure-health", daemon=True, args=(0.5,)
        )

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    look: Callable[[], Health | None]


class _Handler(BaseHTTPRequestHandler):
    timeout = ASKER_SECONDS
    server_version, sys_version = "perdure", ""

    def do_GET(self) -> None:
        """Answer a probe."""
        path = self.path.partition("?")[0]
        if path not in ("/live", "/ready"):
            self._answer(404, {"error": "ask for /live or /ready"})
            return
        assert isinstance(self.server, _Server)
        health = self.server.look()
        trouble = "it has not begun yet" if health is None else health.trouble
        if path == "/live":
            self._answer(200, {"live": True})
            return
        told: dict[str, Any] = {"ready": trouble is None, "trouble": trouble}
        self._answer(200 if trouble is None else 503, told | ({} if health is None else asdict(health)))

    def do_HEAD(self) -> None:
        """Answer a probe that wants the status alone."""
        self.do_GET()

    def _answer(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: a probe comes every few seconds."""
