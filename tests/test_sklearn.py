"""Estimators of scikit-learn: their contract, and features that are computed once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.exceptions import SkipTestWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from headstart import sklearn
from headstart.base.errors import DataError, UnknownName
from headstart.features.extract import extract
from headstart.modalities.images.examples import solar_cells
from headstart.sklearn import HeadstartClassifier, HeadstartFeatures, HeadstartRegressor

# Cross-validation chooses the strength, and a row given twice changes the folds.
FOLDS = {"check_sample_weight_equivalence_on_dense_data": "rows given twice are in other folds"}


def pictures(rows: int) -> tuple[list[NDArray[np.uint8]], NDArray[np.str_], NDArray[np.float64]]:
    """Noise of different brightness, a name for dark and bright ones, and the brightness."""
    rng = np.random.default_rng(0)
    bright = rng.uniform(40, 215, rows)
    noise = rng.normal(0, 20, (rows, 24, 24, 3))
    arrays = (bright[:, None, None, None] + noise).clip(0, 255).astype(np.uint8)
    return list(arrays), np.where(bright > 128, "bright", "dark"), bright


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The forward passes of each extraction."""
    counted = list[int]()

    def counting(*given: Any, **how: Any) -> Any:
        table = extract(*given, **how)
        counted.append(table.forwards)
        return table

    monkeypatch.setattr(sklearn, "extract", counting)
    return counted


@pytest.mark.long
@pytest.mark.parametrize("kind", [HeadstartClassifier, HeadstartRegressor])
def test_estimators_on_given_features_keep_the_contract_of_scikit_learn(kind: Any) -> None:
    found = check_estimator(
        kind(backbone=None), expected_failed_checks=FOLDS, on_fail=None, on_skip=None
    )
    failed = [(c["check_name"], c["exception"]) for c in found if c["status"] == "failed"]
    assert not failed
    assert sum(check["status"] == "passed" for check in found) > 40
    assert {c["check_name"] for c in found if c["status"] == "xfail"} == set(FOLDS)


@pytest.mark.parametrize("kind", [HeadstartClassifier, HeadstartRegressor, HeadstartFeatures])
def test_estimators_of_examples_keep_the_part_of_the_contract_that_applies(kind: Any) -> None:
    with pytest.warns(SkipTestWarning, match="requires input"):  # the checks give it arrays (N, D)
        found = check_estimator(kind(), on_skip=None)
    assert [check["status"] for check in found] == ["passed"]


def test_searches_run_the_network_once_an_example(forwards: list[int], tmp_path: Path) -> None:
    x, y, _ = pictures(40)
    model = HeadstartClassifier("tiny:8", store=tmp_path)
    assert cross_val_score(model, x, y, cv=2).mean() > 0.9
    assert sum(forwards) == 40
    grid = {"settings": [{"l2": (0.1,)}, {"l2": (10.0,)}], "head": ["ridge"]}
    search = GridSearchCV(model, grid, cv=2).fit(x, y)
    assert search.best_score_ > 0.9
    assert sum(forwards) == 40
    assert set(search.predict(x)) == {"bright", "dark"}


@pytest.mark.long
def test_searches_over_real_photographs_run_the_network_once(
    forwards: list[int], tmp_path: Path
) -> None:
    """Solar cells, by the usual packaged network: 24 forward passes, and none in what follows."""
    pytest.importorskip("elpv_dataset")
    cells = solar_cells()
    rows = [*np.flatnonzero(cells.y == 0)[:12], *np.flatnonzero(cells.y == 1)[:12]]
    paths, labels = [cells.sources[i] for i in rows], cells.y[rows]
    model = HeadstartClassifier(store=tmp_path)
    assert len(cross_val_score(model, paths, labels, cv=3)) == 3
    assert sum(forwards) == 24
    grid = {"head": ["logistic", "ridge"], "settings": [{"l2": (0.1,)}, {"l2": (10.0,)}]}
    GridSearchCV(model, grid, cv=3).fit(paths, labels)
    assert (sum(forwards), len(forwards) > 20) == (24, True)


def test_features_feed_another_estimator(forwards: list[int], tmp_path: Path) -> None:
    x, y, _ = pictures(40)
    features = HeadstartFeatures("tiny:8", store=tmp_path)
    steps = make_pipeline(features, StandardScaler(), LogisticRegression())
    assert cross_val_score(steps, x, y, cv=4).mean() > 0.9
    assert sum(forwards) == 40
    assert steps.fit(x, y)[:1].transform(x[:3]).shape == (3, 8)


def test_probabilities_follow_the_order_of_the_classes(tmp_path: Path) -> None:
    x, y, _ = pictures(30)
    numbers = np.where(y == "dark", 10, 9)  # as texts, "10" comes before "9"
    model = HeadstartClassifier("tiny:8", store=tmp_path).fit(x, numbers)
    assert model.classes_.tolist() == [9, 10]
    scores = model.predict_proba(x)
    assert np.array_equal(model.predict(x), model.classes_[scores.argmax(axis=1)])
    assert (model.predict(x) == numbers).mean() > 0.9


@pytest.mark.parametrize("head", ["logistic", "ridge", "nearest", "mean"])
def test_every_solved_head_is_an_estimator(head: str) -> None:
    x, y = np.repeat(np.eye(2), 10, axis=0), np.repeat(["a", "b"], 10)
    assert HeadstartClassifier(None, head=head).fit(x, y).score(x, y) == 1


def test_a_number_is_predicted_from_pictures(tmp_path: Path) -> None:
    x, _, bright = pictures(60)
    model = HeadstartRegressor("tiny:8", store=tmp_path).fit(x[:40], bright[:40])
    assert model.score(x[40:], bright[40:]) > 0.9


def test_files_of_the_same_path_are_rows_of_their_own(tmp_path: Path) -> None:
    Image.fromarray(pictures(1)[0][0]).save(tmp_path / "a.png")
    paths = [tmp_path / "a.png"] * 3
    assert HeadstartFeatures("tiny:8", store=tmp_path / "s").transform(paths).shape == (3, 8)


def test_what_is_no_example_is_named(tmp_path: Path) -> None:
    (tmp_path / "damaged.png").write_bytes(b"no picture")
    features = HeadstartFeatures("tiny:8", store=tmp_path / "s")
    with pytest.raises(DataError, match=r"1 of 2 are not: .*damaged\.png"):
        features.transform([pictures(1)[0][0], tmp_path / "damaged.png"])
    x, y, _ = pictures(6)
    with pytest.raises(UnknownName, match="logistic"):
        HeadstartClassifier("tiny:8", head="logistics", store=None).fit(x, y)
    with pytest.raises(DataError, match="solved"):
        HeadstartClassifier("tiny:8", head="mlp", store=None).fit(x, y)
