"""`POST /predict`: examples as files, as a raw body, or as texts in JSON; answers as JSON."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse

from headstart.backbones.inputs import PATH
from headstart.base.errors import DataError
from headstart.serving.batching import Batcher, Outcome
from headstart.serving.bodies import Memory, check_count, parts_of, read_body, strict_json
from headstart.serving.models import ServedModels
from headstart.serving.refusals import Disconnected, Refusal

T = TypeVar("T")
SECONDS = 15.0  # that a request waits for its answer
NO_STORE = {"cache-control": "no-store"}
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Predicting:
    """The routes that predict, beside the Open Inference Protocol."""

    models: ServedModels
    memory: Memory

    async def predict(self, request: Request) -> JSONResponse:
        batcher = self.models.get(request.path_params.get("model", ""))
        batcher.refuse_if_full()  # before the body is read
        with self.memory.counted() as hold:
            body = await read_body(request, hold)
            kind = request.headers.get("content-type", "")
            sources = examples_in(body, kind, batcher)
            outcomes = await answered(request, batcher.outcomes(sources))
        several = kind.lower().startswith(("multipart/", "application/json"))
        return reply(batcher, outcomes, several=several)


def examples_in(body: bytes, content_type: str, batcher: Batcher) -> list[bytes]:
    """Return the bytes of the examples in a body; raises Refusal."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == FORM:
        raise Refusal(415, "Send a file as it is, multipart/form-data, or JSON.")
    if kind.startswith("multipart/"):
        sources = parts_of(body, content_type)
    elif kind == "application/json":
        sources = texts_in(strict_json(body), batcher)
    else:
        sources = [body] if body else []
    check_count(len(sources))
    return sources


def texts_in(value: Any, batcher: Batcher) -> list[bytes]:
    """Return the texts of {"texts": […]} as bytes; raises Refusal for other JSON."""
    if batcher.scorer.input.column == PATH:
        raise Refusal(422, "This model takes files: send them as they are, not in JSON.")
    texts = value.get("texts") if isinstance(value, dict) and len(value) == 1 else None
    if not (isinstance(texts, list) and all(isinstance(text, str) for text in texts)):
        raise Refusal(422, 'The JSON must be {"texts": ["…", "…"]}.')
    return [text.encode() for text in texts]


async def answered(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await the work of a request; stop it if the client goes away or after SECONDS.

    Raises Disconnected, or Refusal (503).
    """
    own = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((own, gone), timeout=SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if own.done():
            return own.result()
        if gone.done():
            raise Disconnected("The client went away.")
        raise Refusal(503, "The answer took too long: try again later.", Retry_After="5")
    finally:
        for task in (own, gone):
            task.cancel()


async def _gone(request: Request) -> None:
    """Wait until the client goes away; the body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        continue


def reply(batcher: Batcher, outcomes: Sequence[Outcome], *, several: bool) -> JSONResponse:
    """Return the reply, with an error in place of each example that can't be read.

    several: whether the request was a list of examples. One that was sent alone and can't be read
    gets status 422.
    """
    if not several and isinstance(outcomes[0], DataError):
        raise Refusal(422, str(outcomes[0]))
    predictions = [
        {"error": str(one)} if isinstance(one, DataError) else one.plain for one in outcomes
    ]
    head = {"model": batcher.name, "version": batcher.scorer.version}
    return JSONResponse({**head, "predictions": predictions}, headers=NO_STORE)
