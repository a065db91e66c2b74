"""`--folds K`: every row is judged once, by a model that did not learn from it."""

import csv
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from listening import Calls, Lines
from PIL import Image
from test_every_kind import pictures
from test_runs import FILES, without_seconds
from test_text_runs import reviews

import headstart as hs
from headstart.base.errors import DataError, SpecError
from headstart.cli.main import main
from headstart.data.dataset import Dataset
from headstart.data.folds import folded
from headstart.data.splits import SplitPlan
from headstart.evaluation.evaluation import Estimate, evaluate
from headstart.models.fitting import two_phases
from headstart.models.model import Model
from headstart.runs import run as runs
from headstart.runs.folds import _key
from headstart.runs.seeds import train_seeds
from headstart.runs.stages import RunState, prepared
from headstart.specs import Augment, FeatureExtraction, FineTune, Job, LinearSpec
from headstart.targets.numbers import NumberTarget
from headstart.targets.predictions import Predictions, read_predictions
from headstart.targets.target import UNIT


@pytest.fixture
def job(tmp_path: Path) -> Job:
    store = hs.Store(tmp_path / "store")
    tuned = FineTune(epochs=2, batch_size=8)
    return Job(backbone="tiny:32", store=store, finetune=tuned, folds=3, insights="none")


def table(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text().splitlines()))


# ------------------------------------------------------------ the folds
@settings(max_examples=60)
@given(st.lists(st.integers(0, 2), min_size=30, max_size=60), st.integers(2, 5), st.data())
def test_every_row_is_held_out_once_with_its_group(
    labels: list[int], folds: int, drawn: st.DataObject
) -> None:
    labels = [0, 1, 2] * 5 + labels
    groups = tuple(drawn.draw(st.sampled_from(["", "", "a", "b"])) for _ in labels)
    ids = tuple(map(str, range(len(labels))))
    data = Dataset(ids, ids, tuple(labels), ("x", "y", "z"), groups=groups)
    try:
        parts = folded(data, SplitPlan(), folds, together=[(0, 1), (1, 4)])
    except DataError as error:  # large groups leave a class too few units
        assume(not re.search("takes|all in one", str(error)))
        raise
    held = [id for own in parts.folds for id in own.test.ids]
    assert sorted(held) == sorted(ids)
    for own in parts.folds:
        assert sorted((*own.train.ids, *own.val.ids, *own.test.ids)) == sorted(ids)
        assert len(set(own.train.labels)) == 3
    fold = parts.fold_of
    assert fold["0"] == fold["1"] == fold["4"]
    assert all(len({fold[i] for i, g in zip(ids, groups, strict=True) if g == n}) < 2 for n in "ab")
    whole = parts.whole
    assert sorted((*whole.train.ids, *whole.val.ids)) == sorted(ids)
    assert not len(whole.test)


def test_folds_have_equal_shares_of_every_class_and_their_own_validation_part() -> None:
    ids = tuple(map(str, range(200)))
    data = Dataset(ids, ids, tuple(int(i >= 150) for i in range(200)), ("many", "few"))
    parts = folded(data, SplitPlan(), 5)
    assert [own.test.counts for own in parts.folds] == [{"many": 30, "few": 10}] * 5
    for own in (*parts.folds, parts.whole):  # 0.15 of the 0.85 beside a test part
        assert len(own.val) == pytest.approx(0.15 / 0.85 * (len(own.val) + len(own.train)), abs=1)


def test_a_class_takes_a_row_per_fold_and_parts_are_made_here_alone() -> None:
    ids = tuple("abcdefgh")
    data = Dataset(ids, ids, (0, 0, 0, 0, 0, 1, 1, 1), ("x", "y"))
    with pytest.raises(DataError, match=r"With 4 folds a class takes 4 .* 'y' has 3\. .* --folds"):
        folded(data, SplitPlan(), 4)
    named = replace(data, parts=("train",) * 7 + ("test",))
    with pytest.raises(DataError, match=r"names parts of its own \(test, train\): leave --folds"):
        folded(named, SplitPlan(), 2)


