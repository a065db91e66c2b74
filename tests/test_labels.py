"""Several labels per row: reading them, their metrics, thresholds and sets."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import saved
from PIL import Image
from sklearn import metrics as theirs
from test_targets import manifest

import headstart as hs
from headstart.base.errors import DataError, SpecError
from headstart.cli.main import main
from headstart.data.dataset import Dataset
from headstart.data.splits import SplitPlan, split
from headstart.evaluation.evaluation import evaluate
from headstart.modalities.reading import read
from headstart.models.limits import Judged, TrustPlan, find_limits
from headstart.targets.labels import LabelsTarget
from headstart.targets.predictions import Predictions


def random_case(seed: int) -> tuple[LabelsTarget, dict[str, Any], Any]:
    """A target, answers with ties, and labels of which some occur in no row."""
    rng = np.random.default_rng(seed)
    n, labels = int(rng.integers(1, 40)), int(rng.integers(1, 6))
    target = LabelsTarget(tuple(map(str, range(labels))))
    y = (rng.random((n, labels)) < rng.choice([0.0, 0.3, 0.9], labels)).astype(np.int8)
    scores = (rng.integers(0, 6, (n, labels)) / 5).astype(np.float32)
    return target, {"scores": scores, "labels": scores >= 0.5}, y


@pytest.mark.parametrize("seed", range(60))
def test_metrics_equal_scikit_learns(seed: int) -> None:
    target, answers, y = random_case(seed)
    ours = {name: m and m.value for name, m in target.metrics(answers, y).items()}
    there = y.any(axis=0)
    called, scores = answers["labels"], answers["scores"]
    each = [theirs.average_precision_score(y[:, c], scores[:, c]) for c in np.flatnonzero(there)]
    expected = {
        "mAP": np.mean(each) if len(each) else None,
        "f1_macro": np.mean(
            [
                theirs.f1_score(y[:, c], called[:, c], zero_division=0.0)
                for c in np.flatnonzero(there)
            ]
        )
        if there.any()
        else None,
        "f1_micro": theirs.f1_score(y.ravel(), called.ravel(), zero_division=0.0)
        if (y | called).any()
        else None,
        "exact_match": theirs.accuracy_score(y.astype(bool), called),
        "hamming_loss": (y.astype(bool) != called).mean(),
    }
    for name, value in expected.items():
        assert ours[name] == (None if value is None else pytest.approx(value, abs=1e-12)), name
    samples = [
        theirs.jaccard_score(a, b, zero_division=1.0) for a, b in zip(y, called, strict=True)
    ]
    assert np.allclose(target.row_scores(answers, y), samples, atol=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_the_table_of_labels_equals_scikit_learns(seed: int) -> None:
    target, answers, y = random_case(seed)
    table, together = target.tables(answers, y)
    for c, row in enumerate(table.rows):
        cells = dict(zip(table.keys, row, strict=True))
        own, called = y[:, c], answers["labels"][:, c]
        assert cells["n"] == own.sum()
        if not own.any():
            assert cells["average_precision"] is cells["recall"] is cells["f1"] is None
            continue
        for name in ("precision", "recall", "f1"):
            value = getattr(theirs, f"{name}_score")(own, called, zero_division=np.nan)
            assert (np.nan if (m := cells[name]) is None else m.value) == pytest.approx(
                value, abs=1e-12, nan_ok=True
            )
        precise = theirs.average_precision_score(own, answers["scores"][:, c])
        assert cells["average_precision"].value == pytest.approx(precise, abs=1e-12)
    assert np.array_equal(np.array(together.rows), y.astype(int).T @ y)


def test_a_resample_counts_rows_as_often_as_they_are_drawn() -> None:
    target, answers, y = random_case(3)
    rows = np.random.default_rng(0).integers(len(y), size=len(y))
    drawn = {name: values[rows] for name, values in answers.items()}
    for name in ("mAP", "f1_micro", "f1_macro"):
        whole: Any = target.metrics(answers, y)[name]
        again: Any = target.metrics(drawn, y[rows])[name]
        assert whole.of(rows) == pytest.approx(again.value, abs=1e-12)


# ---------------------------------------------------------------- thresholds
def slow_threshold(scores: Any, y: Any) -> float:
    """The best F1 over all thresholds, by trying each."""
    tried = [*np.unique(scores), 0.5]
    return max(theirs.f1_score(y, scores >= t, zero_division=0.0) for t in tried)


@pytest.mark.parametrize("seed", range(20))
def test_a_threshold_has_the_highest_f1(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = (rng.random((60, 2)) < (0.3, 0.02)).astype(np.int8)
    y[:5, 0] = 1
    scores = np.round(rng.random((60, 2)) * 0.5 + 0.3 * y, 1).astype(np.float32)
    target = LabelsTarget(("often", "seldom")).decided({"scores": scores}, y)
    own = scores[:, 0].astype(np.float64) >= target.thresholds[0]
    assert theirs.f1_score(y[:, 0], own) == slow_threshold(scores[:, 0].astype(float), y[:, 0])
    assert y[:, 1].sum() >= 5 or target.thresholds[1] == 0.5


def test_of_equal_thresholds_the_nearest_to_one_half_is_taken() -> None:
    y = np.array([[1]] * 6 + [[0]] * 6, np.int8)
    scores = np.where(y, 0.8, 0.1).astype(np.float32)
    assert LabelsTarget(("a",)).decided({"scores": scores}, y).thresholds == (0.5,)
    low = np.where(y, 0.3, 0.1).astype(np.float32)
    assert LabelsTarget(("a",)).decided({"scores": low}, y).thresholds == pytest.approx((0.2,))


# ---------------------------------------------------------------- reading
def read_labels(folder: Path, header: str, *cells: str, **how: Any) -> Dataset:
    return read(manifest(folder, header, *cells), **how)


def test_a_column_of_labels_is_read(tmp_path: Path) -> None:
    data = read_labels(tmp_path, "path,labels", "red car|cat", "cat;cat ; dog", "", "(none)")
    assert data.target == LabelsTarget(("cat", "dog", "red car"))
    assert data.y.tolist() == [[1, 0, 1], [1, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert data.target.decode(data.y) == ["cat|red car", "cat|dog", "(none)", "(none)"]
    assert "several labels: 4 rows, 3 labels (cat, dog, red car)" in data.choice


@pytest.mark.parametrize("yes", ["1", "true", "Yes", "1.0"])
def test_columns_of_0_and_1_are_labels(tmp_path: Path, yes: str) -> None:
    header = "path,big cat,dog,note,part"
    rows = (f"{yes},0,x,train", f"0,{yes},y,train", f"{yes},{yes},z,test")
    data = read_labels(tmp_path, header, *rows)
    assert data.target == LabelsTarget(("big cat", "dog"))
    assert data.y.tolist() == [[1, 0], [0, 1], [1, 1]]
    assert data.parts == ("train", "train", "test")


def test_a_wrong_cell_of_such_a_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 12: the column dog says with 1 or 0 .* got '2'"):
        read_labels(tmp_path, "path,cat,dog", *["0,1"] * 10, "1,2")


def test_a_column_label_comes_first_unless_labels_are_asked_for(tmp_path: Path) -> None:
    header, cells = "path,label,cat,dog", ("x,1,0", "y,0,1", "y,1,1")
    assert read_labels(tmp_path, header, *cells).classes == ("x", "y")
    asked = read_labels(tmp_path, header, *cells, target="labels")
    assert asked.target == LabelsTarget(("cat", "dog"))
    both = read_labels(tmp_path, "path,label,labels", "x,a|b", "y,b", "y,")
    assert both.choice == "classes; the column labels is not read: for it say --target labels"


def test_labels_may_be_those_of_a_column_label_or_classes_of_a_column_labels(
    tmp_path: Path,
) -> None:
    assert read_labels(tmp_path, "path,label", "a|b", "b", target="labels").y.tolist() == [
        [1, 1],
        [0, 1],
    ]
    assert read_labels(tmp_path, "path,labels", "a", "b", target="class").classes == ("a", "b")


def test_labels_in_memory_are_names_or_an_array_of_0_and_1() -> None:
    x = np.zeros((3, 8, 8, 3), np.uint8)
    named = read((x, [["a", "b"], [], "b"]), target="labels")
    assert named.y.tolist() == [[1, 1], [0, 0], [0, 1]]
    numbered = read((x, np.array([[1, 0], [0, 1], [1, 1]])), target="labels")
    assert numbered.target == LabelsTarget(("0", "1"))
    assert numbered.y.tolist() == [[1, 0], [0, 1], [1, 1]]
    with pytest.raises(DataError, match="no | and no ;"):
        read((x, [["a|b"], [], []]), target="labels")


def test_classes_become_labels_of_one_name(shapes: Path) -> None:
    data = read(shapes, target="labels")
    assert (data.y.sum(axis=1) == 1).all()
    assert data.choice.endswith("for classes say --target class")


def test_a_setting_of_another_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="leave one of them out"):
        read_labels(tmp_path, "path,labels", "a", "b", target="labels", ordered="a,b")


def test_names_that_files_reserve_are_refused() -> None:
    for name in ("unknown", "?", "(none)", "a|b"):
        with pytest.raises(DataError):
            LabelsTarget((name, "b")).check_names()


def test_every_label_has_rows_in_each_part() -> None:
    rng = np.random.default_rng(0)
    there = rng.random((300, 12)) < np.linspace(0.02, 0.6, 12)
    labels = tuple(tuple(np.flatnonzero(row).tolist()) for row in there)
    ids = tuple(map(str, range(300)))
    data = Dataset(ids, ids, labels, LabelsTarget(tuple("abcdefghijkl")))
    parts = split(data, SplitPlan(val=0.2, test=0.2))
    for part, share in ((parts.train, 0.6), (parts.val, 0.2), (parts.test, 0.2)):
        assert (part.y.sum(axis=0) > 0).all()
        assert np.abs(part.y.mean(axis=0) / there.mean(axis=0) - 1).max() < 0.6, share


# ---------------------------------------------------------------- sets
def test_sets_of_labels_hold_the_truth_as_often_as_they_say() -> None:
    """90 ± 1.5 % for each label, in the mean over 1,000 draws of 200 rows and 200 new ones."""
    rng, held, draws = np.random.default_rng(0), np.zeros(3), 1000
    target = LabelsTarget(("a", "b", "c"))
    for _ in range(draws):
        p = rng.beta(0.7, 0.7, (400, 3))
        y = (rng.random((400, 3)) < p).astype(np.int8)
        scores = np.clip(p + rng.normal(0, 0.1, p.shape), 0, 1).astype(np.float32)
        answers = {"scores": scores, "labels": scores >= 0.5}
        val = {name: values[:200] for name, values in answers.items()}
        judged = Judged(target, val, y[:200], np.zeros((200, 1), np.float32))
        limits = find_limits(TrustPlan(calibrate=False), judged, None)
        new = {name: values[200:] for name, values in answers.items()}
        region = limits.region(target, new)
        own = np.where(y[200:] > 0, region["not_ruled_out"], ~region["certain"])
        held += own.mean(axis=0) / draws
    assert np.abs(held - 0.9).max() < 0.015


def test_no_set_is_empty() -> None:
    scores = np.array([[0.9, 0.1, 0.5]], np.float32)
    region = LabelsTarget(("a", "b", "c")).region({"scores": scores}, 0.01)
    assert region["not_ruled_out"].tolist() == [[True, False, True]]
    assert region["certain"].tolist() == [[True, False, False]]


def test_a_baseline_knows_the_shares_only() -> None:
    target, answers, y = random_case(7)
    y[:, 0] = 1
    fitted = target.fitted(y)
    result = evaluate(Predictions(tuple(map(str, range(len(y)))), answers, y, fitted), fitted)
    shares = y.mean(axis=0)
    assert result.baseline is not None
    assert float(result.baseline.metric) == pytest.approx(shares[shares > 0].mean())


def test_a_model_of_labels_reads_other_labels_by_name() -> None:
    own, other = LabelsTarget(("a", "b")), LabelsTarget(("b", "c"))
    y = other.labels([(0,), (1,), ()])
    assert own.translate(y, other).tolist() == [[0, 1], [0, 0], [0, 0]]
    assert not own.known(own.translate(y, LabelsTarget(("c", "d")))).any()
    assert hs.read is read


@pytest.mark.parametrize("ends", [math.inf, (0.2, math.inf)])
def test_a_model_whose_labels_have_too_few_rows_for_a_limit_is_saved(
    tmp_path: Path, ends: Any
) -> None:
    """60 rows are too few for sets that miss one label in 100; some labels may have no limit."""
    x = np.random.default_rng(0).integers(0, 255, (60, 32, 32, 3), np.uint8)
    labels = [["a"], ["b"], ["a", "b"], []] * 15
    how: dict[str, Any] = {"backbone": "tiny:8", "strategy": "extract", "store": None}
    model = hs.fit((x, labels), target="labels", alpha=0.01, **how).model
    assert model.limits.miss == math.inf
    if isinstance(ends, tuple):
        model = replace(model, limits=replace(model.limits, miss=np.array(ends)))
    hs.save(model, tmp_path / "bundle")
    again = hs.load(tmp_path / "bundle")
    assert np.array_equal(again.limits.miss, ends)
    assert set(again.predict(x[:2], store=None).region) == set(
        model.predict(x[:2], store=None).region
    )


# ---------------------------------------------------------------- from data to predictions


def coloured(folder: Path, n: int = 120) -> Path:
    """Pictures that may be red above and blue below, with a manifest."""
    rng, lines = np.random.default_rng(0), ["path,red above,blue below"]
    for i in range(n):
        picture, there = rng.normal(110, 25, (40, 40, 3)), rng.random(2) < (0.5, 0.3)
        picture[:20, :, 0] += 45 * there[0]
        picture[20:, :, 2] += 45 * there[1]
        (folder / f"{i}.png").write_bytes(
            saved(Image.fromarray(picture.clip(0, 255).astype(np.uint8)), "PNG")
        )
        lines.append(f"{i}.png,{int(there[0])},{int(there[1])}")
    (folder / "m.csv").write_text("\n".join(lines))
    return folder / "m.csv"


@pytest.mark.long
def test_labels_go_all_the_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(coloured(tmp_path).parent)
    for words in (
        ["check", "m.csv", "--backbone", "none"],
        ["train", "m.csv", "--out", "run", "--backbone", "tiny:32", "--strategy", "extract"],
        ["evaluate", "run", "m.csv"],
        ["evaluate", "run/predictions.csv", "--target", "labels"],
        ["report", "run"],
    ):
        capsys.readouterr()
        stored = words[0] != "report" and "predictions" not in words[1]
        assert main([*words, *(["--store", "store"] if stored else [])]) == 0, words
    measured = hs.evaluate("run", "m.csv", store="store")
    assert measured.baseline is not None
    assert measured.mAP > measured.baseline.metric
    (tmp_path / "other.csv").write_text("path,labels\n0.png,green\n1.png,yellow|green\n")
    assert main(["evaluate", "run", "other.csv", "--part", "all", "--store", "store"]) == 1
    assert "others: green, yellow. Is it the right model?" in " ".join(
        capsys.readouterr().err.split()
    )


@pytest.mark.parametrize("head", ["logistic", "linear"])
def test_thresholds_do_not_depend_on_test_rows(tmp_path: Path, head: str) -> None:
    """Of a solved head (out of fold) and of a trained one (validation)."""
    parts = hs.split(coloured(tmp_path, 80), val=0.25, test=0.4, store=None)
    how: dict[str, Any] = {"backbone": "tiny:32", "strategy": "extract", "store": None}
    how |= {"head": head, **({"head_epochs": 12} if head == "linear" else {})}

    def target_with(test: Dataset) -> Any:
        return hs.fit(replace(parts, test=test), **how).model

    turned = replace(
        parts.test, labels=tuple((0,) if i % 2 else (1,) for i in range(len(parts.test)))
    )
    usual, other = target_with(parts.test), target_with(turned)
    assert usual.target.thresholds == other.target.thresholds != ()
    answers = other.predict(turned, store=None).outputs  # the control: these rows would show
    assert other.target.decided(answers, turned.y).thresholds != usual.target.thresholds


def test_a_model_reads_a_manifest_as_its_own_target_does(tmp_path: Path) -> None:
    path = coloured(tmp_path, 60)
    how: dict[str, Any] = {"backbone": "tiny:8", "strategy": "extract", "store": None}
    model = hs.fit(path, **how).model
    (tmp_path / "other.csv").write_text("path,label\n0.png,red above|blue below\n1.png,red above\n")
    answers = model.predict(tmp_path / "other.csv", store=None)
    assert answers.labels.tolist() == [[1, 1], [1, 0]]
