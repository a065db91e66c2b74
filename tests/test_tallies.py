"""Metrics of very many classes, from the cells of a confusion matrix that are not 0."""

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.targets import tallies as module
from headstart.targets.class_metrics import auroc_metric
from headstart.targets.classes import ClassTarget
from headstart.targets.metrics import confusion
from headstart.targets.tallies import Tallies
from headstart.targets.target import Share


def answers(
    rows: int = 300, classes: int = 40, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    rng = np.random.default_rng(seed)
    y = rng.integers(classes - 3, size=rows)  # three classes without rows
    said = np.where(rng.random(rows) < 0.6, y, rng.integers(classes, size=rows))
    return said, y, classes


def test_tallies_hold_the_confusion_matrix() -> None:
    said, y, classes = answers()
    assert (Tallies.of(said, y, classes).matrix == confusion(said, y, classes)).all()


@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1"])
def test_metrics_of_many_classes_are_those_of_the_whole_matrix(
    monkeypatch: pytest.MonkeyPatch, metric: str
) -> None:
    table = Tallies.of(*answers())
    whole = getattr(table, metric)()
    monkeypatch.setattr(module, "MANY", 10)
    sparse = getattr(table, metric)()
    assert (sparse.share, sparse.n) == (whole.share, whole.n)
    assert sparse.size == pytest.approx(whole.size, rel=1e-9)


def test_metrics_of_many_classes_without_a_row_are_undefined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MANY", 1)
    none = np.zeros(0, np.int64)
    table = Tallies.of(none, none, 5)
    assert table.balanced_accuracy() is table.macro_f1() is None


def test_5000_classes_are_judged_without_a_matrix_of_their_square() -> None:
    rng = np.random.default_rng(0)
    names = tuple(f"class {c}" for c in range(5000))
    scores = rng.dirichlet(np.ones(5000), 50).astype(np.float32)
    y, target = rng.integers(5000, size=50), ClassTarget(names)
    found = target.metrics({"scores": scores}, y)
    per_class, confused = target.tables({"scores": scores}, y)
    assert isinstance(found["macro_f1"], Share)
    assert found["macro_f1"].n == 50
    assert len(per_class.rows) == 5000
    assert len(confused.rows) <= 50


def test_auroc_is_the_share_of_pairs_ranked_right() -> None:
    rng = np.random.default_rng(0)
    y = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2])
    scores = rng.integers(4, size=(9, 3)) / 8  # with ties
    pairs = [
        np.mean([(a > b) + 0.5 * (a == b) for a in scores[y == c, c] for b in scores[y != c, c]])
        for c in range(3)
    ]
    metric = auroc_metric(scores, y)
    assert metric is not None
    assert metric.share == pytest.approx(np.mean(pairs))