def test_copies_are_held_out_together_and_judged_once(shapes: Path, job: Job) -> None:
    for name in ("copy", "again"):
        (shapes / "dark" / f"{name}.png").write_bytes((shapes / "dark" / "00.png").read_bytes())
    run = hs.train(hs.read(shapes), shapes.parent / "run", replace(job, strategy="extract"))
    fold = {row["path"]: row["fold"] for row in table(run.folder / "splits.csv")}
    copies = {path for path in fold if re.search("copy|again|dark/00", path)}
    assert len({fold[path] for path in copies}) == 1
    judged = [row["path"] for row in table(run.folder / "predictions.csv")]
    assert len(judged) == 24
    assert len(copies & set(judged)) == 1


def test_wider_intervals_stay_within_their_range() -> None:
    wide = Estimate(0.9, 0.8, 0.99, 20).widened(1.2, UNIT)
    assert (wide.value, wide.n) == (0.9, 20)
    assert (wide.low, wide.high) == pytest.approx((0.78, 1.0))
    assert Estimate(2.0, 1.0, 3.0, 20).widened(1.2).high == pytest.approx(3.2)
    assert str(Estimate(2.0, np.nan, np.nan, 20).widened(1.2, UNIT)) == "2.000 n=20"


def test_wider_intervals_end_where_the_figure_does_and_not_before() -> None:
    """A log loss may exceed 1 and R² be below 0; neither can a log loss be, nor a rank above 1."""
    rng, ids = np.random.default_rng(0), tuple(map(str, range(30)))
    y = rng.normal(size=30)
    numbers = Predictions(ids, {"value": (y + rng.normal(size=30)).astype("f4")}, y, NumberTarget())
    scores = rng.dirichlet((1, 1, 1), 30).astype(np.float32)
    classes = Predictions(ids, scores, rng.integers(0, 3, 30), ("a", "b", "c"))
    nearly = Predictions(
        ids, {"value": (y + rng.normal(0, 0.02, 30)).astype("f4")}, y, NumberTarget()
    )
    for said, name, (least, most) in (
        (numbers, "r2", (-np.inf, 1)),
        (classes, "log_loss", (0, np.inf)),
        (nearly, "spearman", (-1, 1)),
        (nearly, "mae", (0, np.inf)),
    ):
        one, wide = (evaluate(said, folds=folds).metrics[name] for folds in (False, True))
        assert one is not None
        assert wide is not None
        assert wide.low == pytest.approx(max(least, one.value + 1.25 * (one.low - one.value)))
        assert wide.high == pytest.approx(min(most, one.value + 1.25 * (one.high - one.value)))


# ------------------------------------------------------------ the run
def test_a_cross_validated_run_fills_its_folder(shapes: Path, tmp_path: Path, job: Job) -> None:
    lines, data = Lines(), hs.read(shapes)
    run = hs.train(data, tmp_path / "run", replace(job, insights="quick"), lines)
    assert {p.name for p in run.folder.iterdir()} == FILES - {"explained.json"}
    rows, said = table(run.folder / "splits.csv"), table(run.folder / "predictions.csv")
    assert sorted(row["path"] for row in said) == sorted(data.ids)
    assert {r["path"]: r["fold"] for r in rows} == {r["path"]: r["fold"] for r in said}
    assert Counter(row["part"] for row in rows).keys() == {"train", "val"}
    plain = json.loads((run.folder / "evaluation.json").read_text())
    assert plain["test"]["n"] == 24
    assert [fold["n"] for fold in plain["folds"]] == [8, 8, 8]
    said_alone = evaluate(read_predictions(run.folder / "predictions.csv"))
    for end in ("low", "high"):  # the models of the folds share training rows
        value, there = plain["test"]["log_loss"]["value"], plain["test"]["log_loss"][end]
        wide = value + 1.25 * (getattr(said_alone.log_loss, end) - value)
        assert there == pytest.approx(max(0, wide), rel=1e-3)
    each = [fold["metrics"]["accuracy"]["value"] for fold in plain["folds"]]
    assert np.mean(each) == pytest.approx(plain["test"]["accuracy"]["value"])
    assert json.loads((run.folder / "recipe.json").read_text())["folds"] == 3
    (judged,) = lines.of("judged")
    assert judged.startswith("by 3-fold cross-validation: each row by a model that did not")
    assert judged.endswith("the saved model learned from all 24 rows")
    assert [line[:6] for line in lines.of("fold")] == ["1 of 3", "2 of 3", "3 of 3"]
    assert "3-fold cross-validation" in repr(run)
    insights = json.loads((run.folder / "insights.json").read_text())
    assert insights["doubt"]["conformal"]["coverage"]["n"] == 24
    assert insights["calibration"]["test"]["after"]


