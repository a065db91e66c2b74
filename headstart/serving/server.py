"""Run a server: load the models while it listens, answer, reload on SIGHUP, drain on SIGTERM."""

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import uvicorn

from headstart.base.errors import PlaceError
from headstart.base.listener import Listener
from headstart.base.paths import user_path
from headstart.base.runtime import cores
from headstart.serving.app import Service, application
from headstart.serving.batching import Workers, yield_to_requests
from headstart.serving.connections import TimedConnection
from headstart.serving.gate import Rules, place_of
from headstart.serving.measures import Measures
from headstart.serving.models import Place, ServedModels
from headstart.serving.settings import ServeSpec, model_names
from headstart.serving.tokens import read_token

DRAIN = 30  # seconds for the answers that are due when the server is stopped
MOST_HEAD = 16_384  # bytes of a request's line and headers
BACKLOG = 512


class StoppableServer(uvicorn.Server):
    """uvicorn's server without its own handling of signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with nullcontext():
            yield


class PredictionServer:
    """A server of models. Make it, then `run`; `stop` and `reload` may be called by any thread.

    Raises SpecError for a wrong setting, PlaceError for an address that can't be listened on.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        names: Sequence[str] = (),
        spec: ServeSpec | None = None,
        listener: Listener | None = None,
    ) -> None:
        self.spec, self.listener = spec or ServeSpec(), listener or Listener()
        paths = tuple(folders)
        self.places = tuple(map(Place, model_names(paths, tuple(names)), paths))
        self._rules = Rules.of(
            self.spec, read_token(user_path(self.spec.token_file)) if self.spec.token_file else None
        )
        self.measures = Measures()
        self._socket = bound_socket(self.spec)
        self.port = int(self._socket.getsockname()[1])
        self._server: StoppableServer | None = None
        self._models: ServedModels | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reloads = set[asyncio.Task[None]]()
        self.listening, self.ready = threading.Event(), threading.Event()

    @property
    def url(self) -> str:
        host = f"[{self.spec.host}]" if ":" in self.spec.host else self.spec.host
        return f"http://{host}:{self.port}"

    def run(self) -> None:
        """Serve until `stop`, SIGTERM or Ctrl-C; every accepted request is answered first.

        Raises BundleError if a model can't be loaded at the start.
        """
        asyncio.run(self._serve())

    def stop(self) -> None:
        self._call(self._stop)

    def reload(self) -> None:
        """Replace the models whose folders hold another version by now."""
        self._call(self._start_reload)

    def _call(self, function: Any) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._report)
        with (
            ThreadPoolExecutor(1, "network", yield_to_requests) as network,
            ThreadPoolExecutor(1, "loading", yield_to_requests) as loading,
            ThreadPoolExecutor(cores(), "reading") as reading,
            self._signals(),
        ):
            workers = Workers(network, loading, reading)
            self._models = ServedModels(
                self.places, self.spec, workers, self.measures, self.listener
            )
            self._server = StoppableServer(self._config(self._models))
            serving = self._loop.create_task(self._server.serve(sockets=[self._socket]))
            try:
                await self._loaded(serving)
                await serving
            finally:
                self._stop()
                await serving
                await self._models.close()

    async def _loaded(self, serving: "asyncio.Task[None]") -> None:
        """Load the models while the server says that it is not ready."""
        assert self._models is not None
        self.listener.stage("serving", f"{self.url} (loading)")
        loading = asyncio.ensure_future(self._models.load())
        self.listening.set()
        await asyncio.wait((loading, serving), return_when=asyncio.FIRST_COMPLETED)
        if not loading.done():
            loading.cancel()
            return
        loading.result()
        self.ready.set()
        self.listener.stage("ready", f"{self.url} (Ctrl-C stops it)")

    def _config(self, models: ServedModels) -> uvicorn.Config:
        service = Service(models, self._rules, self.measures, self.listener)
        return uvicorn.Config(
            application(service),
            http=TimedConnection,
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            log_level="critical",  # its messages could quote requests
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_graceful_shutdown=DRAIN,
            h11_max_incomplete_event_size=MOST_HEAD,
        )

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Stop on SIGTERM and Ctrl-C and reload on SIGHUP, in the main thread."""
        assert self._loop is not None
        actions = {"SIGINT": self._stop, "SIGTERM": self._stop, "SIGHUP": self._start_reload}
        actions["SIGBREAK"] = self._stop  # Ctrl-Break, on Windows
        known = {getattr(signal, n): act for n, act in actions.items() if hasattr(signal, n)}
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a job in the background
            del known[signal.SIGINT]
        if threading.current_thread() is not threading.main_thread():
            known = {}
        before = {number: signal.getsignal(number) for number in known}
        for number, act in known.items():
            _handle(self._loop, number, act)
        try:
            yield
        finally:
            for number, handler in before.items():
                with suppress(NotImplementedError):  # as in `_handle`
                    self._loop.remove_signal_handler(number)
                signal.signal(number, handler)

    def _stop(self) -> None:
        if self._server is not None and not self._server.should_exit:
            self.listener.stage("stopping", "accepted requests are answered first")
            self._server.should_exit = True

    def _start_reload(self) -> None:
        if self._models is not None and self._models.ready and self._loop is not None:
            task = self._loop.create_task(self._models.reload())
            self._reloads.add(task)  # the loop itself keeps no reference
            task.add_done_callback(self._reloads.discard)

    def _report(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Report an error outside of any request, without its message."""
        error = context.get("exception")
        if error is not None and not isinstance(error, ConnectionError):
            self.listener.stage("error", f"a connection failed: {place_of(error)}")


def _handle(
    loop: asyncio.AbstractEventLoop, number: signal.Signals, act: Callable[[], None]
) -> None:
    """Call `act` in the loop on a signal, also where loops take no signals, as on Windows."""
    try:
        loop.add_signal_handler(number, act)
    except NotImplementedError:
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(act))


def _hold_port(found: socket.socket) -> None:
    """Let a port be taken again at once; on Windows that option would let two programs share it."""
    if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
        found.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    else:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def bound_socket(spec: ServeSpec) -> socket.socket:
    """Return a socket that is bound to the address of a server; raises PlaceError."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            spec.host, spec.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind)
        try:
            _hold_port(found)
            found.bind(address)
            found.listen(BACKLOG)
        except OSError:
            found.close()
            raise
    except OSError as error:
        raise PlaceError(
            f"{spec.host}:{spec.port} can't be listened on: {error.strerror}. Name another --port "
            f"or --host."
        ) from error
    return found
