"""The gate: what must hold for every request, before anything else looks at it.

Any page that a browser has open can send requests to this machine. So a request must name this
server as its host (or else a foreign name could be pointed at it: DNS rebinding), and a request
that a page sends must come from a page of this server. No headers allow other origins (CORS).
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from h11 import LocalProtocolError
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headstart.base.listener import Listener
from headstart.serving.measures import Measures
from headstart.serving.refusals import Refusal
from headstart.serving.settings import ServeSpec, is_address
from headstart.serving.tokens import Token

# What a page of this server may do: nothing from elsewhere, no scripts or styles in the page.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "media-src 'self' blob:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
SAFE = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
# Paths that say nothing about models or requests: without a token too.
OPEN = ("/", "/session", "/v2/health/live", "/v2/health/ready")
PAGE = "/page/"  # the files of the page
LOOPBACK = ("localhost", "127.0.0.1", "::1")
WILD = ("0.0.0.0", "::")
FAILED = Refusal(500, "The server failed at this request.")


@dataclass(frozen=True)
class Rules:
    """Who may send requests. hosts: names of this server. addresses: whether any IP address counts
    as a name too, as for a server that listens on all addresses."""

    hosts: frozenset[str]
    addresses: bool
    token: Token | None

    @classmethod
    def of(cls, spec: ServeSpec, token: Token | None) -> "Rules":
        own = {name.lower() for name in (spec.host, *spec.allow_host, *LOOPBACK)}
        return cls(frozenset(own - set(WILD)), spec.host in WILD, token)

    def check(self, scope: Scope) -> None:
        """Raise Refusal unless a request may be answered."""
        headers = single_headers(scope)
        host = headers.get("host", "")
        if not self.is_ours(host):
            raise Refusal(403, "This server is not the host that was asked for: see --allow-host.")
        if "origin" in headers and headers["origin"].partition("://")[2].lower() != host.lower():
            raise Refusal(403, "Pages of other sites may not use this server.")
        navigates = headers.get("sec-fetch-mode") == "navigate" and scope["method"] == "GET"
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not navigates:
            raise Refusal(403, "Pages of other sites may not use this server.")
        free = scope["path"] in OPEN or scope["path"].startswith(PAGE)
        if self.token is not None and not free and not self.token.carried_by(headers):
            raise Refusal(
                401, "This needs the token: Authorization: Bearer …", WWW_Authenticate="Bearer"
            )

    def is_ours(self, host: str) -> bool:
        """Return whether a Host header names this server; the port may be a proxy's."""
        name, _, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
        if not name:
            name, port = port, ""
        if port and not (port.isascii() and port.isdigit()):
            return False
        name = name.removeprefix("[").removesuffix("]").lower()
        return name in self.hosts or (self.addresses and is_address(name))


def single_headers(scope: Scope) -> Mapping[str, str]:
    """Return the headers by lower-case name; raises Refusal if one that decides occurs twice."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        text = name.decode("latin-1")
        if text in found and text in ("host", "origin", "authorization", "content-length"):
            raise Refusal(400, "A header that must be single occurs twice.")
        joined = f"{found[text]}; " if text in found and text == "cookie" else ""
        found[text] = joined + value.decode("latin-1")
    return found


@dataclass(frozen=True)
class Gate:
    """The outermost application: checks, adds headers, and answers what went wrong.

    An error of ours is reported by its type and place only: its message could quote a request.
    """

    app: ASGIApp
    rules: Rules
    measures: Measures
    listener: Listener

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        began, sent = time.perf_counter(), list[int]()

        async def safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent.append(message["status"])
                message = {**message, "headers": [*message.get("headers", []), *_SAFE_PAIRS]}
            with suppress(LocalProtocolError):  # malformed further on, and answered already
                await send(message)

        try:
            self.rules.check(scope)
            await self.app(scope, receive, safely)
        except Refusal as refusal:
            await refusal_reply(refusal)(scope, receive, safely)
        except Exception as error:
            self.listener.stage("error", f"a request failed: {place_of(error)}")
            if not sent:
                await refusal_reply(FAILED)(scope, receive, safely)
        finally:
            route = getattr(scope.get("endpoint"), "__name__", "none")
            self.measures.request(route, sent[0] if sent else 499, time.perf_counter() - began)


_SAFE_PAIRS = [(name.encode(), value.encode()) for name, value in SAFE.items()]


def refusal_reply(refusal: Refusal) -> JSONResponse:
    headers = {"cache-control": "no-store", **refusal.headers}
    return JSONResponse({"error": str(refusal)}, refusal.status, headers)


def place_of(error: BaseException) -> str:
    """Return the type of an error and where it arose, without its message."""
    place, trace = "", error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        place = f" at {code.co_filename.rpartition('headstart/')[2]}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__}{place}"
