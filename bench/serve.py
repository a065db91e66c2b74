"""The server under load: throughput beside the bare engine, overload, swaps, hostile requests.

    python bench/serve.py [--quick] [--backbone timm:resnet50] [--count 20000] [--swaps 200]

Load comes from a process of its own (bench/serving_load.py). Every answer must carry the hash of
its request, and the scores of the version that it names.

Throughput: prepared squares through the Open Inference Protocol, and the bare engine at the same
batch, beside the same generator, which then talks to a program that only swallows. Overload: 16
times that throughput. Answers and swaps: a tiny network, whose server is bound by HTTP. Hostile:
malformed requests from a seed, connections that are slow, and how other clients fare meanwhile.

MLflow: `mlflow models serve` (references/mlflow_server.py) on the graph of the same bundle, under
the same number of connections, each of which asks again as soon as it is answered; both with the
same squares in JSON, ours in binary tensors too. Ours gives scores, limits and a hash with them.
"""

import asyncio
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
from harness import ROOT, Bench
from numpy.typing import NDArray
from references.environments import InstallFailed, python_of
from safetensors.numpy import load_file
from tables import Row

import headstart as hs
from headstart.backbones.frozen import Frozen
from headstart.base.runtime import cores
from headstart.features.engines import OnnxEngine
from headstart.models.bundle import load_bundle
from headstart.serving.scoring import (
    PreparedExample,
    ScoredExample,
    Scorer,
    load_scorer,
    rows_of_tensor,
)

BATCH, QUEUE = 8, 64
SQUARES = 32  # different inputs
ROUNDS = 3
INFERRED, LOADED = 'headstart_requests_total{route="infer"', "headstart_loads_total"
LOAD = Path(__file__).parent / "serving_load.py"


def model(folder: Path, backbone: str, seed: int) -> Path:
    """A bundle of a network with random weights and a head for two kinds of noise."""
    rng = np.random.default_rng(seed)
    rows = [
        (rng.normal(60 + 130 * (i % 2), 40, (64, 64, 3)).clip(0, 255).astype(np.uint8), "ab"[i % 2])
        for i in range(24)
    ]
    network = hs.load_backbone(backbone, weights="random" if "timm" in backbone else "pretrained")
    fitted = hs.fit(rows, backbone=network, strategy="extract", store=None, seed=seed)
    return hs.save(fitted, folder)


@dataclass(frozen=True)
class Requests:
    """Lists of requests on disk for the generator, and their squares.

    file: with binary tensors. lists: with the same tensors in JSON. mlflow: in JSON, as MLflow's
    server takes them; their answers are not compared.
    """

    file: Path
    lists: Path
    mlflow: Path
    squares: NDArray[np.uint8]


def scores(scorer: Scorer, examples: Sequence[PreparedExample]) -> list[list[float]]:
    found = scorer.score(examples)
    return [one.outputs["scores"].tolist() for one in found if isinstance(one, ScoredExample)]


def requests(folder: Path, bundles: Sequence[Path]) -> Requests:
    """Write requests with one prepared square each, and the answer of each version."""
    folder.mkdir()
    scorers = [load_scorer(bundle, 1) for bundle in bundles]
    ((name, blank),) = scorers[0].tensors.items()
    rng = np.random.default_rng(0)
    squares = rng.integers(0, 256, (SQUARES, *blank.shape[1:])).astype(np.uint8)
    examples = rows_of_tensor({name: squares})
    answers = {scorer.version: scores(scorer, examples) for scorer in scorers}
    binary, in_lists, mlflow = list[object](), list[object](), list[object]()
    for i, square in enumerate(squares):
        data = square.tobytes()
        tensor = {"name": name, "datatype": "UINT8", "shape": [1, *square.shape]}
        known = {
            "path": "/v2/models/served/infer",
            "sha256": hashlib.sha256(data).hexdigest(),
            "answers": {version: rows[i] for version, rows in answers.items()},
        }
        head = in_json({**tensor, "parameters": {"binary_data_size": len(data)}})
        length = {"Inference-Header-Content-Length": str(len(head))}
        binary.append({**known, "headers": length, "file": f"{i}.bin"})
        (folder / f"{i}.bin").write_bytes(head + data)
        kind = {"Content-Type": "application/json"}
        in_lists.append({**known, "headers": kind, "file": f"{i}.json"})
        (folder / f"{i}.json").write_bytes(in_json({**tensor, "data": square.ravel().tolist()}))
        nested = json.dumps({"inputs": {name: [square.tolist()]}}).encode()
        (folder / f"{i}.mlflow").write_bytes(nested)
        unknown = {"path": "/invocations", "sha256": "", "answers": {}}
        mlflow.append({**unknown, "headers": kind, "file": f"{i}.mlflow"})
    lists = {"requests": binary, "lists": in_lists, "mlflow": mlflow}
    files = [folder / f"{title}.json" for title in lists]
    for file, found in zip(files, lists.values(), strict=True):
        file.write_text(json.dumps(found))
    return Requests(files[0], files[1], files[2], squares)


