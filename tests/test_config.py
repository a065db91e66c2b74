"""A run is repeated from its own recipe.json, and a dry run tells what would be done."""

import json
from pathlib import Path

import onnx
import pytest

import headstart as hs
from headstart.cli.main import main
from headstart.data.splits import split

SAME = ("recipe.json", "splits.csv", "predictions.csv", "evaluation.json", "checks.json")


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "store"))


@pytest.mark.long
def test_a_runs_own_recipe_repeats_it_and_flags_change_it(shapes: Path, tmp_path: Path) -> None:
    first, again, other = (tmp_path / name for name in ("first", "again", "other"))
    words = ["--backbone", "tiny:32", "--head", "linear", "--head-epochs", "2", "--epochs", "1"]
    words += ["--thaw", "1", "--flip", "both", "--views", "2", "--seed", "3", "--val", "0.2"]
    assert main(["train", str(shapes), "--out", str(first), *words]) == 0
    config = ["--config", str(first / "recipe.json")]
    assert main(["train", "--out", str(again), *config]) == 0  # where the run had its data
    parts = ("card.json", "golden.json", "weights.safetensors")
    for name in (*SAME, *(f"model/{part}" for part in parts)):
        assert (again / name).read_bytes() == (first / name).read_bytes()
    graphs = [onnx.load(str(run / "model/graph.onnx")).graph for run in (first, again)]
    assert graphs[0].node == graphs[1].node
    names = [sorted(tensor.name for tensor in graph.initializer) for graph in graphs]
    assert names[0] == names[1]  # their order depends on which weights were equal when exported
    facts, repeated = (json.loads((run / "model/model.json").read_text()) for run in (first, again))
    assert repeated["told"]["provenance"].pop("parent") == first.name
    assert repeated == facts
    more = ["--config", str(first), "--seed", "4", "--strategy", "extract"]
    assert main(["train", str(shapes), "--out", str(other), *more]) == 0
    plain = json.loads((other / "recipe.json").read_text())
    assert (plain["backbone"], plain["seed"], plain["recipe"]["head"]["epochs"]) == (
        "tiny:32",
        4,
        2,
    )


def test_some_keys_of_a_recipe_are_enough(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {"backbone": "tiny:32", "strategy": "extract", "split": {"val": 0.25}}
    (tmp_path / "mine.json").write_text(json.dumps(keys))
    config = ["--config", str(tmp_path / "mine.json")]
    assert main(["train", str(shapes), "--out", str(tmp_path / "run"), *config, "--dry-run"]) == 0
    assert "strategy extract" in capsys.readouterr().out
    assert main(["train", "--out", str(tmp_path / "run"), *config]) == 2
    assert "name DATA" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "There is no config"),
        ("not JSON", "mine.json"),
        ("[1]", "a JSON object"),
        ('{"bakbone": "tiny:32"}', "Did you mean 'backbone'"),
        ('{"finetune": {"epoch": 3}}', "Did you mean 'epochs'"),
        ('{"finetune": {"epochs": "many"}}', "epochs"),
        ('{"finetune": {"epochs": 0}}', "epochs"),
        ('{"finetune": 3}', "a JSON object"),
        ('{"recipe": {"kind": "FineTune"}}', "FineTune"),
        ('{"backbone": 3}', "backbone is a text"),
        ('{"strategy": {"asked": "quick"}}', "'quick'"),
        ('{"split": {"val": 2}}', "val"),
    ],
)
def test_a_wrong_config_is_one_sentence_that_names_it(
    text: str | None, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.json"
    if text is not None:
        file.write_text(text)
    assert main(["train", "photos", "--out", str(tmp_path / "run"), "--config", str(file)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert says in err
    assert "mine.json" in err


def test_a_recipe_and_a_config_are_one_too_many(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--recipe", "vgg16-frozen", "--config", "run/recipe.json"]
    assert main(["train", "photos", "--out", "r", *words]) == 2
    assert "leave one out" in capsys.readouterr().err


def test_a_dry_run_tells_the_split_time_and_disk_and_writes_nothing(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(tmp_path)
    words = ["train", str(shapes), "--out", str(tmp_path / "run"), "--backbone", "tiny:32"]
    assert main([*words, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert files(tmp_path) == before
    assert all(word in out for word in ("bright 8, dark 9", "time", "disk", str(tmp_path / "run")))
    assert main([*words, "--strategy", "extract"]) == 0
    capsys.readouterr()
    counts = [len(part) for part in vars(split(hs.read(shapes))).values() if part][:3]
    assert "train {}, val {}, test {}".format(*counts) in out
    assert main([*words, "--dry-run"]) == 2
    assert "holds a finished run" in capsys.readouterr().err


def test_a_dry_run_names_bad_files_and_refuses_what_training_would(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shapes / "dark" / "00.png").write_bytes(b"")
    words = ["train", str(shapes), "--out", str(tmp_path / "run"), "--backbone", "tiny:32"]
    assert main([*words, "--dry-run"]) == 1
    assert "--max-bad" in capsys.readouterr().err
    assert main([*words, "--dry-run", "--max-bad", "0.2"]) == 3
    assert "dark/00.png" in capsys.readouterr().err
