"""Training on boxes, from data to a bundle: made pictures of coloured rectangles on noise."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from served import multipart, running
from test_without_torch import without_torch

import headstart as hs
from headstart.backbones.entry import WholeNetwork, tensors
from headstart.backbones.strides import levels_of
from headstart.backbones.views import Views
from headstart.base.errors import HeadstartError, SpecError
from headstart.base.listener import Listener
from headstart.cli.main import main
from headstart.evaluation.evaluation import evaluate
from headstart.explaining.boxes.occlusion import occlusion
from headstart.features.engines import OnnxEngine
from headstart.features.extract import FeatureTable
from headstart.modalities.images.augment import Augment
from headstart.modalities.images.box_views import BoxViews, Moved, followed
from headstart.modalities.images.letterbox import LetterboxInput, Placing, out_of
from headstart.modalities.sources import load_backbone
from headstart.models.detector import check_same, detector
from headstart.models.placing import Placed
from headstart.targets.box_loss import IGNORED, REAL, box_losses, packed_boxes
from headstart.targets.box_matching import Detections
from headstart.targets.box_values import BoxLabels, ExampleBoxes
from headstart.targets.boxes import BoxesTarget, answers_of
from headstart.training.box_feed import PlacedRows
from headstart.training.box_head import BoxHead

COLOURS = {"red": (230, 30, 30), "blue": (30, 30, 230)}
SETTINGS: dict[str, Any] = {
    "size": 96,
    "head": "pyramid",
    "head_epochs": 12,
    "flip": "horizontal",
    "resized_crop": 0.6,
    "views": 2,
}


def made(folder: Path, n: int = 40) -> Path:
    """n pictures of one or two rectangles, every fifth upright, every sixth without any."""
    rng, images = np.random.default_rng(1), list[dict[str, Any]]()
    boxes = list[dict[str, Any]]()
    (folder / "images").mkdir(parents=True)
    for i in range(n):
        wide, high = (72, 96) if i % 5 == 4 else (96, 72)
        pixels = rng.integers(90, 160, (high, wide, 3)).astype(np.uint8)
        images.append(dict(id=i, file_name=f"p{i:02}.png", width=wide, height=high))
        for k in range(0 if i % 6 == 5 else 1 + i % 2):
            c, w, h = int(rng.integers(2)), int(rng.integers(18, 30)), int(rng.integers(18, 30))
            x, y = int(rng.integers(0, wide - w)), k * high // 2 + int(rng.integers(0, 6))
            h = min(h, high - y)
            pixels[y : y + h, x : x + w] = list(COLOURS.values())[c]
            own = dict(id=len(boxes) + 1, image_id=i, category_id=c + 1, iscrowd=0)
            boxes.append({**own, "bbox": [x, y, w, h]})
        Image.fromarray(pixels).save(folder / "images" / f"p{i:02}.png")
    names = [dict(id=c + 1, name=name) for c, name in enumerate(COLOURS)]
    plain = dict(images=images, annotations=boxes, categories=names)
    (folder / "instances.json").write_text(json.dumps(plain))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("boxes") / "data")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def run(data: Path, store: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("runs") / "run"
    return hs.train(data, out, store=store, **SETTINGS)


def same_models(a: Path, b: Path) -> bool:
    names = "model/card.json", "history.csv", "evaluation.json", "predictions.csv"
    plain = [[_without_seconds((f / n).read_text()) for n in names] for f in (a, b)]
    weights = [(f / "model/weights.safetensors").read_bytes() for f in (a, b)]
    return plain[0] == plain[1] and weights[0] == weights[1]


def _without_seconds(text: str) -> str:
    lines = text.splitlines()
    timed = lines[0].endswith(",seconds")
    return "\n".join(line.rpartition(",")[0] if timed else line for line in lines)


# ---------------------------------------------------------------- the whole way
@pytest.mark.long
@pytest.mark.parametrize("how", [{}, {"precision": "fp16"}, {"to": "openvino"}], ids=str)
def test_an_export_finds_the_same_boxes(how: Any, run: Any, tmp_path: Path) -> None:
    if "to" in how:
        pytest.importorskip("openvino")
    out = tmp_path / "out"
    hs.export(run, out, store=None, threads=1, **how)
    assert hs.verify(out, threads=1).examples == 5
    file = Path(str(run.splits.test.sources[0]))
    command = [sys.executable, "-P", str(out / "predict.py"), str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = run.model.predict(file, store=None)
    wanted = said.target.listed(said.outputs, 0)
    found = json.loads(done.stdout)["answer"]
    assert len(found) == len(wanted) > 0
    for (name, score, *box), own in zip(found, wanted, strict=True):
        assert name == own["label"]
        assert score == pytest.approx(own["score"], abs=1e-3)
        assert box == pytest.approx(own["box"], abs=0.2)


@pytest.mark.long
def test_boxes_are_not_exported_in_int8(run: Any, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="boxes are exported in fp32 or fp16"):
        hs.export(run, tmp_path / "out", precision="int8", store=None)


def test_a_run_on_boxes_finds_rectangles(run: Any) -> None:
    assert run.kept == "head"
    assert run.evaluation.metrics["AP50"].value > 0.5
    assert len(run.model.target.thresholds) == 2
    page = (run.folder / "report.html").read_text()
    assert "average precision, over all scores" in page
    assert "LogisticSpec" not in page
    assert "headstart explain" not in page


@pytest.mark.long
def test_a_second_run_runs_no_network_and_gives_the_same(
    run: Any, data: Path, store: Path, tmp_path: Path
) -> None:
    again = hs.train(data, tmp_path / "again", store=store, **SETTINGS)
    assert again.timings.backbone_forwards == 0
    assert same_models(run.folder, again.folder)


@pytest.mark.long
def test_a_recipe_repeats_its_run(run: Any, data: Path, store: Path, tmp_path: Path) -> None:
    again = hs.train(data, tmp_path / "again", store=store, config=run.folder / "recipe.json")
    assert (again.folder / "recipe.json").read_bytes() == (run.folder / "recipe.json").read_bytes()
    assert same_models(run.folder, again.folder)


class Stopped(Exception):
    pass


class StopAt(Listener):
    def progress(self, stage: str, done: int, total: int) -> None:
        if stage == "head" and done == 7:
            raise Stopped


@pytest.mark.long
def test_a_stopped_training_goes_on_to_the_same_bytes(
    run: Any, data: Path, store: Path, tmp_path: Path
) -> None:
    with pytest.raises(Stopped):
        hs.train(data, tmp_path / "run", store=store, listener=StopAt(), **SETTINGS)
    assert list((tmp_path / "run").glob("*.safetensors"))
    again = hs.train(data, tmp_path / "run", store=store, **SETTINGS)
    assert same_models(run.folder, again.folder)


@pytest.mark.long
def test_the_room_is_told_beforehand(data: Path, store: Path, tmp_path: Path) -> None:
    told = list[tuple[str, str]]()

    class Told(Listener):
        def stage(self, name: str, message: str) -> None:
            told.append((name, message))

    hs.train(data, tmp_path / "run", store=store, listener=Told(), **{**SETTINGS, "head_epochs": 1})
    names = [name for name, _ in told]
    assert names.index("cut") < names.index("features")
    assert "keeping" in dict(told)["cut"]


@pytest.mark.long
def test_boxes_are_predicted_without_pytorch(run: Any, data: Path, tmp_path: Path) -> None:
    pictures = [data / "images" / f"p{i:02}.png" for i in (0, 4, 5)]
    found = run.model.predict(pictures, store=None)
    files = " ".join(map(str, pictures))
    (code, out, _), (coco_code, _, _), (csv_code, table, _) = without_torch(
        f"predict {run.folder} {files} --json",
        f"predict {run.folder} {files} --coco {tmp_path}/found.json",
        f"predict {run.folder} {files} --csv -",
    )
    assert (code, coco_code, csv_code) == (0, 0, 0)
    plain = json.loads(out)
    for i, one in enumerate(plain):
        assert one["found"] == run.model.target.listed(found.outputs, i)
    lines = table.splitlines()
    assert lines[0] == "path,label,score,xmin,ymin,xmax,ymax,error"
    assert len(lines) == 1 + sum(len(one["found"]) for one in plain)
    results = json.loads((tmp_path / "found.json").read_text())
    assert {one["image_id"] for one in results} <= set(map(str, pictures))
    assert hs.evaluate(run.folder, data).metrics == run.evaluation.metrics


def test_figures_of_a_run_on_boxes_draw_whole_groups(run: Any) -> None:
    test = run.splits.test
    groups = tuple("ab"[i % 2] for i in range(len(test)))
    found = hs.evaluate(run, replace(test, groups=groups), store=None).metrics["AP"]
    said = run.model.predict(test, store=None)
    drawn, alone = (evaluate(said, groups=g).metrics["AP"] for g in (groups, ()))
    assert found == drawn != alone


@pytest.mark.long
def test_a_run_of_boxes_in_groups_is_judged_by_drawing_groups(
    data: Path, store: Path, tmp_path: Path
) -> None:
    plain = json.loads((data / "instances.json").read_text())
    rows = ["path,label,xmin,ymin,xmax,ymax,group"]
    for one in plain["annotations"]:
        x, y, w, h = one["bbox"]
        i, name = one["image_id"], tuple(COLOURS)[one["category_id"] - 1]
        rows.append(f"{data}/images/p{i:02}.png,{name},{x},{y},{x + w},{y + h},{i // 4}")
    (tmp_path / "boxes.csv").write_text("\n".join(rows))
    run = hs.train(tmp_path / "boxes.csv", tmp_path / "run", store=store, **SETTINGS)
    said = run.model.predict(run.splits.test, store=None)
    groups = run.splits.groups_of(said.ids)
    assert len(set(groups)) < len(groups)
    assert run.evaluation.metrics == evaluate(said, groups=groups).metrics
    assert run.evaluation.metrics != evaluate(said).metrics


def test_predicted_boxes_are_in_upright_pixels(run: Any, data: Path, tmp_path: Path) -> None:
    plain = json.loads((data / "instances.json").read_text())
    train = [row["path"] for row in _rows(run.folder) if row["part"] == "train"]
    upright = next(p for p in train if p in {"images/p04.png", "images/p14.png", "images/p24.png"})
    number = int(Path(upright).stem[1:])
    true = [b["bbox"] for b in plain["annotations"] if b["image_id"] == number]
    found = run.model.predict([data / upright], store=None).outputs
    best = found["boxes"][0, 0]
    x, y, w, h = min(true, key=lambda b: abs(b[0] - best[0]) + abs(b[1] - best[1]))
    assert np.abs(best - [x, y, x + w, y + h]).max() < 8


def _rows(folder: Path) -> list[dict[str, str]]:
    import csv

    with open(folder / "splits.csv", encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))


@pytest.mark.parametrize(
    "asked",
    [
        {"strategy": "scratch"},
        {"folds": 3},
        {"head": "ridge", "head_epochs": None},
        {"head": "linear"},
        {"head": torch.nn.Linear(3, 3), "head_epochs": None},
        {"mixup": 0.2},
        {"rotation": 0.1},
        {"class_weights": "balanced"},
        {"thaw": "2"},
        {"strategy": "finetune", "thaw": "all"},
        {"budget": "60s"},
        {"backbone": "tiny:32"},
    ],
)
def test_what_has_no_meaning_for_boxes_is_refused(
    asked: Mapping[str, Any], data: Path, store: Path, tmp_path: Path
) -> None:
    settings = {k: v for k, v in {**SETTINGS, **asked}.items() if v is not None}
    with pytest.raises(HeadstartError) as error:
        hs.train(data, tmp_path / "run", store=store, **settings)
    assert 40 < len(str(error.value)) < 400


def test_settings_of_phases_that_do_not_run_are_refused_with_those_that_do(
    data: Path, store: Path, tmp_path: Path
) -> None:
    for asked in ({"epochs": 3}, {"lr": 0.1}, {"l2": 1.0}):
        with pytest.raises(SpecError, match="head pyramid.*head_epochs"):
            hs.train(data, tmp_path / "run", store=store, size=96, **asked)


def test_the_cost_of_a_run_is_told_without_one(data: Path, store: Path, tmp_path: Path) -> None:
    told = hs.train(data, tmp_path / "run", store=store, dry_run=True, **SETTINGS)
    row = 40 * 8 * 12 + 112 * 4 * 6 + 320 * 2 * 3  # channels, at 96 x 64 px
    assert told.cut_bytes == 2 * row * (40 + 2 * len(told.splits.train))


def test_a_detector_is_run_by_the_usual_engine_alone(run: Any) -> None:
    from headstart.features.choosing import EngineRequest, chosen_engine
    from headstart.features.engine_table import FrozenPart

    own = hs.load(run.folder).backbone
    assert own.card.input.answers
    network = FrozenPart(own, hs.specs.Runtime().resolved())
    request = EngineRequest(
        network, run.splits.train, 10**6, "x", None, lambda choice, files: 0.0, Listener(), {}
    )
    chosen = chosen_engine(request)
    assert chosen.engine is None  # nothing was timed
    assert chosen.choice.engine == "onnxruntime"


@pytest.mark.long
def test_seeds_of_a_run_on_boxes_are_summed_up(data: Path, store: Path, tmp_path: Path) -> None:
    few = {**SETTINGS, "head_epochs": 1}
    hs.train(data, tmp_path / "runs", store=store, seeds=2, **few)
    assert len(list((tmp_path / "runs").glob("*/model/manifest.json"))) == 2


# ---------------------------------------------------------------- what a user meets
def shown(data: Path, *numbers: int) -> list[str]:
    return [str(data / "images" / f"p{i:02}.png") for i in numbers]


def test_found_boxes_are_drawn_and_written_for_yolo(
    run: Any, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw, yolo, names = tmp_path / "drawn", tmp_path / "yolo", shown(data, 0, 4, 5)
    asked = ["predict", str(run.folder), *names, "--draw", str(draw), "--yolo", str(yolo)]
    assert main([*asked, "--json"]) == 0
    found = {Path(one["path"]).stem: one["found"] for one in json.loads(capsys.readouterr().out)}
    assert any(found.values())
    for stem, boxes in found.items():
        lines = (yolo / "labels" / f"{stem}.txt").read_text().splitlines()
        assert len(lines) == len(boxes)
        with Image.open(draw / f"{stem}.jpg") as drawn:
            assert drawn.size == ((504, 672) if stem == "p04" else (672, 504))
    classes = (yolo / "classes.txt").read_text().splitlines()
    number, x, *_ = (yolo / "labels" / "p00.txt").read_text().split()
    first = found["p00"][0]
    assert classes[int(number)] == first["label"]
    assert float(x) * 96 == pytest.approx((first["box"][0] + first["box"][2]) / 2, abs=1e-3)


def test_files_that_are_there_stay_as_they_are(
    run: Any, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p00.jpg").write_text("mine")
    (tmp_path / "classes.txt").write_text("mine")
    for flag in ("--draw", "--yolo"):
        code = main(["predict", str(run.folder), *shown(data, 0), flag, str(tmp_path)])
        assert code == 2
        assert f"is there already: name another {flag}." in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["classes.txt", "p00.jpg"]
    assert (tmp_path / "p00.jpg").read_text() == "mine"


def test_yolo_texts_of_two_pictures_of_one_name_are_refused(
    run: Any, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "p00.png").write_bytes(Path(shown(data, 0)[0]).read_bytes())
    names = [*shown(data, 0), str(tmp_path / "more" / "p00.png")]
    assert main(["predict", str(run.folder), *names, "--yolo", str(tmp_path / "yolo")]) == 2
    assert "one folder at a time" in capsys.readouterr().err


def test_a_run_on_boxes_says_what_is_wrong_and_why(run: Any) -> None:
    page = (run.folder / "report.html").read_text()
    plain = json.loads((run.folder / "insights.json").read_text())
    assert [own["name"] for own in plain["precision_curves"]] == ["blue", "red"]
    assert plain["missing_labels"]["of"] == 12
    for text in ("Precision and recall", "Thresholds", "Errors by kind", "(Bolya et al. 2020)"):
        assert text in page
    assert run.evaluation.at_threshold["red"].threshold == run.model.target.thresholds[1]
    wrong = sum(own.count for own in run.evaluation.errors.values())
    assert page.count('<div class="gallery large">') == (wrong > 0)


def test_the_russian_report_of_boxes_has_no_english_left(run: Any, data: Path) -> None:
    from test_report import LATIN, Looking

    from headstart.reporting.facts import read_facts
    from headstart.reporting.page import render

    sources = {p.relative_to(data).as_posix(): p for p in (data / "images").iterdir()}
    looked = Looking(render(read_facts(run.folder, sources), "ru"))
    for text in looked.ours:
        assert set(re.findall(r"[A-Za-z]\w*", text)) <= LATIN | ENGINE, text
    said = " ".join(looked.ours)
    assert all(word in said for word in ("рам", "полнота", "точность", "пропущен"))


ENGINE = {"p", "onnxruntime", "float32"}  # names


class Patch:
    """Finds one box, as sure as a part of the picture is red; another class where it is blue."""

    box, part = (20.0, 20.0, 60.0, 60.0), (slice(20, 34), slice(24, 36))

    def detections(self, pixels: np.ndarray[Any, Any]) -> list[Detections]:
        boxes, labels = np.array([self.box, self.box]), np.array([0, 1])
        sure = [one[self.part][..., 0].mean() / 255 for one in pixels]
        return [Detections(boxes, np.array([s, 1 - s]), labels) for s in sure]


@pytest.mark.parametrize("label", [0, 1])
def test_hiding_what_a_score_depends_on_changes_it_most(label: int) -> None:
    pixels = np.zeros((96, 128, 3), np.uint8)
    pixels[Patch.part] = (255, 0, 0)
    opened: Any = Patch()
    score = float(opened.detections(pixels[None])[0].scores[label])
    values = occlusion(opened, pixels, np.array(Patch.box), label, score).values
    strongest = np.unravel_index(np.abs(values).argmax(), values.shape)
    assert values.shape == (96, 128)
    assert (values[strongest] > 0) == (label == 0)  # it falls, or it rises
    assert 16 <= strongest[0] <= 38
    assert 20 <= strongest[1] <= 40
    assert np.abs(values[80:]).max() < 0.05 * np.abs(values).max()


@pytest.mark.long
def test_full_insights_compare_with_random_weights(data: Path, store: Path, tmp_path: Path) -> None:
    few = {**SETTINGS, "head_epochs": 1}
    run = hs.train(data, tmp_path / "run", store=store, insights="full", **few)
    assert list(run.baselines) == [f"{run.model.backbone.card.name} with random weights"]
    page = (run.folder / "report.html").read_text()
    assert "the same head on" in page
    assert not list((tmp_path / "run").glob("checkpoint*"))


def test_a_detection_is_explained_by_what_hides_it(run: Any, data: Path, tmp_path: Path) -> None:
    (why,) = hs.explain(run.folder, shown(data, 0), out=tmp_path)
    assert why.map.values.shape == why.picture.shape[:2]
    assert 0 < np.abs(why.map.values).max() <= why.score
    with Image.open(tmp_path / "p00.png") as page:
        assert page.width == 1112
    found = run.model.predict(shown(data, 0), store=None)
    (best, *_) = run.model.target.listed(found.outputs, 0)
    assert why.name == best["label"]
    assert np.abs(np.array(why.upright) - best["box"]).max() < 1e-2


def test_the_nearest_training_boxes_are_of_its_class(run: Any, data: Path) -> None:
    (why,) = hs.explain(run.folder, shown(data, 0))
    assert [near.label for near in why.nearest[:3]] == [why.name] * 3
    train = {row["path"] for row in _rows(run.folder) if row["part"] == "train"}
    assert {near.id for near in why.nearest} <= train
    assert list(why.to_plain()) == ["path", "class", "score", "box", "method", "spot", "nearest"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ([], "name FILE after"),
        (["p00", "--class", "green"], "class of this model"),
        (["p00", "--method", "places"], "--method"),
        (["p05", "--class", "red"], "no detection of red reaches"),
    ],
)
def test_what_cannot_be_explained_of_boxes_is_refused_in_a_sentence(
    asked: list[str], said: str, run: Any, data: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    names = [str(data / "images" / f"{a}.png") if a[0] == "p" else a for a in asked]
    assert main(["explain", str(run.folder), *names, "--out", str(tmp_path / "out")]) != 0
    assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*"))


# ---------------------------------------------------------------- pictures and views
@pytest.mark.parametrize("size", [(96, 72), (72, 96), (640, 480), (33, 1000), (5, 4)])
def test_padding_is_undone_exactly(size: tuple[int, int]) -> None:
    placing, rng = Placing.of(size, (128, 96)), np.random.default_rng(0)
    corners = np.sort(rng.random((5, 2, 2)), axis=1).reshape(5, 4) * [*size, *size]
    inside = placing.into(corners)
    back = out_of(inside[None], placing.numbers()[None])[0]
    assert np.abs(back - corners).max() < 1e-9
    assert inside.min() >= 0
    assert (inside <= [128, 96] * 2).all()


def test_a_letterboxed_picture_lies_where_its_placing_says() -> None:
    input = LetterboxInput(width=128, height=96, interpolation="nearest")
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[10:20, 5:25] = 255
    batch = input.prepare(pixels)
    rows, columns = np.nonzero((batch["pixels"][0] == 255).all(axis=2))
    there = input.placing(40, 40).into(np.array([[5, 10, 25, 20]]))[0]
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert np.abs(there - found).max() <= 1
    assert batch["frame"][0].tolist() == input.placing(40, 40).numbers().tolist()


@pytest.mark.parametrize("seed", range(12))
def test_boxes_move_with_their_picture(seed: int) -> None:
    pixels = np.zeros((96, 128, 3), np.uint8)
    pixels[30:60, 40:90] = 255
    views = BoxViews(flip="both", resized_crop=0.5)
    view = views.change({"pixels": pixels[None]}, seed)["pixels"][0]
    own = ExampleBoxes([[40, 30, 90, 60]], [0], size=(128, 96))
    (box,) = views.moved(own, seed, 128, 96).corners
    rows, columns = np.nonzero(view[..., 0] > 127)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert np.abs(box - found).max() <= 1.5


def test_a_box_of_which_a_crop_leaves_too_little_is_left_out() -> None:
    half = Moved(left=0, top=0, share=0.5, mirrored=False, upside_down=False)
    corners = [[40, 10, 74, 20], [60, 10, 100, 20], [10, 10, 20, 20]]  # of 64: 71 %, 10 %, all
    own = half.boxes(ExampleBoxes(corners, [0, 1, 0]), 128, 96)
    assert own.labels.tolist() == [0, 0]
    assert own.corners.tolist() == [[80, 20, 128, 40], [20, 20, 40, 40]]


def test_the_labels_of_a_batch_are_those_of_its_views() -> None:
    target, n, views = BoxesTarget(("a",)), 5, 3
    plain = BoxLabels.of([ExampleBoxes([], [])] * n)
    tables = [
        FeatureTable(tuple("abcde"), np.zeros((n, 1), np.float32), plain, target, "")
        for _ in range(views)
    ]
    number = [np.array([[10.0 * v + row] for row in range(n)], np.float32) for v in range(views)]
    rows = PlacedRows(
        tuple(replace(t, cut=x) for t, x in zip(tables, number, strict=True)),
        cut=True,
        seed=3,
        moved=tuple(
            BoxLabels.of([ExampleBoxes([[0, 0, 1, float(x[0])]], [0]) for x in own])
            for own in number
        ),
    )
    picked, seen = np.array([3, 0, 4]), set[float]()
    for epoch in range(1, 4):
        x = rows.batch(picked, epoch)
        assert isinstance(x, torch.Tensor)
        assert rows.labels(picked, epoch).boxes.corners[:, 3].tolist() == x[:, 0].tolist()
        seen |= set(x[:, 0].tolist())
    assert len(seen) == 9  # every view of each


def test_the_pictures_themselves_are_learned_from_beside_their_views(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"picture")
    one = ExampleBoxes([[4, 8, 20, 28]], [0], size=(64, 64))
    input = LetterboxInput(mean=(0.5,) * 3, std=(0.5,) * 3, width=64, height=64)
    target = BoxesTarget(("a",), canvas=(64, 64))
    data = hs.Dataset(("a",), (str(tmp_path / "a"),), (one,), target)
    table = FeatureTable(("a",), np.zeros((1, 1), np.float32), data.y, target, "")
    views = Views(BoxViews(views=2), seed=1)
    rows = Placed(input, target).rows([table] * 3, data, views)
    places = [own.boxes.corners.tolist() for own in rows.moved]
    assert places[0] == one.corners.tolist()
    assert len({str(place) for place in places}) == 3


def test_changes_that_boxes_cannot_follow_are_refused() -> None:
    with pytest.raises(SpecError, match="turns"):
        followed(Augment(quarter_turns=True))
    assert followed(Augment(flip="vertical", views=3)) == BoxViews("vertical", 1.0, 0.0, 3)


# ---------------------------------------------------------------- the network
@pytest.fixture(scope="module")
def backbone() -> Any:
    own = load_backbone("packaged:efficientnet_lite0")
    input = own.card.input.finding(np.array([[96, 72]]), 128)
    return replace(own, card=replace(own.card, input=input))


def test_the_levels_are_the_ends_of_blocks(backbone: Any) -> None:
    levels = levels_of(backbone)
    assert levels.shapes == ((40, 12, 16), (112, 6, 8), (320, 3, 4))  # 320 inside the last block
    x = torch.rand(2, 3, 96, 128)
    with torch.inference_mode():
        pooled, row = levels.both(x)
        assert torch.equal(row, levels.trunk(x))
        assert torch.allclose(pooled, backbone.module(x))
    assert row.shape == (2, levels.size)


def test_a_level_of_the_last_block_alone_is_found() -> None:
    own = load_backbone("timm:test_efficientnet", weights="random")
    input = own.card.input.finding(np.array([[64, 64]]), 64)
    levels = levels_of(replace(own, card=replace(own.card, input=input)))
    assert levels.shapes == ((32, 8, 8), (48, 4, 4), (64, 2, 2))  # not the 256 for pooling


def test_a_network_without_the_strides_is_named() -> None:
    own = load_backbone("tiny:32")
    input = own.card.input.finding(np.array([[96, 96]]), 96)
    with pytest.raises(SpecError, match=r"strides 8, 16, 32, and tiny:32"):
        levels_of(replace(own, card=replace(own.card, input=input)))


def test_the_graph_finds_the_boxes_of_pytorch(backbone: Any) -> None:
    from headstart.training.box_head import Detector

    levels = levels_of(backbone)
    head = BoxHead(levels.shapes, 3, seed=0)
    with torch.no_grad():
        head.heat.bias.add_(3.0)  # type: ignore[union-attr]  # many boxes above .01
        head.heat.weight.mul_(40)
        head.sides.weight.mul_(5)
    frozen = detector(backbone, levels, head.eval())
    noise = np.random.default_rng(0).integers(0, 256, (3, 96, 128, 3)).astype(np.uint8)
    noise[1] = 0  # a black picture
    whole = WholeNetwork(Detector(levels.trunk, head).eval(), frozen.card.input)
    engine = OnnxEngine(frozen, 1)
    for batch in ({"pixels": noise}, {"pixels": noise[1:2]}):
        with torch.inference_mode():
            theirs = whole(*tensors(batch)).numpy()
        ours, boxes, scores, classes = engine(batch)
        check_same(ours, theirs)
        rows = ours.reshape(len(ours), -1, 6)
        assert (rows[..., 5] == -1).any()
        assert (rows[..., 4] > 0.01).sum() > 20
        assert np.array_equal(rows[..., :4], boxes)
        assert np.array_equal(rows[..., 4], scores)
        assert np.array_equal(rows[..., 5], classes)
    with torch.no_grad():
        head.heat.bias.sub_(60)  # type: ignore[union-attr]
        head.heat.weight.zero_()
    quiet = OnnxEngine(detector(backbone, levels, head), 1)({"pixels": noise})[0]
    target = BoxesTarget(("a", "b", "c"))
    assert target.activate(quiet)["boxes"].shape == (3, 0, 4)  # nothing is found


def test_a_box_lies_at_a_peak_of_the_heatmap_alone() -> None:
    from headstart.training.box_head import Detector

    shapes = ((1, 8, 8), (1, 4, 4), (1, 2, 2))
    whole = Detector(torch.nn.Identity(), BoxHead(shapes, 2, seed=0))
    heat, sides = maps_of((8, 8, 40, 32), 1)
    heat[0, 1, 2, 4] = 7.0  # beside the peak at 2, 3
    heat[0, 0, 6, 6] = 6.0  # another peak, whose box lies far away
    sides[:, :, 6, 6] = sides[:, :, 2, 4] = 2.0
    found = BoxesTarget(("a", "b")).activate(whole.detections(heat, sides).detach().numpy())
    assert found["labels"][0, :2].tolist() == [1, 0]
    assert np.abs(found["boxes"][0, 0] - [8, 8, 40, 32]).max() < 0.01
    assert found["boxes"][0, 1].tolist() == [50, 50, 54, 54]
    assert (found["scores"][0, 2:] < 0.01).all()


def test_boxes_around_a_peak_are_averaged_as_far_as_they_overlap_its_own() -> None:
    from headstart.training.box_head import Detector

    shapes = ((1, 8, 8), (1, 4, 4), (1, 2, 2))
    whole = Detector(torch.nn.Identity(), BoxHead(shapes, 2, seed=0))
    heat, sides = maps_of((8, 8, 40, 32), 1)
    heat[0, 1, 2, 4] = heat[0, 1, 3, 3] = 0.0  # of score .5
    sides[0, 2, 2, 4] += 4  # a box up to 44, which overlaps by 8 / 9
    sides[:, :, 3, 3] = 2.0  # a box that overlaps hardly
    found = BoxesTarget(("a", "b")).activate(whole.detections(heat, sides).detach().numpy())
    weight = 0.5 * (8 / 9 - 0.6) / 0.4
    expected = [8, 8, (40 + 44 * weight) / (1 + weight), 32]
    assert np.abs(found["boxes"][0, 0] - expected).max() < 0.02


def test_other_boxes_than_those_of_pytorch_are_noticed() -> None:
    row = np.array([[10.0, 10, 20, 20, 0.5, 1] + [0, 0, 0, 0, 0.0, -1]])
    check_same(row, row)
    for change in ([0.02, 0, 0, 0, 0, 0], [0, 0, 0, 0, -0.4, 0], [0, 0, 0, 0, 0, 1]):
        other = row.copy()
        other[0, :6] += change
        with pytest.raises(HeadstartError, match="PyTorch"):
            check_same(row, other)


# ---------------------------------------------------------------- loss and target
def packed(*examples: ExampleBoxes) -> torch.Tensor:
    return packed_boxes(BoxLabels.of(examples))


ONE = ExampleBoxes([[8, 8, 40, 32]], [1])


def maps_of(box: tuple[float, ...], label: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The heatmap and distances of a head that is sure of one box on a grid of 8 x 8."""
    heat = torch.full((1, 2, 8, 8), -8.0)
    x, y = int((box[0] + box[2]) / 16), int((box[1] + box[3]) / 16)
    heat[0, label, y, x] = 8.0
    centre = torch.arange(8) * 8 + 4.0
    sides = torch.stack(
        [
            (centre[None] - box[0]).expand(8, 8),
            (centre[:, None] - box[1]).expand(8, 8),
            (box[2] - centre[None]).expand(8, 8),
            (box[3] - centre[:, None]).expand(8, 8),
        ]
    )[None]
    return heat, sides.clamp(min=0.1)


