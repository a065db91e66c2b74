"""What Windows and macOS lack is taken away here, and the code that has to do without it runs."""

import asyncio
import builtins
import os
import signal
import socket
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headstart.base import atomic, runtime, signals
from headstart.cli import progress
from headstart.runs.folder import claimed
from headstart.serving import server


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let imports of modules fail, as on a system without them."""
    real = builtins.__import__

    def take_away(*names: str) -> None:
        def importing(name: str, *given: Any, **more: Any) -> Any:
            if name in names:
                raise ImportError(f"No module named {name!r}")
            return real(name, *given, **more)

        monkeypatch.setattr(builtins, "__import__", importing)

    return take_away


class FakeLocking(types.ModuleType):
    """msvcrt, as far as it locks files: one handle a file, the others are refused."""

    LK_NBLCK = 2

    def __init__(self) -> None:
        super().__init__("msvcrt")
        self.held = dict[int, int]()  # inode: descriptor

    def locking(self, fd: int, mode: int, size: int) -> None:
        assert (mode, size) == (self.LK_NBLCK, 1)
        file = os.fstat(fd).st_ino
        holder = self.held.get(file, fd)
        if holder != fd and self._holds(holder, file):
            raise PermissionError(13, "Permission denied")
        self.held[file] = fd

    def _holds(self, fd: int, file: int) -> bool:
        try:
            return os.fstat(fd).st_ino == file
        except OSError:  # closed since
            return False


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> FakeLocking:
    """The parts of Windows that locks, names and folders meet."""
    fake = FakeLocking()
    monkeypatch.setitem(sys.modules, "msvcrt", fake)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(atomic, "WINDOWS", True)
    monkeypatch.setattr(atomic, "sync_folder", lambda folder: None)
    monkeypatch.delattr(os, "O_NONBLOCK")
    return fake


def test_files_are_written_and_locked_without_fcntl(
    windows: FakeLocking, without: Callable[..., None], tmp_path: Path
) -> None:
    without("fcntl")
    atomic.write_text(tmp_path / "new" / "a.txt", "one")
    atomic.write_text(tmp_path / "new" / "a.txt", "two")
    assert atomic.read_bytes(tmp_path / "new" / "a.txt") == b"two"
    with open(tmp_path / "held", "wb") as file:
        assert atomic.lock(file.fileno())
        assert atomic.is_locked(tmp_path / "held")
    with claimed(tmp_path / "run"):
        (tmp_path / "run" / "timings.json").write_text("{}")
    assert not (tmp_path / "run" / ".unfinished").exists()


def test_a_folder_that_cannot_be_opened_is_not_flushed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened = list[Any]()
    monkeypatch.setattr(os, "open", lambda *given: opened.append(given))
    monkeypatch.setattr(os, "name", "nt")
    atomic.sync_folder(tmp_path)
    monkeypatch.undo()
    assert opened == []


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_rename_is_tried_again_while_a_file_is_open_elsewhere(
    windows: FakeLocking, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    name, refused = {"file": "replace", "folder": "rename"}[kind], [1, 2, 3]
    real = getattr(os, name)

    def moved(part: Path, path: Path) -> None:
        if refused:
            refused.pop()
            raise PermissionError(13, "being used by another process")
        real(part, path)

    monkeypatch.setattr(os, name, moved)
    if kind == "file":
        atomic.write_text(tmp_path / "a", "text")
    else:
        with atomic.new_folder(tmp_path / "a") as part:
            (part / "b").touch()
    assert (tmp_path / "a").exists()
    assert refused == []


def test_a_rename_that_stays_refused_is_an_error_and_nothing_is_left(
    windows: FakeLocking, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refused(part: Path, path: Path) -> None:
        raise PermissionError(13, "being used by another process")

    monkeypatch.setattr(atomic, "RENAME_S", 0.0)
    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(PermissionError, match="used by another process"):
        atomic.write_text(tmp_path / "a", "text")
    assert list(tmp_path.iterdir()) == []


def test_elsewhere_a_refused_rename_is_an_error_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = list[Path]()

    def refused(part: Path, path: Path) -> None:
        calls.append(path)
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(PermissionError):
        atomic.write_text(tmp_path / "a", "text")
    assert len(calls) == 1


def test_the_machine_is_described_without_posix(
    without: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sched_getaffinity", "sysconf"):
        monkeypatch.delattr(os, name)
    monkeypatch.setattr(runtime, "Path", lambda *given: Path("/no such folder"))
    without("resource")
    assert runtime.cores() == os.cpu_count()
    assert runtime.memory_bytes() == 0
    assert runtime.peak_rss_bytes() == 0
    runtime.bfloat16_processor.cache_clear()
    try:
        assert not runtime.bfloat16_processor()
    finally:
        runtime.bfloat16_processor.cache_clear()


def test_memory_is_left_as_it_is_without_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes

    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    runtime.keep_memory()


def test_signals_that_a_system_lacks_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert signals.NAMES == ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    assert set(signals.STOPPING) == {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    monkeypatch.setattr(signals, "STOPPING", (signal.SIGINT, signal.SIGTERM))
    with signals.answered_with(lambda number, frame: None) as heard:
        assert heard


def test_a_server_stops_on_a_signal_where_loops_take_none() -> None:
    async def stopped() -> bool:
        loop, event = asyncio.get_running_loop(), asyncio.Event()

        def takes_none(*given: Any) -> None:
            raise NotImplementedError

        loop.add_signal_handler = takes_none  # type: ignore[method-assign,assignment]
        server._handle(loop, signal.SIGTERM, event.set)
        signal.raise_signal(signal.SIGTERM)
        return await asyncio.wait_for(event.wait(), 5)

    before = signal.getsignal(signal.SIGTERM)
    try:
        assert asyncio.run(stopped())
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_port_is_not_shared_where_that_needs_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    class Socket:
        def setsockopt(self, *given: int) -> None:
            options.append(given)

    options = list[tuple[int, ...]]()
    server._hold_port(Socket())  # type: ignore[arg-type]
    monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", -5, raising=False)
    server._hold_port(Socket())  # type: ignore[arg-type]
    assert [option for _, option, _ in options] == [socket.SO_REUSEADDR, -5]


def test_a_line_is_blanked_where_a_console_prints_codes() -> None:
    assert progress.CLEARED == progress.ERASED
    assert "\x1b" not in progress.BLANKED
    assert len(progress.BLANKED.strip("\r")) < progress.WIDE
