"""What is said is true, names what it is about, and its remedy helps."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import headstart as hs
from headstart.backbones.weights import fill
from headstart.base import atomic
from headstart.base.errors import DataError, Mismatch, UnknownName, sentence_of
from headstart.cli.main import main
from headstart.data.splits import split
from headstart.explaining.pixels.explaining import rows_to_explain
from headstart.explaining.pixels.grad_model import GradModel, grad_model_of
from headstart.features.engines import compare
from headstart.modalities.images.tiny import network
from headstart.models.fitting import fit
from headstart.runs.folder import MARKER, claimed
from headstart.runs.recipes import get_recipe
from headstart.runs.recorded import part_of
from headstart.runs.run import _why_kept
from headstart.specs import FeatureExtraction


@pytest.mark.parametrize("name", ["unknown", "?"])
def test_a_class_called_as_a_doubt_is_refused(
    name: str, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shapes / "dark").rename(shapes / name)
    store = ["--store", str(tmp_path / "store")]
    assert main(["check", str(shapes), "--backbone", "none", *store]) == 1
    err = capsys.readouterr().err
    assert f"must not be called {name!r}" in err
    assert "give it another name" in err
    with pytest.raises(DataError, match="must not be called"):
        fit(FeatureExtraction(), "tiny:8", split(hs.read(shapes)))


def test_a_class_that_is_only_like_it_is_trained(shapes: Path, tmp_path: Path) -> None:
    (shapes / "dark").rename(shapes / "Unknown species")
    store = ["--store", str(tmp_path / "store")]
    assert main(["check", str(shapes), "--backbone", "none", *store]) == 0


@pytest.mark.parametrize("name", ["eGyptian kat", "egyptian cat", "EGYPTIAN CATS"])
def test_names_are_suggested_as_they_are_written(name: str) -> None:
    with pytest.raises(UnknownName, match="Did you mean 'Egyptian Cat'"):
        raise UnknownName("class", name, ["Egyptian Cat", "Bee"])


def test_a_class_is_suggested_as_the_model_writes_it(shapes: Path) -> None:
    (shapes / "dark").rename(shapes / "Dark Side")
    model = fit(FeatureExtraction(), "tiny:32", split(hs.read(shapes))).model
    grad_model: GradModel = grad_model_of(model)
    with pytest.raises(UnknownName, match="Did you mean 'Dark Side'"):
        grad_model.number("dark sid")


def test_a_run_without_test_rows_is_not_told_to_look_elsewhere(
    shapes: Path, tmp_path: Path
) -> None:
    run, data = tmp_path / "run", hs.read(shapes)
    run.mkdir()
    (run / "recipe.json").write_text(json.dumps({"data": str(shapes)}))
    rows = "".join(f"{id},dark,train\n" for id in data.ids)
    (run / "splits.csv").write_text(f"path,label,part\n{rows}")
    with pytest.raises(DataError, match="trained without any") as raised:
        part_of(run, data, "test")
    assert "--data" not in str(raised.value)
    (run / "predictions.csv").write_text("path,label,predicted,score:a,score:b\n")
    with pytest.raises(DataError, match="trained without any") as raised:
        rows_to_explain(run, data.target, dict(zip(data.ids, data.sources, strict=True)))
    assert "--data" not in str(raised.value)


def test_a_worse_model_that_was_asked_for_is_told_as_such() -> None:
    job = get_recipe("mobilenetv2-two-phase").job
    said = _why_kept(job, "finetune", "head", 20)
    assert "the head was better" in said
    assert "by flag or recipe: --strategy auto keeps the better one" in said
    assert _why_kept(job, "finetune", "finetune", 20) == ""
    said = _why_kept(replace(job, strategy="auto"), "head", "finetune", 20)
    assert said == "; the finetune was better by no more than the error of 20 rows of validation"


def test_a_full_disk_is_told_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space") as raised:
        atomic.write_bytes(tmp_path / "report.html", b"data")
    said = sentence_of(raised.value)
    assert said.startswith(f"{tmp_path / 'report.html'}: No space left on device. Free some space")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(value: float) -> None:
    weights = {name: tensor.clone() for name, tensor in network(8).state_dict().items()}
    weights["body.0.weight"][3, 0, 0, 0] = value
    with pytest.raises(Mismatch, match=r"weights of a\.safetensors .*'body\.0\.weight' holds NaN"):
        fill(network(8), weights, "a.safetensors")


def test_features_that_are_no_numbers_are_not_blamed_on_the_engine() -> None:
    spoiled = np.array([[1.0, np.nan]], np.float32)
    with pytest.raises(Mismatch, match="weights hold NaN") as raised:
        compare(spoiled, spoiled)
    assert "ONNX" not in str(raised.value)
    with pytest.raises(Mismatch, match="ONNX Runtime must give"):
        compare(spoiled, np.array([[1.0, 2.0]], np.float32))


def test_a_finished_run_holds_no_temporary_file(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / MARKER).write_text("")
    (run / ".part-1-a").write_text("of a writer that was killed")
    (run / ".part-1-b").mkdir()
    with claimed(run):
        assert [p.name for p in run.glob(".part-*")] == []
        (run / ".part-2-c").write_text("of one that failed")
    assert list(run.iterdir()) == []


@pytest.mark.parametrize("jump_s", [10 * atomic.DAY_S, -10 * atomic.DAY_S])
def test_a_clock_that_jumps_takes_no_file_from_a_writer(
    jump_s: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".part-1-young").write_bytes(b"half")
    (tmp_path / ".part-1-old").write_bytes(b"half")
    os.utime(tmp_path / ".part-1-old", (0, 0))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + jump_s)
    atomic.sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [".part-1-young"]


@pytest.mark.skipif(os.name != "posix", reason="elsewhere an open file can't be removed")
def test_a_file_that_is_being_written_stays_whatever_its_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the clock that dates files had jumped, too."""
    real, seen = os.fsync, list[list[str]]()

    def swept(fd: int) -> None:
        for part in tmp_path.glob(".part-*"):
            os.utime(part, (0, 0))
        atomic.sweep(tmp_path)
        seen.append([part.name for part in tmp_path.glob(".part-*")])
        real(fd)

    monkeypatch.setattr(os, "fsync", swept)
    atomic.write_bytes(tmp_path / "file", b"data")
    assert len(seen[0]) == 1
    assert (tmp_path / "file").read_bytes() == b"data"
