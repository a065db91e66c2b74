import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.base import atomic


def full_disk(*_: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class FullFile:
    """A file on a disk that takes half of what is written."""

    def __init__(self, path: Path, mode: str) -> None:
        self.file = open(path, mode)  # noqa: SIM115

    def __enter__(self) -> "FullFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, data: bytes) -> NoReturn:
        self.file.write(data[: len(data) // 2])
        full_disk()


BREAKS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "write": lambda m: m.setattr(atomic, "open", FullFile, raising=False),
    "fsync": lambda m: m.setattr(os, "fsync", full_disk),
    "replace": lambda m: m.setattr(os, "replace", full_disk),
}


@pytest.mark.parametrize("step", BREAKS)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    atomic.write_bytes(path, b"old")
    BREAKS[step](monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        atomic.write_bytes(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("data", [b"", b"\0" * 5_000_000, memoryview(b"abc")])
def test_a_file_holds_exactly_what_was_written(tmp_path: Path, data: bytes | memoryview) -> None:
    atomic.write_bytes(tmp_path / "file", b"something longer than abc")
    atomic.write_bytes(tmp_path / "file", data)
    assert (tmp_path / "file").read_bytes() == bytes(data)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="names open files through /proc")
def test_everything_is_synced_before_its_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(fd: int) -> None:
        steps.append(_named(fd))
        fsync(fd)

    def noted_replace(a: Path, b: Path) -> None:
        steps.append("rename")
        replace(a, b)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    atomic.write_bytes(tmp_path / "a" / "b" / "file", b"data")
    made, written = steps[:2], steps[2:]
    assert made == [tmp_path.name, "a"]  # or a power cut takes the new folders back
    assert written == ["part", "rename", "b"]


def _named(fd: int) -> str:
    name = Path(os.readlink(f"/proc/self/fd/{fd}")).name
    return "part" if name.startswith(atomic.TEMPORARY) else name


def test_a_file_system_that_cannot_sync_folders_is_borne_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unable(fd: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", unable)
    atomic.sync_folder(tmp_path)
    with pytest.raises(OSError, match="Invalid argument"):
        atomic.write_bytes(tmp_path / "file", b"data")  # but a file must be synced


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.booleans())))
def test_json_reads_back(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.mktemp("json") / "value.json"
    atomic.write_json(path, value)
    assert json.loads(path.read_text("utf-8")) == value


def test_names_that_are_not_utf8_survive_json(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    atomic.write_json(tmp_path / "names.json", [name])
    assert json.loads((tmp_path / "names.json").read_text("utf-8")) == [name]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_json_that_is_not_json_is_refused(tmp_path: Path, number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        atomic.write_json(tmp_path / "value.json", {"x": number})
    assert not list(tmp_path.iterdir())


def test_a_new_folder_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "first"
    with atomic.new_folder(path) as folder:
        (folder / "file").write_text("data")
        assert not path.exists()
    assert (path / "file").read_text() == "data"
    assert list(path.parent.iterdir()) == [path]


def test_a_new_folder_that_fails_never_was(tmp_path: Path) -> None:
    def interrupted() -> None:
        with atomic.new_folder(tmp_path / "run") as folder:
            (folder / "file").write_text("data")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("made", ["before", "meanwhile"])
def test_a_folder_is_never_written_over(tmp_path: Path, made: str) -> None:
    path = tmp_path / "run"

    def write_over() -> None:
        with atomic.new_folder(path) as folder:
            (folder / "file").write_text("new")
            _fill(path)

    if made == "before":
        _fill(path)
    with pytest.raises(FileExistsError, match="already there"):
        write_over()
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    assert (path / "file").read_text() == "old"


def _fill(folder: Path) -> None:
    folder.mkdir()
    (folder / "file").write_text("old")


def test_only_old_leftovers_are_swept(tmp_path: Path) -> None:
    old, young, data = (tmp_path / n for n in (".part-1-a", ".part-2-b", "data"))
    for path in (old, young, data):
        path.write_bytes(b"")
        os.utime(path, (0, 0)) if path != young else None
    atomic.sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == [young, data]


def test_a_file_that_is_written_in_pieces_is_whole_or_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"old")
    with pytest.raises(TypeError), atomic.writing(path) as file:
        file.writelines([b"first", 2])  # type: ignore[list-item]
    assert path.read_bytes() == b"old"
    with atomic.writing(path) as file:
        file.write(b"first, ")
        assert path.read_bytes() == b"old"
        file.write(b"second")
    assert path.read_bytes() == b"first, second"
    assert os.listdir(tmp_path) == ["rows.csv"]