def test_the_right_box_has_the_least_loss() -> None:
    right = float(box_losses(*maps_of((8, 8, 40, 32), 1), packed(ONE), 1.0))
    for box, label in [((8, 8, 40, 32), 0), ((32, 32, 60, 60), 1), ((8, 8, 30, 32), 1)]:
        assert float(box_losses(*maps_of(box, label), packed(ONE), 1.0)) > right + 0.05
    assert right < 0.2


def test_examples_without_boxes_have_a_finite_loss_and_gradient() -> None:
    heat = torch.zeros(2, 2, 8, 8, requires_grad=True)
    sides = torch.ones(2, 4, 8, 8, requires_grad=True)
    bare = ExampleBoxes([], [])
    for boxes in (packed(bare, bare), packed(bare, ONE)):
        losses = box_losses(heat, sides, boxes, 1.0)
        losses.sum().backward()
        assert torch.isfinite(losses).all()
        assert torch.isfinite(heat.grad).all()  # type: ignore[arg-type]
        assert torch.isfinite(sides.grad).all()  # type: ignore[arg-type]
    alone = box_losses(heat[1:], sides[1:], packed(ONE), 1.0)
    assert torch.allclose(alone, losses[1:])  # of other examples in a batch a loss knows nothing


def test_losses_of_many_boxes_are_those_of_a_few_at_once(monkeypatch: Any) -> None:
    torch.manual_seed(0)
    heat, sides = torch.randn(5, 2, 8, 8), torch.rand(5, 4, 8, 8) * 20
    boxes = packed(*[ExampleBoxes([[8, 8, 20 + 8 * n, 32]] * n, [n % 2] * n) for n in range(5)])
    whole = box_losses(heat, sides, boxes, 2.0)
    monkeypatch.setattr("headstart.targets.box_loss.AT_ONCE", 8 * 8 * 4 * 2)
    assert torch.equal(box_losses(heat, sides, boxes, 2.0), whole)


