"""The server answers as `predict` does, and nobody else than who may ask; each rule can fail."""

import base64
import io
import json
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_shapes
from PIL import Image
from served import Running, multipart, running

import headstart as hs
from headstart.base.errors import BundleError, Mismatch, MissingPackage, SpecError
from headstart.cli.main import main
from headstart.features.engines import OnnxEngine
from headstart.modalities.images import inputs as picture_inputs
from headstart.models.bundle_files import bundle_digest
from headstart.serving import bodies, connections, models, predicting
from headstart.serving.batching import LESS_URGENT, yield_to_requests
from headstart.serving.bodies import parts_of, strict_json
from headstart.serving.gate import Rules
from headstart.serving.refusals import Refusal
from headstart.serving.scoring import PreparedExample, ScoredExample, Scorer, load_scorer
from headstart.serving.settings import ServeSpec, model_names
from headstart.serving.tokens import Token, read_token

SECRET = "canary-7f3a9c51e2"
TOKEN = "a-token-of-many-characters"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes")


@pytest.fixture(scope="module")
def bundle(data: Path) -> Path:
    return saved(data, data.parent / "cells")


def saved(data: Path, folder: Path, **settings: Any) -> Path:
    fitted = hs.fit(data, backbone="tiny:32", strategy="extract", store=None, **settings)
    return hs.save(fitted, folder)


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Running]:
    with running(bundle) as found:
        yield found


@pytest.fixture(scope="module")
def files(data: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(data.rglob("*.png"))[::5]]


@pytest.fixture(scope="module")
def expected(bundle: Path, files: list[bytes]) -> list[dict[str, float]]:
    images = [Image.open(io.BytesIO(data)) for data in files]
    said = hs.load(bundle).predict(images, store=None)
    return [dict(zip(said.classes, map(float, row), strict=True)) for row in said.scores]


def assert_scores(plain: dict[str, Any], wanted: dict[str, float]) -> None:
    assert plain["scores"].keys() == wanted.keys()
    assert all(abs(plain["scores"][name] - score) < 1e-5 for name, score in wanted.items())


# ------------------------------------------------------------ answers
def test_files_get_the_scores_of_predict_in_their_order(
    server: Running, files: list[bytes], expected: list[dict[str, float]]
) -> None:
    reply = server.ask("POST", "/predict", *multipart(*files))
    assert reply.status == 200
    assert len(reply.json["predictions"]) == len(files)
    for plain, wanted in zip(reply.json["predictions"], expected, strict=True):
        assert_scores(plain, wanted)


def test_a_raw_body_is_one_file(
    server: Running, files: list[bytes], expected: list[dict[str, float]]
) -> None:
    reply = server.ask("POST", "/predict/cells", files[0], {"Content-Type": "image/png"})
    assert_scores(reply.json["predictions"][0], expected[0])


def test_the_inference_protocol_takes_files_in_base64(
    server: Running, files: list[bytes], expected: list[dict[str, float]]
) -> None:
    tensor = {"name": "bytes", "datatype": "BYTES", "shape": [2]}
    words = [base64.b64encode(data).decode() for data in files[:2]]
    asked = {"id": "one", "inputs": [{**tensor, "data": words}], "outputs": [{"name": "scores"}]}
    reply = server.send_json("/v2/models/cells/infer", asked).json
    (output,) = reply["outputs"]
    assert (reply["id"], output["shape"], output["datatype"]) == ("one", [2, 2], "FP32")
    wanted = [score for row in expected[:2] for score in row.values()]
    assert np.allclose(output["data"], wanted, atol=1e-5)


@pytest.mark.parametrize("binary", [True, False])
def test_the_inference_protocol_takes_prepared_squares(
    server: Running,
    bundle: Path,
    files: list[bytes],
    expected: list[dict[str, float]],
    binary: bool,
) -> None:
    input = hs.load(bundle).backbone.card.input
    squares = np.concatenate([input.prepare(input.read(data))["pixels"] for data in files])
    tensor: dict[str, Any] = {"name": "pixels", "datatype": "UINT8", "shape": list(squares.shape)}
    if binary:
        tensor["parameters"] = {"binary_data_size": squares.nbytes}
    else:
        tensor["data"] = squares.tolist()
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))} if binary else {}
    body = head + squares.tobytes() if binary else head
    reply = server.ask("POST", "/v2/models/cells/infer", body, headers)
    outputs = {output["name"]: output["data"] for output in reply.json["outputs"]}
    wanted = [score for row in expected for score in row.values()]
    assert np.allclose(outputs["scores"], wanted, atol=1e-5)
    assert outputs["predicted"] == [max(row, key=lambda n: row[n]) for row in expected]


