"""Maps of labels, a number and grades, and what `headstart explain` prints of them."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from patches import on_the_patch, patched, taught
from PIL import Image
from torch import nn

import headstart as hs
from headstart.cli.main import main
from headstart.explaining.pixels.attributing import attribute
from headstart.explaining.pixels.explaining import EFFORTS, spread
from headstart.explaining.pixels.grad_model import GradModel
from headstart.explaining.pixels.probed_model import probed_model_of
from headstart.reporting.words import catalogue
from headstart.targets.grades import GradesTarget
from headstart.targets.labels import LabelsTarget
from headstart.targets.numbers import NumberTarget
from headstart.targets.predictions import Predictions
from headstart.targets.target import Target

# What each target says of a blue patch, an orange patch, and none.
CELLS = {
    "value": ("10.333333333333334", "30.5", "20"),
    "labels": ("blue", "orange|warm", "plain"),
    "label": ("low", "high", "middle"),
}
TARGETS: dict[str, Target] = {
    "number": NumberTarget(mean=20.0, std=8.0),
    "labels": LabelsTarget(("orange", "blue")),
    "grades": GradesTarget(("low", "middle", "high")),
}


@pytest.fixture(scope="module")
def taught_patches() -> GradModel:
    return taught(hs.load_backbone("tiny:32"), 100)


@pytest.mark.parametrize("kind", TARGETS)
def test_maps_point_at_the_patch_that_decides_the_answer(
    kind: str, taught_patches: GradModel
) -> None:
    """More orange is a higher number and grade: the head is the difference of two logits."""
    squares, labels, places = patched(20, 32, seed=2)
    squares, places = squares[labels == 1], places[labels == 1]
    layer = taught_patches.head
    assert isinstance(layer, nn.Linear)
    target, head = TARGETS[kind], nn.Linear(layer.in_features, TARGETS[kind].outputs)
    way = layer.weight[1] - layer.weight[0]
    with torch.no_grad():
        head.weight.copy_(way.expand_as(head.weight))
        head.bias.copy_(torch.arange(len(head.bias)).neg())
        if kind == "labels":
            head.weight[1] *= -1
    model = replace(taught_patches, head=head.requires_grad_(False), classes=(), other=target)
    maps = attribute(probed_model_of(model), squares, np.zeros(len(squares), np.int64))
    hits = [on_the_patch(m.over(32), place) for m, place in zip(maps, places, strict=True)]
    assert np.mean(hits) >= 0.9


def test_the_worst_the_middling_and_the_best_rows_are_explained() -> None:
    answers, y = np.array([5, 1, 9, 3, 20, 0], np.float32), np.zeros(6)
    said = Predictions(tuple("abcdef"), {"value": answers}, y, NumberTarget())
    chosen = [(4, "worst"), (2, "worst"), (3, "middle"), (5, "best")]
    assert spread(said, 2, 2) == chosen
    assert spread(said.take([0, 5]), 4, 2) == [(0, "worst"), (1, "best")]
    assert spread(said.take([]), 4, 2) == []


@pytest.fixture(scope="module", params=CELLS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, a table of their answers, and a run of it."""
    folder, column = tmp_path_factory.mktemp(request.param), request.param
    squares, labels, _ = patched(36, 32, seed=5, classes=3)
    with (folder / "table.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", column))
        for n, (square, label) in enumerate(zip(squares, labels, strict=True)):
            Image.fromarray(square).save(folder / f"{n:02}.png")
            rows.writerow((f"{n:02}.png", CELLS[column][label]))
    words = ["train", str(folder / "table.csv"), "--out", str(folder / "run")]
    words += ["--store", str(folder / "store"), "--strategy", "extract", "--backbone", "tiny:32"]
    ordered = ["--ordered", "low,middle,high"] if column == "label" else []
    assert main([*words, *ordered]) == 0
    return folder


@pytest.mark.long
def test_a_run_of_any_target_explains_itself_and_shows_it(trained: Path) -> None:
    run, english = trained / "run", catalogue("en")
    rows = json.loads((run / "explained.json").read_text())["rows"]
    assert 2 < len(rows) <= EFFORTS["quick"].mistakes + EFFORTS["quick"].right
    assert {row["group"] for row in rows} == {"worst", "middle", "best"}
    assert all(0 <= score <= 1 for row in rows for score in row["deletion"]["curve"]["ours"])
    page = (run / "report.html").read_text()
    assert english["why.worst"] in page
    assert english["why.none"][:30] not in page
    assert "10.333333333333334" not in page  # numbers are shown with the digits that matter


def test_explain_prints_the_answer_and_takes_only_a_label(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(trained / "run", tmp_path / "run")
    picture, store = str(trained / "01.png"), ["--store", str(trained / "store")]
    words = ["explain", str(run), picture, "--method", "places", *store]
    capsys.readouterr()
    assert main([*words, "--out", str(tmp_path / "a"), "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["nearest"][0]["path"] == "01.png"
    assert 0 <= told["score"] <= 1
    quantity = told["class"] in ("value", "grade")
    assert main([*words, "--out", str(tmp_path / "b")]) == 0
    shown = told["answer"] if quantity else f"{told['score']:.4f}"
    assert capsys.readouterr().out.split("\t")[1:3] == [told["class"], shown]
    assert main([*words, "--out", str(tmp_path / "c"), "--class", "plain"]) == 2 * quantity
    out, err = capsys.readouterr()
    assert "name none" in err if quantity else "\tplain\t0." in out
    if not quantity:
        assert main([*words, "--out", str(tmp_path / "d"), "--class", "plian"]) == 2
        assert "There is no label of this model named 'plian'" in capsys.readouterr().err
