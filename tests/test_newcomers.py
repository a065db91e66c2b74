"""What people type first who come from Keras, fastai, timm or Ultralytics: it works, or one
sentence tells what to type."""

import argparse
import io
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

import headstart as hs
from headstart.base.values import field_help
from headstart.cli import printing, progress
from headstart.cli.main import COMMANDS, SUMMARIES, Command, main
from headstart.modalities.sources import Listing
from headstart.specs import (
    Attack,
    Augment,
    CheckPlan,
    FeatureExtraction,
    FineTune,
    IdealPlan,
    Job,
    RobustnessPlan,
    Runtime,
    SplitPlan,
    TrustPlan,
)

SPECS = (
    Job, FeatureExtraction, FineTune, Augment, TrustPlan, SplitPlan,
    CheckPlan, Runtime, RobustnessPlan, IdealPlan, Attack,
)  # fmt: skip


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, argparse.Namespace]:
    """What the flags of each command came to, in place of its work."""
    found: dict[str, argparse.Namespace] = {}

    def note(name: str) -> None:
        def run(args: argparse.Namespace) -> int:
            found[name] = args
            return 0

        monkeypatch.setattr(f"headstart.cli.{name}.run", run)

    for name in SUMMARIES:
        note(name)
    monkeypatch.chdir(tmp_path)
    return found


def backbones(pattern: str) -> Iterator[Listing]:
    names = ("packaged:efficientnet_lite0", "timm:resnet50.a1_in1k", "timm:vit_tiny", "keras:VGG16")
    for name in (*names, "keras:ResNet50", "keras:MobileNetV2"):
        if name.startswith(pattern.rstrip("*")):
            yield Listing(name)


