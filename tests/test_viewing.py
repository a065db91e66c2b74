"""Test-time views: the mean features of a picture's flips, turns and crops."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from listening import Lines
from PIL import Image
from test_without_torch import without_torch

import headstart as hs
from headstart.backbones.backbone import card_from_plain, card_to_plain
from headstart.backbones.views import UserViews
from headstart.base.errors import SpecError
from headstart.cli.main import main
from headstart.data.splits import Splits
from headstart.explaining.pixels.averaged import AveragedNetwork
from headstart.explaining.pixels.forward import Forward
from headstart.explaining.pixels.grad_model import grad_model_of
from headstart.features.extract import FeatureTable, extract
from headstart.heads.specs import LinearSpec, LogisticSpec, MlpSpec, RidgeSpec
from headstart.modalities.images.augment import Augment
from headstart.modalities.images.averaged import AveragedViews
from headstart.modalities.images.inputs import ImageInput, of_pictures
from headstart.models.bundle import load_bundle, save
from headstart.models.distance import Seen
from headstart.models.fitting import fit
from headstart.models.predictor import answerer
from headstart.models.specs import FeatureExtraction, FineTune, TwoPhaseSpec
from headstart.models.viewing import one_view
from headstart.runs.config import read_config
from headstart.runs.job import Job
from headstart.runs.seeds import _asked
from headstart.targets.predictions import read_predictions

TURNS = Augment(flip="both", quarter_turns=True, views=2)
TUNED = FineTune(thaw="1", epochs=1, batch_size=8, lr=1e-3)
SQUARE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


def leaning(n: int = 60, seed: int = 0) -> list[tuple[np.ndarray, str]]:
    """Pictures with a bright corner: opposite corners have the same label."""
    rng, rows = np.random.default_rng(seed), []
    for i in range(n):
        pixels = rng.normal(90, 30, (32, 32, 3))
        pixels[:12, :12] += 70 * (i % 2)
        turned = np.rot90(pixels, int(rng.integers(4)))
        rows.append((turned.clip(0, 255).astype(np.uint8), "ab"[i % 2]))
    return rows


@pytest.fixture(scope="module")
def parts() -> Splits:
    return hs.split(leaning(), val=0.3, test=0.3, store=None)


def fitted(parts: Splits, tta: str, tuned: FineTune | None = None, head: Any = None) -> Any:
    head = head or LogisticSpec(l2=(0.01,))
    keep: Any = "finetune" if tuned else "best"
    spec = TwoPhaseSpec(FeatureExtraction(head), tuned, TURNS, keep, tta)
    return fit(spec, "tiny:16", parts, store=None)


# ------------------------------------------------------------ the views of a square
@pytest.mark.parametrize(
    ("views", "most"),
    [
        (AveragedViews(), 1),
        (AveragedViews("horizontal"), 2),
        (AveragedViews("vertical"), 2),
        (AveragedViews("both"), 4),
        (AveragedViews(quarter_turns=True), 4),
        (AveragedViews("horizontal", True), 8),
        (AveragedViews(crop=0.5), 6),
        (AveragedViews("horizontal", crop=0.5), 12),
    ],
)
def test_the_views_differ_and_the_square_is_the_first(views: AveragedViews, most: int) -> None:
    assert views.most == most
    every = replace(views, count=most)(SQUARE)
    assert every.shape == (most, 32, 32, 3)
    assert np.array_equal(every[0], SQUARE)
    assert len({view.tobytes() for view in every}) == most
    with pytest.raises(SpecError, match=f"are from 1 to {most}, as many as the flips"):
        replace(views, count=most + 1)


@pytest.mark.parametrize("flip", ["none", "horizontal", "vertical", "both"])
@pytest.mark.parametrize("turns", [False, True])
def test_flips_and_turns_are_those_that_training_draws(flip: Any, turns: bool) -> None:
    augment = Augment(flip, turns)
    drawn = {augment(SQUARE, seed).tobytes() for seed in range(200)}
    views = AveragedViews(flip, turns)
    assert {view.tobytes() for view in replace(views, count=views.most)(SQUARE)} == drawn


def test_a_crop_has_the_mean_share_that_training_draws() -> None:
    views = AveragedViews(crop=0.125, count=6)
    boxes = [(c.top, c.left, c.side) for c in views.changes(32)]
    assert boxes == [(0, 0, 32), (4, 4, 24), (0, 0, 24), (8, 8, 24), (0, 8, 24), (8, 0, 24)]


@pytest.mark.parametrize("views", [AveragedViews("both", True, count=8), AveragedViews(crop=0.5)])
def test_the_views_with_gradients_are_those_of_predictions(views: AveragedViews) -> None:
    views = replace(views, count=views.most)
    smooth = np.indices((32, 32)).sum(axis=0)[..., None] * np.array([1, 2, 3])
    square = smooth.astype(np.uint8)
    network = AveragedNetwork(torch.nn.Flatten(), views)
    mean = network(torch.from_numpy(square[None].copy()).float())
    assert np.abs(mean.numpy() - views(square).mean(axis=0).reshape(1, -1)).max() <= 1


# ------------------------------------------------------------ features and predictions
def test_features_are_the_means_of_those_of_the_views(parts: Splits, tmp_path: Path) -> None:
    plain = hs.load_backbone("tiny:16")
    input = plain.card.input.averaging(TURNS, 8)
    averaged = replace(plain, card=replace(plain.card, input=input))
    store = hs.Store(tmp_path)
    assert isinstance(input, ImageInput)
    views = [
        hs.extract(list(input.averaged(pixels)), backbone=plain, store=store).x
        for pixels, _ in leaning(4)
    ]
    rows = [pixels for pixels, _ in leaning(4)]
    for again in (False, True):  # computed, then from the store
        table = hs.extract(rows, backbone=averaged, store=store)
        assert table.x == pytest.approx(np.stack([x.mean(axis=0) for x in views]), abs=1e-5)
        assert (table.hits, table.forwards) == ((4, 0) if again else (0, 4))
    assert np.array_equal(hs.extract(rows, backbone=plain).x[0], views[0][0])


@pytest.mark.parametrize("tuned", [None, TUNED])
@pytest.mark.parametrize("head", [LogisticSpec(), LinearSpec(epochs=2), MlpSpec(epochs=2)])
def test_a_bundle_predicts_from_the_same_views(
    parts: Splits, tuned: Any, head: Any, tmp_path: Path
) -> None:
    found = fitted(parts, "4", tuned, head)
    assert found.chosen["tta"] == 4
    model = save(found.model, tmp_path / "model").model
    assert model.backbone.card.input.test_views == 4
    ours, theirs = (m.predict(parts.test, store=None).scores for m in (found.model, model))
    assert ours == pytest.approx(theirs, abs=1e-4)
    alone = answerer(load_bundle(tmp_path / "model").model)
    for source, scores in zip(parts.test.sources, theirs, strict=True):
        assert alone.of_file(source.data).scores == pytest.approx(scores, abs=1e-5)
    turned = [np.rot90(alone.input.read(s.data), 2).copy() for s in parts.test.sources]
    assert model.predict(turned, store=None).scores == pytest.approx(theirs, abs=1e-4)


def test_the_control_one_view_is_not_blind_to_turns(parts: Splits) -> None:
    model = fitted(parts, "none").model
    scores = [model.predict([np.rot90(p, k).copy() for p, _ in leaning(6)]).scores for k in (0, 1)]
    assert np.abs(scores[0] - scores[1]).max() > 1e-3


def test_a_solved_head_is_fitted_on_mean_features(parts: Splits) -> None:
    found = fitted(parts, "8")
    input = found.model.backbone.card.input
    averaged = replace(found.model.backbone, card=replace(found.model.backbone.card, input=input))
    spec = TwoPhaseSpec(FeatureExtraction(LogisticSpec(l2=(0.01,))), None)
    alone = fit(spec, averaged, parts, store=None)
    for name, tensor in found.model.head.tensors().items():
        assert tensor == pytest.approx(alone.model.head.tensors()[name], abs=1e-6)


@pytest.mark.parametrize(
    ("tta", "head", "tuned", "stored"),
    [
        ("4", LogisticSpec(), None, False),
        ("auto", LogisticSpec(), None, True),
        ("none", LogisticSpec(), None, True),
        ("4", LinearSpec(epochs=1), None, True),
        ("4", LogisticSpec(), TUNED, True),
    ],
)
def test_views_that_nothing_would_learn_from_are_not_stored(
    parts: Splits, tta: str, head: Any, tuned: FineTune | None, stored: bool
) -> None:
    lines, spec = Lines(), TwoPhaseSpec(FeatureExtraction(head), tuned, TURNS, tta=tta)
    fit(spec, "tiny:16", parts, store=None, listener=lines)
    assert bool(lines.of("views")) is stored


def test_a_linear_head_of_a_number_answers_with_the_mean_answer(tmp_path: Path) -> None:
    rows = [(pixels, float(pixels.mean())) for pixels, _ in leaning()]
    data = hs.split(rows, target="number", val=0.3, test=0.3, store=None)
    model = fitted(data, "8", TUNED, RidgeSpec()).model
    plain = replace(model, backbone=one_view(model.backbone))
    views = AveragedViews("both", True, count=8)
    for pixels, _ in rows[:3]:
        each = plain.predict(list(views(pixels)), store=None).outputs["value"]
        (mean,) = model.predict([pixels], store=None).outputs["value"]
        assert mean == pytest.approx(each.mean(), rel=1e-4)


# ------------------------------------------------------------ the choice
def choosing(parts: Splits, gain: Callable[[FeatureTable], Any], monkeypatch: Any) -> Any:
    lines = Lines()
    monkeypatch.setattr("headstart.models.results.Candidate.merit", property(gain))
    spec = TwoPhaseSpec(FeatureExtraction(LogisticSpec()), TUNED, TURNS, tta="auto")
    return fit(spec, "tiny:16", parts, store=None, listener=lines), lines.of("tta")


def test_auto_keeps_the_views_where_validation_gains(
    parts: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def views(candidate: Any) -> int:
        return int(candidate.fitted.model.backbone.card.input.test_views)

    more, told = choosing(parts, lambda c: (float(views(c)),), monkeypatch)
    assert more.model.backbone.card.input.test_views == more.chosen["tta"] == 8
    assert told[0].startswith("head: the mean features of 8 views; a prediction takes 8 times")
    assert told[1].startswith("finetune: the mean features of 8 views")
    one, told = choosing(parts, lambda c: (0.0,), monkeypatch)  # ties go to one view
    assert (one.model.backbone.card.input.test_views, one.chosen["tta"]) == (1, 1)
    assert told[0].startswith("head: one view; 8 views are no better (accuracy on validation: ")


def test_a_fine_tuned_model_goes_on_learning_from_one_view(parts: Splits) -> None:
    found = fitted(parts, "4", TUNED)
    assert found.model.backbone.card.input.test_views == 4
    on = fit(TUNED, found, parts, store=None, views=TURNS)
    assert on.model.backbone.card.input.test_views == 1
    again = fit(TUNED, found, parts, store=None, views=TURNS, tta="2")
    assert again.model.backbone.card.input.test_views == again.chosen["tta"] == 2


def test_without_such_changes_a_number_is_refused_and_auto_is_one_view(parts: Splits) -> None:
    head = FeatureExtraction(LogisticSpec())
    for views in (Augment(), Augment(colour_jitter=0.2), UserViews(function=np.flipud)):
        with pytest.raises(SpecError, match=r"there are none: name --flip, --quarter-turns or"):
            fit(TwoPhaseSpec(head, None, views, tta="4"), "tiny:16", parts, store=None)
    lines = Lines()
    one = fit(TwoPhaseSpec(head, None, tta="auto"), "tiny:16", parts, store=None, listener=lines)
    assert one.model.backbone.card.input.test_views == 1
    assert lines.of("tta") == [
        "one view: nothing that training draws is a flip, a quarter turn or a crop"
    ]


def test_texts_have_no_such_views() -> None:
    words = np.random.default_rng(0).permutation([f"w{i}" for i in range(240)]).reshape(24, 10)
    rows = [(" ".join(text), "ab"[i % 2]) for i, text in enumerate(words)]
    data = hs.split(hs.read(rows, input="text"), val=0.3, test=0.3, store=None)
    head = FeatureExtraction(LogisticSpec())
    with pytest.raises(SpecError, match="views are flips, turns and crops of pictures, and texts"):
        fit(TwoPhaseSpec(head, None, tta="4"), "tiny-text:8", data, store=None)


@pytest.mark.parametrize("tta", ["1", "0", "some", "-2", "2.5"])
def test_a_number_of_views_is_from_2_up(tta: str) -> None:
    for kind in (TwoPhaseSpec, Job):
        with pytest.raises(SpecError, match="tta is none, auto, or a number of views from 2 up"):
            kind(tta=tta)


# ------------------------------------------------------------ what travels
def test_a_card_without_views_is_written_as_before() -> None:
    card = hs.load_backbone("tiny:16").card
    assert "averaged" not in card_to_plain(card)["input"]
    views = replace(card, input=card.input.averaging(TURNS, 8))
    plain = json.loads(json.dumps(card_to_plain(views)))
    assert card_from_plain(plain) == views
    assert ImageInput(averaged=AveragedViews()).fingerprint() == ImageInput().fingerprint()
    assert views.input.fingerprint() != card.input.fingerprint()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    hs.train(
        leaning(),
        folder / "run",
        backbone="tiny:16",
        strategy="extract",
        flip="both",
        quarter_turns=True,
        views=2,
        val=0.3,
        test=0.3,
        tta=8,
        store=folder / "store",
    )
    return folder / "run"


def test_a_run_records_its_views(run: Path) -> None:
    recipe = json.loads((run / "recipe.json").read_text())
    assert (recipe["tta"], recipe["chosen"]["head"]["tta"]) == ("8", 8)
    assert read_config(run).tta == "8"
    page = (run / "report.html").read_text()
    assert "8; the kept model averages 8" in page
    assert json.loads((run / "timings.json").read_text())["seconds"]["tta"] >= 0


def test_limits_and_test_figures_are_of_mean_features(run: Path) -> None:
    model = hs.load(run)
    seen = model.limits.seen
    assert seen is not None
    data = hs.read(leaning())
    mean, plain = (extract(b, data).x for b in (model.backbone, one_view(model.backbone)))
    assert far(seen.rows, Seen.of(mean).rows) < 0.01 < far(seen.rows, Seen.of(plain).rows)
    written = read_predictions(run / "predictions.csv", model.target)
    again = model.predict(data, store=None)
    place = [again.ids.index(id) for id in written.ids]
    assert written.scores == pytest.approx(again.scores[place], abs=1e-4)


def far(rows: Any, known: Any) -> float:
    """The largest difference of a row to the nearest known one."""
    apart = np.abs(rows[:, None].astype(float) - known[None].astype(float)).max(axis=2)
    return float(apart.min(axis=1).max())


def test_explanations_give_the_scores_of_predictions(run: Path, tmp_path: Path) -> None:
    model = hs.load(run)
    grad = grad_model_of(model)
    rows = [pixels for pixels, _ in leaning(3)]
    squares = np.stack([of_pictures(model.backbone.card.input)(pixels) for pixels in rows])
    scores = model.predict(rows, store=None).scores
    assert Forward(grad).scores(squares) == pytest.approx(scores, abs=1e-4)
    assert grad.scores(squares) == pytest.approx(scores, abs=1e-4)
    (explained,) = hs.explain(model, [rows[0]])
    assert explained.score == pytest.approx(scores[0].max(), abs=1e-4)


def test_the_command_line_takes_a_number_or_a_word(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "store"))
    base = ["train", str(shapes), "--backbone", "tiny:8", "--flip", "both", "--views", "2"]
    asked = [*base, "--strategy", "extract", "--out", str(tmp_path / "run")]
    assert main([*asked, "--tta", "4"]) == 0
    assert "the mean features of 4 views; a prediction takes 4 times" in capsys.readouterr().err
    assert main([*asked[:-1], str(tmp_path / "two"), "--tta", "9"]) == 2
    assert "Test-time views are from 1 to 4" in capsys.readouterr().err
    assert main(["predict", str(tmp_path / "run"), str(shapes / "dark" / "00.png")]) == 0
    assert "dark" in capsys.readouterr().out


def test_a_bundle_with_views_predicts_without_torch(run: Path, tmp_path: Path) -> None:
    rows = [pixels for pixels, _ in leaning(3)]
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for file, pixels in zip(files, rows, strict=True):
        Image.fromarray(pixels).save(file)
    ((code, out, err),) = without_torch(f"predict {run} {' '.join(map(str, files))} --json")
    assert code == 0, err
    scores = hs.load(run).predict(rows, store=None).scores
    for answer, own in zip(json.loads(out), scores, strict=True):
        assert list(answer["scores"].values()) == pytest.approx(own.tolist(), abs=1e-4)


def test_settings_of_seeds_without_views_are_those_of_earlier_versions() -> None:
    data = hs.read(leaning(4))
    assert "tta" not in _asked(Job(), data).values
    assert _asked(Job(tta="4"), data).values["tta"] == "4"


@pytest.mark.parametrize("strategy", ["scratch", "extract"])
def test_fit_takes_the_number_of_views(strategy: str) -> None:
    asked: dict[str, Any] = {"flip": "both", "views": 2, "val": 0.3, "test": 0.3, "store": None}
    if strategy == "scratch":
        asked |= {"epochs": 1, "batch_size": 8}
    found = hs.fit(leaning(), backbone="tiny:16", strategy=strategy, tta=4, **asked)
    assert found.model.backbone.card.input.test_views == found.chosen["tta"] == 4
    assert found.model.limits.seen is not None