def test_what_is_found_in_a_crowd_costs_nothing() -> None:
    crowd = ExampleBoxes([[8, 8, 40, 32]], [1], crowd=[True])
    assert packed(crowd)[0, 0, 5] == IGNORED
    assert packed(ONE)[0, 0, 5] == REAL
    sure = maps_of((8, 8, 40, 32), 1)
    assert float(box_losses(*sure, packed(crowd), 1.0)) < 0.01
    assert float(box_losses(*sure, packed(ExampleBoxes([], [])), 1.0)) > 5


def test_of_two_boxes_in_one_place_the_smaller_one_is_learned() -> None:
    large = ExampleBoxes([[0, 0, 64, 64], [24, 24, 40, 40]], [0, 1])
    heat, sides = maps_of((24, 24, 40, 40), 1)
    _, wide = maps_of((0, 0, 64, 64), 0)
    assert box_losses(heat, sides, packed(large), 1.0) < box_losses(heat, wide, packed(large), 1.0)


def test_thresholds_are_those_of_the_best_f1() -> None:
    y = BoxLabels.of([ExampleBoxes([[0, 0, 10, 10], [20, 20, 30, 30]], [0, 0])])
    corners = np.array([[0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]], np.float32)
    answers = answers_of([Detections(corners, np.array([0.8, 0.6, 0.4]), np.zeros(3, int))])
    target = BoxesTarget(("a", "b")).decided(answers, y)
    assert target.thresholds == (0.5, 0.3)  # between a right one and a wrong one; no box of b
    assert target.columns(answers)["detections"].tolist() == [2]
    assert [one["label"] for one in target.listed(answers, 0)] == ["a", "a"]
    assert BoxesTarget.load(json.loads(json.dumps(target.settings()))) == target