@pytest.mark.parametrize(
    ("typed", "means"),
    [
        ("fit photos --out r --model tiny:32", "train photos --out r --backbone tiny:32"),
        ("fine-tune photos --out r --freeze_epochs 1", "train photos --out r --head-epochs 1"),
        ("fine_tune photos --out=r --base-lr=1e-3", "train photos --out r --lr 1e-3"),
        ("train photos --out r --batch_size 8", "train photos --out r --batch-size 8"),
        ("train --data photos --project r --epochs 3", "train photos --out r --epochs 3"),
        ("train photos --out r --learning-rate 0.1", "train photos --out r --lr 0.1"),
        ("train photos --out r --lr0 0.1 --workers 2", "train photos --out r --lr 0.1 "
         "--decode-threads 2"),
        ("train photos --out r --imgsz 64 --batch 8", "train photos --out r --size 64 "
         "--batch-size 8"),
        ("train photos --out r --weights imagenet", "train photos --out r --weights pretrained"),
        ("train photos --out r --weights None", "train photos --out r --weights random"),
        ("train photos --out r --backbone ResNet50", "train photos --out r "
         "--backbone keras:ResNet50"),
        ("train photos --out r --arch resnet50", "train photos --out r --backbone timm:resnet50"),
        ("train photos --out r --backbone mobilenet_v2", "train photos --out r "
         "--backbone keras:MobileNetV2"),
        ("train photos --out r --device 0", "train photos --out r --device cuda"),
        ("train data=photos model=vgg16 epochs=2 imgsz=64 project=r resume=False",
         "train photos --backbone keras:VGG16 --epochs 2 --size 64 --out r --no-resume"),
        ("classify train data=photos model=tiny:8 project=r",
         "train photos --backbone tiny:8 --out r"),
        ("train photos -o r -b 8 -e 3", "train photos --out r --batch-size 8 --epochs 3"),
        ("train photos -out r -thaw-from -5", "train photos --out r --thaw-from -5"),
        ("val model=run data=photos", "evaluate run photos"),
        ("test run photos", "evaluate run photos"),
        ("predict model=run source=a.png", "predict run a.png"),
        ("predict --source a.png --model run --top-k 2", "predict run a.png --top 2"),
        ("infer run a.png", "predict run a.png"),
        ("explain --image a.png --model run", "explain run a.png"),
        ("checks photos", "check photos"),
        ("models", "backbones"),
    ],
)  # fmt: skip
def test_words_of_other_tools_mean_what_they_mean_there(
    typed: str,
    means: str,
    parsed: dict[str, argparse.Namespace],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("headstart.modalities.sources.list_backbones", backbones)
    assert main(means.split()) == 0
    assert capsys.readouterr().err == ""
    ours = dict(parsed)
    parsed.clear()
    assert main(typed.split()) == 0
    assert parsed == ours
    hints = capsys.readouterr().err.splitlines()
    assert hints
    assert all(line.startswith("hint      ") and len(line) <= 80 for line in hints)


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("trane photos", "Did you mean 'train'"),
        ("export run", "Type `headstart export RUN_OR_BUNDLE --out DIR`"),
        ("lr_find photos", "leave --lr out"),
        ("--model resnet50 --data photos", "A command comes first"),
        (".", "type `headstart train . --out RUN`"),
        ("train photos --out r -x 1", "no flag '--x'"),
        ("train", "Type `headstart train DATA --out RUN`"),
        ("train photos", "Type `headstart train DATA --out RUN`"),
        ("train gone --out r", "There is no folder or file gone"),
        ("train photos --out r --drop 0.3", "Did you mean '--dropout'"),
        ("train photos --out r --freeze 10", "--thaw 2"),
        ("train photos --out r --augmentation", "--flip horizontal"),
        ("train photos --out r --pretrained", "--weights pretrained"),
        ("train photos --out r --head logistics", "Did you mean 'logistic'"),
        ("train photos --out r --optimizer adamax", "did you mean 'adam"),
        ("train photos --out r --model resnt50", "Did you mean timm:resnet50"),
        ("train photos --out r --model yolo11n-cls.pt", "--weights"),
        ("train photos --out r --epochs many", "--epochs: invalid int value: 'many'"),
        ("train photos --out r --xyz 1", "See `headstart train --help-all`"),
        ("predict a.png", "Type `headstart predict RUN_OR_BUNDLE FILE"),
        ("predict run a.png --conf 0.5", "--precision 0.95"),
        ("evaluate gone photos", "There is no folder gone"),
        ("detect train data=photos", "classifies images"),
    ],
)
def test_a_wrong_command_is_answered_in_one_line_with_what_to_type(
    typed: str,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("headstart.modalities.sources.list_backbones", backbones)
    assert main(typed.split()) in (1, 2)
    out, err = capsys.readouterr()
    *hints, line = err.splitlines()
    assert all(hint.startswith("hint  ") for hint in hints)
    assert line.startswith("error     ")
    assert says in line
    assert "--help'" not in line  # the suggestion is never to ask for help
    assert len(line) <= 120
    assert out == ""


def shown(words: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("command", SUMMARIES)
def test_help_fits_80_columns_on_every_terminal(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    lines = shown([command, "--help"], capsys) + shown([command, "--help-all"], capsys)
    assert SUMMARIES[command] in lines
    assert max(map(len, lines)) <= 80


def test_help_of_train_fits_a_screen_and_help_all_has_every_flag(
    capsys: pytest.CaptureFixture[str],
) -> None:
    brief = shown(["train", "--help"], capsys)
    assert len(brief) <= 60
    assert "--help-all" in brief[-1]
    every = " ".join(shown(["train", "--help-all"], capsys)).replace("[no-]", "")
    specs = [value for value in vars(Job()).values() if is_dataclass(value)]
    flags = {f"--{f.name.replace('_', '-')} " for spec in specs for f in fields(spec)}
    assert {flag for flag in flags if flag not in every} == {"--root "}  # of the store


def test_the_overview_fits_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [name for name in COMMANDS if not any(f"  {name} " in line for line in lines)] == []


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.__name__)
def test_every_field_of_a_spec_carries_its_help(spec: type) -> None:
    nested = {
        "target",
        "recipe",
        "finetune",
        "augment",
        "trust",
        "split",
        "checks",
        "runtime",
        "store",
    }
    names = {f.name for f in fields(spec)} - (nested if spec is Job else set())
    assert [n for n in names if field_help(spec, n) == n.replace("_", " ")] == []


def test_quiet_prints_results_warnings_and_errors_only(
    parsed: dict[str, argparse.Namespace], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "photos", "--out", "r", "--quiet"]) == 0
    assert main(["-q", "train", "photos", "--out", "r", "--lr0", "1"]) == 0
    assert main(["views", "gone.png"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("words", [["--version"], ["-V"], ["--quiet", "--version"]])
def test_the_version_is_printed(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out == f"{hs.__version__}\n"


def test_help_on_a_command_is_asked_for_in_either_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(["help", "predict"], capsys) == shown(["predict", "-h"], capsys)


COMPLETE = """
source completion.sh
try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _headstart; echo "${COMPREPLY[@]}"; }
try headstart tra
try headstart train --head ""
try headstart train --epo
"""


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not here")
def test_bash_completes_commands_flags_and_choices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", "bash"]) == 0
    (tmp_path / "completion.sh").write_text(capsys.readouterr().out)
    done = subprocess.run(["bash", "-c", COMPLETE], cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "train track",
        "logistic ridge nearest mean linear mlp pyramid",
        "--epochs",
    ]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_told_of_every_command(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert [name for name in SUMMARIES if name not in out] == []
    assert Command("train").parser().option("--epochs")


WIDE = [("name", "size", "what is known of it"), ("a" * 20, "1", "some words " * 9), ("b", "2", "")]


def test_a_table_that_is_too_wide_for_a_terminal_is_folded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printing.print_table(WIDE)
    assert capsys.readouterr().out.count("\n") == 3  # a program reads a line per row
    monkeypatch.setattr(printing, "columns", lambda: 80)
    printing.print_table(WIDE)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert max(map(len, lines)) <= 80
    assert lines[2].startswith(" " * lines[0].index("what"))


def test_a_table_of_too_many_columns_becomes_a_block_per_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(printing, "columns", lambda: 80)
    names = [f"column {n} of the table" for n in range(6)]
    printing.print_table([names, [f"a cell {n}" for n in range(6)], ["b"]])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].split() == ["column", "0", "of", "the", "table", "a", "cell", "0"]
    assert len(lines) == 1 + 6 + 1 + 1


class Narrow(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_quiet_is_of_one_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "-q"]) == 0
    progress.say("trust", "heard")
    assert "heard" in capsys.readouterr().err


def test_a_message_is_broken_between_words_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for stream, most in ((Narrow(), 80), (io.StringIO(), 1000)):
        monkeypatch.setattr("sys.stderr", stream)
        progress.say("trust", "some words " * 20)
        lines = stream.getvalue().splitlines()
        assert max(map(len, lines)) <= most
        assert (len(lines) > 1) == (most == 80)