def test_an_unreadable_file_gets_the_reason_and_takes_no_other_with_it(
    server: Running, files: list[bytes], expected: list[dict[str, float]]
) -> None:
    reply = server.ask("POST", "/predict", *multipart(b"just a text", files[1]))
    bad, good = reply.json["predictions"]
    assert reply.status == 200
    assert "not a picture but a text file" in bad["error"]
    assert_scores(good, expected[1])
    alone = server.ask("POST", "/predict", b"just a text")
    assert alone.status == 422
    assert "not a picture" in alone.json["error"]


def test_what_the_network_cannot_compute_takes_no_other_with_it(
    bundle: Path, files: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = load_scorer(bundle, 1)
    good, run = scorer.prepare(files[0]), OnnxEngine.__call__
    bad = PreparedExample({"pixels": np.zeros_like(good.batch["pixels"])}, "")

    def fussy(engine: OnnxEngine, batch: Any) -> Any:
        if not batch["pixels"].any(axis=(1, 2, 3)).all():
            raise Mismatch("no black ones")
        return run(engine, batch)

    monkeypatch.setattr(OnnxEngine, "__call__", fussy)
    first, second = scorer.score([bad, good])
    assert "can't compute" in str(first)
    assert isinstance(second, ScoredExample)
    assert second.plain["sha256"] == good.sha256


def test_texts_are_answered_from_json_and_as_they_are(tmp_path: Path) -> None:
    fitted = fitted_texts(tmp_path)
    with running(hs.save(fitted, tmp_path / "films")) as server:
        texts = ["a lovely film 99", "un fïlm"]
        reply = server.send_json("/predict", {"texts": texts}).json
        said = fitted.model.predict(texts, store=None)
        for plain, scores in zip(reply["predictions"], said.scores, strict=True):
            assert np.allclose(list(plain["scores"].values()), scores, atol=1e-5)
        assert server.ask("POST", "/predict", texts[1].encode()).json["predictions"][0][
            "scores"
        ] == pytest.approx(reply["predictions"][1]["scores"], abs=1e-5)
        tensor = {"name": "bytes", "datatype": "BYTES", "shape": [2], "data": texts}
        reply = server.send_json("/v2/models/films/infer", {"inputs": [tensor]})
        assert reply.status == 200
        assert server.send_json("/predict", {"texts": ["\ud800"]}).status == 422
        assert server.ask("POST", "/predict", b"word " * 50_000).status == 422
        assert server.get("/v2/models/films").json["parameters"]["takes"] == "text"


def fitted_texts(folder: Path) -> Any:
    rng, letters = np.random.default_rng(0), np.array(list("abcdefghijklmnoprstuvwy"))
    words = ["".join(rng.choice(letters, 6)) for _ in range(400)]
    rows = [
        f"{' '.join(rng.choice(words, 12))} {kind},{label}"
        for _ in range(12)
        for kind, label in (("lovely film", "good"), ("dull film", "bad"))
    ]
    (folder / "films.csv").write_text("\n".join(["text,label", *rows]))
    return hs.fit(folder / "films.csv", backbone="tiny-text:8", strategy="extract", store=None)


def test_a_number_and_its_interval_are_answered_and_counted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        (Image.fromarray(np.full((8, 8, 3), v, np.uint8)), float(v))
        for v in rng.integers(0, 255, 60)
    ]
    fitted = hs.fit(rows, target="number", backbone="tiny:8", strategy="extract", store=None)
    with running(hs.save(fitted, tmp_path / "levels")) as server:
        (plain,) = server.ask("POST", "/predict", *multipart(png(8, 8))).json["predictions"]
        said = fitted.model.predict([Image.open(io.BytesIO(png(8, 8)))], store=None)
        assert plain["predicted"] == pytest.approx(float(said.outputs["value"][0]), rel=1e-4)
        assert metric(server, "headstart_value_count", model="levels") == 1


def png(width: int, height: int, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, "PNG")
    return file.getvalue()


