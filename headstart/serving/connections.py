"""Connections with a time limit: by itself uvicorn waits forever for a request to end."""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

SECONDS = 15.0  # for a request to arrive; then as many until its answer is taken
MOST = 512  # open connections
SLOW = "The request must arrive within 15 seconds."
MANY = "Too many connections: try again later."


class TimedConnection(H11Protocol):
    """One connection, cut if a request does not arrive, or its answer is not taken, in time."""

    seconds = SECONDS
    most = MOST
    _timer: asyncio.TimerHandle | None = None
    _arrived = False  # whether the request of the timer has arrived

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most:
            transport.write(_plain(503, "Service Unavailable", MANY, "Retry-After: 1\r\n"))
            transport.close()
            return
        self._start()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._timer is None:
            self._start()
        super().data_received(data)
        if not self._arrived and self._answering and self.conn.their_state is not h11.SEND_BODY:
            self._start(arrived=True)

    def on_response_complete(self) -> None:
        if self.conn.their_state is not h11.SEND_BODY:  # else the rest must still arrive in time
            self._stop()
        super().on_response_complete()
        if self._timer is None and self._answering:  # the next request was sent with this one
            self._start()

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _start(self, *, arrived: bool = False) -> None:
        self._stop()
        self._arrived = arrived
        self._timer = self.loop.call_later(self.seconds, self._cut)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None

    def _cut(self) -> None:
        self._timer = None
        started = self._answering and self.cycle.response_started
        if self.transport.is_closing() or self._arrived or started:
            self.transport.abort()
            return
        if not (self.cycle is not None and self.cycle.response_complete):
            self.transport.write(_plain(408, "Request Timeout", SLOW))
        self.transport.close()
        self.loop.call_later(1.0, self.transport.abort)  # if the client does not take it


def _plain(status: int, phrase: str, sentence: str, more: str = "") -> bytes:
    body = f'{{"error":"{sentence}"}}'
    return (
        f"HTTP/1.1 {status} {phrase}\r\nContent-Type: application/json\r\n{more}"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
    ).encode("ascii")
