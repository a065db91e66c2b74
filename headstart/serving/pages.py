"""The page of the server and its files, its description, and the metrics."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from headstart.serving.bodies import Memory, read_body, strict_json
from headstart.serving.measures import Measures
from headstart.serving.models import ServedModels
from headstart.serving.openapi import described
from headstart.serving.predicting import NO_STORE
from headstart.serving.refusals import Refusal
from headstart.serving.tokens import COOKIE, Token

KINDS = {
    "app.js": "text/javascript; charset=utf-8",
    "words.js": "text/javascript; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
DAY = 86_400  # seconds


@cache
def page_file(name: str) -> bytes:
    return (files("headstart.serving") / "page" / name).read_bytes()


@dataclass(frozen=True)
class Pages:
    """The routes beside those that predict."""

    models: ServedModels
    measures: Measures
    memory: Memory
    token: Token | None

    async def page(self, request: Request) -> Response:
        return Response(page_file("index.html"), headers=_FRESH, media_type="text/html")

    async def file(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in KINDS:
            raise Refusal(404, "There is no such file.")
        return Response(page_file(name), headers={**_FRESH, "content-type": KINDS[name]})

    async def metrics(self, request: Request) -> Response:
        headers = {**NO_STORE, "content-type": self.measures.content_type}
        return Response(self.measures.text(), headers=headers)

    async def description(self, request: Request) -> Response:
        names = [place.name for place in self.models.places]
        content = described(names, with_token=self.token is not None)
        return JSONResponse(content, headers=NO_STORE)

    async def session(self, request: Request) -> Response:
        """Exchange the token for a cookie, which scripts can't read and other sites can't send."""
        with self.memory.counted() as hold:
            given = strict_json(await read_body(request, hold))
        if not isinstance(given, dict) or not isinstance(given.get("token"), str):
            raise Refusal(422, 'The JSON must be {"token": "…"}.')
        if self.token is None or not self.token.matches(given["token"]):
            raise Refusal(401, "This is not the token of this server.")
        response = Response(status_code=204, headers=NO_STORE)
        response.set_cookie(
            COOKIE, self.token.cookie, max_age=DAY, httponly=True, samesite="strict", path="/"
        )
        return response


_FRESH = {"cache-control": "no-cache"}