# ------------------------------------------------------------ who may ask
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "127.0.0.1:8000"}, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "[::1]:80"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "evil.example:8000"}, 403),
        ({"Host": "localhost:80@evil.example"}, 403),
        ({"Host": "192.168.0.1"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "localhost", "Origin": "http://localhost"}, 200),
        ({"Host": "localhost:1", "Origin": "http://localhost:2"}, 403),
        ({"Host": "localhost", "Origin": "null"}, 403),
        ({"Host": "localhost", "Origin": "https://evil.example"}, 403),
        ({"Host": "localhost", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Host": "localhost", "Sec-Fetch-Site": "same-site"}, 403),
        ({"Host": "localhost", "Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_foreign_hosts_and_origins_are_refused(
    server: Running, headers: dict[str, str], status: int
) -> None:
    reply = server.get("/v2/models/cells", **headers)
    assert reply.status == status
    assert not [name for name in reply.headers if name.startswith("access-control")]


def test_a_link_from_another_site_opens_the_page(server: Running) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert server.get("/", **headers).status == 200


def test_no_request_before_the_real_one_is_allowed(server: Running) -> None:
    reply = server.ask("OPTIONS", "/predict", headers={"Origin": f"http://127.0.0.1:{server.port}"})
    assert reply.status == 405
    assert not [name for name in reply.headers if name.startswith("access-control")]


def test_every_reply_says_what_its_page_may_do(server: Running) -> None:
    for reply in (server.get("/"), server.get("/nowhere"), server.ask("POST", "/predict", b"x")):
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert reply.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("spec", "host", "ours"),
    [
        (ServeSpec(allow_host=("models.lan",)), "models.lan:443", True),
        (ServeSpec(), "models.lan", False),
        (ServeSpec(host="0.0.0.0", token_file="t"), "192.168.0.7:8000", True),
        (ServeSpec(host="0.0.0.0", token_file="t"), "models.lan", False),
        (ServeSpec(host="0.0.0.0", token_file="t"), "[fe80::1]", True),
        (ServeSpec(host="10.0.0.5", token_file="t"), "10.0.0.5", True),
        (ServeSpec(host="10.0.0.5", token_file="t"), "10.0.0.6", False),
    ],
)
def test_the_names_of_a_server(spec: ServeSpec, host: str, ours: bool) -> None:
    assert Rules.of(spec, None).is_ours(host) is ours


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "models.lan"])
def test_another_address_without_a_token_is_refused(
    host: str, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(bundle), "--host", host]) == 2
    assert "--token-file" in capsys.readouterr().err


def test_tokens_are_long_single_words(tmp_path: Path) -> None:
    for text in ("short", "", "two words of some length", "кириллица-достаточной-длины"):
        (tmp_path / "t").write_text(text)
        with pytest.raises(SpecError, match="at least 16") as error:
            read_token(tmp_path / "t")
        assert not text or text not in str(error.value)
    (tmp_path / "t").write_text(f"{TOKEN}\n")
    assert read_token(tmp_path / "t").matches(TOKEN)
    assert TOKEN not in repr(read_token(tmp_path / "t"))


