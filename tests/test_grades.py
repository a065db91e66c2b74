"""Grades: their order, metrics, loss and sets."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as theirs
from test_targets import manifest

import headstart as hs
from headstart.base.errors import DataError, SpecError
from headstart.cli.main import main
from headstart.data.dataset import Dataset
from headstart.modalities.reading import read
from headstart.models.limits import Judged, TrustPlan, find_limits
from headstart.targets.grade_metrics import median_grades, reach
from headstart.targets.grades import GradesTarget
from headstart.targets.predictions import read_predictions, write_csv

THREE = GradesTarget(("low", "middle", "high"))


def random_scores(rng: np.random.Generator, n: int, grades: int) -> Any:
    counts = rng.integers(0, 4, (n, grades)) + rng.random((n, grades)) * rng.integers(0, 2)
    counts[:, 0] += 0.5
    return (counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)


# ---------------------------------------------------------------- metrics


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.filterwarnings("ignore")  # scikit-learn's, for single labels
def test_metrics_equal_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, grades = int(rng.integers(1, 30)), int(rng.integers(2, 6))
    target = GradesTarget(tuple(map(str, range(grades))))
    y, scores = rng.integers(0, grades, n), random_scores(rng, n, grades)
    given = median_grades(scores)
    ours = {k: m and m.value for k, m in target.metrics({"scores": scores}, y).items()}
    kappa = theirs.cohen_kappa_score(y, given, weights="quadratic", labels=range(grades))
    expected = {
        "quadratic_kappa": None if np.isnan(kappa) else kappa,
        "mae": theirs.mean_absolute_error(y, given),
        "accuracy": theirs.accuracy_score(y, given),
        "within_one": np.mean(np.abs(y - given) <= 1),
    }
    for name, value in expected.items():
        close = None if value is None else pytest.approx(value, rel=1e-12, abs=1e-12)
        assert ours[name] == close, name
    losses = -np.log(np.maximum(scores[np.arange(n), y].astype(float), np.finfo(np.float32).eps))
    assert ours["log_loss"] == pytest.approx(losses.mean(), abs=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_the_median_grade_has_the_smallest_expected_distance(seed: int) -> None:
    scores = random_scores(np.random.default_rng(seed), 50, 5)
    away = np.abs(np.arange(5)[:, None] - np.arange(5))
    expected = scores.astype(np.float64) @ away
    own = expected[np.arange(50), median_grades(scores)]
    assert np.allclose(own, expected.min(axis=1), atol=1e-5)


# ---------------------------------------------------------------- learning


def test_the_loss_is_that_of_the_differences_of_sigmoids() -> None:
    raw = torch.tensor([[3.0, 1.0], [0.5, -2.0], [-1.0, -1.5]], dtype=torch.float64)
    p = torch.sigmoid(raw)
    slow = torch.stack([1 - p[:, 0], p[:, 0] - p[:, 1], p[:, 1]], dim=1)
    for grade in range(3):
        soft = THREE.soft(np.full(3, grade)).double()
        assert torch.allclose(THREE.loss(raw, soft), -torch.log(slow[:, grade]))
    assert np.allclose(THREE.activate(raw.numpy())["scores"], slow)


def test_raw_outputs_that_cross_give_probabilities_all_the_same() -> None:
    crossed = np.array([[-1.0, 1.0], [0.0, 0.0]])
    scores = THREE.activate(crossed)["scores"]
    assert (scores >= 0).all()
    assert np.allclose(scores.sum(axis=1), 1)
    raw = torch.tensor(crossed, requires_grad=True)
    THREE.loss(raw, THREE.soft(np.array([1, 1]))).sum().backward()
    assert raw.grad is not None
    assert torch.isfinite(raw.grad).all()


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_a_tied_layer_keeps_one_slope(optimizer: Any) -> None:
    torch.manual_seed(0)
    last, x = torch.nn.Linear(4, 2), torch.randn(60, 4)
    y = (x[:, 0].numpy() > 0).astype(np.int64) + (x[:, 0].numpy() > 1)
    THREE.tie(last)
    assert last.bias[0] > last.bias[1]
    kept, start = last.bias.tolist(), last.weight.detach().clone()
    THREE.tie(last)
    assert last.bias.tolist() == kept
    steps = optimizer(last.parameters(), lr=0.1)
    for _ in range(20):
        steps.zero_grad()
        THREE.loss(last(x), THREE.soft(y)).mean().backward()
        steps.step()
    assert torch.equal(last.weight[0], last.weight[1])
    assert not torch.equal(last.weight, start)


# ---------------------------------------------------------------- reading


def read_grades(folder: Path, *cells: str, header: str = "path,label", **how: Any) -> Dataset:
    return read(manifest(folder, header, *cells), **how)


def test_the_order_is_given(tmp_path: Path) -> None:
    cells = ("high", "low", "middle", "low")
    data = read_grades(tmp_path, *cells, ordered="low, middle,high")
    assert (data.target, data.labels) == (THREE, (2, 0, 1, 0))
    assert data.choice == "grades: 4 rows, low < middle < high; for classes say --target class"
    listed = read_grades(tmp_path, *cells, ordered=["low", "middle", "high"])
    assert listed.labels == data.labels
    assert read_grades(tmp_path, *cells).classes == ("high", "low", "middle")


def test_numbers_are_in_order_by_themselves(tmp_path: Path) -> None:
    data = read_grades(tmp_path, "10", "9", "-1", target="grades")
    assert (data.target, data.labels) == (GradesTarget(("-1", "9", "10")), (2, 1, 0))
    values = read_grades(tmp_path, "2", "1", header="path,value", target="grades")
    assert values.labels == (1, 0)


@pytest.mark.parametrize(
    ("ordered", "error", "why"),
    [
        ("low,middle", DataError, "high"),
        ("low,middle,high,extreme", DataError, "'extreme' is none of high, low, middle"),
        ("low,low,middle,high", DataError, "'low' is there twice"),
        ("", SpecError, "such as --ordered high,low,middle"),
        ("low,,high", SpecError, "--ordered names grades"),
    ],
)
def test_an_order_of_other_names_is_refused(
    tmp_path: Path, ordered: str, error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        read_grades(tmp_path, "high", "low", "middle", target="grades", ordered=ordered)


# ---------------------------------------------------------------- files of predictions
HEADER = "path,label,predicted,score:low,score:middle,score:high"


def graded(folder: Path, header: str, *rows: str) -> Path:
    (folder / "p.csv").write_text("\n".join([header, *rows]))
    return folder / "p.csv"


def test_the_grade_that_a_file_predicts_counts_and_not_the_median_of_its_scores(
    tmp_path: Path,
) -> None:
    file = graded(tmp_path, HEADER, "x,low,low,0.4,0.25,0.35", "y,high,high,0,0,1")
    found = hs.evaluate(file, target="grades")
    assert (float(found.accuracy), found.per_grade["low"].recall.value) == (1.0, 1.0)
    read = read_predictions(file, "grades")
    assert read.names == ("low", "high")
    write_csv(read, tmp_path / "again.csv")
    assert read_predictions(tmp_path / "again.csv", "grades").names == ("low", "high")
    without = graded(tmp_path, HEADER.replace("predicted,", ""), "x,low,0.4,0.25,0.35")
    assert read_predictions(without, "grades").names == ("middle",)


def test_an_order_of_grades_replaces_that_of_the_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, names = np.random.default_rng(0), ("high", "low", "middle")  # as sorted by name
    rows = [
        f"{i},{names[rng.integers(3)]},{a},{b},{1 - a - b}"
        for i, (a, b) in enumerate(rng.integers(0, 5, (40, 2)) / 8)
    ]
    file = graded(tmp_path, "path,label," + ",".join(f"score:{n}" for n in names), *rows)
    straight = hs.evaluate(file, target="grades", ordered=("low", "middle", "high"))
    assert straight.target.names == ("low", "middle", "high")  # type: ignore[attr-defined]
    other = hs.evaluate(file, target="grades")
    assert float(straight.quadratic_kappa) != float(other.quadratic_kappa)
    words = [str(file), "--target", "grades"]
    assert main(["evaluate", *words]) == 0
    assert "high < low < middle, as the columns stand" in capsys.readouterr().err
    assert main(["evaluate", *words, "--ordered", "low,middle,high", "--json"]) == 0
    kappa = json.loads(capsys.readouterr().out)["quadratic_kappa"]["value"]
    assert kappa == float(straight.quadratic_kappa)
    assert main(["compare", *words, str(file), "--ordered", "low,middle,high", "--json"]) == 0
    first, _ = json.loads(capsys.readouterr().out)
    assert first["metrics"]["quadratic_kappa"]["value"] == kappa
    both = hs.compare(file, file, ordered=["low", "middle", "high"])
    assert both[0].metrics["quadratic_kappa"].value == kappa


@pytest.mark.parametrize(
    ("header", "row", "why"),
    [
        ("path,label,predicted", "x,low,low", "a column score:NAME for each of them"),
        (HEADER, "x,low,,0.4,0.25,0.35", "names a grade in each row; row 1 is empty"),
        (HEADER, "x,low,lowest,0.4,0.25,0.35", "no grade named 'lowest'"),
    ],
)
def test_a_file_without_grades_is_refused_in_a_sentence(
    header: str, row: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = graded(tmp_path, header, row)
    with pytest.raises(DataError, match=why):
        hs.evaluate(file, target="grades")
    assert main(["evaluate", str(file), "--target", "grades"]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_folders_may_be_grades(shapes: Path) -> None:
    names = read(shapes).classes
    data = read(shapes, ordered=names[::-1])
    assert data.target == GradesTarget(names[::-1])


# ---------------------------------------------------------------- sets


@pytest.mark.parametrize("seed", range(5))
def test_the_grades_that_are_not_ruled_out_have_no_gap(seed: int) -> None:
    scores = random_scores(np.random.default_rng(seed), 50, 6)
    found = reach(scores)
    assert np.allclose(found.max(axis=1), 1, atol=1e-6)
    target = GradesTarget(tuple("abcdef"))
    for limit in (0.0, 0.3, 0.9, 1.1):
        held = target.region({"scores": scores}, limit)["not_ruled_out"]
        assert (np.abs(np.diff(np.pad(held.astype(int), ((0, 0), (1, 1))))).sum(axis=1) == 2).all()
        assert held[np.arange(50), median_grades(scores)].all()


def test_sets_of_grades_hold_the_truth_as_often_as_they_say() -> None:
    """90 ± 1.5 % in the mean over 1,000 draws of 200 rows and 200 new ones."""
    rng, draws, held = np.random.default_rng(0), 1000, 0.0
    target = GradesTarget(tuple("abcde"))
    for _ in range(draws):
        x = rng.normal(size=(400, 1))
        y = (1.5 * x + rng.logistic(size=(400, 1)) > np.array([-2, -0.7, 0.7, 2])).sum(axis=1)
        scores = target.activate(x - np.array([-2, -0.7, 0.7, 2]))["scores"]  # of another slope
        judged = Judged(target, {"scores": scores[:200]}, y[:200], np.zeros((200, 1), np.float32))
        limits = find_limits(TrustPlan(), judged, None)
        region = limits.region(target, {"scores": scores[200:]})["not_ruled_out"]
        held += float(region[np.arange(200), y[200:]].mean()) / draws
    assert abs(held - 0.9) < 0.015