@pytest.mark.long
def test_the_rows_of_a_fold_are_judged_once_by_a_model_that_never_saw_them(
    shapes: Path, tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What each model was fitted on, and the rows that it then answered."""
    seen = list[tuple[set[str], list[str]]]()
    fit, predict = two_phases, Model.predict_table

    def fitting(spec: Any, backbone: Any, splits: Any, *others: Any) -> Any:
        seen.append(({*splits.train.ids, *splits.val.ids}, []))
        return fit(spec, backbone, splits, *others)

    def predicting(model: Model, rows: Any) -> Any:
        seen[-1][1].extend(id for id in rows.ids if id not in seen[-1][0])
        return predict(model, rows)

    monkeypatch.setattr(runs, "two_phases", fitting)
    monkeypatch.setattr(Model, "predict_table", predicting)
    data = hs.read(shapes)
    hs.train(data, tmp_path / "run", replace(job, strategy="finetune"))
    learned, answered = zip(*seen, strict=True)
    assert [len(rows) for rows in learned] == [16, 16, 16, 24]
    assert sorted(id for rows in answered for id in rows) == sorted(data.ids)
    hs.train(data, tmp_path / "control", replace(job, folds=0))
    assert len(seen[-1][1]) == len(set(seen[-1][1])) == 24 - len(seen[-1][0])  # a test part, once


def test_each_fold_starts_from_the_pretrained_weights(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    """A fold's answers are those of a run in which the other folds were never trained."""
    job = replace(job, strategy="finetune")
    run = hs.train(hs.read(shapes), tmp_path / "run", job)
    rows = table(run.folder / "splits.csv")
    last = {row["path"] for row in rows if row["fold"] == "3"}
    state = RunState.begin(tmp_path / "alone", job, hs.Listener())
    fold = folded(run.checks.dataset, job.split, 3, together=run.checks.together).folds[-1]
    alone = runs._fit(state, prepared(state), fold).result.model
    scores = alone.predict_table(state.features(alone, fold.test)).scores
    said = read_predictions(run.folder / "predictions.csv")
    own = said.take([i for i, id in enumerate(said.ids) if id in last])
    assert own.ids == fold.test.ids
    odds, others = (np.log(s[:, 0]) - np.log(s[:, 1]) for s in (own.scores, scores))
    assert np.allclose(odds / others, (odds / others)[0], rtol=1e-3)  # one temperature, from val


def stop_at(phase: str, which: int, after: int) -> hs.Listener:
    """Ends the run in an epoch of one of the models that are trained, counted from 1."""
    begun = [0]

    def epoch(name: str, number: int, figures: Any) -> None:
        begun[0] += name == phase and number == 1
        if name == phase and begun[0] == which and number == after:
            raise KeyboardInterrupt

    return Calls(epoch=epoch)


@pytest.mark.long
@pytest.mark.parametrize(("which", "after"), [(2, 2), (4, 1)])
def test_a_killed_run_goes_on_after_its_finished_folds_and_ends_to_the_bit(
    shapes: Path, tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch, which: int, after: int
) -> None:
    job = replace(job, strategy="finetune", checkpoint_s=0.0)
    data = hs.read(shapes)
    whole = hs.train(data, tmp_path / "whole", job).folder
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        hs.train(data, broken, job, stop_at("finetune", which, after))
    assert len(list(broken.glob("checkpoint-fold-*.json"))) == which - 1
    fits, fit = list[int](), two_phases

    def counted(spec: Any, backbone: Any, splits: Any, *others: Any) -> Any:
        fits.append(len(splits.test))
        return fit(spec, backbone, splits, *others)

    monkeypatch.setattr(runs, "two_phases", counted)
    hs.train(data, broken, replace(job, resume=True))
    assert len(fits) == 5 - which  # of three folds and the saved model
    for name in ("model/weights.safetensors", "splits.csv", "predictions.csv", "evaluation.json"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes(), name
    assert without_seconds(whole) == without_seconds(broken)
    assert {p.name for p in broken.iterdir()} == {p.name for p in whole.iterdir()}
    assert not list(broken.glob("checkpoint-*"))


def test_a_finished_fold_of_other_settings_is_not_taken(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    job, data = replace(job, strategy="extract"), hs.read(shapes)
    broken = tmp_path / "broken"

    def stop(stage: str, message: str) -> None:
        if stage == "fold" and message.startswith("2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hs.train(data, broken, job, Calls(stage=stop))
    other = replace(job, recipe=FeatureExtraction(hs.specs.RidgeSpec()))
    hs.train(data, broken, other)
    fresh = hs.train(data, tmp_path / "fresh", other).folder
    name = "predictions.csv"
    assert (broken / name).read_bytes() == (fresh / name).read_bytes()


@pytest.mark.long
@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"target": "number"}, {"target": "number", "loss": "huber"}),
        ({}, {"target": "grades"}),
        ({}, None),
    ],
    ids=["another loss", "another target", "data of another target"],
)
def test_a_finished_fold_of_another_target_is_not_taken(
    tmp_path: Path, first: dict[str, Any], then: dict[str, Any] | None
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3)).astype(np.uint8)
    data: Any = (pixels, ["0", "1", "9"] * 10)
    other = hs.read(data, target="grades") if then is None else data
    same: dict[str, Any] = {"backbone": "tiny:8", "strategy": "extract", "folds": 2}
    same |= {"insights": "none", "store": tmp_path / "store"}

    def stop(stage: str, message: str) -> None:
        if stage == "fold":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hs.train(data, tmp_path / "broken", listener=Calls(stage=stop), **same, **first)
    broken, fresh = (
        hs.train(other, tmp_path / name, **same, **(then or {})).folder
        for name in ("broken", "fresh")
    )
    for name in ("predictions.csv", "evaluation.json"):
        assert (broken / name).read_bytes() == (fresh / name).read_bytes(), name


