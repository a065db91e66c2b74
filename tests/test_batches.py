"""Every item of a batch stands alone, and where results go is tried before the work."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headstart as hs
from headstart.base import atomic
from headstart.base.errors import DataError, PlaceError
from headstart.cli.main import main
from headstart.data import finding
from headstart.data.splits import split
from headstart.data.walking import Walk, walk
from headstart.explaining.naming import STEM_BYTES, file_name
from headstart.modalities.images.decoding import decode
from headstart.models.bundle import save
from headstart.models.fitting import fit
from headstart.specs import FeatureExtraction

LONG = ["x" * 250 + "1", "x" * 250 + "2", "é" * 125]  # with .png as long as a name may be
COMMANDS = {
    "predict": [],
    "explain": ["--method", "places", "--out"],
    "attack": ["--steps", "1", "--out"],
}


def draw(file: Path, level: int) -> None:
    pixels = np.random.default_rng(level).normal(level, 30, size=(20, 20, 3)).clip(0, 255)
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    for name, level in {"dark": 60, "bright": 190}.items():
        (root / "data" / name).mkdir(parents=True)
        for i in range(12):
            draw(root / "data" / name / f"{i:02}.png", level + i)
    recipe = FeatureExtraction(fit="squash")
    save(fit(recipe, "tiny:32", split(hs.read(root / "data"))).model, root / "bundle")
    return root / "bundle"


@pytest.mark.parametrize("command", COMMANDS)
def test_what_can_not_be_read_is_named_and_the_others_done(
    command: str,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new").mkdir()
    for name in LONG:
        draw(tmp_path / "new" / f"{name}.png", 60)
    (tmp_path / "new" / "broken.png").write_bytes(b"\x89PNG\r\n")
    real = walk
    gone = (Path("a-vanished"), Path("z-vanished"))  # between the walk and the look
    monkeypatch.setattr(finding, "walk", lambda root: with_files(real(root), gone))
    words = [command, str(bundle), str(tmp_path / "new"), *COMMANDS[command]]
    assert main(words + ["made"] * ("--out" in words)) == 3
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    assert all(name in err for name in ("broken.png", "a-vanished", "z-vanished"))
    if "--out" in words:
        files = sorted(path.name for path in (tmp_path / "made").iterdir())
        assert len(files) == (6 if command == "attack" else 3)


def with_files(walked: Walk, more: tuple[Path, ...]) -> Walk:
    return replace(walked, files=tuple(sorted((*walked.files, *more))))


def test_one_output_that_can_not_be_written_is_named_and_the_others_kept(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = [tmp_path / f"{n}.png" for n in range(3)]
    for file in names:
        draw(file, 60)
    real = atomic.write_bytes

    def full(path: Path, data: bytes) -> None:
        if path.name == "1.png":
            raise OSError(28, "No space left on device", str(path))
        real(path, data)

    monkeypatch.setattr("headstart.explaining.pixels.explanation.write_bytes", full)
    monkeypatch.setattr("headstart.explaining.pixels.fooling.write_bytes", full)
    for command in ("explain", "attack"):
        out = tmp_path / command
        words = [command, str(bundle), *map(str, names), *COMMANDS[command], str(out)]
        assert main(words) == 3
        assert "1.png: No space left on device" in capsys.readouterr().err
        assert {p.stem[0] for p in out.iterdir()} == {"0", "2"}


@pytest.mark.parametrize("text", ["кот" * 100, "x" * 221, "\udce9" * 300])
def test_a_long_name_is_cut_between_letters_and_stays_its_own(text: str) -> None:
    name, other = file_name(text), file_name(text + "!")
    assert len(name.encode("utf-8", "surrogateescape")) <= STEM_BYTES
    assert name != other
    assert text.startswith(name[:-9])
    assert file_name("x" * 220) == "x" * 220


def test_a_pipe_in_the_place_of_a_picture_is_not_waited_for(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DataError, match="pipe"):
        decode(tmp_path / "a.png")


def test_trying_a_place_leaves_nothing(tmp_path: Path) -> None:
    atomic.check_folder(tmp_path / "a" / "b")
    atomic.check_folder(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["file", "file/below", "a" * 300, "new/" + "a" * 300])
def test_a_place_that_can_not_be_written_is_told_by_its_name(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(PlaceError, match=f"{place} must be a folder.* Name another place"):
        atomic.check_folder(tmp_path / place)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "words",
    [
        ["explain", "BUNDLE", "a.png", "--out", "file/x"],
        ["attack", "BUNDLE", "a.png", "--out", "file/x"],
        ["ideal", "BUNDLE", "--class", "dark", "--out", "file/x.png"],
        ["ideal", "BUNDLE", "--class", "dark", "--out", "x.png", "--film", "file/x.gif"],
        ["views", "a.png", "--flip", "both", "--out", "file/x.png"],
        ["train", "data", "--out", "file/x", "--backbone", "tiny:32"],
    ],
    ids=lambda words: f"{words[0]} {words[-2]}",
)
def test_places_are_tried_before_the_work(
    words: list[str],
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError("the work was begun")

    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "a.png", 60)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "data").symlink_to(bundle.parent / "data")
    for name in ("fool", "try_explain", "ascend", "picture_grid"):
        monkeypatch.setattr(f"headstart.pixels.{name}", work)
    monkeypatch.setattr("headstart.runs.run.prepared", work)
    assert main([str(bundle) if word == "BUNDLE" else word for word in words]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error     file")
    assert err.count("\n") == 1


def test_errors_of_writing_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(IsADirectoryError) as raised:
        atomic.write_bytes(tmp_path / "a", b"data")
    assert raised.value.filename == str(tmp_path / "a")
