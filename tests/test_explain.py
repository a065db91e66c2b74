"""Explanations: maps that show what decides, curves that judge them, and what looks alike."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from listening import progress_of
from numpy.typing import NDArray
from patches import grad_model_on, on_the_patch, patched, shuffled, taught
from PIL import Image
from scipy.stats import spearmanr
from test_archives import cifar
from torch import nn

import headstart as hs
from headstart.backbones.backbone import Backbone
from headstart.backbones.entry import WholeNetwork
from headstart.cli.main import main
from headstart.explaining.neighbours import nearest
from headstart.explaining.pixels.attributing import attribute, picked
from headstart.explaining.pixels.attribution import LEVELS, Attribution
from headstart.explaining.pixels.deletion import Deletion, area_under, curve, deletion, hidings
from headstart.explaining.pixels.explaining import EFFORTS, telling
from headstart.explaining.pixels.grad_model import GradModel, featureless, log_odds
from headstart.explaining.pixels.method import METHODS
from headstart.explaining.pixels.probed_model import ProbedModel, probed_model_of
from headstart.explaining.pixels.probing import probes
from headstart.features.extract import extract
from headstart.targets.predictions import read_predictions

BACKBONES: dict[str, Callable[[], Backbone]] = {
    "tiny": lambda: hs.load_backbone("tiny:32"),
    "packaged": lambda: hs.load_backbone("packaged:efficientnet_lite0"),
    "timm convolutional": lambda: hs.load_backbone("timm:test_efficientnet", weights="random"),
    "timm residual": lambda: hs.load_backbone("timm:test_resnet", weights="random"),
    "timm transformer": lambda: hs.load_backbone("timm:test_vit", weights="random"),
    "keras": lambda: hs.load_backbone("keras:MobileNet@32", weights="random"),
}
STEPS = {"tiny": 100, "timm convolutional": 40, "timm transformer": 200, "keras": 1000}
SIDES = {  # places a side of the layers that are looked into
    "tiny": [8, 16],
    "packaged": [7, 14, 28],
    "timm convolutional": [5, 10, 20],
    "timm residual": [5, 10, 20],
    "timm transformer": [10],
    "keras": [8, 16],  # at 4 of 32 px each place has seen the whole picture
}


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "store"))


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("tiny", 0), id="tiny"),
        pytest.param(("timm convolutional", 0), id="timm convolutional"),
        *(
            pytest.param((name, start), id=f"{name} {start}", marks=pytest.mark.slow)
            for name in ("timm transformer", "keras")
            for start in range(3)  # of two networks, one may be much easier to look into
        ),
    ],
)
def grad_model(request: pytest.FixtureRequest) -> GradModel:
    name, start = request.param
    return taught(BACKBONES[name](), STEPS[name], start=start)


@pytest.fixture(scope="module")
def tiny() -> GradModel:
    return taught(BACKBONES["tiny"](), STEPS["tiny"])


def tiny_grad_model(seed: int = 0) -> GradModel:
    torch.manual_seed(seed)
    return grad_model_on(hs.load_backbone("tiny:32"), nn.Linear(32, 3), ("ant", "bee", "cat"))


def noise(grad_model: GradModel, n: int = 2) -> NDArray[np.uint8]:
    size = grad_model.input.size
    return np.random.default_rng(1).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def odds(grad_model: GradModel, squares: torch.Tensor, number: int) -> torch.Tensor:
    with torch.no_grad():
        return log_odds(grad_model.logits(squares), torch.full((len(squares),), number))


@pytest.mark.parametrize("name", BACKBONES)
def test_a_network_taken_apart_is_the_same_network(name: str) -> None:
    backbone = BACKBONES[name]()
    grad_model = grad_model_on(backbone, nn.Linear(backbone.card.dim, 2))
    squares, sides = torch.from_numpy(noise(grad_model)), list[int]()
    for probe in probed_model_of(grad_model).probes:
        crossed = WholeNetwork(probe.trunk, grad_model.input)(squares)
        assert probe.grid(crossed).shape[1:3] == (probe.side, probe.side)
        torch.testing.assert_close(probe.tail(crossed.clone()), grad_model.network(squares))
        sides.append(probe.side)
    assert sides == SIDES[name]


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(BACKBONES.keys() - {"timm transformer"}))
def test_places_share_out_all_that_the_picture_adds_to_the_log_odds(name: str) -> None:
    """Completeness (Sundararajan et al. 2017, proposition 1); a class token would take a share."""
    backbone = BACKBONES[name]()
    torch.manual_seed(0)
    grad_model = grad_model_on(backbone, nn.Linear(backbone.card.dim, 3), ("a", "b", "c"))
    squares = torch.from_numpy(noise(grad_model, 1)).float()
    whole = probed_model_of(grad_model)
    added = odds(grad_model, squares, 2) - odds(grad_model, featureless(squares), 2)
    for layers, rel in ((2, 0.1), (3, 0.15)):  # of 24 steps: the longer the way, the farther off
        probed = ProbedModel(grad_model, whole.probes[:layers])
        (found,) = attribute(probed, noise(grad_model, 1), np.array([2]), "places")
        assert float(found.values.sum()) == pytest.approx(float(added), rel=rel, abs=1e-4)


def test_a_transformer_is_looked_into_before_attention_moves_what_tokens_say() -> None:
    backbone = BACKBONES["timm transformer"]()
    grad_model = grad_model_on(backbone, nn.Linear(backbone.card.dim, 2))
    names, probed = [probe.name for probe in probes(backbone)], probed_model_of(grad_model)
    assert [probe.name for probe in probed.probes] == ["patch_embed_proj"]
    assert probed.mixed
    last = probed.tokens  # of which Grad-CAM is told
    assert last is not None
    assert (last.prefix, last.layout) == (1, "tokens")
    assert names.index(last.name) > 0  # behind it, only the class token counts
    (found,) = attribute(probed, noise(grad_model, 1), np.array([1]), "gradcam")
    assert found.layer == last.name


@pytest.mark.long
def test_maps_point_at_the_patch_that_alone_decides(grad_model: GradModel) -> None:
    squares, _, places = patched(20, grad_model.input.size, seed=2)
    numbers = grad_model.scores(squares).argmax(axis=1)
    maps = attribute(probed_model_of(grad_model), squares, numbers)
    smooth = [found.over(grad_model.input.size) for found in maps]
    assert np.mean([on_the_patch(m, place) for m, place in zip(smooth, places, strict=True)]) >= 0.9


@pytest.mark.long
def test_another_head_gives_other_maps(grad_model: GradModel) -> None:
    """Of one head in another order maps may be alike or opposite; of many they are neither."""
    squares, labels, _ = patched(2, grad_model.input.size, seed=3)
    own = attribute(probed_model_of(grad_model), squares, labels, "places")
    alike = [
        spearmanr(a.over(grad_model.input.size), b.over(grad_model.input.size), axis=None).statistic
        for seed in range(32)
        for a, b in zip(
            own,
            attribute(probed_model_of(shuffled(grad_model, seed)), squares, labels, "places"),
            strict=True,
        )
    ]
    assert np.mean(alike) <= 0.3


@pytest.mark.parametrize("method", METHODS)
def test_a_shared_offset_of_all_logits_changes_no_map(method: str) -> None:
    grad_model, raised = tiny_grad_model(), tiny_grad_model()
    with torch.no_grad():
        layer = raised.head
        assert isinstance(layer, nn.Linear)
        layer.weight += torch.rand(32, generator=torch.Generator().manual_seed(3))
    maps = [
        attribute(probed_model_of(each), noise(each), np.array([0, 2]), method)[1].values  # type: ignore[arg-type]
        for each in (grad_model, raised)
    ]
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-4)


def test_a_network_that_cannot_be_taken_apart_is_explained_by_its_pixels() -> None:
    grad_model = tiny_grad_model()
    (found,) = attribute(ProbedModel(grad_model, ()), noise(grad_model, 1), np.array([1]), "places")
    assert (found.method, found.layer, found.values.shape) == ("pixels", "pixels", (32, 32))


def test_of_several_maps_one_that_clearly_hides_the_class_sooner_is_shown(tiny: GradModel) -> None:
    squares, labels, _ = patched(12, 32, seed=6)
    dark = ProbedModel(tiny, ())  # by pixels or by hiding

    def areas(maps: list[Attribution]) -> NDArray[np.float64]:
        of = zip(squares, maps, strict=True)
        return np.array([area_under(curve(probed, s, m.over(32), m.number)) for s, m in of])

    for probed, first in ((probed_model_of(tiny), "places"), (dark, "pixels")):
        best = areas(attribute(probed, squares, labels))
        ways = [areas(attribute(probed, squares, labels, m)) for m in (first, "hiding")]  # type: ignore[arg-type]
        assert (best <= np.min(ways, axis=0) / 0.9 + 1e-6).all()


def test_a_later_map_is_picked_only_where_it_is_clearly_better(tiny: GradModel) -> None:
    (square,), _, ((top, left, side),) = patched(1, 32, seed=6)
    right = np.zeros((32, 32), np.float32)
    right[top : top + side, left : left + side] = 1
    maps = [Attribution(v, 0, "places", name) for v, name in ((-right, "a"), (right, "b"))]
    again = replace(maps[1], layer="c")
    probed = ProbedModel(tiny, ())
    assert picked(probed, square, [maps[0], maps[1], again]).layer == "b"
    assert picked(probed, square, [again, maps[1], maps[0]]).layer == "c"


def test_of_maps_that_are_as_good_hiding_is_shown_where_places_are_mixed() -> None:
    grad_model, probed = tiny_grad_model(), probed_model_of(tiny_grad_model())
    grad_model.head.load_state_dict({"weight": torch.zeros(3, 32), "bias": torch.zeros(3)})
    sure, unsure = (
        attribute(
            replace(probed, model=grad_model, mixed=mixed), noise(grad_model, 1), np.array([1])
        )[0].method
        for mixed in (False, True)
    )
    assert (sure, unsure) == ("places", "hiding")
    assert not probed.mixed
    assert probed_model_of(grad_model_on(BACKBONES["keras"](), nn.Linear(1024, 2))).mixed


def test_smoothing_a_map_keeps_what_is_the_same_everywhere_and_spreads_the_rest() -> None:
    flat, spot = np.full((8, 8), 3.0, np.float32), np.zeros((8, 8), np.float32)
    spot[4, 4] = 1
    smooth = [Attribution(v, 0, "places", "x").smoothed(0.1).values for v in (flat, spot)]
    np.testing.assert_allclose(smooth[0], 3, rtol=1e-5)
    assert smooth[1].sum() == pytest.approx(1, rel=0.05)
    assert 0 < smooth[1][4, 5] < smooth[1][4, 4] < 0.5


def test_hiding_tells_what_a_spot_adds_first_and_last() -> None:
    grad_model, square = tiny_grad_model(), noise(tiny_grad_model(), 1)[0]
    (found,) = attribute(probed_model_of(grad_model), square[None], np.array([1]), "hiding")
    y, x = np.mgrid[:32, :32] + 0.5 - np.array([2.5, 4.5])[:, None, None] * 32 / 7
    mask = np.exp(-(x**2 + y**2) / (2 * (32 / 7) ** 2))[..., None]
    blank = featureless(torch.from_numpy(square[None]).float())[0].numpy()
    both = [square * (1 - mask) + blank * mask, square * mask + blank * (1 - mask)]
    seen = torch.from_numpy(np.rint(np.stack([square, *both, blank])).astype(np.uint8))
    whole, hidden, alone, nothing = odds(grad_model, seen, 1).tolist()
    assert found.values[2, 4] == pytest.approx((whole - hidden + alone - nothing) / 2, abs=1e-4)
    assert found.values.shape == (7, 7)


def test_the_most_important_pixels_are_hidden_first_and_at_last_all() -> None:
    square = noise(tiny_grad_model(), 1)[0]
    order = np.zeros((32, 32), np.float32)
    order[4:8, 4:20] = 1  # 64 of 1,024 pixels: a sixteenth
    stages = hidings(square, order)
    assert np.array_equal(stages[0], square)
    changed = (stages != square).any(axis=3)
    assert changed[1][order > 0].mean() > 0.7
    assert not changed[1][order == 0].any()
    assert changed[-1].mean() > 0.9


def test_hiding_by_the_map_lowers_the_score_sooner(tiny: GradModel) -> None:
    squares, labels, _ = patched(10, 32, seed=4)
    probed = probed_model_of(tiny)
    maps = attribute(probed, squares, labels)
    told = [deletion(probed, s, m) for s, m in zip(squares, maps, strict=True)]
    assert np.mean([t.area("ours") < t.area("random") for t in told]) >= 0.8
    assert np.mean([t.area("ours") < t.area("centre") for t in told]) >= 0.8


def test_the_area_is_what_trapezia_give() -> None:
    scores = np.array([1, 0.5, 0.25], np.float32)
    told = Deletion(np.array([0, 0.5, 1], np.float32), scores, scores, scores)
    assert told.area("ours") == pytest.approx((0.75 + 0.375) / 2)


def test_the_nearest_of_what_was_seen_is_itself(shapes: Path) -> None:
    data = hs.read(shapes)
    table = extract(hs.load_backbone("tiny:32"), data)
    sources = dict(zip(data.ids, data.sources, strict=True))
    found = nearest(table, sources, table.x[5:7])
    assert [row[0].id for row in found] == list(data.ids[5:7])
    assert found[0][0].distance == pytest.approx(0, abs=1e-3)
    assert [n.distance for n in found[0]] == sorted(n.distance for n in found[0])


def test_a_kept_map_has_the_signs_and_the_top_of_the_map() -> None:
    values = np.array([[2.0, 0, 0, 0], [0] * 4, [0] * 4, [0, 0, 0, -1.0]], np.float32)
    kept = np.array(Attribution(values, 0, "places", "x").quantised())
    assert kept.shape == (28, 28)
    assert kept[:7, :7].max() == LEVELS == np.abs(kept).max()
    assert kept[-7:, -7:].min() == pytest.approx(-LEVELS / 2, abs=6)


def test_the_surest_mistakes_come_first_and_then_right_ones_of_each_class() -> None:
    scores = np.array([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.99, 0.01], [0.3, 0.7]], np.float32)
    labels = np.array([1, 1, 0, 0, 1])
    said = hs.Predictions(tuple("abcde"), scores, labels, ("x", "y"))
    assert telling(said, mistakes=6, right=4) == [0, 1, 3, 4, 2]
    assert telling(said, mistakes=1, right=2) == [0, 3, 4]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures of two classes, and a run of them."""
    folder = tmp_path_factory.mktemp("trained")
    squares, labels, _ = patched(24, 32, seed=5)
    for n, (square, label) in enumerate(zip(squares, labels, strict=True)):
        home = folder / "pictures" / ("blue", "orange")[label]
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(square).save(home / f"{n:02}.png")
    words = ["train", str(folder / "pictures"), "--out", str(folder / "run")]
    store = ["--store", str(folder / "store"), "--strategy", "extract"]
    assert main([*words, *store, "--backbone", "tiny:32"]) == 0
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained / "run", tmp_path / "run")