def test_a_fold_that_a_deadline_may_have_cut_short_has_a_key_of_its_own(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    fold, keys = folded(hs.read(shapes), job.split, 3).folds[0], set[str]()
    for budget in (0.0, 3600.0):
        state = RunState.begin(tmp_path, replace(job, budget=budget), hs.Listener())
        keys.add(_key(state, prepared(state), fold))
    assert len(keys) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"strategy": "extract", "recipe": FeatureExtraction(LinearSpec(epochs=2))},
        {"backbone": "scratch:cnn", "strategy": "scratch"},
        {"strategy": "finetune", "augment": Augment(flip="both", views=0)},
        {"strategy": "auto", "augment": Augment(flip="both", views=2)},
        {"strategy": "extract", "baseline": "cnn"},
    ],
    ids=["trained head", "scratch", "new views", "stored views", "baseline"],
)
def test_every_way_of_training_is_cross_validated(
    shapes: Path, tmp_path: Path, job: Job, change: dict[str, Any]
) -> None:
    job = replace(job, **{"folds": 2, "finetune": replace(job.finetune, epochs=1), **change})
    run = hs.train(hs.read(shapes), tmp_path / "run", job)
    assert run.evaluation.n == 24
    assert len(run.folds) == 2
    assert all(judged.n == 24 for judged in run.baselines.values())
    assert len(run.baselines) == (job.baseline == "cnn")


@pytest.mark.long
@pytest.mark.parametrize("kind", ["number", "labels", "grades"])
def test_every_kind_of_target_is_cross_validated(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "store"))
    pictures(tmp_path, kind, 60)
    flags = ["--ordered", "low,middle,high"] if kind == "grades" else []
    flags += ["--backbone", "tiny:8", "--strategy", "extract", "--folds", "3"]
    for out in ("one", "two"):
        assert main(["train", "rows.csv", "--out", out, *flags]) == 0
    printed = capsys.readouterr().out
    assert "3-fold cross-validation" in printed
    evaluation = json.loads((tmp_path / "one" / "evaluation.json").read_text())
    assert (evaluation["test"]["n"], len(evaluation["folds"])) == (60, 3)
    insights = json.loads((tmp_path / "one" / "insights.json").read_text())
    assert insights["doubt"]["conformal"]["coverage"]["n"] == 60
    assert main(["compare", "one", "two"]) == 0
    page = (tmp_path / "one" / "report.html").read_text()
    assert "It was judged by 3-fold cross-validation" in page
    assert "Fold by fold" in page


