"""What it takes to crash a worker at its k-th durable effect: a proxy that counts them, and worker processes.

The proxy reads the frontend protocol of the connections that write: the journal's two lanes and the transactions'.
A durable effect is a COMMIT, or a statement that writes outside of a transaction block. It knows nothing of perdure's
code, so it goes on counting whatever that does.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import queue
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[1]
WATCHED = ("perdure journal", "perdure transaction")
Mode = Literal["before", "after", "lost"]


class EffectProxy:
    """Forwards connections to a server until the k-th durable effect, and lets that one go wrong.

    Arguments:
        host, port: of the server.
        at: number of the effect, from 1; 0 only counts.
        mode: "before": it never reaches the server; "after": it is committed, then the client dies; "lost": it is
            committed, and instead of the answer the connection ends.
        crash: kills the client.
    """

    def __init__(self, host: str, port: int, at: int, mode: Mode, crash: Callable[[], None]) -> None:
        self._target, self._at, self._mode, self._crash = (host, port), at, mode, crash
        self._lock = threading.Lock()
        self.count = 0
        self.fired = threading.Event()
        self.dead = False
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Cut everything."""
        self.dead = True
        self._listener.close()
        for each in list(self._sockets):
            hang_up(each)

    def effect(self) -> bool:
        """Count one; tell whether it is the one."""
        with self._lock:
            self.count += 1
            return self.count == self._at

    def fire(self, link: Link) -> None:
        """The moment has come."""
        if self._mode == "lost":
            link.close()
        else:
            self._crash()
            self.close()
        self.fired.set()

    @property
    def before(self) -> bool:
        """Whether the effect must not reach the server."""
        return self._mode == "before"

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
            except OSError:
                return
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else small answers wait 40 ms
                self._sockets.append(each)
            Link(self, client, server)


class Link:
    """One connection through the proxy."""

    def __init__(self, proxy: EffectProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._statements: dict[bytes, str] = {}
        self._inside = self._held = False
        for work in (self._forward, self._back):
            threading.Thread(target=self._quietly, args=(work,), daemon=True).start()

    def close(self) -> None:
        """End both halves."""
        hang_up(self._client)
        hang_up(self._server)

    def _quietly(self, work: Callable[[], None]) -> None:
        with contextlib.suppress(OSError, EOFError):
            work()
        self.close()

    def _forward(self) -> None:
        size = receive(self._client, 4)
        start = receive(self._client, struct.unpack("!i", size)[0] - 4)
        self._server.sendall(size + start)
        if not any(name.encode() in start for name in WATCHED):
            while chunk := self._client.recv(65536):
                self._server.sendall(chunk)
            return
        unit, texts = b"", []
        while True:
            kind, body = message(self._client)
            unit += kind + struct.pack("!i", len(body) + 4) + body
            texts += self._texts(kind, body)
            if kind in b"PBDEC":
                continue
            if self._is_effect(texts) and self._proxy.effect():
                if self._proxy.before:
                    self._proxy.fire(self)
                    return
                self._held = True
            self._server.sendall(unit)
            unit, texts = b"", []

    def _texts(self, kind: bytes, body: bytes) -> list[str]:
        if kind == b"Q":
            return [body.rstrip(b"\0").decode()]
        if kind == b"P":
            name, text, _ = body.split(b"\0", 2)
            self._statements[name] = text.decode()
        elif kind == b"B":
            return [self._statements[body.split(b"\0", 2)[1]]]
        return []

    def _is_effect(self, texts: list[str]) -> bool:
        effect = False
        for text in texts:
            word = text.split(None, 1)[0].lower() if text.strip() else ""
            if word in ("begin", "start"):
                self._inside = True
            elif word in ("commit", "rollback") and "to" not in text.lower().split():
                effect |= word == "commit"
                self._inside = False
            elif not self._inside and word != "select" and "insert into" in text.lower():
                effect = True
        return effect

    def _back(self) -> None:
        while True:
            first = receive(self._server, 1)
            size = receive(self._server, 4)
            body = receive(self._server, struct.unpack("!i", size)[0] - 4)
            if not self._held:
                self._client.sendall(first + size + body)
            elif first == b"Z":
                self._proxy.fire(self)
                return


class Workers:
    """The mother process, and what it says of each of its workers."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash_walk"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._said: dict[int, queue.Queue[dict[str, Any]]] = {}
        self._pids: dict[int, queue.Queue[int]] = {}
        threading.Thread(target=self._listen, daemon=True).start()

    def start(self, **order: str) -> int:
        """Start a worker; return its pid."""
        number = next(self._numbers)
        self._pids[number] = queue.Queue()
        with self._lock:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(order | {"number": number}).encode() + b"\n")
        return self._pids[number].get(timeout=30)

    def outcome(self, pid: int) -> dict[str, Any]:
        """What a worker said last; nothing, if it was killed."""
        said: dict[str, Any] = {}
        while True:
            word = self._of(pid).get(timeout=40)
            if "gone" in word:
                return said
            said = word

    def close(self) -> None:
        """End the mother; workers have ended before."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def _of(self, pid: int) -> queue.Queue[dict[str, Any]]:
        with self._lock:
            return self._said.setdefault(pid, queue.Queue())

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in iter(self._process.stdout.readline, b""):
            pid, _, text = line.partition(b" ")
            word = json.loads(text)
            if "order" in word:
                self._pids[word["order"]].put(int(pid))
            else:
                self._of(int(pid)).put(word)


def message(source: socket.socket) -> tuple[bytes, bytes]:
    """One message of the protocol: its kind and what it says."""
    kind = receive(source, 1)
    return kind, receive(source, struct.unpack("!i", receive(source, 4))[0] - 4)


def receive(source: socket.socket, size: int) -> bytes:
    """So many bytes."""
    data = b""
    while len(data) < size:
        more = source.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def hang_up(end: socket.socket) -> None:
    """Close a socket, whoever waits on it."""
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