def in_json(tensor: Mapping[str, object]) -> bytes:
    return json.dumps({"inputs": [tensor]}).encode()


@dataclass(frozen=True)
class Served:
    port: int
    process: "subprocess.Popen[str]"

    @property
    def memory(self) -> float:
        """Resident megabytes."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0]) / 1000

    def get(self, path: str) -> tuple[int, float, bytes]:
        """Status, seconds and body of a request on a connection of its own."""
        began = time.perf_counter()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}")
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                return reply.status, time.perf_counter() - began, reply.read()
        except urllib.error.HTTPError as error:
            return error.code, time.perf_counter() - began, error.read()

    def counted(self, name: str) -> float:
        """The sum of a metric over its labels."""
        text = self.get("/metrics")[2].decode()
        lines = [line for line in text.splitlines() if line.startswith(name)]
        return sum(float(line.rpartition(" ")[2]) for line in lines)


@contextmanager
def serving(bundle: Path, *flags: str) -> Iterator[Served]:
    """Run `headstart serve` on a free port, in a process of its own."""
    port = free_port()
    words = ["serve", str(bundle), "--name", "served", "--port", str(port), *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "headstart", "-q", *words], env=environment, text=True
    )
    served = Served(port, process)
    try:
        until(lambda: reachable(port) and served.get("/v2/health/ready")[0] == 200)
        yield served
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def reachable(port: int) -> bool:
    with socket.socket() as found:
        return found.connect_ex(("127.0.0.1", port)) == 0


def until(holds: Any, seconds: float = 120) -> None:
    end = time.perf_counter() + seconds
    while not holds():
        if time.perf_counter() > end:
            raise SystemExit("The server did not come as far as it should.")
        time.sleep(0.02)


def start_load(port: int, file: Path, **flags: float) -> "subprocess.Popen[str]":
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, str(LOAD), str(port), str(file), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def end_load(process: "subprocess.Popen[str]") -> dict[str, Any]:
    out, _ = process.communicate()
    found: dict[str, Any] = json.loads(out)
    return found


def load(port: int, file: Path, **flags: float) -> dict[str, Any]:
    return end_load(start_load(port, file, **flags))


def p99(seconds: Sequence[float]) -> float:
    return float(np.quantile(seconds, 0.99)) if seconds else float("nan")


# ------------------------------------------------------------ throughput
@contextmanager
def swallowing() -> Iterator[int]:
    """A program that reads requests and answers each with nothing; yields its port."""
    port = free_port()
    code = "import serve; serve.swallow(int(__import__('sys').argv[1]))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(LOAD.parent), *sys.path])}
    process = subprocess.Popen([sys.executable, "-c", code, str(port)], env=environment)
    until(lambda: reachable(port))
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def swallow(port: int) -> None:
    """Answer every request with status 204, at no cost."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                size = head.partition("content-length: ")[2].partition("\r\n")[0]
                await reader.readexactly(int(size or 0))
                writer.write(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def run() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", port, limit=2**22) as server:
            await server.serve_forever()

    asyncio.run(run())


def engine_rate(bundle: Path, squares: NDArray[np.uint8], seconds: float) -> float:
    """Examples per second of the bare engine at the server's batch, in this process."""
    backbone = load_bundle(bundle).model.backbone
    assert isinstance(backbone, Frozen)
    engine, batch = OnnxEngine(backbone, cores()), {"pixels": squares[:BATCH]}
    engine(batch)
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        engine(batch)
        done += BATCH
    return done / (time.perf_counter() - began)


def beside_generator(bundle: Path, asked: Requests, rate: float, seconds: float) -> float:
    """The bare engine's rate while the generator sends as many requests to a swallowing program."""
    with swallowing() as port:
        count = max(1, int(rate * (seconds + 4)))
        process = start_load(port, asked.file, connections=32, count=count, rate=rate)
        time.sleep(1)
        found = engine_rate(bundle, asked.squares, seconds)
        process.kill()
        process.wait()
    return found


def throughput(bundle: Path, asked: Requests, seconds: float) -> Row:
    """Rates of the bare engine and of the server, in turn."""
    alone = engine_rate(bundle, asked.squares, seconds)
    bare, served = list[float](), list[float]()
    with serving(bundle, "--queue", str(QUEUE), "--batch", str(BATCH)) as server:
        load(server.port, asked.file, connections=16, count=32)  # warm
        for _ in range(ROUNDS):
            bare.append(beside_generator(bundle, asked, alone, seconds))
            count = max(64, int(alone * seconds))
            done = load(server.port, asked.file, connections=4 * BATCH, count=count)
            served.append(done["statuses"]["200"] / done["took"])
    ratio = float(np.median(served) / np.median(bare))
    return {
        "engine alone, /s": alone,
        "engine beside the generator, /s": float(np.median(bare)),
        "server, /s": float(np.median(served)),
        "server / engine": ratio,
        "at least 0.95": ratio >= 0.95,
    }


# ------------------------------------------------------------ overload
def overload(bundle: Path, asked: Requests, rate: float, seconds: float) -> Row:
    """Sixteen times the requests that the server can answer."""
    with serving(bundle, "--queue", str(QUEUE), "--batch", str(BATCH)) as server:
        load(server.port, asked.file, connections=16, count=64)
        before, probes = server.memory, list[float]()
        count = int(16 * rate * seconds)
        process = start_load(server.port, asked.file, connections=400, count=count, rate=16 * rate)
        while process.poll() is None:
            status, took, _ = server.get("/v2/health/ready")
            probes.append(took if status == 200 else float("inf"))
            time.sleep(0.1)
            if len(probes) > 10 * (seconds + 30):
                break
        done = end_load(process)
        after = server.memory
    accepted, rejected = done["seconds"].get("200", []), done["seconds"].get("503", [])
    limit = 1.5 * (QUEUE + 1) / rate
    return {
        "offered, /s": 16 * rate,
        "answered": len(accepted),
        "refused": len(rejected),
        "wrong or lost": done["wrong"] + done["lost"],
        "accepted p99, s": p99(accepted),
        "limit, s": limit,
        "refused p99, ms": 1000 * p99(rejected),
        "/ready p99, ms": 1000 * p99(probes),
        "MB before": before,
        "MB after": after,
    }


# ------------------------------------------------------------ MLflow
@contextmanager
def mlflow_serving(graph: Path, folder: Path) -> Iterator[int]:
    """Run MLflow's server on an ONNX file; yields its port. Raises InstallFailed."""
    port, quiet = free_port(), {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    script = LOAD.parent / "references" / "mlflow_server.py"
    command = [str(python_of("mlflow_server")), str(script), str(graph), str(folder), str(port)]
    process = subprocess.Popen(
        command,
        env={**os.environ, **quiet},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # its server is a grandchild
    )
    try:
        until(lambda: reachable(port))
        yield port
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def whole_graph(bundle: Path, path: Path) -> Path:
    """Write the graph of a bundle with its weights inside, as other servers take it."""
    graph = onnx.load(str(bundle / "graph.onnx"), load_external_data=False)
    weights = load_file(bundle / "weights.safetensors")
    for tensor in graph.graph.initializer:
        if tensor.external_data:
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(weights[f"backbone.{tensor.name}"], tensor.name)
            )
    path.write_bytes(graph.SerializeToString())
    return path


def beside_mlflow(bundle: Path, asked: Requests, count: int, folder: Path) -> list[Row]:
    """Requests per second and latency of both servers under the same load, one after the other."""
    found = list[Row]()
    with serving(bundle, "--queue", str(QUEUE), "--batch", str(BATCH)) as server:
        for title, file in {"binary tensors": asked.file, "JSON": asked.lists}.items():
            load(server.port, file, connections=BATCH, count=32)  # warm
            done = load(server.port, file, connections=BATCH, count=count)
            found.append(paced(f"headstart serve, {title}", done))
    try:
        with mlflow_serving(whole_graph(bundle, folder / "whole.onnx"), folder / "mlflow") as port:
            load(port, asked.mlflow, connections=BATCH, count=32)
            done = load(port, asked.mlflow, connections=BATCH, count=count)
    except InstallFailed as error:
        return [*found, {"server": f"MLflow: {error}"}]
    return [*found, paced("mlflow models serve, JSON", done)]


def paced(title: str, done: Mapping[str, Any]) -> Row:
    own = done["seconds"].get("200", [])
    return {
        "server": title,
        "connections": BATCH,
        **counted(done),
        "answers/s": len(own) / done["took"],
        "median, ms": 1000 * float(np.median(own)) if own else None,
        "p99, ms": 1000 * p99(own),
    }


# ------------------------------------------------------------ answers and swaps
def answers(bundle: Path, asked: Requests, count: int) -> Row:
    """Many answers of a tiny network, each compared with what it must be."""
    with serving(bundle, "--queue", str(QUEUE)) as server:
        load(server.port, asked.file, connections=16, count=500)
        before = server.memory
        done = load(server.port, asked.file, connections=32, count=count)
        after = server.memory
    return {
        "requests": count,
        **counted(done),
        "per second": count / done["took"],
        "MB before": before,
        "MB after": after,
    }


def swaps(bundles: Sequence[Path], asked: Requests, count: int, folder: Path) -> Row:
    """Swap two versions of a model under load."""
    link = folder / "current"
    link.symlink_to(bundles[0])
    with serving(link, "--queue", str(QUEUE)) as server:
        load(server.port, asked.file, connections=16, count=500)
        before = server.memory
        begun = server.counted(INFERRED)
        process = start_load(server.port, asked.file, connections=8, count=10**7)
        until(lambda: server.counted(INFERRED) > begun)
        for number in range(1, count + 1):
            new = folder / "new"
            new.symlink_to(bundles[number % 2])
            new.replace(link)
            loaded = server.counted(LOADED)
            server.process.send_signal(signal.SIGHUP)
            until(lambda loaded=loaded: server.counted(LOADED) > loaded)
        after = server.memory
        process.terminate()
        done = end_load(process)
    return {
        "swaps": count,
        **counted(done),
        "MB before": before,
        "MB after": after,
    }


# ------------------------------------------------------------ hostile
def malformed(port: int, count: int, seed: int = 0) -> dict[str, int]:
    """Send requests that are wrong in some way, each on its own connection; count the statuses."""
    rng, found = random.Random(seed), dict[str, int]()
    for _ in range(count):
        status = raw_status(port, hostile_request(rng))
        found[status] = found.get(status, 0) + 1
    return found


PATHS = (
    "/predict",
    "/predict/served",
    "/v2/models/served/infer",
    "/session",
    "/v2/models/%00",
    "/page/../../etc/passwd",
    "/v2/models/served/infer/x",
    "//",
    "/\xff",
    "/metrics",
    "*",
    "http://evil.example/predict",
)
BODIES = (
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"inputs": []}',
    b'{"inputs": [{"name": "bytes", "datatype": "BYTES", "shape": [1], "data": ["A"]}]}',
    b'{"inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [1,224,224,3], "data": [1]}]}',
    b'{"inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [9e99], "data": []}]}',
    b'{"texts": ["\\ud800"]}',
    b'{"a": 1e999}',
    b"[" * 5000,
    b"\x89PNG\r\n\x1a\n" + b"\0" * 50,
    b"\xff\xd8\xff" + b"\xff" * 100,
    b"II*\0" + b"\xff" * 60,
    b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\nabc\r\n--x--\r\n",
    b"--x\r\n\r\n",
)
KINDS = (
    "application/json",
    "multipart/form-data; boundary=x",
    "multipart/form-data",
    "application/octet-stream",
    "image/png",
    "text/plain; charset=utf-99",
    "application/x-www-form-urlencoded",
    "\xff",
)
ODD = (
    "Content-Length: 5",
    "Content-Length: -1",
    "Content-Length: 99999999999999999999",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip",
    "Content-Encoding: br",
    "Inference-Header-Content-Length: 99",
    "Inference-Header-Content-Length: x",
    "Expect: 100-continue",
    "Upgrade: websocket",
    "Cookie: ;;=;headstart_session=",
    "Authorization: Bearer",
    "Origin: null",
    "Host: other",
    "Range: bytes=0-1",
    "X: " + "y" * 20_000,
)