def test_with_a_token_only_its_bearers_are_answered(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    with running(bundle, token_file=str(tmp_path / "token")) as server:
        assert server.get("/v2/health/ready").status == 200
        assert server.get("/").status == 200
        for path in ("/v2", "/metrics", "/openapi.json", f"/v2?token={TOKEN}"):
            assert server.get(path).status == 401
        assert server.get("/v2", Authorization=f"Bearer {TOKEN}x").status == 401
        assert server.get("/v2", Authorization=f"Bearer {TOKEN}").status == 200
        assert server.send_json("/session", {"token": "wrong"}).status == 401
        reply = server.send_json("/session", {"token": TOKEN})
        cookie = reply.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=strict"} <= set(cookie.split("; "))
        assert TOKEN not in cookie
        assert server.get("/v2", Cookie=cookie.partition(";")[0]).status == 200
        assert server.get("/v2", Cookie="headstart_session=x").status == 401
        assert TOKEN not in repr(server.lines.lines)


# ------------------------------------------------------------ how much
def test_a_body_above_the_limit_is_refused_declared_or_not(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = {"Content-Length": str(33_000_000)}
    assert raw(server, head("POST /predict", declared)).startswith(b"HTTP/1.1 413")
    monkeypatch.setattr(bodies, "MOST_BYTES", 5000)
    chunk = b"1000\r\n" + b"x" * 4096 + b"\r\n"
    sent = head("POST /predict", {"Transfer-Encoding": "chunked"}) + 2 * chunk + b"0\r\n\r\n"
    assert raw(server, sent).startswith(b"HTTP/1.1 413")
    one = head("POST /predict", {"Transfer-Encoding": "chunked"}) + chunk + b"0\r\n\r\n"
    assert raw(server, one).startswith(b"HTTP/1.1 422")  # the control: it is no picture


def test_all_bodies_together_have_a_limit(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies.Memory, "counted", bodies.Memory(1000).counted)
    reply = server.ask("POST", "/predict", b"x" * 2000)
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert server.ask("POST", "/predict", b"x" * 900).status == 422


def head(line: str, headers: dict[str, str]) -> bytes:
    every = {"Host": "localhost", "Connection": "close", **headers}
    lines = [f"{line} HTTP/1.1", *(f"{name}: {value}" for name, value in every.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def raw(server: Running, sent: bytes, then: bytes = b"") -> bytes:
    """Send bytes and return all that comes back until the server closes."""
    found = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(sent)
        with suppress(ConnectionError):
            while part := connection.recv(65536):
                found += part
    return found


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: loc",
        head("POST /predict", {"Content-Length": "100"}) + b"x",
        head("POST /predict", {"Transfer-Encoding": "chunked"}) + b"5\r\nab",
    ],
    ids=["silence", "head", "body", "chunk"],
)
def test_a_request_that_does_not_arrive_in_time_is_cut(
    server: Running, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(connections.TimedConnection, "seconds", 0.2)
    began = time.perf_counter()
    assert raw(server, sent).startswith(b"HTTP/1.1 408")
    assert time.perf_counter() - began < 5


def test_the_rest_of_a_refused_body_must_arrive_in_time_too(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections.TimedConnection, "seconds", 0.3)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(
            head("POST /nowhere", {"Content-Length": "99", "Connection": "keep-alive"})
        )
        began, found = time.perf_counter(), b""
        with suppress(OSError):
            while time.perf_counter() - began < 10:
                connection.sendall(b"x")
                connection.settimeout(0.05)
                with suppress(TimeoutError):
                    part = connection.recv(65536)
                    if not part:
                        break
                    found += part
        assert found.startswith(b"HTTP/1.1 404")
        assert time.perf_counter() - began < 5


def test_a_request_that_breaks_off_wrongly_is_the_clients_fault(server: Running) -> None:
    before = len(server.lines.lines)
    sent = head("POST /nowhere", {"Transfer-Encoding": "chunked"}) + b"zz\r\n"
    for _ in range(5):
        assert raw(server, sent).startswith((b"HTTP/1.1 400", b"HTTP/1.1 404"))
    assert server.lines.lines[before:] == []


def test_requests_on_one_connection_are_answered_in_order(server: Running) -> None:
    keep = {"Connection": "keep-alive"}
    sent = head("GET /v2/health/live", keep) + head("GET /nowhere", keep) + head("GET /v2", {})
    found = raw(server, sent)
    assert [part[:3] for part in found.split(b"HTTP/1.1 ")[1:]] == [b"200", b"404", b"200"]


def test_too_many_connections_are_refused(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections.TimedConnection, "most", 0)
    assert raw(server, b"").startswith(b"HTTP/1.1 503")


def test_pictures_above_the_limit_are_refused_before_they_are_decoded(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = png(5001, 5000, "1")
    reply = server.ask("POST", "/predict", large)
    assert reply.status == 422
    assert "5001x5000 pixels, and a server reads up to 25 million" in reply.json["error"]
    assert server.ask("POST", "/predict", png(4000, 4000, "1")).status == 200
    monkeypatch.setattr(picture_inputs, "SERVED_PIXELS", 30_000_000)
    assert server.ask("POST", "/predict", large).status != 503


@pytest.mark.parametrize(
    "body",
    [
        b'{"texts": [NaN]}',
        b'{"a": 1e999}',
        b'{"a": -Infinity}',
        b'{"a": "\\ud800"}',
        b'{"\\udfff": 1}',
        b'{"a": 1, "a": 2}',
        b"\xff\xfe{\x00}\x00",
        b'{"a": "\xed\xa0\x80"}',
        b"[" * 100_000,
        b"9" * 10_000,
        b"",
        b"{",
        b"\xef\xbb\xbf{}",
    ],
)
def test_json_that_readers_understand_differently_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal) as refusal:
        strict_json(body)
    assert refusal.value.status == 422


def test_other_json_is_read() -> None:
    assert strict_json('{"a": [1, -2.5e3, "\\ud83d\\ude00ж"], "b": null}'.encode()) == {
        "a": [1, -2500.0, "😀ж"],
        "b": None,
    }


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": []},
        {"inputs": [1]},
        {"inputs": "x"},
        {"id": 5},
        {"id": "a\nb"},
        {"outputs": [{"name": "no"}]},
        {"outputs": 3},
        {"name": "pixels"},
        {"name": "../../etc/passwd"},
        {"datatype": "UINT8"},
        {"shape": [2]},
        {"shape": [-1]},
        {"shape": []},
        {"shape": [True]},
        {"shape": [10**9, 10**9]},
        {"data": ["###"]},
        {"data": [1]},
        {"data": None},
        {"data": ["http://127.0.0.1/x.png"]},
        {"parameters": {"binary_data_size": 5}},
        {"parameters": []},
    ],
    ids=str,
)
def test_a_malformed_request_to_infer_is_422(server: Running, change: dict[str, Any]) -> None:
    tensor = {"name": "bytes", "datatype": "BYTES", "shape": [1], "data": ["QUJD"]}
    asked: dict[str, Any] = {"inputs": [tensor]}
    for name, value in change.items():
        (asked if name in ("inputs", "id", "outputs") else tensor)[name] = value
    reply = server.send_json("/v2/models/cells/infer", asked)
    assert reply.status == 422, reply.body
    assert "error" in reply.json


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"--x\r\n\r\nabc", "multipart/form-data; boundary=x"),
        (b"no part", "multipart/form-data; boundary=x"),
        (b"--x--\r\n", "multipart/form-data"),
        (b"--x\r\n" + b"a: b\r\n" * 9000 + b"\r\n\r\n--x--", "multipart/form-data; boundary=x"),
        (b"x", "multipart/mixed; boundary=x"),
    ],
)
def test_a_damaged_multipart_body_is_422(server: Running, body: bytes, kind: str) -> None:
    assert server.ask("POST", "/predict", body, {"Content-Type": kind}).status == 422


