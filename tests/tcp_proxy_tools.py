"""A TCP proxy on 127.0.0.1 that can make single connections of Postgres go silent, as a broken network does.

It reads the first packet of each connection, where a client says its `application_name`, so that a test can
silence the journal and leave the heartbeat alone. Connections must ask for no encryption: `sslmode=disable
gssencmode=disable`.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class Proxy:
    """Forwards connections to a server, but for those whose name is silenced.

    Arguments:
        host, port: of the server.

    Attributes:
        port: where it listens on 127.0.0.1.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._silenced: tuple[str, ...] = ()
        self._names: set[str] = set()
        self._sockets: list[socket.socket] = []
        self._swallowed = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def silence(self, *names: str) -> None:
        """From now on nothing passes, in either direction, on connections whose name has one of these in it."""
        self._silenced = names

    def wait_until_swallowed(self, within: float = 30.0) -> None:
        """Wait until a silenced connection has said something in vain."""
        assert self._swallowed.wait(within), f"nobody spoke; there were {sorted(self._names)}"

    def close(self) -> None:
        """Stop listening and cut everything."""
        self._listener.close()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._sockets.append(client)
        try:
            hello = client.recv(65536)
            fields = hello[8:].decode("utf-8", "replace").split("\0")
            name = dict(zip(fields[::2], fields[1::2], strict=False)).get("application_name", "")
            self._names.add(name)
            server = socket.create_connection(self._target)
        except OSError:
            client.close()
            return
        self._sockets.append(server)
        if not self._is_silent(name):
            server.sendall(hello)
        threading.Thread(target=self._pass_on, args=(client, server, name), daemon=True).start()
        self._pass_on(server, client, name)

    def _pass_on(self, source: socket.socket, target: socket.socket, name: str) -> None:
        try:
            while data := source.recv(65536):
                if self._is_silent(name):
                    self._swallowed.set()
                else:
                    target.sendall(data)
        except OSError:
            pass
        if not self._is_silent(name):
            for each in (source, target):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def _is_silent(self, name: str) -> bool:
        return any(word in name for word in self._silenced)


@contextlib.contextmanager
def proxy(host: str, port: int) -> Iterator[Proxy]:
    """A proxy that is gone after the block."""
    running = Proxy(host, port)
    try:
        yield running
    finally:
        running.close()
