"""The load generator of bench/serve.py: a process of its own, which knows HTTP and nothing of ours.

    python bench/serving_load.py PORT REQUESTS.json [--connections 32] [--count 1000] [--rate 0]

REQUESTS: a list of {"path", "headers", "file" (the body, beside this list), "sha256", "answers"
(by version: scores)}. Each answer must carry the hash of what was sent, and the scores of the
version that it names. Prints one JSON value: statuses, latencies in seconds by status, the wrong
answers, and requests that were never answered.
"""

import argparse
import asyncio
import json
import signal
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

TOLERANCE = 1e-3
PATIENCE = 60.0  # seconds until a request counts as lost


@dataclass(frozen=True)
class Asked:
    """One request as bytes, and what its answer must be."""

    sent: bytes
    sha256: str
    answers: dict[str, list[float]]

    def is_right(self, body: bytes) -> bool:
        """Whether the answer is that of this request: of its hash, with its scores."""
        if not self.sha256:
            return True
        found = json.loads(body)
        outputs = {output["name"]: output["data"] for output in found["outputs"]}
        wanted = self.answers.get(found["model_version"])
        if outputs["sha256"] != [self.sha256] or wanted is None:
            return False
        pairs = zip(outputs["scores"], wanted, strict=True)
        return all(abs(one - other) <= TOLERANCE for one, other in pairs)


@dataclass
class Tally:
    statuses: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    wrong: int = 0
    lost: int = 0


def read_requests(path: Path, port: int) -> list[Asked]:
    found = []
    for one in json.loads(path.read_text()):
        body = (path.parent / one["file"]).read_bytes() if one["file"] else b""
        method = "POST" if body else "GET"
        lines = [f"{method} {one['path']} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
        lines += [f"{name}: {value}" for name, value in one["headers"].items()]
        lines += [f"Content-Length: {len(body)}"] if body else []
        head = "\r\n".join([*lines, "", ""]).encode()
        found.append(Asked(head + body, one["sha256"], one["answers"]))
    return found


class Client:
    """One connection that is kept open; opened again if the server closed it while it was idle.

    A server may do so at the moment at which a request is sent. As other clients do, this one then
    asks again, once, on a new connection (RFC 9112, 9.3.1 and 9.5).
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, sent: bytes) -> tuple[int, bytes]:
        if self.stream is not None:
            try:
                return await self._ask(self.stream, sent)
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                if getattr(error, "partial", b""):
                    raise
                self.close()
        self.stream = await asyncio.open_connection("127.0.0.1", self.port)
        return await self._ask(self.stream, sent)

    async def _ask(
        self, stream: tuple[asyncio.StreamReader, asyncio.StreamWriter], sent: bytes
    ) -> tuple[int, bytes]:
        reader, writer = stream
        writer.write(sent)
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        size = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        body = await reader.readexactly(size)
        if "connection: close" in head:
            self.close()
        return int(head.split(" ", 2)[1]), body

    def close(self) -> None:
        if self.stream is not None:
            self.stream[1].close()
        self.stream = None


async def one(client: Client, asked: Asked, tally: Tally) -> None:
    began = time.perf_counter()
    try:
        status, body = await asyncio.wait_for(client.ask(asked.sent), PATIENCE)
    except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError):
        client.close()
        tally.lost += 1
        return
    tally.statuses[str(status)] += 1
    tally.seconds[str(status)].append(time.perf_counter() - began)
    if status == 200 and not asked.is_right(body):
        tally.wrong += 1


async def closed_loop(port: int, requests: list[Asked], connections: int, count: int) -> Tally:
    """Each connection asks again as soon as it is answered; a refused request counts too.

    SIGTERM ends the loop before `count`, when the requests on their way are answered.
    """
    tally, left, ended = Tally(), iter(range(count)), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)

    async def work(client: Client) -> None:
        for number in left:
            if ended.is_set():
                break
            await one(client, requests[number % len(requests)], tally)
        client.close()

    await asyncio.gather(*(work(Client(port)) for _ in range(connections)))
    return tally


async def open_loop(
    port: int, requests: list[Asked], connections: int, count: int, rate: float
) -> Tally:
    """Requests are sent at a rate, answered or not, as far as there are free connections."""
    tally, running = Tally(), set[asyncio.Task[None]]()
    free = [Client(port) for _ in range(connections)]

    async def work(client: Client, asked: Asked) -> None:
        await one(client, asked, tally)
        free.append(client)

    began = time.perf_counter()
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        if not free:
            tally.statuses["no free connection"] += 1
            continue
        task = asyncio.create_task(work(free.pop(), requests[number % len(requests)]))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    for client in free:
        client.close()
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("requests", type=Path)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=0.0, help="per second; 0: a closed loop")
    args = parser.parse_args()
    requests = read_requests(args.requests, args.port)
    began = time.perf_counter()
    port, connections, count = args.port, args.connections, args.count
    if args.rate:
        tally = asyncio.run(open_loop(port, requests, connections, count, args.rate))
    else:
        tally = asyncio.run(closed_loop(port, requests, connections, count))
    found = {
        "statuses": tally.statuses,
        "seconds": tally.seconds,
        "wrong": tally.wrong,
        "lost": tally.lost,
        "took": time.perf_counter() - began,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