@pytest.mark.long
def test_explain_writes_a_picture_a_file(
    trained: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, picture = tmp_path / "new" / "out", trained / "pictures" / "orange" / "01.png"
    capsys.readouterr()
    assert main(["explain", str(run), str(picture), "--out", str(out), "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["path"], told["class"]) == (str(picture), "orange")
    assert set(told["deletion"]["area"]) == {"ours", "random", "centre"}
    assert told["nearest"][0] == {"path": "orange/01.png", "label": "orange", "distance": 0.0}
    with Image.open(told["file"]) as drawn:
        assert drawn.format == "PNG"
        assert len(np.unique(np.asarray(drawn).reshape(-1, 3), axis=0)) > 1000
    assert main(["explain", str(run), str(picture), "--out", str(out)]) == 2  # never written over


def test_explain_goes_on_past_a_picture_that_it_cannot_read(
    trained: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG\r\n but no picture")
    words = ["explain", str(run / "model"), str(bad)]
    assert main([*words, "--out", str(tmp_path / "a")]) == 1
    good = str(trained / "pictures" / "blue" / "00.png")
    capsys.readouterr()
    assert main([*words, good, "--out", str(tmp_path / "b"), "--class", "orange"]) == 3
    out, err = capsys.readouterr()
    assert out.startswith(f"{good}\torange\t0.")
    assert f"{bad}: must be a picture that can be read" in err
    assert "only a run folder names its training examples" in err


def test_nothing_is_compared_with_a_picture_that_can_not_be_read(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    monkeypatch.setattr("headstart.pixels.extract", None)
    assert main(["explain", str(run), str(tmp_path / "bad.png"), "--out", str(tmp_path / "a")]) == 1


def test_a_store_that_can_not_be_written_costs_only_the_nearest_examples(
    trained: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no folder")
    words = [str(trained / "pictures" / "blue" / "00.png"), "--out", str(tmp_path / "out")]
    store = ["--store", str(tmp_path / "file" / "store")]
    assert main(["explain", str(run), *words, *store]) == 0
    assert "nearest   left out: " in capsys.readouterr().err
    assert (tmp_path / "out" / "00.png").exists()


def test_progress_counts_pictures_and_not_what_is_none(
    trained: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = list[tuple[int, int]]()
    listener = progress_of("explain", lambda done, total: told.append((done, total)))
    monkeypatch.setattr("headstart.cli.opening.Terminal", lambda: listener)
    folder = tmp_path / "two"
    folder.mkdir()
    (folder / "notes.txt").write_text("no picture")
    for name in ("00.png", "02.png"):
        shutil.copy(trained / "pictures" / "blue" / name, folder)
    assert main(["explain", str(run), str(folder), "--out", str(tmp_path / "out")]) in (0, 3)
    assert told == [(1, 2), (2, 2)]


def test_data_goes_with_a_run(trained: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(trained / "pictures" / "blue" / "00.png"), "--data", str(trained / "pictures")]
    assert main(["explain", str(run / "model"), *words]) == 2
    assert "--data goes with a run folder" in capsys.readouterr().err


def test_explain_refuses_a_class_that_the_model_has_not(
    trained: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = str(trained / "pictures" / "blue" / "00.png")
    assert main(["explain", str(run), picture, "--class", "ornage"]) == 2
    assert "Did you mean 'orange'" in capsys.readouterr().err
    assert main(["explain", str(run / "model")]) == 2  # a bundle has no test to explain


def test_explain_of_a_run_writes_what_its_report_needs(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(run)]) == 0
    kept = json.loads((run / "explained.json").read_text())
    assert {row["path"] for row in kept["rows"]} <= set(
        read_predictions(run / "predictions.csv").ids
    )
    first = kept["rows"][0]
    assert {"label", "class", "score", "map", "deletion"} <= set(first)
    assert np.abs(first["map"]).max() == kept["levels"]
    assert len(list((run / "explained").glob("*.png"))) == len(kept["rows"])
    assert main(["explain", str(run)]) == 0  # its own files may be written again


def test_a_test_picture_that_is_broken_is_named_and_the_others_explained(
    trained: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(trained / "pictures", tmp_path / "pictures"))
    surest = json.loads((run / "explained.json").read_text())["rows"][0]["path"]
    (data / surest).write_text("no picture")
    capsys.readouterr()
    assert main(["explain", str(run), "--data", str(data), "--json"]) == 3
    out, err = capsys.readouterr()
    assert f"{surest}: must be a picture that can be read" in err
    told = json.loads((run / "explained.json").read_text())["rows"]
    assert [row["path"] for row in told] == [one["path"] for one in json.loads(out)]
    assert surest not in {row["path"] for row in told}


def test_what_was_explained_before_outlives_ctrl_c(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (run / "explained.json").read_bytes()

    def stop(*args: Any, **settings: Any) -> Deletion:
        raise KeyboardInterrupt

    monkeypatch.setattr("headstart.explaining.pixels.explaining.deletion", stop)
    assert main(["explain", str(run)]) == 130
    assert (run / "explained.json").read_bytes() == before


def test_pictures_that_are_parts_of_an_archive_are_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = cifar(tmp_path), tmp_path / "run"
    words = ["--backbone", "tiny:32", "--strategy", "extract", "--store", str(tmp_path / "store")]
    assert main(["train", str(data), "--out", str(out), *words]) in (0, 3)
    capsys.readouterr()
    assert main(["explain", str(out), "--store", str(tmp_path / "store"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert all(Path(one["file"]).exists() and one["nearest"] for one in told)


def test_a_run_explains_itself_with_little_effort(run: Path) -> None:
    rows, quick = json.loads((run / "explained.json").read_text())["rows"], EFFORTS["quick"]
    assert 0 < len(rows) <= quick.mistakes + quick.right
    assert {row["layer"] for row in rows} == {"body_2"}  # the last one alone
    assert {len(row["deletion"]["curve"]["ours"]) for row in rows} == {quick.steps + 1}


def test_ctrl_c_keeps_what_is_explained(
    trained: Path,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain, asked = deletion, list[int]()

    def at_second(*args: Any, **settings: Any) -> Deletion:
        asked.append(1)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return plain(*args, **settings)

    monkeypatch.setattr("headstart.explaining.pixels.explaining.deletion", at_second)
    out = tmp_path / "out"
    assert main(["explain", str(run), str(trained / "pictures" / "blue"), "--out", str(out)]) == 130
    assert len(list(out.iterdir())) == 1
    assert "1 of 12 pictures are explained and kept" in capsys.readouterr().err
