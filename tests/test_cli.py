"""The command line is a contract: words, exit codes, what goes to stdout."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import count_left_out
from PIL import Image

from headstart.cli import progress as talk
from headstart.cli.main import COMMANDS, SUMMARIES, main


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "store"))


@pytest.fixture
def run(shapes: Path, tmp_path: Path) -> Path:
    assert (
        main(["train", str(shapes), "--out", str(tmp_path / "run"), "--backbone", "tiny:32"]) == 0
    )
    return tmp_path / "run"


def test_train_evaluate_predict(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", str(shapes), "--out", str(run), "--backbone", "tiny:32"]) == 0
    trained = capsys.readouterr()
    assert "accuracy" in trained.out
    assert "baseline: always" in trained.out
    assert "backbone forwards" in trained.out
    assert main(["evaluate", str(run), str(shapes), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"]["value"] == 1.0
    picture = str(shapes / "bright" / "00.png")
    assert main(["predict", str(run), picture]) == 0
    path, label, score = capsys.readouterr().out.strip().split("\t")
    assert (path, label) == (picture, "bright")
    assert 0.5 < float(score) <= 1


def test_predict_as_json_takes_folders_and_stdin(
    shapes: Path, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = io.BytesIO(os.fsencode(shapes / "dark" / "01.png") + b"\nno such \xe9.png\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(raw))
    capsys.readouterr()
    assert main(["predict", str(run), str(shapes / "bright"), "-", "--json"]) == 3
    out, err = capsys.readouterr()
    assert r"no such \xe9.png: there is no such file" in err
    said = json.loads(out)
    assert [row["predicted"] for row in said] == ["bright"] * (len(said) - 1) + ["dark"]
    assert set(said[0]["scores"]) == {"bright", "dark"}


def test_a_file_that_can_not_be_read_is_named_and_the_rest_predicted(
    shapes: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.jpg").write_text("not a picture")
    files = [str(tmp_path / "bad.jpg"), str(tmp_path / "gone.png"), str(shapes / "dark" / "00.png")]
    capsys.readouterr()
    assert main(["predict", str(run), *files]) == 3
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    assert "bad.jpg: not a picture" in err
    assert "gone.png: there is no such file" in err


def test_every_file_of_a_folder_is_predicted_or_named(
    shapes: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    for i in range(25):
        (folder / f"{i:02}.jxl").write_bytes(b"\xff\x0a" + bytes(20))
    (folder / "a.png").write_bytes((shapes / "dark" / "00.png").read_bytes())
    capsys.readouterr()
    assert main(["predict", str(run), str(folder)]) == 3
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    assert [f"{i:02}.jxl: a JPEG XL picture" in err for i in range(25)] == [True] * 25


def test_only_bad_files_is_a_failure(run: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("not a picture")
    assert main(["predict", str(run), str(tmp_path / "bad.jpg")]) == 1


def test_evaluate_judges_by_the_test_rows_of_the_runs_own_data(
    shapes: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tested = (run / "splits.csv").read_text().count(",test")
    capsys.readouterr()
    main(["evaluate", str(run), str(shapes), "--json"])
    assert json.loads(capsys.readouterr().out)["n"] == tested
    main(["evaluate", str(run), str(shapes), "--json", "--part", "all"])
    assert json.loads(capsys.readouterr().out)["n"] == sum(1 for _ in shapes.rglob("*.png"))


def test_rows_that_were_trained_on_never_judge_unasked(
    shapes: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tested = (run / "splits.csv").read_text().count(",test")
    Image.new("RGB", (20, 20), (9, 9, 9)).save(shapes / "dark" / "new.png")
    for model in (run, run / "model"):
        capsys.readouterr()
        assert main(["evaluate", str(model), str(shapes), "--json"]) == 0
        out, err = capsys.readouterr()
        assert json.loads(out)["n"] == tested + 1
        assert f"{tested + 1} of 25 rows (test, new ones among them)" in err


def test_the_same_pictures_in_another_folder_are_judged_as_at_home(
    shapes: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "copy").mkdir()
    for path in shapes.rglob("*.png"):
        target = tmp_path / "copy" / path.relative_to(shapes)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    tested = (run / "splits.csv").read_text().count(",test")
    capsys.readouterr()
    assert main(["evaluate", str(run), str(tmp_path / "copy"), "--json"]) == 3
    out, err = capsys.readouterr()
    assert json.loads(out)["n"] == tested
    assert count_left_out(err, "the model was ") == 24 - tested


def test_classes_the_model_does_not_know_are_named_and_not_judged(
    shapes: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "other"
    for name, old in {"dark": "dark", "odd": "bright"}.items():
        (data / name).mkdir(parents=True)
        picture = Image.open(shapes / old / "00.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        picture.save(data / name / "a.png")
    capsys.readouterr()
    assert main(["evaluate", str(run), str(data), "--json"]) == 3
    out, err = capsys.readouterr()
    assert json.loads(out)["n"] == 1
    assert "odd: not a class of this model" in err


def test_nothing_to_judge_by_is_a_failure(
    shapes: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("dark", "bright"):
        (tmp_path / "bad" / name).mkdir(parents=True)
        (tmp_path / "bad" / name / "a.png").write_bytes(b"")
    assert main(["evaluate", str(run), str(tmp_path / "bad")]) == 1
    assert "nothing to judge by" in capsys.readouterr().err


def test_a_full_disk_is_one_sentence_and_exit_1(
    shapes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("headstart.base.store.write_bytes", full)
    out = str(tmp_path / "run")
    assert main(["train", str(shapes), "--out", out, "--backbone", "tiny:32"]) == 1
    assert "No space left on device" in capsys.readouterr().err.splitlines()[-1]


def test_check_tells_what_is_wrong(shapes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shapes / "dark" / "00.png").write_bytes(b"")
    assert main(["check", str(shapes), "--max-bad", "0.5"]) == 3
    out, err = capsys.readouterr()
    assert "unreadable" in out
    assert "bright 12, dark 11" in out
    assert "dark/00.png: the file is empty" in err


def test_check_refuses_a_class_that_training_would_refuse(
    shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in sorted((shapes / "dark").iterdir())[3:]:
        file.unlink()
    assert main(["check", str(shapes), "--backbone", "none"]) == 1
    assert "takes 5 different pictures" in capsys.readouterr().err


def test_check_as_json_is_one_value(shapes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(shapes), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_bad_files_are_left_out_of_training(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shapes / "dark" / "00.png").write_bytes(b"")
    train = ["train", str(shapes), "--out", str(tmp_path / "r"), "--backbone", "tiny:32"]
    assert main(train) == 1
    assert "--max-bad" in capsys.readouterr().err
    assert main([*train, "--max-bad", "0.2"]) == 3
    assert "dark/00.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["trane"], "Did you mean 'train'"),
        (["train", "x", "--out", "y", "--bakbone", "z"], "Did you mean '--backbone'"),
        (["train", "x", "--out", "y", "--head", "logistics"], "no head named 'logistics'"),
        (["train", "x", "--out", "y", "--val", "0.9"], "val and test are shares"),
        (["train", "x", "--out", "y", "--seed", "many"], "invalid int value"),
        (["train", "x", "--out", "y", "--lr", "1/0"], "--lr: invalid fraction value: '1/0'"),
        (["train", "x", "--out", "y", "--adversarial", "2/255"], "Name --strategy finetune"),
        (["train", "x", "--out", "y", "--adversarial", "2"], "from 1/255 (a file holds whole"),
        (["train"], "required: --out"),
        (["train", "x"], "required: --out"),
        (["predict", "x"], "required: FILE"),
        (["check", "x", "y"], "'y' is one argument too many"),
    ],
)
def test_a_wrong_command_is_one_line_and_exit_2(
    argv: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert says in err
    assert err.startswith("error")
    assert err.count("\n") == 1
    assert out == ""


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--hidden", "32"], "--hidden would change nothing, with --strategy auto and --head log"),
        (["--head", "nearest", "--l2", "1"], "--l2 would change nothing"),
        (["--strategy", "extract", "--epochs", "3", "--thaw", "2"], "--epochs and --thaw would"),
        (["--strategy", "extract", "--compile"], "--compile would change nothing"),
        (["--adversarial-steps", "3"], "--adversarial-steps would change nothing"),
        (["--views", "8"], "--views would change nothing: it counts augmented views"),
        (["--strategy", "extract", "--adversarial", "2/255"], "--adversarial would change"),
        (["--strategy", "scratch", "--head-epochs", "3"], "--head-epochs would change nothing"),
        (["--strategy", "finetune", "--thaw", "none"], "thaw=none leaves none to learn"),
        (["--choose", "folds", "--head", "linear"], "--choose would change nothing"),
        (["--choose", "folds", "--head", "mean"], "--choose would change nothing"),
        (["--choose", "folds", "--strategy", "scratch"], "--choose would change nothing"),
    ],
)
def test_a_flag_that_nothing_reads_is_refused(
    shapes: Path, tmp_path: Path, flags: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(shapes), "--out", str(tmp_path / "run"), *flags]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("backbone", "says"),
    [("no_such_net", "named source:id"), ("tinny:32", "Did you mean 'tiny'")],
)
def test_an_unknown_backbone_is_answered_with_the_nearest(
    shapes: Path, tmp_path: Path, backbone: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    assert main(["train", str(shapes), "--out", out, "--backbone", backbone]) == 2
    assert says in capsys.readouterr().err


def test_missing_data_is_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(tmp_path / "gone"), "--out", str(tmp_path / "run")]) == 1
    assert "gone" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_something_that_is_no_bundle_is_exit_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(tmp_path), "x.jpg"]) == 1
    assert "is not a bundle" in capsys.readouterr().err


def test_classify_uses_the_pretrained_network_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sklearn.datasets import load_sample_images

    Image.fromarray(load_sample_images().images[1]).save(tmp_path / "flower.jpg")
    assert main(["classify", str(tmp_path / "flower.jpg"), "--top", "5"]) == 0
    line = capsys.readouterr().out
    assert len(line.split("\t")) == 11
    assert any(word in line for word in ("bee", "daisy", "pot", "flower", "vase", "artichoke"))


def test_a_backbone_without_source_classes_can_not_classify(
    shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = str(shapes / "dark" / "00.png")
    assert main(["classify", picture, "--backbone", "tiny:32"]) == 2
    assert "has no source classes" in capsys.readouterr().err


def test_backbones_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backbones"]) == 0
    assert "packaged:efficientnet_lite0" in capsys.readouterr().out
    assert main(["backbones", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["licence"] == "Apache-2.0"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert SUMMARIES[command] in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.long
def test_interrupted_is_exit_130_and_resumable(shapes: Path, tmp_path: Path) -> None:
    for i in range(600):
        folder = shapes / ("dark", "bright")[i % 2]
        Image.new("RGB", (200, 200), (i % 256, i // 256, 10)).save(folder / f"more{i}.png")
    command = [sys.executable, "-m", "headstart", "train", str(shapes)]
    command += ["--out", str(tmp_path / "run"), "--backbone", "timm:test_vit"]
    command += ["--weights", "random", "--strategy", "extract", "--insights", "none"]
    command += ["--baseline", "none"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("features  about"):  # two batches are done, many are not
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    assert "the same command goes on" in rest
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert json.loads((tmp_path / "run" / "timings.json").read_text())["store_hits"] > 0


def test_views_are_drawn_as_a_picture(shapes: Path, tmp_path: Path) -> None:
    picture, out = str(shapes / "dark" / "00.png"), tmp_path / "views.png"
    assert main(["views", picture, "--out", str(out), "--flip", "both", "--size", "40"]) == 0
    with Image.open(out) as grid:
        assert grid.size == (4 * 44 - 4, 4 * 44 - 4)


def test_views_of_nothing_are_refused(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, out = str(shapes / "dark" / "00.png"), tmp_path / "views.png"
    assert main(["views", picture, "--out", str(out)]) == 2
    assert "No change was asked for" in capsys.readouterr().err
    assert main(["views", picture, "--out", str(out), "--flip", "both", "--views", "9"]) == 2
    assert "'--views'" in capsys.readouterr().err
    out.write_bytes(b"mine")
    assert main(["views", picture, "--out", str(out), "--flip", "both"]) == 2
    assert out.read_bytes() == b"mine"
    assert main(["views", "nowhere.png", "--out", str(tmp_path / "n.png"), "--flip", "both"]) == 1


def test_the_report_is_written_again_in_another_language(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    command = ["train", str(shapes), "--out", str(out), "--backbone", "tiny:32"]
    assert main([*command, "--strategy", "extract", "--language", "ru"]) == 0
    told = capsys.readouterr()
    lines = [line for line in (told.err + told.out).splitlines() if line.strip()]
    unsaid = [line for line in lines if not re.search("[а-яё]", line)]
    names = ("AUROC", *(folder.name for folder in shapes.iterdir()))
    assert [line for line in unsaid if not line.strip().startswith(names)] == []
    russian = (out / "report.html").read_text()
    assert 'lang="ru"' in russian
    assert main(["report", str(out), "--language", "en"]) == 0
    assert str(out / "report.html") in capsys.readouterr().err
    assert 'lang="en"' in (out / "report.html").read_text()
    assert main(["report", str(out)]) == 0  # as the run was asked to be told
    assert (out / "report.html").read_text() == russian
    shapes.rename(tmp_path / "elsewhere")
    assert main(["report", str(out)]) == 0
    assert "examples  left out: " in capsys.readouterr().err
    assert (
        main(["report", str(out), "--data", str(tmp_path / "elsewhere"), "--language", "ru"]) == 0
    )
    assert (out / "report.html").read_text() == russian
    assert main(["report", str(tmp_path)]) == 1
    assert "holds no run" in capsys.readouterr().err


def test_predict_answers_unknown_with_the_reason(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    command = ["train", str(shapes), "--out", str(out), "--backbone", "tiny:32", "--val", "0.4"]
    assert main([*command, "--false-alarms", "0.2", "--strategy", "extract"]) == 0
    stripes = np.zeros((40, 40, 3), np.uint8)
    stripes[::2, :, 0] = 255
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    capsys.readouterr()
    assert main(["predict", str(out), str(tmp_path / "stripes.png")]) == 0
    _, answer, _, reason = capsys.readouterr().out.strip().split("\t")
    assert answer == "unknown"
    assert reason.startswith("unlike the training images (distance")
    assert main(["predict", str(out), str(tmp_path / "stripes.png"), "--json"]) == 0
    (said,) = json.loads(capsys.readouterr().out)
    assert (said["predicted"], said["reason"]) == ("unknown", reason)
    assert set(said["not_ruled_out"]) <= {"bright", "dark"}


def test_predictions_made_elsewhere_are_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "said.csv"
    file.write_text("label,path,predicted\na,1,a\na,2,b\nb,3,b\nb,4,b\n")
    assert main(["evaluate", str(file), "--json"]) == 0
    judged = json.loads(capsys.readouterr().out)
    assert judged["accuracy"]["value"] == 0.75
    assert judged["log_loss"] is None
    assert main(["evaluate", str(file), str(tmp_path)]) == 2
    assert "knows its labels" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    ["--part val", "--sha256 0", "--store s", "--reread", "--threads 1", "--engine onnxruntime"],
)
@pytest.mark.parametrize("name", ["said.csv", "said.json"])
def test_flags_of_a_model_are_refused_for_answers_made_before(
    words: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """But for the part of the data that detections are judged by."""
    (tmp_path / name).write_text("path,label,predicted\n1,a,a\n" if name == "said.csv" else "[]")
    assert main(["evaluate", str(tmp_path / name), *words.split()]) == 2
    told = " ".join(capsys.readouterr().err.split())
    own = name == "said.json" and words == "--part val"
    assert (f"{words.split()[0]} is for a model, and" in told) is not own
    assert ("name the DATA with the boxes" in told) is own


def test_runs_are_compared(
    shapes: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    command = ["train", str(shapes), "--out", str(other), "--backbone", "tiny:32"]
    assert main([*command, "--strategy", "extract"]) == 0
    capsys.readouterr()
    assert main(["compare", str(run), str(other), "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["gain"], second["gain"]["value"], second["p"]) == (None, 0.0, 1.0)
    assert main(["compare", str(run)]) == 2
    assert "two runs or more" in capsys.readouterr().err


@pytest.mark.long
def test_several_seeds_tell_the_spread(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", str(shapes), "--out", str(tmp_path / "runs"), "--backbone", "tiny:32"]
    more = ["--strategy", "extract", "--seeds", "2", "--track", "tensorboard"]
    assert main([*command, *more]) == 0
    out = capsys.readouterr().out
    assert "deviation" in out
    assert {p.name for p in (tmp_path / "runs").iterdir()} == {"seed-0", "seed-1", "seeds.json"}
    assert list((tmp_path / "runs" / "seed-1" / "tensorboard").iterdir())


@pytest.mark.parametrize(
    "command",
    [
        ["explain", "run", "a.png"],
        ["ideal", "run", "--class", "a"],
        ["check", "d", "--backbone=none"],
    ],
    ids=lambda words: words[0],
)
def test_weights_that_no_backbone_would_get_are_refused(
    command: list[str], shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(shapes) if word == "d" else word for word in command]
    assert main([*words, "--weights", "random"]) == 2
    assert "--weights goes with" in capsys.readouterr().err


@pytest.mark.parametrize("place", [0, 2, 3])
def test_flags_may_stand_before_between_or_behind_files(
    place: int, shapes: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(run), *(str(shapes / "dark" / f"0{n}.png") for n in (1, 2))]
    words[place:place] = ["--top", "2"]
    capsys.readouterr()
    assert main(["predict", *words]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_bar_is_there_from_the_first_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be that the tenth step, or a whole batch."""
    pytest.importorskip("rich")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress = partial(talk.Terminal().progress, "ideal")
    try:
        progress(10, 640)
        assert talk._BARS[-1].live.is_started
        progress(640, 640)
        assert not talk._BARS[-1].live.is_started
    finally:
        talk.stop_bars()