def hostile_request(rng: random.Random) -> bytes:
    method = rng.choice(("POST",) * 6 + ("GET", "PUT", "DELETE", "OPTIONS", "TRACE", "po st", ""))
    body = bytearray(rng.choice(BODIES))
    for _ in range(rng.choice((0, 0, 1, 5))):
        if body:
            body[rng.randrange(len(body))] = rng.randrange(256)
    headers = ["Host: localhost", f"Content-Type: {rng.choice(KINDS)}", "Connection: close"]
    if rng.random() < 0.7:
        headers.append(f"Content-Length: {len(body)}")
    headers += rng.sample(ODD, rng.choice((0, 0, 1, 2)))
    version = rng.choice(("HTTP/1.1",) * 8 + ("HTTP/1.0", "HTTP/2", "HTTP/9.9", ""))
    lines = [f"{method} {rng.choice(PATHS)} {version}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + bytes(body)


def raw_status(port: int, sent: bytes) -> str:
    """Status of a reply, "cut" if the connection ended without one. The request's end is sent."""
    with socket.create_connection(("127.0.0.1", port), timeout=40) as connection:
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            found = connection.recv(4096)
        except OSError:
            return "cut"
    return found.split(b" ", 2)[1].decode() if found.startswith(b"HTTP/1.1 ") else "cut"


def slow_connections(port: int, count: int, seconds: float) -> tuple[list[socket.socket], int]:
    """Open connections that send a byte a second; return how many the server has cut."""
    found = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
    for one in found:
        one.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\n")
        one.setblocking(False)
    end = time.perf_counter() + seconds
    cut = set[int]()
    while time.perf_counter() < end:
        time.sleep(1)
        for number, one in enumerate(found):
            try:
                one.sendall(b"x")
                if number not in cut and one.recv(4096) == b"":
                    cut.add(number)
            except BlockingIOError:
                continue
            except OSError:
                cut.add(number)
    return found, len(cut)


def hostile(bundle: Path, asked: Requests, count: int, connections: int, seconds: float) -> Row:
    with serving(bundle, "--queue", str(QUEUE)) as server:
        load(server.port, asked.file, connections=4, count=500)
        rate = 100.0
        usual = load(server.port, asked.file, connections=8, count=int(rate * 5), rate=rate)
        process = start_load(
            server.port, asked.file, connections=8, count=int(rate * seconds), rate=rate
        )
        sockets, cut = slow_connections(server.port, connections, seconds)
        beside = end_load(process)
        for one in sockets:
            one.close()
        statuses = malformed(server.port, count)
        still = server.get("/v2/health/ready")[0]
    before, meanwhile = p99(usual["seconds"]["200"]), p99(beside["seconds"]["200"])
    failed = {status: n for status, n in statuses.items() if status.startswith("5")}
    return {
        "slow connections": connections,
        "cut": cut,
        "usual p99, ms": 1000 * before,
        "p99 beside them, ms": 1000 * meanwhile,
        "malformed requests": count,
        "statuses": " ".join(f"{status}:{n}" for status, n in sorted(statuses.items())),
        "5xx": sum(failed.values()),
        "ready afterwards": still == 200,
    }


def counted(done: Mapping[str, Any]) -> dict[str, Any]:
    """Return how many requests of a load were answered, refused, answered wrongly, or lost."""
    statuses = done["statuses"]
    own = {"answered": statuses.get("200", 0), "refused": statuses.get("503", 0)}
    return own | {name: done[name] for name in ("wrong", "lost")}


def main() -> None:
    bench = Bench("serve", __doc__)
    bench.flag("--backbone", default="timm:resnet50", quick="timm:resnet18")
    bench.flag("--seconds", type=float, default=15.0, quick=2.0)
    bench.flag("--count", type=int, default=20_000, quick=1000)
    bench.flag("--swaps", type=int, default=200, quick=5)
    bench.flag("--malformed", type=int, default=2000, quick=200)
    bench.flag("--slow", type=float, default=20.0, quick=3.0)
    args = bench.arguments()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        large = model(folder / "large", args.backbone, 0)
        tiny = [model(folder / f"tiny{seed}", "tiny:32", seed) for seed in (0, 1)]
        of_large = requests(folder / "of large", [large])
        of_tiny = requests(folder / "of tiny", tiny)
        speed = throughput(large, of_large, args.seconds)
        print(speed, flush=True)
        rate = float(str(speed["server, /s"]))
        few = max(32, int(rate * args.seconds))
        parts: Mapping[str, Callable[[], Sequence[Row]]] = {
            "at 16 times the load": lambda: [overload(large, of_large, rate, args.seconds)],
            "answers of a tiny network": lambda: [answers(tiny[0], of_tiny, args.count)],
            "versions swapped under load": lambda: [swaps(tiny, of_tiny, args.swaps, folder)],
            "hostile requests": lambda: [hostile(tiny[0], of_tiny, args.malformed, 100, args.slow)],
            "beside MLflow's server": lambda: beside_mlflow(large, of_large, few, folder),
        }
        more = dict[str, Sequence[Row]]()
        for title, part in parts.items():
            more[title] = part()
            print(title, more[title], flush=True)  # kept in view if a later part fails
    bench.report([{"network": args.backbone, **speed}], more=more)


if __name__ == "__main__":
    main()
