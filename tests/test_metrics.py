"""Each number against scikit-learn's, and by hand where that is clearer."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as theirs

from headstart.targets import metrics
from headstart.targets.class_metrics import auroc_metric, class_cells
from headstart.targets.metrics import Floats, Ints
from headstart.targets.temperature import fit_temperature, scaled


def made(classes: int, seed: int = 0, n: int = 80) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scores with many ties, and labels that they tell of; every class has rows."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    raw = np.round(rng.random((n, classes)) + 0.7 * (y[:, None] == np.arange(classes)), 1) + 0.1
    return (raw / raw.sum(axis=1, keepdims=True)).round(2).astype(np.float32), y


def auroc(scores: Floats, labels: Ints) -> float | None:
    metric = auroc_metric(scores, labels)
    return metric.value if metric else None


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_counted_numbers_are_scikit_learns(classes: int) -> None:
    scores, y = made(classes)
    said = scores.argmax(axis=1)
    table = metrics.confusion(said, y, classes)
    assert (table == theirs.confusion_matrix(y, said)).all()
    assert metrics.accuracy(scores, y) == pytest.approx(theirs.accuracy_score(y, said))
    assert metrics.balanced_accuracy(table) == pytest.approx(
        theirs.balanced_accuracy_score(y, said)
    )
    assert metrics.macro_f1(table) == pytest.approx(theirs.f1_score(y, said, average="macro"))
    precision, recall, f1, _ = theirs.precision_recall_fscore_support(y, said)
    cells = [class_cells(table, c) for c in range(classes)]
    np.testing.assert_allclose([cell.value for _, cell, _, _ in cells if cell], precision)
    np.testing.assert_allclose(metrics.recalls(table), recall)
    np.testing.assert_allclose(metrics.f1s(table), f1)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_log_loss_is_scikit_learns(classes: int) -> None:
    rng = np.random.default_rng(0)
    scores, y = rng.dirichlet(np.ones(classes), size=50), np.arange(50) % classes
    assert metrics.log_loss(scores, y) == pytest.approx(theirs.log_loss(y, scores))


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_auroc_is_scikit_learns_ties_and_all(classes: int) -> None:
    scores, y = made(classes)
    assert len(np.unique(scores[:, -1])) < 0.7 * len(y)
    each = [theirs.roc_auc_score(y == c, scores[:, c]) for c in range(classes)]
    expected = np.mean(each) if classes > 2 else each[1]
    assert auroc(scores, y) == pytest.approx(expected)


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    scores = np.array([0.1, 0.4, 0.4, 0.8])
    y = np.array([0, 0, 1, 1])  # of the 4 pairs 3 are in order and 1 is a tie
    assert auroc(np.column_stack([1 - scores, scores]), y) == 3.5 / 4


def test_a_sure_mistake_costs_much_but_not_everything() -> None:
    assert metrics.log_loss(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(15.94, abs=0.01)


def test_classes_without_rows_are_left_out_of_averages() -> None:
    table = metrics.confusion(np.array([0, 0, 1, 2]), np.array([0, 0, 1, 1]), 4)
    assert metrics.balanced_accuracy(table) == (1.0 + 0.5) / 2
    assert metrics.macro_f1(table) == pytest.approx((1.0 + 2 / 3) / 2)
    assert np.isnan(metrics.recalls(table)[2:]).all()
    assert np.isnan(metrics.f1s(table)[2:]).all()


def test_without_rows_there_is_no_number() -> None:
    scores, y = np.zeros((0, 3)), np.zeros(0, np.int64)
    table = metrics.confusion(y, y, 3)
    for value in (
        metrics.accuracy(scores, y),
        metrics.log_loss(scores, y),
        metrics.balanced_accuracy(table),
        metrics.macro_f1(table),
    ):
        assert np.isnan(value)
    assert auroc(scores, y) is None


def test_one_class_alone_has_no_auroc() -> None:
    assert auroc(made(3)[0], np.zeros(80, np.int64)) is None


def test_scores_of_many_classes_are_scaled_by_blocks_to_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    scores = metrics.softmax(rng.normal(size=(50, 7)), np.float32)
    labels = rng.integers(7, size=50)
    whole = fit_temperature(scores, labels)
    same = scaled(scores, whole)
    monkeypatch.setattr(metrics, "CELLS", 30)
    assert [some.start for some in metrics.row_blocks(scores)][:3] == [0, 4, 8]
    assert fit_temperature(scores, labels) == whole
    np.testing.assert_array_equal(scaled(scores, whole), same)