def test_a_request_has_a_limited_number_of_examples(server: Running) -> None:
    assert server.ask("POST", "/predict", *multipart(*[b"x"] * 65)).status == 413
    assert server.ask("POST", "/predict", b"").status == 422
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert server.ask("POST", "/predict", b"a=1", form).status == 415
    packed = {"Content-Encoding": "gzip"}
    assert server.ask("POST", "/predict", b"x", packed).status == 415


def test_uploads_are_never_written_to_disk(server: Running) -> None:
    from python_multipart.multipart import File

    body, headers = multipart(b"x" * 3_000_000)
    with written() as files:
        (plain,) = server.ask("POST", "/predict", body, headers).json["predictions"]
    assert "error" in plain
    assert files == []
    with written() as files, suppress(Exception):  # the control: the usual way to read a file
        file = File(b"a", config={"MAX_MEMORY_FILE_SIZE": 1000})
        file.write(b"x" * 3_000_000)
        file.close()
    assert files


_HEARD: list[list[Any]] = []


def _hear(event: str, args: tuple[Any, ...]) -> None:
    if _HEARD and event == "open" and (writes(args[1]) or writes_by(args[2])):
        _HEARD[-1].append(args[0])


def writes(mode: Any) -> bool:
    return isinstance(mode, str) and not set(mode).isdisjoint("wax+")


def writes_by(flags: Any) -> bool:
    return isinstance(flags, int) and bool(flags & 0o3)


sys.addaudithook(_hear)


class written:
    """Lists the files that are opened for writing in the block."""

    def __enter__(self) -> list[Any]:
        _HEARD.append([])
        return _HEARD[-1]

    def __exit__(self, *_: object) -> None:
        _HEARD.pop()


