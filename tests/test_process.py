"""What a command does when its streams are closed, its reader leaves or a signal comes."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import NoReturn

import pytest

from headstart.base.signals import STOPPING
from headstart.cli import main as cli
from headstart.cli.process import _Lasting

HEADSTART = [sys.executable, "-m", "headstart"]
posix = pytest.mark.skipif(os.name != "posix", reason="uses a POSIX shell")


def shell(command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True)


@posix
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_a_closed_stream_changes_nothing_else(closed: str) -> None:
    done = shell(f"{sys.executable} -m headstart recipes {closed}")
    assert done.returncode == 0
    assert done.stderr == ""
    assert ("mobilenetv2" in done.stdout) == (">&-" not in closed.replace("2>&-", ""))


WORKS = """
import sys
from headstart.cli import main as cli
from headstart.cli.progress import say
def work(argv):
    with open("made", "w") as file:
        for n in range(1000):
            say("message", str(n))
            print("result", n)
        file.write("all of it")
    return 0
cli.COMMANDS["recipes"] = work
sys.exit(cli.main(["recipes"]))
"""


@posix
@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", "<&- 2>&-", ">&-"])
def test_no_message_gets_into_a_file(
    closed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work.py").write_text(WORKS)
    assert shell(f"{sys.executable} work.py {closed}").returncode == 0
    assert (tmp_path / "made").read_text() == "all of it"


@posix
def test_a_reader_that_leaves_does_not_end_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", WORKS], stdout=writer, stderr=writer)
    os.close(writer)
    assert done.returncode == 0
    assert (tmp_path / "made").read_text() == "all of it"


@posix
@pytest.mark.parametrize("unbuffered", [[], ["-u"]])
def test_a_reader_that_has_read_enough_is_no_error(unbuffered: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, *unbuffered, "-m", "headstart", "recipes"]
    done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "-u"])
def test_results_that_can_not_be_written_are_one_sentence_and_exit_1(unbuffered: str) -> None:
    done = shell(f"{sys.executable} {unbuffered} -m headstart recipes --json > /dev/full")
    assert done.returncode == 1
    assert done.stderr.startswith("error     the standard output: No space left on device")
    assert done.stderr.count("\n") == 1
    assert shell(f"{sys.executable} -m headstart trane 2> /dev/full").returncode == 2


@posix
def test_a_stream_that_does_not_block_is_written_in_full() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    got = bytearray()

    def read() -> None:
        while part := os.read(reader, 1000):
            got.extend(part)

    thread = threading.Thread(target=read)
    thread.start()
    assert _Lasting(writer).write(b"x" * 300_000) == 300_000
    os.close(writer)
    thread.join()
    os.close(reader)
    assert len(got) == 300_000


@pytest.mark.parametrize("number", STOPPING)
def test_any_signal_that_ends_a_process_is_exit_130(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(argv: list[str]) -> int:
        signal.raise_signal(number)
        return 0

    before = [signal.getsignal(n) for n in STOPPING]
    monkeypatch.setitem(cli.COMMANDS, "recipes", interrupted)
    assert cli.main(["recipes"]) == 130
    assert capsys.readouterr().err == "stopped   nothing is kept but what is printed already\n"
    assert [signal.getsignal(n) for n in STOPPING] == before


@posix
def test_a_signal_that_is_to_be_ignored_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    def hung_up(argv: list[str]) -> int:
        signal.raise_signal(signal.SIGHUP)
        return 0

    monkeypatch.setitem(cli.COMMANDS, "recipes", hung_up)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` has it
    try:
        assert cli.main(["recipes"]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_signal_ends_the_process_there_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(argv: list[str]) -> NoReturn:
        raise KeyboardInterrupt

    seen: list[object] = []
    monkeypatch.setitem(cli.COMMANDS, "recipes", interrupted)
    monkeypatch.setattr(cli, "say", lambda *_: seen.append(signal.getsignal(signal.SIGINT)))
    assert cli.main(["recipes"]) == 130
    assert seen == [signal.SIG_DFL]


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_while_the_program_loads_is_no_traceback(number: signal.Signals) -> None:
    code = (
        "import os, sys, headstart.__main__ as m\n"
        "class Press:\n"
        "    def find_spec(self, name, *rest):\n"
        f"        if name == 'headstart.cli.main': os.kill(os.getpid(), {int(number)})\n"
        "sys.meta_path.insert(0, Press())\n"
        "sys.argv = ['headstart', '--help']\n"
        "m.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize(
    ("words", "pressed", "says"),
    [
        (["predict", "run", "a.png"], "models.bundle.load_bundle", "nothing is kept"),
        (["classify", "a.png"], "features.loading.load_for_features", "nothing is kept"),
        (["train", "shapes", "--out", "run"], "runs.recorded.read_as", "nothing is kept"),
        (["train", "shapes", "--out", "run"], "runs.run.train", "the same command goes on"),
        (
            ["train", "shapes", "--out", "run", "--seeds", "2"],
            "runs.seeds.train_seeds",
            "command goes on",
        ),
        (
            ["check", "shapes", "--backbone", "none"],
            "modalities.reading.survey",
            "the same command goes on",
        ),
        (["demo", "--out", "run"], "runs.run.train", "headstart demo --out run goes on"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_what_is_kept_when_ctrl_c_is_pressed_is_told_truly(
    words: list[str],
    pressed: str,
    says: str,
    shapes: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def press(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.chdir(shapes.parent)
    monkeypatch.setattr(f"headstart.{pressed}", press)
    assert cli.main(words) == 130
    assert says in capsys.readouterr().err.splitlines()[-1]


def test_memory_that_can_not_be_had_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    def greedy(argv: list[str]) -> int:
        torch.empty(2**60)
        return 0

    monkeypatch.setitem(cli.COMMANDS, "recipes", greedy)
    assert cli.main(["recipes"]) == 1
    err = capsys.readouterr().err
    assert "memory" in err
    assert err.count("\n") == 1
