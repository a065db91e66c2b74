"""The Python API, as people of other tools type it: what works, and what is refused."""

import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from torch import nn

import headstart as hs
from headstart.base.paths import user_path
from headstart.errors import DataError, PlaceError, SpecError, UnknownName
from headstart.specs import Augment
from headstart.targets.predictions import write_csv

TINY: dict[str, Any] = {"backbone": "tiny:32", "store": None}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("photos")
    for name, level in {"dark": 60, "bright": 190}.items():
        (folder / name).mkdir()
        for i in range(20):
            pixels = rng.normal(level, 30, (20, 24, 3)).clip(0, 255).astype("uint8")
            Image.fromarray(pixels).save(folder / name / f"{i:02}.png")
    return folder


@pytest.fixture(scope="module")
def fitted(photos: Path) -> Any:
    return hs.fit(photos, strategy="extract", **TINY)


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> hs.Run:
    folder = tmp_path_factory.mktemp("runs")
    own = {**TINY, "store": folder / "store"}
    return hs.train(photos, folder / "run", strategy="extract", **own)


def picture(photos: Path, name: str = "dark/00.png") -> Image.Image:
    return Image.open(photos / name)


# ------------------------------------------------------------ data
def test_data_is_read_from_all_that_people_have(photos: Path) -> None:
    from pandas import DataFrame

    image = picture(photos)
    pixels = np.asarray(image)
    frame = DataFrame(
        {
            "path": [str(photos / "dark/00.png")] * 1 + [str(photos / "bright/00.png")],
            "label": ["a", "b"],
        }
    )
    for data in (
        frame,
        [(image, "a"), (pixels, "b")],
        [(str(photos / "dark/00.png"), "a"), (photos / "bright/00.png", "b")],
        ((image, "a"), (pixels, "b")),
        [((photos / "dark/00.png").read_bytes(), "a"), (pixels[..., 0], "b")],
        (np.stack([pixels, pixels]), np.array(["a", "b"])),
    ):
        read = hs.read(data)
        assert (len(read), read.classes) == (2, ("a", "b"))
        assert read[0].read().shape == (20, 24, 3)
    assert hs.read(np.stack([pixels, pixels]), ["a", "b"]).classes == ("a", "b")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([], "the list is empty"),
        (3, "got a int"),
        (["a.png", "b.png"], "list of pairs"),
        (([1, 2, 3], ["a"]), "got 3 examples and 1 labels"),
        (([np.zeros((4, 4, 3))], ["a"]), "uint8, 0 to 255; got float64"),
        (([Image.new("F", (4, 4))], ["a"]), "mode F"),
        ("nowhere", "There is no folder or file nowhere"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_data_is_refused_in_one_sentence(data: Any, says: str) -> None:
    with pytest.raises(DataError) as error:
        hs.read(data)
    assert says in str(error.value)


@pytest.mark.parametrize("n", [2, 3])
def test_two_arguments_are_examples_and_their_labels_of_any_type(n: int, photos: Path) -> None:
    paths = tuple(str(photos / f"dark/{i:02}.png") for i in range(n))
    for examples in (paths, list(paths), np.array(paths)):
        data = hs.read(examples, ("x", "y", "x")[:n])  # type: ignore[arg-type]
        assert data.labels == (0, 1, 0)[:n]
    with pytest.raises(DataError, match="examples and their labels; got str and tuple"):
        hs.read(paths[0], ("x", "y"))  # type: ignore[arg-type]


class PolarsLike:
    """As much of a data frame of Polars as is read: `to_dict` takes no words."""

    columns = ("text", "label")

    def to_dict(self, *, as_series: bool = True) -> dict[str, Any]:
        raise AssertionError("this is a dict of columns")

    def to_dicts(self) -> list[dict[str, str]]:
        return [{"text": "good", "label": "x"}, {"text": "bad", "label": "y"}]


def test_frames_of_arrow_and_polars_are_read_as_their_columns_say() -> None:
    from pyarrow import table

    for frame in (table({"text": ["good", "bad"], "label": ["x", "y"]}), PolarsLike()):
        data = hs.read(frame)
        assert (data.noun, data.classes, data[0].read()) == ("texts", ("x", "y"), "good")


def test_a_dataset_is_a_sequence(photos: Path) -> None:
    data = hs.read(photos)
    assert (data[-1].label, len(data[:3]), len(data[[0, 1]]), len(list(data))) == ("dark", 3, 2, 40)
    assert len(data[np.arange(40) > 30]) == 9
    with pytest.raises(IndexError):
        data[40]
    assert repr(data) == "Dataset(40 images: bright 20, dark 20)"
    assert "<img" in data._repr_html_()
    assert list(data.to_frame().columns) == ["id", "source", "label"]


def test_check_shows_what_training_would_raise(photos: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(9):
            data = (photos / f"dark/{i:02}.png").read_bytes()
            (tmp_path / name / f"{i}.png").write_bytes(data if i > 3 else data[:99])
    found = hs.check(tmp_path, backbone="none", store=None)
    assert "max_bad=" in found.error
    assert "unreadable" in repr(found)
    assert hs.check(photos, backbone="none", store=None).error == ""


def test_parts_name_what_was_left_out(photos: Path) -> None:
    damaged = [
        *((str(p), p.parent.name) for p in sorted(photos.rglob("*.png"))),
        (b"nothing", "dark"),
    ]
    parts = hs.split(damaged, max_bad=0.2, store=None)
    assert [item.path for item in parts.left_out] == ["41"]
    assert hs.fit(damaged, max_bad=0.2, strategy="extract", **TINY).splits.left_out  # type: ignore[union-attr]


# ------------------------------------------------------------ fitting
@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"learning_rate": 1e-3}, UnknownName, "Here it is called 'lr'."),
        ({"freeze": True}, UnknownName, "Here it is called 'thaw'."),
        ({"imgsz": 64}, UnknownName, "Here it is called 'size'."),
        ({"epoch": 3}, UnknownName, "Here it is called 'epochs'."),
        ({"epochs": "3"}, SpecError, "epochs must be a whole number; got '3'."),
        ({"backbone": nn.Linear(3, 3)}, SpecError, "wrap(module, size=…)"),
        ({"backbone": None}, SpecError, "got a NoneType"),
        ({"model": "resnet50"}, SpecError, "given as backbone"),
        ({"augment": True}, SpecError, "such as flip='horizontal'"),
        ({"augment": lambda x: x}, SpecError, "augment would change nothing"),
        ({"listener": print}, SpecError, "listener is a Listener"),
        ({"resume": True}, SpecError, "use train"),
        ({"class_weights": {"nope": 2}}, UnknownName, "nope"),
        ({"hidden": 64}, SpecError, "hidden would change nothing, with strategy extract"),
        ({"head": nn.Linear}, UnknownName, "head"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_setting_that_is_not_taken_is_one_sentence(
    settings: dict[str, Any], error: type[Exception], says: str, photos: Path
) -> None:
    with pytest.raises(error) as raised:
        hs.fit(photos, **{"strategy": "extract", **TINY, **settings})
    assert says in str(raised.value)
    assert "--" not in str(raised.value)


def test_settings_of_data_that_is_split_already_are_refused(fitted: Any) -> None:
    with pytest.raises(SpecError, match="test would change nothing: this data is split already"):
        hs.fit(fitted.splits, test=0.5, **TINY)


def test_a_model_is_tuned_further(fitted: Any) -> None:
    tuned = hs.fit(fitted.splits, model=fitted, thaw=1, epochs=1, store=None)
    assert tuned.history[-1].phase == "finetune"
    with pytest.raises(SpecError, match="either model or backbone"):
        hs.fit(fitted.splits, model=fitted, **TINY)


def test_weights_of_classes_may_be_named_by_numbers(photos: Path) -> None:
    rows = [(str(p), int(p.parent.name == "dark")) for p in sorted(photos.rglob("*.png"))]
    fit = hs.fit(rows, class_weights={0: 1, 1: 3}, strategy="extract", **TINY)
    assert fit.model.classes == ("0", "1")


def test_a_history_is_shown_and_tabulated(fitted: Any) -> None:
    assert repr(fitted.history) == "History(head 1)"
    assert list(fitted.history.to_frame().phase) == ["head"]
    assert fitted.history._repr_html_().count("<svg") == 2
    assert len(repr(fitted)) < 120


def test_an_augmentation_may_be_given_as_a_value(photos: Path) -> None:
    flipped = Augment(flip="horizontal", views=1)
    one = hs.fit(photos, augment=flipped, strategy="extract", **TINY)
    two = hs.fit(photos, flip="horizontal", views=1, strategy="extract", **TINY)
    assert (one.model.head.tensors()["weight"] == two.model.head.tensors()["weight"]).all()


# ------------------------------------------------------------ predicting
def test_a_model_predicts_all_that_people_have(photos: Path, fitted: Any) -> None:
    image, path = picture(photos), photos / "dark/00.png"
    pixels = np.asarray(image)
    given: list[tuple[Any, int]] = [
        (str(path), 1),
        (path, 1),
        (image, 1),
        (pixels, 1),
        (pixels[..., 0], 1),
        (np.stack([pixels, pixels]), 2),
        ([image, path, str(path)], 3),
        ([path, path], 2),
        (photos / "dark", 20),
        ((photos / "dark").glob("*.png"), 20),
        (np.array([str(path), str(path)]), 2),
        (fitted.splits.test, len(fitted.splits.test)),
    ]
    for examples, rows in given:
        answers = fitted.model.predict(examples, store=None)
        assert len(answers.names) == rows
        assert rows > 5 or set(answers.names) == {"dark"}
    assert fitted.model.logits([path, path], store=None).shape == (2, 2)


@pytest.mark.parametrize(
    ("examples", "says"),
    [
        ("nowhere.png", "there is no such file"),
        ([], "There are no examples"),
        (np.zeros((8, 8, 3)), "uint8, 0 to 255; got float64"),
        (None, "got a NoneType"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_nothing_to_predict_is_one_sentence(examples: Any, says: str, fitted: Any) -> None:
    with pytest.raises(DataError) as error:
        fitted.model.predict(examples, store=None)
    assert says in str(error.value)
    assert ".." not in str(error.value)


def test_predictions_name_what_they_left_out(photos: Path, fitted: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("nothing")
    answers = fitted.model.predict([photos / "dark/00.png", tmp_path / "bad.jpg"], store=None)
    assert [Path(item.path).name for item in answers.left_out] == ["bad.jpg"]
    assert repr(answers) == "Predictions(1 rows: dark 1; 1 left out)"
    assert list(answers.to_frame().columns)[:3] == ["path", "predicted", "score"]
    with pytest.raises(DataError, match="None of 1 images can be read"):
        fitted.model.predict(tmp_path / "bad.jpg", store=None)


def test_hostile_names_are_escaped_in_notebooks(photos: Path) -> None:
    rows = [(str(p), f"<script>{p.parent.name}") for p in sorted(photos.rglob("*.png"))]
    fit = hs.fit(rows, strategy="extract", **TINY)
    answers = fit.model.predict(photos / "dark", store=None)
    shown: list[Any] = [hs.read(rows), answers, hs.evaluate(fit)]
    assert all("<script>" not in value._repr_html_() for value in shown)


def test_values_are_copied_and_pickled(fitted: Any, photos: Path) -> None:
    before = fitted.model.predict(photos / "dark", store=None).scores
    for again in (copy.deepcopy(fitted), pickle.loads(pickle.dumps(fitted))):  # noqa: S301  # our own bytes
        assert (again.model.predict(photos / "dark", store=None).scores == before).all()


# ------------------------------------------------------------ judging
def test_a_fitted_model_is_judged_by_its_own_test_rows(photos: Path, fitted: Any) -> None:
    n = len(fitted.splits.test)
    for data in (None, photos, fitted.splits.test):
        result = hs.evaluate(fitted, data)
        assert result.n == n
    assert hs.evaluate(fitted, photos, part="train").n == len(fitted.splits.train)
    assert hs.evaluate(fitted.model, photos).n == 40  # nothing tells what it learned from


def test_the_parts_of_other_data_in_memory_count(photos: Path) -> None:
    """Data in memory has no place by which it would be that of the model; its rows tell."""
    rng, labels = np.random.default_rng(5), ["dark", "bright"] * 20
    levels = np.array([60, 190] * 20)[:, None, None, None]
    x = (levels + rng.normal(0, 30, (40, 20, 24, 3))).clip(0, 255).astype(np.uint8)
    own: Any = hs.fit((x, labels), strategy="extract", **TINY)
    other = [(str(example.source), example.label) for example in hs.read(photos)]
    rows = replace(hs.read(other), parts=("train",) * 30 + ("test",) * 10, origin="")
    assert hs.evaluate(own, rows, store=None).n == 10
    for part, there in (("auto", own.splits.test), ("train", own.splits.train)):
        result = hs.evaluate(own, (x, labels), part=part, store=None)  # type: ignore[arg-type]
        assert (result.n, result.left_out) == (len(there), ())


def test_rows_that_do_not_count_are_named(photos: Path, fitted: Any) -> None:
    rows = [(str(photos / "dark/00.png"), "dark"), (np.zeros((9, 9, 3), np.uint8), "cat")]
    result = hs.evaluate(fitted.model, rows, store=None)
    assert result.n == 1
    assert "cat" in [item.path for item in result.left_out]
    assert "left out" in repr(result)


def share_of_dark(labels: NDArray[Any], answers: NDArray[Any]) -> float:
    return float((answers == "dark").mean())


def test_a_metric_of_the_users_gets_an_interval(fitted: Any) -> None:
    result = hs.evaluate(fitted, metrics=[share_of_dark])
    assert result.share_of_dark.low <= float(result.share_of_dark) <= result.share_of_dark.high
    assert hs.evaluate(fitted, metrics={"mine": share_of_dark}).mine == result.share_of_dark
    assert "share_of_dark" in repr(result)
    assert f"{result.accuracy:.2f}" == f"{float(result.accuracy):.2f}"
    assert result.accuracy > 0.5


@pytest.mark.parametrize(
    ("metrics", "says"),
    [
        (["accuracy"], "A metric is a function"),
        ([share_of_dark, share_of_dark], "a metric 'share_of_dark' already"),
        ([lambda labels: 1.0], "raised TypeError"),
        ({"accuracy": share_of_dark}, "a metric 'accuracy' already"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_metrics_are_refused(metrics: Any, says: str, fitted: Any) -> None:
    with pytest.raises(SpecError) as error:
        hs.evaluate(fitted, metrics=metrics)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"part": "val"}, "part is for a model, and predictions were made before: leave it out"),
        ({"store": None}, "store is for a model"),
        ({"threads": 1}, "threads is for a model"),
        ({"voc_base": 0}, "voc_base is for detections in a .json file: leave it out"),
        ({"target": "class"}, "target is for a file of predictions"),
        ({"ordered": "a,b"}, "ordered is for a file of predictions"),
    ],
    ids=str,
)
def test_settings_of_evaluate_that_nothing_would_read_are_refused(
    settings: dict[str, Any], says: str, fitted: Any, photos: Path, tmp_path: Path
) -> None:
    (name,) = settings
    said = fitted.model.predict(fitted.splits.test, store=None)
    with pytest.raises(SpecError, match=says):
        hs.evaluate(said, **settings)
    if name in ("voc_base", "target", "ordered"):
        with pytest.raises(SpecError, match=says):
            hs.evaluate(fitted, photos, **settings)
    else:
        write_csv(said, tmp_path / "said.csv")
        with pytest.raises(SpecError, match=says):
            hs.evaluate(tmp_path / "said.csv", **settings)
        assert hs.evaluate(tmp_path / "said.csv", target="class").n == len(said)


def test_evaluate_takes_usual_settings_by_name(fitted: Any) -> None:
    usual: dict[str, Any] = {"target": "", "ordered": "", "voc_base": 1}
    assert hs.evaluate(fitted, **usual).n == len(fitted.splits.test)


# ------------------------------------------------------------ runs
@pytest.mark.long
def test_a_run_is_opened_by_itself_or_its_folder(run: hs.Run, photos: Path, tmp_path: Path) -> None:
    for given in (run, run.folder, str(run.folder)):
        assert hs.load(given).classes == ("bright", "dark")
        assert hs.evaluate(given, photos).n == run.evaluation.n
        assert len(hs.compare(given, run)) == 2
        assert hs.report(given).exists()
    assert len(hs.compare([run, run])) == 2  # type: ignore[arg-type]
    assert repr(run).startswith("Run(")
    assert hs.save(run, tmp_path / "bundle") == tmp_path / "bundle"
    with pytest.raises(PlaceError, match="is there already"):
        hs.save(run, tmp_path / "bundle")


def test_a_path_in_the_home_folder_may_begin_with_a_tilde(
    run: hs.Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written into a folder that is called ~, and rows of a run are known as its own."""
    home = run.folder.parent
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    own: dict[str, Any] = {"store": "~/store", "backbone": "tiny:32", "strategy": "extract"}
    assert hs.evaluate("~/run", photos, store="~/store").n == run.evaluation.n
    assert hs.evaluate("~/run/predictions.csv").n == run.evaluation.n
    assert hs.save("~/run", "~/bundle") == home / "bundle"
    assert hs.export("~/run", "~/export", store="~/store").folder == home / "export"
    assert hs.train(photos, "~/again", insights="none", **own).folder == home / "again"
    hs.views(photos / "dark/00.png", out="~/views.png", flip="horizontal", size=32)
    hs.explain("~/run", photos / "dark/00.png", out="~/why", method="places", store=None)
    assert {"bundle", "export", "again", "views.png", "why"} <= {p.name for p in home.iterdir()}
    assert list(tmp_path.iterdir()) == []
    assert str(user_path("~no-such-user/x")) == "~no-such-user/x"


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda run: hs.load(None), "Name the folder of a run"),  # type: ignore[arg-type]
        (lambda run: hs.load("nowhere"), "There is no folder nowhere"),
        (lambda run: hs.predict(3, "x"), "A model is the folder of a run"),  # type: ignore[arg-type]
        (lambda run: hs.compare(run), "two runs or more"),
        (lambda run: hs.train(run.splits, "x"), "A run splits its data itself"),
        (lambda run: hs.train("photos", "x", **{"backbone": run.model.backbone}), "fit takes"),
        (lambda run: hs.evaluate(run.model), "judged on labelled data"),
        (lambda run: hs.get_recipe("vgg"), "vgg16-frozen"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_calls_are_one_sentence(call: Callable[[Any], Any], says: str, run: hs.Run) -> None:
    with pytest.raises(hs.HeadstartError) as error:
        call(run)
    assert says in str(error.value)
    assert "--" not in str(error.value)


def test_a_run_that_is_stopped_at_once_has_a_report(photos: Path, tmp_path: Path) -> None:
    class Stop(hs.Listener):
        def epoch(self, *_: Any) -> bool:
            return True

    own = {**TINY, "store": tmp_path / "store"}
    run = hs.train(photos, tmp_path / "run", epochs=2, listener=Stop(), **own)
    assert (run.folder / "report.html").exists()


def test_values_are_short_when_they_are_printed(fitted: Any, photos: Path, tmp_path: Path) -> None:
    assert repr(fitted.splits) == "Splits(train 28, val 6, test 6)"
    assert repr(fitted.model.backbone) == "Backbone(tiny:32, 32 px (crop), 32 features)"
    assert all(len(repr(recipe)) < 400 for recipe in hs.list_recipes())
    forecast = hs.train(photos, tmp_path / "run", dry_run=True, strategy="extract", **TINY)
    assert repr(forecast).startswith("Forecast(train 28, val 6, test 6, frozen layers")
    assert not (tmp_path / "run").exists()


def test_features_are_arrays(photos: Path) -> None:
    table = hs.extract(photos, **TINY)
    assert np.asarray(table).shape == (40, 32)
    assert repr(table) == "FeatureTable(40 rows of 32 features)"
    assert hs.extract(photos / "dark", **TINY).x.shape == (20, 32)  # without labels


def test_pictures_in_memory_are_explained_and_attacked(run: hs.Run, photos: Path) -> None:
    image = picture(photos)
    (why,) = hs.explain(run, image, method="places", store=None)
    (fooling,) = hs.attack(run, [image], steps=1, restarts=1)
    assert (why.name, fooling.before.name) == ("dark", "dark")
    assert hs.views(image, flip="horizontal", size=32).shape == (16, 32, 32, 3)
    some = hs.explain(run, [photos / "dark/00.png", "nowhere.png"], method="places", store=None)
    assert [item.path for item in some.left_out] == ["nowhere.png"]


def test_a_run_of_data_that_was_read_finds_its_pictures_again(shapes: Path, tmp_path: Path) -> None:
    data = hs.read(shapes)
    run = hs.train(
        data, tmp_path / "run", backbone="tiny:32", strategy="extract", insights="none", store=None
    )
    assert json.loads((run.folder / "recipe.json").read_text())["data"] == str(shapes.resolve())
    assert "data:image" in hs.report(run).read_text()
    assert (data.origin, data[:5].origin) == (str(shapes.resolve()), "")
