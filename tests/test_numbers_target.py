"""A number per row: reading it, its metrics, losses and intervals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from sklearn import metrics as theirs
from test_targets import manifest

import headstart as hs
from headstart.base.errors import DataError, Mismatch, SpecError
from headstart.cli.main import main
from headstart.data.dataset import Dataset
from headstart.data.splits import SplitPlan, split
from headstart.modalities.reading import read
from headstart.models.limits import Judged, TrustPlan, find_limits
from headstart.reporting.run_files import RunRecipe
from headstart.targets.numbers import NumberTarget
from headstart.targets.plan import TargetPlan

# ---------------------------------------------------------------- metrics


@pytest.mark.parametrize("seed", range(40))
def test_metrics_equal_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 30))
    y = rng.integers(0, rng.integers(1, 12), n) * rng.choice([1.0, 1e-3, 1e6])
    value = (y + rng.integers(-2, 3, n) * rng.choice([0.1, 1.0])).astype(np.float32)
    metrics = NumberTarget().metrics({"value": value}, y)
    ours = {name: metric and metric.value for name, metric in metrics.items()}
    exact = value.astype(np.float64)
    varied, ranked = len(np.unique(y)) > 1, len(np.unique(y)) > 1 and len(np.unique(value)) > 1
    expected = {
        "mae": theirs.mean_absolute_error(y, exact),
        "rmse": theirs.root_mean_squared_error(y, exact),
        "r2": theirs.r2_score(y, exact) if varied else None,
        "spearman": spearmanr(y, exact).statistic if ranked else None,
        "median_absolute_error": theirs.median_absolute_error(y, exact),
    }
    for name, value in expected.items():
        close = None if value is None else pytest.approx(value, rel=1e-12, abs=1e-12)
        assert ours[name] == close, name


def test_the_baseline_is_the_best_constant_for_the_mean_absolute_error() -> None:
    y = np.random.default_rng(0).exponential(size=99)
    base = NumberTarget().fitted(y).baseline(y)
    assert base is not None
    assert base.kind == "median"
    errors = [np.abs(y - c).mean() for c in np.linspace(0, 4, 400)]
    assert base.metric.value <= min(errors)


# ---------------------------------------------------------------- learning


def test_training_sees_standardised_numbers_and_answers_have_the_old_scale() -> None:
    y = np.array([1e6, 1e6 + 2, 1e6 + 4])
    target = NumberTarget().fitted(y)
    soft = target.soft(y)
    assert (float(soft.mean()), float(soft.std(correction=0))) == pytest.approx((0, 1), abs=1e-6)
    assert np.allclose(target.activate(soft.numpy()[:, None])["value"], y)
    alike = NumberTarget().fitted(np.array([5.0, 5.0]))
    assert alike.activate(np.array([[0.0]]))["value"] == 5.0


def test_the_quantile_loss_is_least_at_the_quantiles() -> None:
    y = np.random.default_rng(0).normal(size=1000)
    target = NumberTarget("quantile")
    raw = torch.zeros(1, 3, requires_grad=True)
    steps = torch.optim.LBFGS([raw], max_iter=200)

    def loss() -> Any:
        steps.zero_grad()
        mean = target.loss(raw.expand(1000, 3), target.soft(y)).mean()
        mean.backward()
        return mean

    for _ in range(5):
        steps.step(loss)
    assert np.allclose(raw.detach()[0], np.quantile(y, [0.05, 0.5, 0.95]), atol=0.1)


def test_quantiles_that_cross_are_sorted() -> None:
    answers = NumberTarget("quantile").activate(np.array([[2.0, 1.0, 0.0]]))
    assert [answers[name][0] for name in ("q05", "value", "q95")] == [0, 1, 2]


def test_a_loss_of_other_targets_is_refused() -> None:
    with pytest.raises(SpecError, match="squared or huber or quantile"):
        NumberTarget().planned(TargetPlan("number", loss="focal"))


# ---------------------------------------------------------------- reading


def test_a_column_value_is_a_number(tmp_path: Path) -> None:
    data = read(manifest(tmp_path, "path,value", "1", "-2.5", "1e3", ".5"))
    assert data.labels == (1.0, -2.5, 1000.0, 0.5)
    assert data.choice == "a number: 4 rows, 4 values; for classes say --target class"
    assert data.target.decode(data.y) == ["1", "-2.5", "1000", "0.5"]


def test_numbers_and_classes_are_read_from_each_others_column(tmp_path: Path) -> None:
    number = read(manifest(tmp_path, "path,label", "1", "2", "2"), target="number")
    assert number.labels == (1.0, 2.0, 2.0)
    classes = read(manifest(tmp_path, "path,value", "1", "2.0", "2.5"), target="class")
    assert classes.classes == ("1", "2.0", "2.5")
    usual = read(manifest(tmp_path, "path,label", "1", "2", "2"))
    assert usual.classes == ("1", "2")
    assert usual.choice == "classes: 2 labels, all numbers; for a number say --target number"
    both = read(manifest(tmp_path, "path,label,value", "a,1", "b,2"))
    assert both.choice == "classes; the column value is not read: for it say --target number"


def test_folders_and_arrays_hold_numbers_if_asked(tmp_path: Path) -> None:
    x = np.zeros((3, 8, 8, 3), np.uint8)
    assert read((x, np.array([0.5, 1, 2])), target="number").labels == (0.5, 1.0, 2.0)
    assert read((x, np.array([0.5, 1, 2]))).classes == ("0.5", "1", "2")
    path = manifest(tmp_path, "path,label", "1", "2", "2")
    assert read(read(path), target="number").labels == (1.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ('"1,5"', "write a decimal point in place of the comma; got '1,5'"),
        ("१", "a number such as -1.5 or 2e3; got '१'"),
        ("", "the value is empty"),
        ("nan", "got 'nan'"),
        ("inf", "got 'inf'"),
        ("1e999", "a value is from -1e\\+30 to 1e\\+30; got '1e999'"),
        ("=1+1", "got '=1\\+1'"),
        ("1_000", "got '1_000'"),
        ("0x10", "got '0x10'"),
        ("12 cm", "got '12 cm'"),
        ("9" * 5000, "got '9{40}'"),
        ("9" * 100_000 + "x", "got '9{40}'"),  # in linear time
        ("1\x1b[0m", "control characters"),
    ],
)
def test_what_is_no_number_is_named_with_its_row(tmp_path: Path, cell: str, why: str) -> None:
    with pytest.raises(DataError, match=rf"m.csv, row 3: .*{why}"):
        read(manifest(tmp_path, "path,value", "1", cell))


def test_parts_have_the_same_distribution() -> None:
    values = np.random.default_rng(0).exponential(size=400)
    ids = tuple(map(str, range(400)))
    data = Dataset(ids, ids, tuple(values.tolist()), NumberTarget())
    parts = split(data, SplitPlan(val=0.2, test=0.2))
    for part in (parts.train, parts.val, parts.test):
        share = np.histogram(part.y, np.quantile(values, np.linspace(0, 1, 11)))[0] / len(part)
        assert np.allclose(share, 0.1, atol=0.015)


# ---------------------------------------------------------------- intervals


@pytest.mark.parametrize("objective", ["squared", "quantile"])
def test_intervals_hold_the_number_as_often_as_they_say(objective: str) -> None:
    """90 ± 1.5 % in the mean over 1,000 draws of 200 rows and 200 new ones."""
    rng, draws = np.random.default_rng(0), 1000
    target, held = NumberTarget(objective), 0.0
    for _ in range(draws):
        x = rng.normal(size=400)
        y = x + (0.2 + np.abs(x)) * rng.standard_t(4, 400)
        answers = {"value": x.astype(np.float32)}
        if objective == "quantile":  # of another spread than the true one
            wide = (0.5 * (0.2 + np.abs(x))).astype(np.float32)
            answers |= {"q05": answers["value"] - wide, "q95": answers["value"] + wide}
        val = {name: values[:200] for name, values in answers.items()}
        limits = find_limits(
            TrustPlan(), Judged(target, val, y[:200], np.zeros((200, 1), np.float32)), None
        )
        region = limits.region(target, {name: values[200:] for name, values in answers.items()})
        inside = (region["low"] <= y[200:]) & (y[200:] <= region["high"])
        held += float(inside.mean()) / draws
    assert abs(held - 0.9) < 0.015


def test_an_interval_of_quantiles_is_wider_where_the_numbers_spread() -> None:
    answers = {"value": np.zeros(2), "q05": np.array([-1.0, -9]), "q95": np.array([1.0, 9])}
    region = NumberTarget("quantile").region(answers, 0.5)
    assert (region["high"] - region["low"]).tolist() == [3, 19]
    assert NumberTarget("quantile").region(answers, -5.0)["low"].tolist() == [0, -4]


def test_predictions_of_another_shape_are_refused() -> None:
    with pytest.raises(Mismatch, match="hold q05 and q95 and value"):
        NumberTarget("quantile").check({"value": np.zeros(2, np.float32)}, np.zeros(2))


def test_charts_show_answers_against_labels() -> None:
    y = np.array([1.0, 2.0])
    predicted, residuals = NumberTarget().charts({"value": np.array([1.5, 2.0])}, y)
    assert predicted.points == ((1.0, 1.5), (2.0, 2.0))
    assert predicted.diagonal
    assert residuals.points == ((1.5, -0.5), (2.0, 0.0))


# ---------------------------------------------------------------- from data to predictions


@pytest.mark.long
def test_the_target_that_was_asked_for_is_saved_with_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(manifest(tmp_path, "path,label", *(str(i % 7) for i in range(60))).parent)
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "store"))
    how = ["--backbone", "tiny:8", "--strategy", "extract", "--head", "linear"]
    asked = ["--target", "number", "--loss", "huber", "--head-epochs", "2"]
    assert main(["train", "m.csv", "--out", "run", *how, *asked]) == 0
    assert "a number: 60 rows, 7 values; for classes say --target class" in capsys.readouterr().err
    recipe = json.loads(Path("run/recipe.json").read_text())
    assert recipe["target"] == {"target": "number", "ordered": "", "loss": "huber"} | {
        "kind": "TargetPlan"
    }
    target = hs.load("run").target
    assert isinstance(target, NumberTarget)
    assert (target.objective, target.mean > 0) == ("huber", True)
    for words in (
        ["evaluate", "run", "m.csv"],
        ["report", "run"],
        ["predict", "run", "0.png"],
        ["train", "--config", "run/recipe.json", "--out", "again"],
        ["compare", "run", "again"],
    ):
        assert main(words) == 0, (words, capsys.readouterr().err)
    assert hs.load("again").target == target


def test_the_record_of_classes_says_nothing_of_the_target() -> None:
    plain = RunRecipe(backbone="", phases={}, versions={}).to_plain()
    assert "target" not in plain


def test_a_table_in_memory_is_read_as_its_file(tmp_path: Path) -> None:
    path = manifest(tmp_path, "path,value", "1.5", "2", "3e2")
    table = pd.read_csv(path).assign(path=[str(tmp_path / f"{i}.png") for i in range(3)])
    assert read(table).labels == read(path).labels == (1.5, 2.0, 300.0)
    frame = table.rename(columns={"value": "cat"}).assign(cat=[1, 0, 1], dog=[True, False, True])
    assert read(frame).target.kind == "labels"
