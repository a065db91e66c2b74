"""The bodies of requests: read whole into memory within a limit, never written to disk."""

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from headstart.serving.refusals import Disconnected, Refusal

MB = 1_000_000
MOST_BYTES = 32 * MB  # of a body
MOST_JSON = 8 * MB  # reading more would hold up all other requests for too long
MOST_HELD = 512 * MB  # of all bodies together
MOST_EXAMPLES = 64  # of a request
MOST_HEADER = 8192  # bytes of the headers of a part
logging.getLogger("python_multipart").setLevel(logging.CRITICAL + 1)  # it quotes bodies


class Memory:
    """Counts the bytes of all bodies in memory."""

    def __init__(self, most: int = MOST_HELD) -> None:
        self.most, self.held = most, 0

    @contextmanager
    def counted(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that counts bytes; they no longer count after the block."""
        own = 0

        def hold(count: int) -> None:
            nonlocal own
            if self.held + count > self.most:
                raise Refusal(503, "Too many bodies at once: try again later.", Retry_After="1")
            own += count
            self.held += count

        try:
            yield hold
        finally:
            self.held -= own


async def read_body(request: Request, hold: Callable[[int], None]) -> bytes:
    """Return the body; raises Refusal (413) above MOST_BYTES, declared or not.

    hold: of `Memory.counted`. The connection's timer cuts bodies that take too long.
    """
    check_declared(request.headers)
    found = bytearray()
    try:
        async for chunk in request.stream():
            if len(found) + len(chunk) > MOST_BYTES:
                raise _too_large(MOST_BYTES)
            hold(len(chunk))
            found += chunk
    except ClientDisconnect as error:
        raise Disconnected("The client went away.") from error
    return bytes(found)


def check_declared(headers: Mapping[str, str]) -> None:
    """Raise Refusal if the headers announce a body that is too large, or compressed."""
    declared = headers.get("content-length", "0")
    if not (declared.isascii() and declared.isdigit()):
        raise Refusal(400, "Content-Length is a number of bytes.")
    if int(declared) > MOST_BYTES:
        raise _too_large(MOST_BYTES)
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "Compressed bodies are not read: send the body as it is.")


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"A body of this kind has up to {most // MB} MB.")


def parts_of(body: bytes, content_type: str) -> list[bytes]:
    """Return the contents of the parts of a multipart body; their names are not used.

    Raises Refusal for a body that is damaged, or that has more than MOST_EXAMPLES parts.
    """
    kind, options = parse_options_header(content_type.encode("latin-1"))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 0 < len(boundary) <= 200:
        raise Refusal(422, "A multipart body is multipart/form-data, with a boundary.")
    parts = _Parts()
    try:
        parser = MultipartParser(boundary, parts.callbacks(), max_size=MOST_BYTES)
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        if isinstance(error, Refusal):
            raise
        raise Refusal(422, "The multipart body is damaged.") from None
    if not parts.ended:
        raise Refusal(422, "The multipart body is damaged: it does not end.")
    return [bytes(part) for part in parts.found]


class _Parts:
    """Gathers the contents of parts in memory."""

    def __init__(self) -> None:
        self.found: list[bytearray] = []
        self.ended = False
        self._header = 0

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self.begin,
            "on_part_data": self.add,
            "on_header_field": self.header,
            "on_header_value": self.header,
            "on_end": self.end,
        }

    def begin(self) -> None:
        self.found.append(bytearray())
        self._header = 0
        check_count(len(self.found))

    def add(self, data: bytes, start: int, end: int) -> None:
        self.found[-1] += data[start:end]

    def header(self, data: bytes, start: int, end: int) -> None:
        self._header += end - start
        if self._header > MOST_HEADER:
            raise Refusal(422, "The headers of a part are too long.")

    def end(self) -> None:
        self.ended = True


def check_count(count: int) -> None:
    """Raise Refusal for no examples, or for more than MOST_EXAMPLES."""
    if not 1 <= count <= MOST_EXAMPLES:
        raise Refusal(422 if count == 0 else 413, f"A request has 1 to {MOST_EXAMPLES} examples.")


def strict_json(body: bytes) -> Any:
    """Return the value of a JSON text in UTF-8; raises Refusal (422) for anything else.

    Refused are NaN and infinity, numbers beyond float64, lone surrogates, and keys that occur
    twice, which readers understand differently.
    """
    if len(body) > MOST_JSON:
        raise _too_large(MOST_JSON)
    try:
        text = body.decode()
        value = json.loads(
            text, parse_constant=_no_number, parse_float=_finite, object_pairs_hook=_single_keys
        )
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # fails for a lone surrogate
    except (ValueError, RecursionError):
        raise Refusal(
            422, "The body must be JSON: UTF-8, finite numbers, no key twice, not too deep."
        ) from None
    return value


def _no_number(text: str) -> Any:
    raise ValueError


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


def _single_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError
    return found
