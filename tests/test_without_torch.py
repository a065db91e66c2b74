"""With the core installation heads are trained, tested, reported and used, without PyTorch."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.cli.main import main

SCRIPT = Path(__file__).parent / "without_torch.py"
TEXTS = ("tokenizers", "sentencepiece", "py3langid", "sklearn")  # of the extra `text`
WORDS = {"good": "a lovely film, warm and funny", "bad": "a dull film, cold and far too long"}
Done = tuple[int, str, str]  # exit code, stdout, stderr


def without_torch(*commands: str, but: tuple[str, ...] = ()) -> list[Done]:
    """Run commands where only the core, and the packages in `but`, can be imported."""
    words = json.dumps([command.split() for command in commands])
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--but", *but], input=words, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [(code, out, err) for code, out, err in json.loads(done.stdout)]


@dataclass(frozen=True)
class Tried:
    """Two runs on the same data: `light` without PyTorch, `whole` where it is installed."""

    light: Path
    whole: Path
    done: dict[str, Done]

    def assert_equal(self) -> None:
        for name in ("predictions.csv", "history.csv", "evaluation.json", "splits.csv"):
            assert (self.light / name).read_bytes() == (self.whole / name).read_bytes(), name
        for name in ("weights.safetensors", "graph.onnx", "golden.json", "card.json"):
            ours, theirs = (run / "model" / name for run in (self.light, self.whole))
            assert ours.read_bytes() == theirs.read_bytes(), name


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Tried:
    folder = tmp_path_factory.mktemp("pictures")
    rng, data = np.random.default_rng(0), folder / "data"
    for name, level in (("bright", 170), ("dark", 70)):
        (data / name).mkdir(parents=True)
        for i in range(16):
            noise = rng.normal(level, 40, (40, 48, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noise).save(data / name / f"{i:02}.png")
    one = data / "dark" / "00.png"
    commands = {
        "check": f"check {data} --store {folder}/s",
        "train": f"train {data} --out {folder}/light --strategy extract --store {folder}/s",
        "auto": f"train {data} --out {folder}/auto --flip both --store {folder}/s",
        "predict": f"predict {folder}/light {one}",
        "evaluate": f"evaluate {folder}/light {data} --part test --store {folder}/s",
        "report": f"report {folder}/light",
        "classify": f"classify {one} --top 2",
        "dry": f"train {data} --out {folder}/dry --dry-run --store {folder}/s",
        "backbones": "backbones",
        "cuda": f"train {data} --out {folder}/no --device cuda",
        "classify-cuda": f"classify {one} --device cuda",
        "finetune": f"train {data} --out {folder}/no --strategy finetune",
        "linear": f"train {data} --out {folder}/no --head linear",
        "flip": f"train {data} --out {folder}/no --strategy extract --head mlp --flip both",
        "timm": f"train {data} --out {folder}/no --backbone timm:resnet18",
        "size": f"train {data} --out {folder}/no --strategy extract --size 192",
        "explain": f"explain {folder}/light {one}",
        "ideal": f"ideal {folder}/light --class dark --out {folder}/x.png",
        "attack": f"attack {folder}/light {one}",
    }
    done = dict(zip(commands, without_torch(*commands.values()), strict=True))
    train = f"train {data} --out {folder}/whole --strategy extract --store {folder}/other"
    assert main(train.split()) == 0
    return Tried(folder / "light", folder / "whole", done)


@pytest.mark.long
@pytest.mark.parametrize(
    "command",
    ["check", "train", "auto", "predict", "evaluate", "report", "classify", "dry", "backbones"],
)
def test_a_command_needs_the_core_alone(pictures: Tried, command: str) -> None:
    code, _, err = pictures.done[command]
    assert code == 0, err
    assert "Traceback" not in err


@pytest.mark.long
def test_the_run_is_the_one_that_pytorch_is_installed_for(pictures: Tried) -> None:
    pictures.assert_equal()


def test_auto_trains_the_head_alone_and_says_once_what_the_extra_adds(pictures: Tried) -> None:
    _, _, err = pictures.done["auto"]
    said = [line for line in err.splitlines() if line.startswith("strategy")]
    assert len(said) == 1
    assert "the head alone: fine-tuning and augmentation need PyTorch" in said[0]
    assert "pip install 'headstart[train]'" in said[0]
    auto = pictures.light.parent / "auto"
    assert json.loads((auto / "recipe.json").read_text())["strategy"]["asked"] == "extract"
    assert (auto / "predictions.csv").read_bytes() == (
        pictures.light / "predictions.csv"
    ).read_bytes()


def test_what_is_left_out_without_a_library_is_one_line_each(pictures: Tried) -> None:
    _, _, err = pictures.done["train"]
    lost = [line for line in err.splitlines() if "left out" in line]
    assert [line.split()[0] for line in lost] == ["insights", "explained"]
    assert all("headstart[train]" in line for line in lost)
    assert "unlike" in pictures.done["check"][2]
    insights = json.loads((pictures.light / "insights.json").read_text())
    assert insights["mistakes"] is not None
    assert insights["map"] is None


@pytest.mark.parametrize(
    ("command", "purpose"),
    [
        ("cuda", "Computing on cuda needs"),
        ("classify-cuda", "Computing on cuda needs"),
        ("finetune", "Fine-tuning needs"),
        ("linear", "A head trained by epochs (linear) needs"),
        ("flip", "A head trained by epochs (mlp) needs"),
        ("timm", "Loading timm:resnet18 needs"),
        ("size", "efficientnet_lite0 with another input than 224 px (crop) needs"),
        ("explain", "needs"),
        ("ideal", "needs"),
        ("attack", "needs"),
    ],
)
def test_what_needs_pytorch_is_one_sentence(pictures: Tried, command: str, purpose: str) -> None:
    code, out, err = pictures.done[command]
    assert (code, out) == (2, "")
    (line,) = [line for line in err.splitlines() if line.startswith("error")]
    assert purpose in line
    assert "pip install 'headstart[train]'" in line


@pytest.mark.long
def test_an_export_needs_onnx_and_its_verification_nothing(pictures: Tried, tmp_path: Path) -> None:
    run, out = pictures.light, tmp_path / "out"
    export = f"export {run} --precision int8 --max-changed 1 --store {tmp_path}/s --out {out}"
    (lacking,) = without_torch(export)
    assert lacking[0] == 2
    assert "pip install 'headstart[export]'" in lacking[2]
    (made,) = without_torch(export, but=("onnx",))
    assert made[0] == 0, made
    (verified,) = without_torch(f"verify {out}")
    assert verified[0] == 0, verified
    assert "5 golden examples are answered" in verified[1]


@pytest.mark.long
def test_texts_need_no_pytorch(tmp_path: Path) -> None:
    data = tmp_path / "texts.csv"
    rng, rows = np.random.default_rng(0), ["text,label"]
    for _ in range(12):
        for name, words in WORDS.items():
            rows.append(f'"{words} {rng.integers(0, 1000, 12)}",{name}')
    data.write_text("\n".join(rows))
    train = f"train {data} --strategy extract --backbone packaged:minilm --out {tmp_path}"
    done = without_torch(
        f"check {data} --store {tmp_path}/s",
        f"{train}/light --store {tmp_path}/s",
        f"predict {tmp_path}/light --text lovely",
        but=TEXTS,
    )
    assert [code for code, *_ in done] == [0, 0, 0], done
    assert main(f"{train}/whole --store {tmp_path}/other".split()) == 0
    Tried(tmp_path / "light", tmp_path / "whole", {}).assert_equal()
