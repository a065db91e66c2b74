"""An export answers as its model does: the same file, the same scores, everywhere."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import write_shapes
from PIL import Image

import headstart as hs
from headstart.backbones.freezing import as_frozen
from headstart.backbones.frozen import Frozen
from headstart.backbones.session import open_session
from headstart.base.context import RunContext
from headstart.base.errors import BundleError, Mismatch, PlaceError, SpecError
from headstart.base.listener import Listener
from headstart.base.onnx_nodes import Nodes
from headstart.base.runtime import Runtime
from headstart.cli.main import main
from headstart.exporting import export as exporting
from headstart.exporting import refitting
from headstart.exporting.assembling import assembled
from headstart.exporting.plan import ExportPlan
from headstart.features.extract import extract
from headstart.heads.linear import LinearHead
from headstart.heads.mlp import MlpHead
from headstart.heads.module import ModuleHead
from headstart.heads.nearest import NearestHead, NeighbourMeanHead, unit
from headstart.modalities.images.averaged import AveragedViews
from headstart.modalities.images.inputs import ImageInput
from headstart.modalities.images.letterbox import LetterboxInput
from headstart.modalities.reading import find
from headstart.modalities.text.packaged import load_shipped
from headstart.models.distance import Seen
from headstart.models.golden import KnownAnswer, check_known, pack_known, unpack_known
from headstart.models.limits import Limits
from headstart.runs.export_rows import rows_of
from headstart.targets.classes import ClassTarget
from headstart.targets.grades import GradesTarget
from headstart.targets.labels import LabelsTarget
from headstart.targets.numbers import NumberTarget
from headstart.targets.target import Target

RNG = np.random.default_rng(0)
D = 8
THREE = ClassTarget(("cat", "dog", "hen"))
TWO = ClassTarget(("cat", "dog"))


def dense(outputs: int) -> LinearHead:
    weight, bias = RNG.normal(0, 2, (D, outputs)), RNG.normal(0, 1, outputs)
    return LinearHead(weight.astype(np.float32), bias.astype(np.float32))


def mlp(outputs: int) -> MlpHead:
    first, second = RNG.normal(0, 1, (D, 5)), RNG.normal(0, 2, (5, outputs))
    biases = np.zeros(5, np.float32), np.zeros(outputs, np.float32)
    return MlpHead((first.astype(np.float32), second.astype(np.float32)), biases)


def votes(weighed: bool) -> NearestHead:
    rows, y = unit(RNG.normal(0, 1, (12, D))), np.arange(12) % 2  # no row of the third class
    own = RNG.uniform(0.5, 2, 12).astype(np.float32) if weighed else None
    return NearestHead(rows, y.astype(np.int64), np.array([1, 2, 1], np.float32), 5, own)


def means(odds: bool) -> NeighbourMeanHead:
    values = RNG.integers(0, 2, (12, 2)).astype(np.float32)
    values = values if odds else values[:, :1] * 1.5
    return NeighbourMeanHead(
        unit(RNG.normal(0, 1, (12, D))), values, np.ones(12, np.float32), 4, odds
    )


def module() -> ModuleHead:
    import torch

    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.LayerNorm(D), torch.nn.Linear(D, 3))
    return ModuleHead.of(layers, D)


LABELS = LabelsTarget(("red", "round", "wet"), thresholds=(0.3, 0.5, 0.7))
MODELS: dict[str, Callable[[], tuple[Any, Target, float]]] = {
    "classes": lambda: (dense(3), THREE, 1.0),
    "scaled": lambda: (dense(3), THREE, 2.5),
    "one logit": lambda: (dense(1), TWO, 0.7),
    "dense layers": lambda: (mlp(3), THREE, 1.0),
    "votes": lambda: (votes(False), THREE, 1.0),
    "weighed votes": lambda: (votes(True), THREE, 3.0),
    "a module": lambda: (module(), THREE, 1.0),
    "labels": lambda: (dense(3), LABELS, 1.0),
    "labels of neighbours": lambda: (means(True), LabelsTarget(("red", "wet")), 1.0),
    "a number": lambda: (dense(1), NumberTarget(mean=50, std=20), 1.0),
    "quantiles": lambda: (dense(3), NumberTarget("quantile", 5, 2), 1.0),
    "a number of neighbours": lambda: (means(False), NumberTarget(mean=1, std=3), 1.0),
    "grades": lambda: (dense(3), GradesTarget(("low", "fair", "good", "best")), 1.0),
}


@pytest.fixture(scope="module")
def network() -> Frozen:
    own = as_frozen(hs.load_backbone(f"tiny:{D}"))
    input = ImageInput(24, 27, draft=True, interpolation="bilinear")
    return replace(
        as_frozen(hs.load_backbone(f"tiny:{D}").changed(size=24)),
        card=replace(own.card, input=input),
    )


def model_of(network: Frozen, name: str) -> hs.Model:
    head, target, temperature = MODELS[name]()
    seen = Seen.of(RNG.normal(0, 1, (9, D)))
    return hs.Model(network, head, target, Limits(temperature, far=0.8, seen=seen))


def picture(height: int, width: int) -> Any:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def predict(folder: Path, *words: str) -> list[dict[str, Any]]:
    """Run the program that travels with an export, without Headstart."""
    plain = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [sys.executable, "-P", str(folder / "predict.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=plain, cwd=folder)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


# ---------------------------------------------------------------- what every model keeps
@pytest.mark.parametrize("name", MODELS)
def test_an_export_gives_the_models_answers(name: str, network: Frozen, tmp_path: Path) -> None:
    model = model_of(network, name)
    made = hs.export(model, tmp_path / "out", threads=1)
    assert made.difference <= 1e-6
    assert hs.verify(tmp_path / "out", threads=1).difference <= 1e-6
    session = open_session((tmp_path / "out" / "model.onnx").read_bytes(), {}, 1, name)
    pixels = np.stack([picture(40, 31) for _ in range(3)])
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(None, {"pixels": pixels}), strict=True))
    said = model.predict(list(pixels), store=None)
    own = model.target.of_graph({k: v for k, v in outputs.items() if k != "distance"})
    for key, values in said.outputs.items():
        np.testing.assert_allclose(own[key], values, atol=1e-6, rtol=1e-6)
    distances = model.limits.distance(_x(model, *pixels))
    np.testing.assert_allclose(np.asarray(outputs["distance"]), distances, atol=1e-5)


def test_prepared_squares_come_after_pictures(network: Frozen, tmp_path: Path) -> None:
    model = model_of(network, "classes")
    hs.export(model, tmp_path / "out", threads=1)
    session = open_session((tmp_path / "out" / "model.onnx").read_bytes(), {}, 1, "out")
    pixels = np.stack([picture(50, 33) for _ in range(2)])
    input = network.card.input
    assert isinstance(input, ImageInput)
    squares = np.stack([input(p) for p in pixels])
    (plain, *_) = session.run(None, {"pixels": pixels})
    (both, *_) = session.run(None, {"pixels": pixels, "prepared": squares[::-1]})
    (alone, *_) = session.run(None, {"pixels": pixels[:0, :1, :1], "prepared": squares})
    assert np.array_equal(both, np.concatenate([plain, plain[::-1]]))
    assert np.array_equal(alone, plain)


def test_what_the_model_is_travels_in_the_file_and_beside_it(
    network: Frozen, tmp_path: Path
) -> None:
    hs.export(model_of(network, "scaled"), tmp_path / "out", threads=1)
    card = json.loads((tmp_path / "out" / "export.json").read_text())
    held = {p.key: p.value for p in onnx.load(tmp_path / "out" / "model.onnx").metadata_props}
    for key in ("classes", "limits", "licence", "card", "versions", "answers"):
        assert json.loads(held[f"headstart_{key}"]) == card[key]
    assert card["classes"] == ["cat", "dog", "hen"]
    assert card["limits"]["far"] == 0.8
    assert card["measured"]["largest_difference"] <= 1e-6


# ---------------------------------------------------------------- preparation
FITS = [
    *(ImageInput(19, 23, interpolation="bicubic", fit=f) for f in ("crop", "squash", "pad")),
    *(ImageInput(16, 16, interpolation=how) for how in ("nearest", "bilinear", "lanczos")),
    ImageInput(17, 20, averaged=AveragedViews("both", True, 0.5, 24)),
    ImageInput(16, 16, averaged=AveragedViews("none", True, count=4)),
    LetterboxInput(width=64, height=32),
]
TALL = [(70, 9), (9, 70), (1, 1), (40, 40), (31, 64), (2, 90)]  # (70, 9): columns are resized first


@pytest.mark.parametrize("input", FITS, ids=lambda i: f"{i.kind} {i.fit} {i.interpolation}")
def test_the_graph_prepares_as_pillow_does(input: ImageInput) -> None:
    nodes = Nodes()
    given = input.in_graph(nodes).arrays["pixels"]
    nodes.output("out", given, np.uint8, ["n", "h", "w", 3])
    session = open_session(nodes.model({}).SerializeToString(), {}, 1, "preparation")
    for size in TALL:
        pixels = np.stack([picture(*size) for _ in range(2)])
        wanted = np.concatenate([input.prepare(p)["pixels"] for p in pixels])
        assert np.array_equal(session.run(None, {"pixels": pixels})[0], wanted), size


def test_test_time_views_are_averaged_in_the_graph(network: Frozen, tmp_path: Path) -> None:
    views = AveragedViews("horizontal", quarter_turns=True, count=8)
    input = replace(network.card.input, averaged=views)  # type: ignore[type-var]
    own = replace(network, card=replace(network.card, input=input))
    one, many = model_of(network, "classes"), replace(model_of(network, "classes"), backbone=own)
    made = hs.export(many, tmp_path / "many", threads=1)
    assert made.difference <= 1e-6
    pixels = picture(30, 44)
    assert not np.allclose(
        one.answers(_x(one, pixels))["scores"], many.answers(_x(many, pixels))["scores"]
    )


def _x(model: hs.Model, *pixels: Any) -> Any:
    return hs.extract(list(pixels), backbone=model.backbone, store=None).x  # type: ignore[arg-type]


# ---------------------------------------------------------------- predict.py
@pytest.mark.parametrize("name", ["classes", "labels", "a number", "grades"])
def test_the_program_beside_it_predicts_as_headstart_does(
    name: str, network: Frozen, tmp_path: Path
) -> None:
    model = model_of(network, name)
    model = replace(model, limits=replace(model.limits, far=9.0))
    hs.export(model, tmp_path / "out", threads=1)
    files = [tmp_path / n for n in ("grey.png", "clear.png", "big.jpg", "deep.png", "turned.jpg")]
    big = Image.fromarray(picture(60, 45)).resize((700, 900))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(50, 41)[..., 0]).save(files[0])
    Image.fromarray(RNG.integers(0, 256, (30, 40, 4), dtype=np.uint8)).save(files[1])
    big.save(files[2])
    Image.fromarray(RNG.integers(0, 65536, (33, 30), dtype=np.uint16)).save(files[3])
    Image.fromarray(picture(64, 40)).save(files[4], exif=exif)
    said = model.predict(files, store=None)
    columns = model.target.columns(said.outputs)["predicted"].tolist()
    for row, found in enumerate(predict(tmp_path / "out", *map(str, files))):
        for key, values in said.outputs.items():
            np.testing.assert_allclose(found[key], values[row], atol=1e-5, rtol=1e-5)
        answer = "|".join(found["answer"]) if name == "labels" else found["answer"]
        assert answer == (pytest.approx(columns[row]) if name == "a number" else columns[row])


def test_the_program_says_unknown_where_the_model_does(network: Frozen, tmp_path: Path) -> None:
    model = model_of(network, "classes")
    Image.fromarray(picture(30, 40)).save(tmp_path / "a.png")
    for far, confidence in ((0.0, 0.0), (9.0, 1.1)):
        limits = replace(model.limits, far=far, confidence=confidence)
        hs.export(replace(model, limits=limits), tmp_path / "out", threads=1)
        (found,) = predict(tmp_path / "out", str(tmp_path / "a.png"))
        assert found["answer"] == "unknown"
        shutil.rmtree(tmp_path / "out")


@pytest.mark.parametrize(
    "name",
    [
        "tiny-text:8",
        "packaged:minilm",
        pytest.param("packaged:use_multilingual", marks=pytest.mark.slow),
    ],
)
def test_texts_are_exported_with_their_windows(name: str, tmp_path: Path) -> None:
    if name != "tiny-text:8":
        pytest.importorskip("tokenizers")
    source, _, id = name.partition(":")
    own = load_shipped(id) if source == "packaged" else as_frozen(hs.load_backbone(name))
    own = own.changed(window=16)
    weight = RNG.normal(0, 1, (own.card.dim, 3)).astype(np.float32)
    model = hs.Model(own, LinearHead(weight, np.zeros(3, np.float32)), THREE)
    assert hs.export(model, tmp_path / "out", threads=1).difference <= 1e-5
    texts = ["Good.", "The cat sat on the mat. " * 9, "Naïve cafe\u0301s, 12 of them!"]
    said = model.predict(texts, store=None)
    for row, found in enumerate(predict(tmp_path / "out", *texts)):
        np.testing.assert_allclose(found["scores"], said.scores[row], atol=1e-5)
        assert found["answer"] == said.classes[said.scores[row].argmax()]


# ---------------------------------------------------------------- what is refused
def test_an_export_that_answers_otherwise_is_refused(
    network: Frozen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = assembled
    monkeypatch.setattr(
        exporting,
        "assembled",
        lambda model, *a, **k: whole(
            replace(model, limits=replace(model.limits, temperature=1.01)), *a, **k
        ),
    )
    with pytest.raises(Mismatch, match=r"to 0\.0001; they differ by"):
        hs.export(model_of(network, "scaled"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_there_is_kept(network: Frozen, tmp_path: Path) -> None:
    with pytest.raises(PlaceError, match="is there already"):
        hs.export(model_of(network, "classes"), tmp_path)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_bundle_without_rows_is_not_narrowed(
    precision: str, network: Frozen, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hs.save(model_of(network, "classes"), tmp_path / "bundle")
    words = ["export", str(tmp_path / "bundle"), "--out", str(tmp_path / "out")]
    assert main([*words, "--precision", precision]) == 2
    assert "or name them with --data" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_texts_are_fp32_only(tmp_path: Path) -> None:
    own = as_frozen(hs.load_backbone("tiny-text:8"))
    with pytest.raises(SpecError, match="Models of texts are exported in fp32"):
        hs.export(hs.Model(own, dense(3), THREE), tmp_path / "out", precision="int8")


@pytest.mark.parametrize("name", ["model.onnx", "golden.safetensors", "predict.py"])
def test_an_altered_export_is_not_verified(name: str, network: Frozen, tmp_path: Path) -> None:
    hs.export(model_of(network, "classes"), tmp_path / "out", threads=1)
    data = bytearray((tmp_path / "out" / name).read_bytes())
    data[-1] ^= 1
    (tmp_path / "out" / name).write_bytes(data)
    with pytest.raises(BundleError, match="is not the file it was made with"):
        hs.verify(tmp_path / "out")


def test_other_answers_are_seen(network: Frozen, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    hs.export(model_of(network, "classes"), folder, threads=1)
    known = unpack_known((folder / "golden.safetensors").read_bytes())
    off = [
        replace(k, answers={n: a + np.float32(2e-4) for n, a in k.answers.items()}) for k in known
    ]
    (folder / "golden.safetensors").write_bytes(pack_known(off))
    card = json.loads((folder / "export.json").read_text())
    card["sha256"] = exporting_digests(folder)
    (folder / "export.json").write_text(json.dumps(card))
    with pytest.raises(BundleError, match="here they differ by 2"):
        hs.verify(folder)


def exporting_digests(folder: Path) -> dict[str, str]:
    from headstart.exporting.writing import digests

    return digests(folder)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": 9}', '{"format": 1, "engine": []}', "[" * 9000]
)
def test_a_folder_that_is_no_export_is_one_sentence(text: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not an export"):
        hs.verify(tmp_path)
    (tmp_path / "export.json").write_text(text)
    with pytest.raises(BundleError, match="is not a card that this version reads"):
        hs.verify(tmp_path)


# ---------------------------------------------------------------- known answers
def test_known_answers_come_back_and_are_checked() -> None:
    known = KnownAnswer({"x": np.arange(3)}, {"twice": np.arange(3) * 2.0})
    (again,) = unpack_known(pack_known([known]))
    assert np.array_equal(again.inputs["x"], known.inputs["x"])
    assert check_known([again], lambda given: {"twice": given["x"] * 2.0}) == 0
    for wrong in (
        lambda g: {"twice": g["x"] * 2.01},
        lambda g: {},
        lambda g: {"twice": g["x"] * np.nan},
    ):
        with pytest.raises(Mismatch, match="A model must give known examples"):
            check_known([again], wrong)
    for data in (b"", pack_known([])):
        with pytest.raises(BundleError, match="Known answers are"):
            unpack_known(data)


# ---------------------------------------------------------------- fp16, int8
@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> hs.Run:
    folder = tmp_path_factory.mktemp("runs")
    data = write_shapes(folder / "shapes")
    settings: dict[str, Any] = {"strategy": "extract", "insights": "none", "val": 0.3}
    return hs.train(data, folder / "run", backbone="tiny:32", store=folder / "store", **settings)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_run_is_exported_in_each_precision(
    precision: str, run: hs.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["export", str(run.folder), "--out", str(out), "--precision", precision, "--json"]
    assert main([*words, "--store", str(tmp_path / "store"), "--threads", "1"]) == 0
    told = json.loads(capsys.readouterr().out)
    card = json.loads((out / "export.json").read_text())
    assert card["measured"]["changed_answers"] == told["changed"]
    assert told["examples"] > 5, "validation rows are compared, too"
    graph = onnx.load(out / "model.onnx").graph
    kinds = {node.op_type for node in graph.node}
    assert ("QuantizeLinear" in kinds) == (precision == "int8")
    halves = [t for t in graph.initializer if t.name.endswith("(half)")]
    assert all(t.data_type == onnx.TensorProto.FLOAT16 for t in halves)
    assert bool(halves) == (precision == "fp16")
    if precision == "fp32":
        assert told["changed"] is None
    else:
        assert told["changed"] == 0
        assert told["rows"] == len(run.splits.val)
        assert card["measured"]["head_refitted"] == (precision == "int8")
    assert main(["verify", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["examples"] == 5


def test_a_bundle_is_narrowed_with_data(run: hs.Run, tmp_path: Path) -> None:
    bundle = shutil.copytree(run.folder / "model", tmp_path / "bundle")
    data = run.folder.parent / "shapes"
    made = hs.export(bundle, tmp_path / "out", precision="int8", data=data, store=None)
    assert made.changed == 0


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_too_many_changed_answers_are_refused(
    precision: str, run: hs.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "changed_share", lambda *_: 0.03)
    with pytest.raises(Mismatch, match=rf"{precision} may change 2.0% of the validation answers"):
        hs.export(run, tmp_path / "out", precision=precision, store=None)
    made = hs.export(run, tmp_path / "out", precision=precision, max_changed=0.05, store=None)
    assert made.changed == 0.03


def test_an_answer_that_becomes_unknown_is_a_changed_one(network: Frozen) -> None:
    rows = find([picture(24, 24) for _ in range(4)])[0]
    model, table = model_of(network, "classes"), extract(network, rows, store=None)
    doubting = replace(model, limits=replace(model.limits, far=0.0))
    trusting = replace(model, limits=replace(model.limits, far=2.0))
    assert exporting.changed_share(trusting, trusting, table, table) == 0
    assert exporting.changed_share(doubting, doubting, table, table) == 0
    assert exporting.changed_share(trusting, doubting, table, table) == 1


@pytest.mark.parametrize("refitted", [False, True])
def test_the_limit_of_distance_of_int8_is_beyond_as_many_rows(refitted: bool, run: hs.Run) -> None:
    """And as many rows are remembered, whether or not validation is among them."""
    splits, context = run.splits, RunContext(None, Runtime().resolved(), Listener())
    learned = splits.train_val if refitted else splits.train
    seen = Seen.of(extract(run.model.backbone, learned, store=None).x)
    val = extract(run.model.backbone, splits.val, store=None)
    far = float(np.sort(seen.distance(val.x))[len(val) // 2])
    model = replace(run.model, limits=replace(run.model.limits, seen=seen, far=far))
    plan = ExportPlan(precision="int8", max_changed=1.0)
    made = exporting.narrowed(model, plan, rows_of(model, splits), context).model
    assert made.limits.seen is not None
    assert len(made.limits.seen.rows) == len(learned)
    narrow = extract(made.backbone, splits.val, store=None)
    assert (made.limits.distance(narrow.x) > made.limits.far).sum() == len(val) - len(val) // 2 - 1


@dataclass(frozen=True)
class Distances:
    """Limits whose distance is the feature itself."""

    far: float

    def distance(self, x: Any) -> Any:
        return np.asarray(x)


@pytest.mark.parametrize(
    ("old", "new", "beyond"),
    [
        ([1.0, 2.0, 2.2], [1.0, 2.0, 2.05], 1),  # the gap above the limit becomes narrower
        ([1.0, 2.0, 2.2], [2.0, 4.0, 4.4], 1),
        ([1.0, 2.0, 2.05], [1.0, 2.0, 3.0], 0),
    ],
)
def test_a_moved_limit_leaves_as_many_rows_beyond(
    old: list[float], new: list[float], beyond: int
) -> None:
    limits: Any = Distances(2.1)
    tables: Any = [SimpleNamespace(x=distances) for distances in (new, old)]
    moved = refitting._with_far(limits, tables[0], limits, tables[1])
    assert (np.asarray(new) > moved.far).sum() == beyond


def test_openvino_is_given_prepared_pictures(run: hs.Run, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    out = tmp_path / "out"
    hs.export(run, out, to="openvino", store=None)
    assert {p.name for p in out.iterdir()} >= {"model.xml", "model.bin"}
    assert hs.verify(out).difference <= 1e-5
    file = tmp_path / "tall.png"
    Image.fromarray(picture(90, 31)).save(file)
    (found,) = predict(out, str(file))
    np.testing.assert_allclose(
        found["scores"], run.model.predict(file, store=None).scores[0], atol=1e-4
    )
