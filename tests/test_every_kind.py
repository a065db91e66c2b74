"""Every kind of target goes through all commands, and reads as a newcomer expects."""

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headstart as hs
from headstart.base.errors import Mismatch
from headstart.cli.main import main
from headstart.evaluation.comparison import compare_predictions
from headstart.reporting.words import Words
from headstart.targets.predictions import Predictions

KINDS = {  # the first metric, the name of a gain, the flags, charts in the report
    "number": ("mae", "error saved", ["--head", "ridge"], 5),
    "labels": ("mAP", "Jaccard gained", ["--head", "logistic"], 2),
    "grades": (
        "quadratic kappa",
        "grades saved",
        ["--head", "logistic", "--ordered", "low,middle,high"],
        2,
    ),
}
HOSTILE = "<b>&.png"  # the name of a picture


@dataclass(frozen=True)
class Trained:
    """A run of a kind of target and a second one, trained by the command line. printed: by it."""

    kind: str
    data: Path
    folder: Path
    other: Path
    printed: str
    told: str


def pictures(folder: Path, kind: str, n: int = 120) -> Path:
    """Pictures whose brightness is the number, or whose channels are the labels."""
    rng, cells = np.random.default_rng(0), list[str]()
    for i in range(n):
        level, red, green = rng.uniform(30, 200), rng.random() < 0.4, rng.random() < 0.5
        values = rng.normal(level, 30, (40, 40, 3)) + 60 * np.array([red, green, 0])
        name = HOSTILE if i == 0 else f"{i}.png"
        Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(folder / name)
        labels = {
            "number": f"{level * 10:.1f}",
            "labels": "|".join(n for n, there in (("red", red), ("green", green)) if there),
            "grades": ("low", "middle", "high")[int((level - 30) // 57)],
        }
        cells.append(f"{name},{labels[kind]}")
    column = {"number": "value", "labels": "labels", "grades": "label"}[kind]
    (folder / "rows.csv").write_text("\n".join([f"path,{column}", *cells]) + "\n")
    return folder / "rows.csv"


@pytest.fixture(scope="module", params=KINDS)
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Trained]:
    kind, folder = request.param, tmp_path_factory.mktemp(request.param)
    data = pictures(folder, kind)
    asked = ["--backbone", "tiny:8", "--val", "0.3", "--test", "0.3"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_STORE", str(folder / "store"))
        patch.chdir(folder)
        out, err = io.StringIO(), io.StringIO()
        patch.setattr("sys.stdout", out)
        patch.setattr("sys.stderr", err)
        flags = KINDS[kind][2]
        assert main(["check", "rows.csv", "--backbone", "none"]) == 0, err.getvalue()
        one = ["train", "rows.csv", "--out", "run", *asked, *flags]
        assert main([*one, "--strategy", "finetune", "--epochs", "1"]) == 0, err.getvalue()
        two = ["train", "rows.csv", "--out", "other", *asked, *flags[2:], "--head", "linear"]
        assert main([*two, "--strategy", "extract"]) == 0, err.getvalue()
        run, other = folder / "run", folder / "other"
        yield Trained(kind, data, run, other, out.getvalue(), err.getvalue())


@pytest.mark.long
def test_training_prints_no_class_and_states_the_coverage(trained: Trained) -> None:
    assert f"{KINDS[trained.kind][0]} on validation" in trained.printed
    assert "0 classes" not in trained.printed + trained.told
    assert "accuracy -" not in trained.told  # in the lines of the epochs
    assert re.search(r"in the 90% (set|interval) +[01]\.\d+ \[.*mean", trained.printed)


@pytest.mark.long
def test_evaluating_a_run_measures_what_its_report_states(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(trained.folder), str(trained.data), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    written = json.loads((trained.folder / "evaluation.json").read_text())["test"]
    coverage = found.pop("conformal")
    assert found == written
    sets = json.loads((trained.folder / "insights.json").read_text())["doubt"]["conformal"]
    assert coverage == sets
    assert 0.6 < coverage["coverage"]["value"] <= 1


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_run_is_exported_and_verified(
    trained: Trained, precision: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(trained.other), "--out", str(tmp_path / "out"), "--threads", "1"]
    words += ["--precision", precision, "--max-changed", "1", "--json"]
    assert main([*words, "--store", str(tmp_path / "store")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["difference"] <= 1e-6
    assert told["changed"] is None if precision == "fp32" else 0 <= told["changed"] <= 1
    assert main(["verify", str(tmp_path / "out")]) == 0


def test_predictions_have_their_region_on_every_way_out(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    one = ["predict", str(trained.folder), str(trained.data.parent / "1.png")]
    assert main([*one, "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    if trained.kind == "number":
        assert answer["low"] < answer["predicted"] < answer["high"]
    elif trained.kind == "labels":
        assert set(answer["certain"]) <= set(answer["not_ruled_out"]) <= {"green", "red"}
        assert set(answer["scores"]) == {"green", "red"}
    else:
        assert answer["predicted"] in answer["not_ruled_out"]
        assert sum(answer["scores"].values()) == pytest.approx(1, abs=1e-6)
    names = hs.load(trained.folder).target.region_names
    assert main([*one, "--csv", "-"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert {*names, "predicted", "reason", "error"} < set(row)
    assert main(one) == 0
    path, shown, *_, last = capsys.readouterr().out.strip().split("\t")
    assert path.endswith("1.png")
    assert shown
    assert last.startswith(f"{names[-1]}=")


def test_runs_are_compared_by_their_rows(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(trained.folder), str(trained.other)]
    assert main(["compare", *runs]) == 0
    header = capsys.readouterr().out.splitlines()[0]
    assert KINDS[trained.kind][1] in header
    assert main(["compare", *runs, "--json"]) == 0
    _, second = json.loads(capsys.readouterr().out)
    assert second["gain"]["low"] <= second["gain"]["value"] <= second["gain"]["high"]
    assert second["better"] + second["worse"] <= second["n"]


def test_a_run_is_not_compared_with_one_that_predicts_something_else(trained: Trained) -> None:
    own = hs.load(trained.folder).predict(trained.data, store=None)
    classes = Predictions(own.ids, np.ones((120, 1), np.float32), np.zeros(120, np.int64), ("a",))
    with pytest.raises(Mismatch, match="compared on the same question, but one predicts"):
        compare_predictions(["one", "two"], [own, classes])


def test_a_runs_file_of_predictions_is_evaluated_as_the_run_is(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(trained.folder / "predictions.csv"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    written = json.loads((trained.folder / "evaluation.json").read_text())["test"]
    names = written.keys() - {"baseline", "target"}
    assert {name: found[name] for name in names} == {name: written[name] for name in names}


def test_a_dry_run_names_the_target_and_its_head(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*KINDS[trained.kind][2][2:], "--backbone", "tiny:8", "--out", "nowhere", "--dry-run"]
    assert main(["train", str(trained.data), *flags]) == 0
    out = capsys.readouterr().out
    assert "classes" not in out
    assert f"head {KINDS[trained.kind][2][1]}" in out


def test_a_model_without_classes_has_no_attack_and_says_so(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    run, one = str(trained.folder), str(trained.data.parent / "1.png")
    for words in (["robustness", run], ["attack", run, one], ["ideal", run, "--class", "red"]):
        assert main(words) == 2, words
        assert "the model predicts" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("language", ["en", "ru"])
def test_the_report_shows_what_there_is_and_nothing_empty(trained: Trained, language: str) -> None:
    page = hs.report(trained.folder, data=trained.data, language=language).read_text()
    page = re.sub("base64,[A-Za-z0-9+/=]+", "", page)  # "nan" may stand in a picture
    assert page.count('class="empty"') == 1  # there was no augmentation
    for words in ("0 classes", "0 классов", "nan", "inf]", HOSTILE):
        assert words not in page, words
    assert "&lt;b&gt;&amp;.png" in page
    assert page.count('<figure class="figure">') == KINDS[trained.kind][3]
    assert str(Words(language)("map.hint_groups")) in page  # there is no class to choose


def test_a_run_shows_what_more_rows_would_bring_and_which_to_look_at(trained: Trained) -> None:
    found = json.loads((trained.folder / "insights.json").read_text())
    curve = found["score_curve"]
    assert curve["metric"].replace("_", " ") == KINDS[trained.kind][0]
    assert [p["rows"] for p in curve["points"]] == sorted({p["rows"] for p in curve["points"]})
    assert all(p["low"] <= p["value"] <= p["high"] for p in curve["points"])
    labels = {row["path"]: row["label"] for row in found["errors"]["rows"]}
    with open(trained.folder / "splits.csv", newline="") as file:
        known = {row["path"]: row["label"] for row in csv.DictReader(file)}
    assert labels.items() <= known.items()
    assert len(found["outliers"]) == 12
    assert set(found["map"]["labels"]) <= set(found["map"]["groups"])


def test_results_are_values_by_name(trained: Trained) -> None:
    model = hs.load(trained.folder)
    found = hs.evaluate(trained.folder, trained.data)
    frame = found.to_frame().set_index("metric")
    first = next(iter(found.metrics))
    assert float(getattr(found, first)) == frame.loc[first, "value"]
    answers = model.predict(trained.data, store=None).to_frame()
    assert set(model.target.region_names) < set(answers.columns)
    assert len(answers) == 120
