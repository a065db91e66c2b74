"""A server in a thread of the test, and a client that sends what it is told to."""

import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from listening import Lines

from headstart.serving.server import PredictionServer
from headstart.serving.settings import ServeSpec

LONGEST = 30  # seconds that a test waits


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Running:
    """A server that runs. lines: what it has reported."""

    server: PredictionServer
    lines: Lines
    thread: threading.Thread

    @property
    def port(self) -> int:
        return self.server.port

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LONGEST)
        try:
            connection.request(method, path, body, dict(headers or {}))
            reply = connection.getresponse()
            pairs = {name.lower(): value for name, value in reply.getheaders()}
            return Reply(reply.status, pairs, reply.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        return self.ask("GET", path, headers=headers)

    def send_json(self, path: str, value: Any, **headers: str) -> Reply:
        return self.ask(
            "POST", path, json.dumps(value), {"Content-Type": "application/json"} | headers
        )


@contextmanager
def running(
    *folders: Path, names: tuple[str, ...] = (), ready: bool = True, **settings: Any
) -> Iterator[Running]:
    """Run a server of bundles on a free port until the end of the block.

    ready: whether to wait until it is. settings: of ServeSpec.
    """
    lines = Lines()
    spec = ServeSpec(**{"port": 0, "threads": 1, **settings})
    server = PredictionServer(folders, names, spec, lines)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert server.listening.wait(LONGEST)
    if ready:
        assert server.ready.wait(LONGEST)
    try:
        yield Running(server, lines, thread)
    finally:
        server.stop()
        thread.join(LONGEST)
        assert not thread.is_alive()


def multipart(*files: bytes, name: str = "a.png") -> tuple[bytes, dict[str, str]]:
    """Return a body of files and its headers."""
    edge = "edge-of-a-part"
    head = f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    body = b"".join(head.encode() + data + b"\r\n" for data in files) + f"--{edge}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={edge}"}
