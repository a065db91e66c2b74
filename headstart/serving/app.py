"""The application: its routes, inside the gate."""

from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from headstart.base.listener import Listener
from headstart.serving.bodies import Memory
from headstart.serving.gate import FAILED, Gate, Rules, refusal_reply
from headstart.serving.inference import InferenceProtocol
from headstart.serving.measures import Measures
from headstart.serving.models import ServedModels
from headstart.serving.pages import Pages
from headstart.serving.predicting import Predicting
from headstart.serving.refusals import Disconnected, Refusal

SENTENCES = {404: "There is nothing at this address: see /openapi.json."}


@dataclass(frozen=True)
class Service:
    """What the routes share."""

    models: ServedModels
    rules: Rules
    measures: Measures
    listener: Listener


def application(service: Service) -> ASGIApp:
    """Return the ASGI application of a server."""
    models, memory = service.models, Memory()
    predicting = Predicting(models, memory)
    protocol = InferenceProtocol(models, memory)
    pages = Pages(models, service.measures, memory, service.rules.token)
    one = "/v2/models/{model}"
    routes = [
        Route("/", pages.page),
        Route("/page/{name}", pages.file),
        Route("/session", pages.session, methods=["POST"]),
        Route("/metrics", pages.metrics),
        Route("/openapi.json", pages.description),
        Route("/predict", predicting.predict, methods=["POST"]),
        Route("/predict/{model}", predicting.predict, methods=["POST"]),
        Route("/v2", protocol.server),
        Route("/v2/health/live", protocol.live),
        Route("/v2/health/ready", protocol.ready),
        Route(one, protocol.model),
        Route(f"{one}/ready", protocol.model_ready),
        Route(f"{one}/infer", protocol.infer, methods=["POST"]),
    ]
    handlers: dict[Any, Any] = {
        HTTPException: _no_route,
        Refusal: _refused,
        Disconnected: _gone,
        Exception: _failed,
    }
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False  # a redirect would repeat the request's own address
    return Gate(app, service.rules, service.measures, service.listener)


async def _no_route(request: Request, error: Exception) -> Response:
    """Answer a request for an address or a method that does not exist."""
    assert isinstance(error, HTTPException)
    status, headers = error.status_code, dict(error.headers or {})
    sentence = SENTENCES.get(status, "This address does not take this method.")
    reply = refusal_reply(Refusal(status, sentence))
    reply.headers.update(headers)
    return reply


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return refusal_reply(error)


async def _gone(request: Request, error: Exception) -> Response:
    """Return a reply that nobody reads: the client went away."""
    return Response(status_code=499)


async def _failed(request: Request, error: Exception) -> Response:
    """Answer a request at which the server itself failed; the gate reports the error."""
    return refusal_reply(FAILED)
