"""A stand-in for S3 on this machine: objects in memory, ranges, lists, errors when asked for."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

CHANGED = "Wed, 01 Jan 2020 00:00:00 GMT"
ENTRY = (
    "<Contents><Key>{}</Key><LastModified>2020-01-01T00:00:00.000Z</LastModified>"
    '<ETag>"{}"</ETag><Size>{}</Size><StorageClass>STANDARD</StorageClass></Contents>'
)
LIST = (
    "<?xml version='1.0' encoding='UTF-8'?><ListBucketResult><Name>b</Name><Prefix></Prefix>"
    "<KeyCount>1</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{}"
    "</ListBucketResult>"
)


@dataclass
class ObjectStore:
    """objects: bytes and ETag by path, "bucket/key". busy: requests that are answered by 503.
    requests: method, path and Authorization of each."""

    objects: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    busy: int = 0
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    address: str = ""

    def put(self, path: str, data: bytes, etag: str) -> None:
        self.objects[path] = (data, etag)

    def count(self, method: str) -> int:
        return sum(each[0] == method and "list-type" not in each[1] for each in self.requests)

    def answer(self, path: str, span: str | None) -> tuple[int, bytes, dict[str, str]]:
        """Return status, body and headers."""
        url = urlsplit(path)
        key = unquote(url.path).strip("/")
        if self.busy:
            self.busy -= 1
            return 503, b"", {}
        if "list-type" in url.query and not any(o.startswith(f"{key}/") for o in self.objects):
            return 404, b"<Error><Code>NoSuchBucket</Code></Error>", {}
        if "list-type" in url.query:
            return 200, self.listed(f"{key}/{parse_qs(url.query).get('prefix', [''])[0]}"), {}
        if key not in self.objects:
            return 404, b"", {}
        data, etag = self.objects[key]
        facts = {"ETag": f'"{etag}"', "Last-Modified": CHANGED, "Accept-Ranges": "bytes"}
        if not (found := re.fullmatch(r"bytes=(\d+)-(\d*)", span or "")):
            return 200, data, facts
        first, last = int(found[1]), min(int(found[2] or len(data)), len(data) - 1)
        facts["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        return 206, data[first : last + 1], facts

    def listed(self, prefix: str) -> bytes:
        there = [(key, *own) for key, own in sorted(self.objects.items()) if key.startswith(prefix)]
        entries = [ENTRY.format(k.partition("/")[2], etag, len(data)) for k, data, etag in there]
        return LIST.format("".join(entries)).encode()


@contextmanager
def running(store: ObjectStore) -> Iterator[ObjectStore]:
    """Serve a store on a port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            asked = self.headers.get("Authorization", "")
            store.requests.append((self.command, self.path, asked))
            status, body, facts = store.answer(self.path, self.headers.get("Range"))
            self.send_response(status)
            for name, value in (facts | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    store.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