# ------------------------------------------------------------ the queue
class Held:
    """Holds back a network until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.open, self.sizes = threading.Event(), threading.Event(), list[int]()
        score = Scorer.score

        def held(scorer: Scorer, examples: Any) -> Any:
            self.sizes.append(len(examples))
            self.begun.set()
            assert self.open.wait(20)
            return score(scorer, examples)

        monkeypatch.setattr(Scorer, "score", held)


def test_a_full_queue_refuses_at_once_and_gathers_batches(
    bundle: Path, files: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(bundle, queue=3, batch=2) as server:
        held, statuses = Held(monkeypatch), list[int]()

        def ask() -> None:
            statuses.append(server.ask("POST", "/predict", files[0]).status)

        first = threading.Thread(target=ask)
        first.start()
        assert held.begun.wait(20)
        others = [threading.Thread(target=ask) for _ in range(4)]
        for thread in others:
            thread.start()
        until(lambda: metric(server, "headstart_queue_examples", model="cells") == 5)
        refused = server.ask("POST", "/predict", files[0])
        assert (refused.status, int(refused.headers["retry-after"]) >= 1) == (503, True)
        held.open.set()
        for thread in (first, *others):
            thread.join(20)
        assert statuses == [200] * 5
        assert held.sizes == [1, 2, 2]
        assert metric(server, "headstart_queue_full_total", model="cells") == 1


def until(holds: Any) -> None:
    end = time.perf_counter() + 20
    while not holds():
        assert time.perf_counter() < end
        time.sleep(0.01)


def metric(server: Running, name: str, **labels: str) -> float:
    value = server.server.measures.registry.get_sample_value(name, labels)
    return value or 0.0


def test_a_client_that_goes_away_leaves_its_place(
    bundle: Path, files: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(bundle) as server:
        held = Held(monkeypatch)
        for _ in range(3):
            gone = socket.create_connection(("127.0.0.1", server.port))
            size = {"Content-Length": str(len(files[0]))}
            gone.sendall(head("POST /predict", size) + files[0])
            until(lambda: metric(server, "headstart_queue_examples", model="cells") == 1)
            gone.close()
            until(lambda: metric(server, "headstart_queue_examples", model="cells") == 0)
        held.open.set()


def test_an_answer_that_takes_too_long_is_503(
    bundle: Path, files: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predicting, "SECONDS", 0.2)
    with running(bundle) as server:
        held = Held(monkeypatch)
        reply = server.ask("POST", "/predict", files[0])
        held.open.set()
        assert (reply.status, "retry-after" in reply.headers) == (503, True)


def test_it_is_ready_only_when_the_models_have_reproduced_what_is_known(
    bundle: Path, files: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()

    def slow(folder: Path, threads: int, digests: Sequence[str]) -> Scorer:
        assert go.wait(20)
        return load_scorer(folder, threads, digests)

    monkeypatch.setattr(models, "load_scorer", slow)
    with running(bundle, ready=False) as server:
        until(lambda: server.get("/v2/health/live").status == 200)
        assert server.get("/v2/health/ready").status == 503
        reply = server.ask("POST", "/predict", files[0])
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        go.set()
        until(lambda: server.get("/v2/health/ready").status == 200)
        assert server.ask("POST", "/predict", files[0]).status == 200


def test_only_bundles_of_the_demanded_digests_are_loaded(bundle: Path) -> None:
    own = bundle_digest(bundle)
    assert load_scorer(bundle, 1, ("0" * 64, own.upper())).version == own[:16]
    with pytest.raises(BundleError, match=f"one of the digests of --sha256; its own is {own}"):
        load_scorer(bundle, 1, ("0" * 64,))
    with pytest.raises(SpecError, match="64 hexadecimal digits; got 'abc'"):
        ServeSpec(sha256=("abc",))


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux")
def test_what_computes_gives_way_to_requests() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = niceness()
    with ThreadPoolExecutor(1, initializer=yield_to_requests) as pool:
        assert pool.submit(niceness).result() == min(19, before + LESS_URGENT)
    assert niceness() == before


def test_a_model_that_answers_otherwise_in_a_batch_is_refused(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = OnnxEngine.__call__

    def wrong(engine: OnnxEngine, batch: Any) -> Any:
        (x,) = run(engine, batch)
        return (-x if len(x) > 1 else x,)

    monkeypatch.setattr(OnnxEngine, "__call__", wrong)
    with pytest.raises(BundleError, match="alone and beside"):
        load_scorer(bundle, 1)


def test_stopping_answers_what_was_accepted(
    bundle: Path, files: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(bundle) as server:
        held, statuses = Held(monkeypatch), list[int]()
        thread = threading.Thread(
            target=lambda: statuses.append(server.ask("POST", "/predict", files[0]).status)
        )
        thread.start()
        assert held.begun.wait(20)
        server.server.stop()
        until(lambda: refused(server.port))
        held.open.set()
        thread.join(20)
        assert statuses == [200]


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return True
    return False


# ------------------------------------------------------------ versions and names
def test_a_new_version_is_taken_without_a_lost_request(
    data: Path, bundle: Path, files: list[bytes], tmp_path: Path
) -> None:
    other = saved(data, tmp_path / "other", seed=1, head="ridge")
    link = tmp_path / "now"
    link.symlink_to(bundle)
    with running(link) as server:
        versions, stop = list[tuple[int, str]](), threading.Event()

        def ask() -> None:
            while not stop.is_set():
                reply = server.ask("POST", "/predict", files[0])
                versions.append((reply.status, reply.json.get("version", "")))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for n, target in enumerate((other, bundle, other), 1):
            replace_link(link, target)
            server.server.reload()
            until(
                lambda n=n: (
                    metric(server, "headstart_loads_total", model="now", result="loaded") == n + 1
                )
            )
        stop.set()
        for thread in threads:
            thread.join(20)
        assert {status for status, _ in versions} == {200}
        assert len({version for _, version in versions}) == 2
        replace_link(link, tmp_path)
        server.server.reload()
        until(lambda: server.lines.of("warning"))
        assert server.ask("POST", "/predict", files[0]).status == 200


def replace_link(link: Path, target: Path) -> None:
    new = link.with_name("new")
    new.symlink_to(target)
    new.replace(link)


def test_several_models_have_names(
    data: Path, bundle: Path, files: list[bytes], tmp_path: Path
) -> None:
    other = shutil.copytree(bundle, tmp_path / "copy")
    with running(bundle, other, names=("a", "b")) as server:
        assert server.get("/v2").json["models"] == ["a", "b"]
        for name in ("a", "b"):
            assert server.ask("POST", f"/predict/{name}", files[0]).json["model"] == name
        assert server.ask("POST", "/predict", files[0]).json["model"] == "a"
        assert server.get("/v2/models/c").status == 404
        assert server.get("/v2/models/b/ready").json["ready"] is True


def test_names_are_parts_of_addresses_and_differ() -> None:
    folders = (Path("runs/a"), Path("other/a"))
    for given in ((), ("a", "a"), ("a",), ("a", "b/c"), ("a", "")):
        with pytest.raises(SpecError):
            model_names(folders, given)
    assert model_names(folders, ("a", "b")) == ("a", "b")


def test_a_model_that_cannot_be_loaded_ends_the_server_with_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["serve", str(tmp_path / "empty"), "--port", "0"]) == 1
    assert "is not a bundle" in capsys.readouterr().err
    assert main(["serve", str(tmp_path / "missing"), "--port", "0"]) == 1
    assert "Check the path" in capsys.readouterr().err


def test_an_address_in_use_is_a_sentence(
    server: Running, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(bundle), "--port", str(server.port)]) == 1
    assert "can't be listened on" in capsys.readouterr().err


def test_python_serves_with_the_same_settings(
    server: Running, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(hs.HeadstartError, match="can't be listened on.*Name another port"):
        hs.serve(bundle, port=server.port)
    with pytest.raises(SpecError, match="with token_file"):
        hs.serve(bundle, host="0.0.0.0")
    with pytest.raises(SpecError, match="at least one"):
        hs.serve()
    monkeypatch.setattr("headstart.serving.entry.installed", lambda package: False)
    with pytest.raises(MissingPackage, match=r"headstart\[serve\]"):
        hs.serve(bundle)


# ------------------------------------------------------------ what is seen and what is not
def test_answers_are_counted_so_that_drift_is_seen(
    bundle: Path, files: list[bytes], expected: list[dict[str, float]]
) -> None:
    with running(bundle, names=("cells",)) as server:
        server.ask("POST", "/predict", *multipart(*files))
        reply = server.ask("POST", "/predict", *multipart(noise()))
        text = server.get("/metrics").body.decode()
        n = len(files) + 1
        assert f'headstart_confidence_count{{model="cells"}} {n}.0' in text
        assert f'headstart_distance_count{{model="cells"}} {n}.0' in text
        (plain,) = reply.json["predictions"]
        assert "unlike the training" in plain["reason"]
        assert metric(server, "headstart_unknown_total", model="cells", reason="unlike") >= 1
        assert metric(server, "headstart_answers_total", model="cells", answer="unknown") >= 1
        assert metric(server, "headstart_answers_total", model="cells", answer="dark") >= 1
        assert metric(server, "headstart_requests_total", route="predict", status="200") == 2


def noise() -> bytes:
    pixels = np.indices((40, 40)).sum(axis=0)[..., None] % 2 * np.array([255, 0, 128])
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_nothing_that_was_sent_is_repeated_or_kept(
    bundle: Path,
    files: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with running(bundle) as server:
        replies = [*sent_secrets(server, files[0])]

        def broken(scorer: Scorer, examples: Any) -> Any:
            raise RuntimeError(SECRET)

        monkeypatch.setattr(Scorer, "score", broken)
        replies += sent_secrets(server, files[0])
        assert {200, 401, 404, 405, 422, 500} <= {reply.status for reply in replies} | {401}
        replies.append(server.get("/metrics"))
        seen = repr([(reply.headers, reply.body) for reply in replies])
        lines, (out, err) = repr(server.lines.lines), capfd.readouterr()
        assert SECRET not in seen + lines + out + err + caplog.text
        assert "RuntimeError at " in lines


def sent_secrets(server: Running, file: bytes) -> Iterator[Any]:
    """Send secrets wherever a request has place for them."""
    yield server.get(f"/{SECRET}?{SECRET}={SECRET}", Authorization=f"Bearer {SECRET}")
    yield server.get(f"/v2/models/{SECRET}", Cookie=f"headstart_session={SECRET}")
    yield server.ask("POST", f"/predict/{SECRET}", file, {"X-Secret": SECRET})
    yield server.ask("POST", f"/predict?{SECRET}", *multipart(file, name=f"{SECRET}.png"))
    yield server.ask("POST", "/predict", *multipart(SECRET.encode(), name=SECRET))
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    yield server.ask("POST", "/predict", f"--x{SECRET}".encode(), kind)
    yield server.ask(SECRET.upper(), "/predict")
    yield server.get("/", Host=SECRET)
    yield server.get("/", Origin=f"http://{SECRET}")
    yield server.send_json("/predict", {SECRET: SECRET})
    yield server.send_json("/session", {"token": SECRET})
    for tensor in (SECRET, {"name": SECRET, "datatype": SECRET, "shape": [SECRET]}):
        yield server.send_json("/v2/models/cells/infer", {"inputs": [tensor]})
    named = {"name": SECRET, "datatype": "UINT8", "shape": [1], "data": [SECRET]}
    yield server.send_json("/v2/models/cells/infer", {"inputs": [named]})


def test_the_description_names_every_address(server: Running) -> None:
    described = server.get("/openapi.json").json["paths"]
    gate: Any = server.server._server.config.app  # type: ignore[union-attr]
    routes = {route.path: route.methods - {"HEAD"} for route in gate.app.routes}
    page = {"/", "/page/{name}", "/openapi.json"}
    assert set(described) == set(routes) - page
    for path, methods in routes.items():
        if path not in page:
            assert {method.lower() for method in methods} == set(described[path]) - {"parameters"}


def test_the_page_is_plain_files(server: Running) -> None:
    page = server.get("/").body.decode()
    assert not [word for word in ("<style", "style=", "onclick", "<script>") if word in page]
    for name in ("app.js", "words.js", "style.css", "icon.svg"):
        assert f"/page/{name}" in page
        assert server.get(f"/page/{name}").status == 200
    assert server.get("/page/..%2Fserver.py").status == 404
    assert server.get("/page/index.html").status == 404


def test_parts_are_contents_and_nothing_else() -> None:
    body, headers = multipart(b"one", b"\r\n--two", name='a"; filename="../../x')
    assert parts_of(body, headers["Content-Type"]) == [b"one", b"\r\n--two"]


def test_a_token_is_not_shown_by_its_text() -> None:
    assert TOKEN not in f"{Token(TOKEN)} {Rules.of(ServeSpec(), Token(TOKEN))}"