def test_texts_are_cross_validated_with_their_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "store"))
    data = hs.read(reviews(40), input="text")
    job = Job(backbone="tiny-text:8", strategy="extract", folds=2, insights="none")
    run = hs.train(data, tmp_path / "run", job)
    assert run.evaluation.n == 40
    assert [judged.n for judged in run.baselines.values()] == [40]


# ------------------------------------------------------------ the other commands
@pytest.fixture
def trained(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "store"))
    flags = ["--backbone", "tiny:32", "--strategy", "extract", "--folds", "3"]
    assert main(["train", str(shapes), "--out", "run", *flags]) == 0
    return tmp_path / "run"


def told(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    capsys.readouterr()
    code = main(list(argv))
    got = capsys.readouterr()
    return code, " ".join((got.out + got.err).split())


def test_the_saved_model_is_judged_on_other_rows_alone(
    trained: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = told(capsys, "evaluate", "run", str(shapes))
    assert code == 1
    assert "There must be rows to judge by that the model has not learned from" in text
    Image.fromarray(np.full((20, 20, 3), 61, np.uint8)).save(shapes / "dark" / "new.png")
    code, text = told(capsys, "evaluate", "run", str(shapes))
    assert "n=1" in text


def test_what_needs_rows_that_the_model_did_not_learn_from_is_refused(
    trained: Path, shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = told(capsys, "explain", "run")
    assert code == 1
    assert "a cross-validated run, learned from all of them. Name other pictures" in text
    code, _ = told(capsys, "explain", "run", str(shapes / "dark" / "00.png"))
    assert code == 0
    code, text = told(capsys, "robustness", "run")
    assert code == 1
    assert "was judged by cross-validation" in text


@pytest.mark.long
def test_reports_and_settings_are_read_again(
    trained: Path, shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(capsys, "report", "run", "--language", "ru")[0] == 0
    assert "перекрёстная проверка" in (trained / "report.html").read_text()
    assert told(capsys, "train", "--config", "run/recipe.json", "--out", "again")[0] == 0
    again, run = (p / "predictions.csv" for p in (trained.with_name("again"), trained))
    assert again.read_bytes() == run.read_bytes()
    code, text = told(capsys, "train", "--config", "run/recipe.json", "--out", "x", "--dry-run")
    assert code == 0
    assert "folds 3, each judged by a model of the others" in text


def test_seeds_have_folds_of_their_own(shapes: Path, tmp_path: Path, job: Job) -> None:
    job = replace(job, strategy="extract")
    both = train_seeds(hs.read(shapes), tmp_path / "runs", job, 2)
    assert [run.test.n for run in both] == [24, 24]
    one, two = (table(run.folder / "splits.csv") for run in both)
    assert {r["path"]: r["fold"] for r in one} != {r["path"]: r["fold"] for r in two}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda data: hs.train(data, "x", folds=1), "folds is 2 or more"),
        (lambda data: hs.train(data, "x", folds=-2), "folds is 2 or more"),
        (lambda data: hs.train(data, "x", folds=2, backbone="auto"), "auto chooses on the rows"),
        (lambda data: hs.train(data, "x", folds=5, test=0.2), "leaves no test part"),
        (lambda data: hs.fit(data, folds=5), "folds is a setting of a run"),
    ],
)
def test_settings_that_contradict_are_refused(
    shapes: Path, call: Callable[[Any], Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        call(hs.read(shapes))


def test_a_run_with_a_test_part_writes_what_it_always_wrote(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    folder = hs.train(hs.read(shapes), tmp_path / "run", replace(job, folds=0)).folder
    for name in ("recipe.json", "evaluation.json", "splits.csv", "predictions.csv"):
        text = (folder / name).read_text()
        assert '"fold' not in text, name  # a key
        assert ",fold" not in text, name  # a column