def test_detections_come_back_from_a_table() -> None:
    target = BoxesTarget(("a", "b"), thresholds=(0.5, 0.5))
    rng = np.random.default_rng(0)
    found = [
        Detections(rng.random((n, 4)).astype(np.float32), rng.random(n), rng.integers(0, 2, n))
        for n in (3, 0, 5)
    ]
    answers = answers_of(found)
    cells = {name: [*map(str, column)] for name, column in target.written(answers).items()}
    back = target.answers(cells)
    assert all(np.array_equal(back[name], answers[name]) for name in answers)


def test_labels_of_other_data_are_translated_by_name() -> None:
    ours, theirs = BoxesTarget(("car", "sign")), BoxesTarget(("sign", "tree", "car"))
    y = BoxLabels.of([ExampleBoxes([[0, 0, n, n] for n in (1, 2, 3)], [0, 1, 2]), None])
    own = ours.translate(y, theirs)
    assert own[0].labels.tolist() == [1, 0]
    assert own[0].corners[:, 2].tolist() == [1, 3]
    assert own.known.tolist() == [True, False]


def test_a_server_finds_what_predict_finds(run: Any, data: Path) -> None:
    """Also in a batch of pictures of several sizes."""
    files = sorted((data / "images").glob("*.png"))[:6]
    model = hs.load(run)
    said = model.predict([Image.open(file) for file in files], store=None)
    with running(run.folder) as server:
        reply = server.ask("POST", "/predict", *multipart(*(file.read_bytes() for file in files)))
    assert sum(len(plain["found"]) for plain in reply.json["predictions"]) > 0
    for row, plain in enumerate(reply.json["predictions"]):
        wanted = said.target.listed(said.outputs, row)
        assert [one["label"] for one in plain["found"]] == [one["label"] for one in wanted]
        ours, theirs = ([one["box"] for one in found] for found in (plain["found"], wanted))
        assert np.allclose(ours, theirs, atol=0.05)
