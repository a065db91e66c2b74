"""Case weights: how much a row counts in the loss of training."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from test_generic_training import KINDS as SPLITS
from test_generic_training import TUNED, N, backbone, pixels
from test_head_specs import CentreSpec, centre
from test_solved_heads import KINDS, of_numbers
from test_targets import manifest

import headstart as hs
from headstart.backbones.backbone import Backbone
from headstart.base.context import Checkpointing, RunContext
from headstart.base.errors import DataError, SpecError
from headstart.base.listener import Listener
from headstart.base.runtime import Runtime
from headstart.data.dataset import Dataset
from headstart.data.splits import Splits
from headstart.evaluation.backbone_search import cross_validated_head
from headstart.evaluation.learning_curve import learning_curve
from headstart.evaluation.score_curve import score_curve
from headstart.evaluation.tuning_probe import _folds
from headstart.features.extract import FeatureTable
from headstart.heads.basis import Rotation
from headstart.heads.families import HEADS, solve_head, spec_named
from headstart.heads.fit import answers_out_of_fold, cross_validate, fit_head, folds_of_rows
from headstart.heads.head import Rows, some_of
from headstart.heads.nearest import load_nearest
from headstart.heads.specs import LinearSpec, LogisticSpec, MeanSpec, NearestSpec, RidgeSpec
from headstart.models.fitting import fit
from headstart.models.specs import FeatureExtraction, TwoPhaseSpec
from headstart.models.training_data import Start, TrainingData, stacked
from headstart.runs.job import Job
from headstart.runs.seeds import _asked
from headstart.targets.classes import ClassTarget
from headstart.targets.labels import LabelsTarget
from headstart.targets.supervision import Supervision

Array = NDArray[Any]
__all__ = ["backbone", "centre"]  # fixtures
NONE = np.arange(0)


def of_classes(seed: int, n: int = 150, dim: int = 6) -> Rows:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, dim)).astype(np.float32)
    y = np.digitize(x[:, 0] + rng.normal(size=n), [-1, 0.5])
    return Rows(x, y, ClassTarget(("a", "b", "c")))


every_kind = pytest.mark.parametrize("rows", [of_classes, *KINDS])


def weighed(rows: Rows, weights: Any) -> Rows:
    return replace(rows, supervision=Supervision(np.asarray(weights, np.float64)))


def setting(family: str, **more: Any) -> Any:
    return spec_named(family, None, **({"neighbours": (7,)} if family == "nearest" else {}), **more)


def some_weights(n: int = 150) -> Array:
    return np.random.default_rng(5).integers(0, 3, n).astype(float)


# -------------------------------------------------------------------------------- reading


def test_a_column_weight_is_read_from_every_format(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    rows = [("one", "a", 2.5), ("two", "b", 0), ("three", "a", None)]
    frame = pandas.DataFrame(rows, columns=["text", "label", "Weight"])
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "b.parquet")
    lines = [json.dumps(dict(zip(["text", "label", "weight"], row, strict=True))) for row in rows]
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    for source in (tmp_path / "a.csv", tmp_path / "b.parquet", tmp_path / "c.jsonl", frame):
        data = hs.read(source)
        assert data.weights == (2.5, 0.0, 1.0)
        assert data.choice == "classes; the column weight says how much a row counts in training"
        assert data[1:].weights == (0.0, 1.0)
    assert data.to_frame()["weight"].tolist() == [2.5, 0.0, 1.0]


def test_data_without_weights_has_none(tmp_path: Path) -> None:
    data = hs.read(manifest(tmp_path, "path,label,weight", "a,", "b,"))
    assert (data.weights, data.choice, data.supervision.plain) == ((), "", True)


@pytest.mark.parametrize("cell", ["-1", "nan", "inf", "heavy", "1e31"])
def test_a_weight_that_is_none_is_refused_by_its_row(tmp_path: Path, cell: str) -> None:
    path = manifest(tmp_path, "path,label,weight", "a,1", f"b,{cell}")
    with pytest.raises(DataError, match=r"row 3: the weight is a number from 0 to 1e\+30"):
        hs.read(path)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_dataset_refuses_such_a_weight(weight: float) -> None:
    with pytest.raises(DataError, match="A weight is a number from 0 .* for b"):
        Dataset(("a", "b"), ("a", "b"), (0, 1), ("x", "y"), weights=(1.0, weight))


@pytest.mark.parametrize("column", ["labels", "value"])
def test_other_targets_have_weights_too(tmp_path: Path, column: str) -> None:
    data = hs.read(manifest(tmp_path, f"path,{column},weight", "1,3", "0,0.5"))
    assert data.weights == (3.0, 0.5)


# -------------------------------------------------------------------------------- solved heads


@every_kind
@pytest.mark.parametrize("family", ["logistic", "ridge", "nearest"])
def test_a_weight_of_0_is_leaving_the_row_out(rows: Any, family: str) -> None:
    train, val = rows(0), rows(1)
    if not HEADS[family].supports(train.target):
        return
    spec, weights = setting(family), np.repeat([1.0, 0.0], [110, 40])
    for judged in (replace(val, target=train.target), some_of(train, NONE)):
        own = fit_head(spec, weighed(train, weights), judged)
        out = fit_head(spec, some_of(train, weights > 0), judged)
        assert own.chosen == out.chosen
        np.testing.assert_allclose(own.head.raw(val.x), out.head.raw(val.x), rtol=0, atol=1e-6)


@every_kind
@pytest.mark.parametrize("family", ["logistic", "ridge"])
@pytest.mark.parametrize("balanced", ["none", "balanced"])
def test_a_weight_of_2_is_the_row_twice(rows: Any, family: str, balanced: str) -> None:
    train, x = rows(0), rows(1).x
    if not HEADS[family].supports(train.target):
        return
    if balanced != "none" and type(train.target) is not ClassTarget:
        return
    spec, weights = setting(family, l2=(0.1,), class_weights=balanced), some_weights()
    twice = some_of(train, np.repeat(np.arange(150), weights.astype(int)))
    own = fit_head(spec, weighed(train, weights), some_of(train, NONE)).head.raw(x)
    other = fit_head(spec, twice, some_of(train, NONE)).head.raw(x)
    if family == "ridge" and train.target.link != "identity":
        # A row is left out whole to calibrate ridge, and one copy of two is not.
        own, other = own - own.mean(axis=0), other - other.mean(axis=0)
        own, other = own / own.std(axis=0), other / other.std(axis=0)
    np.testing.assert_allclose(own, other, rtol=0, atol=1e-6 if family == "ridge" else 1e-3)


def test_only_the_ratios_of_weights_matter() -> None:
    train, spec = of_classes(0), LogisticSpec(l2=(0.1,))
    one, ten = (
        fit_head(spec, weighed(train, scale * some_weights()), some_of(train, NONE)).head
        for scale in (1.0, 1e6)
    )
    np.testing.assert_allclose(one.raw(train.x), ten.raw(train.x), atol=1e-6)


def test_settings_are_chosen_by_the_weighted_loss() -> None:
    train, val = of_classes(0), of_classes(1)
    weights = np.repeat([1.0, 0.0], [60, 90])
    own = fit_head(LogisticSpec(), train, weighed(val, weights))
    some = fit_head(LogisticSpec(), train, some_of(val, weights > 0))
    for entry, other in zip(own.path, some.path, strict=True):
        assert entry["log_loss"] == pytest.approx(other["log_loss"], abs=1e-12)
    none = fit_head(LogisticSpec(), train, weighed(val, np.zeros(150)))  # nothing left to judge by
    assert none.path == fit_head(LogisticSpec(), train, val).path


def test_folds_hold_out_no_class_whose_rows_with_a_weight_are_all_in_one() -> None:
    rows = of_classes(0)
    third = np.flatnonzero(rows.y == 2)
    weights = np.where(rows.y == 2, 0.0, 1.0)
    weights[third[0]] = 1.0
    folds, plain = folds_of_rows(weighed(rows, weights)), folds_of_rows(rows)
    assert folds[third[0]] == -1
    others = np.delete(np.arange(150), third[0])
    assert (folds[others] == plain[others]).all()


def test_short_fine_tuning_keeps_the_only_row_with_a_weight_of_a_class() -> None:
    data, weights = classes().train, np.array([1.0, 0.0] * 18)
    weights[1] = 1.0
    for _, splits in _folds(replace(data, weights=tuple(weights.tolist()))):
        assert data.ids[1] in splits.train.ids


def all_of_weight_0(y: Array) -> Array:
    return np.zeros(len(y))


def one_class(y: Array) -> Array:
    return np.where(y == 0, 1.0, 0.0)


def one_row_of_others(y: Array) -> Array:
    return np.where(y == 0, 1.0, np.arange(len(y)) == np.flatnonzero(y)[0])


@pytest.mark.parametrize("weigh", [all_of_weight_0, one_class, one_row_of_others])
def test_folds_of_one_label_with_a_weight_choose_nothing(weigh: Any) -> None:
    rows = of_classes(0)
    own = weighed(rows, weigh(rows.y))
    assert cross_validate(LogisticSpec(), own, own) is None
    spec = LogisticSpec(l2=(0.1,))
    assert answers_out_of_fold(spec, own, np.random.default_rng(0)) is None
    ids = tuple(map(str, range(150)))
    table = FeatureTable(ids, own.x, own.y, own.target, "", supervision=own.supervision)
    with pytest.raises(DataError, match=r"there are \d+ rows with a weight above 0"):
        cross_validated_head(table)


@every_kind
def test_rows_that_all_have_weight_0_choose_nothing(rows: Any) -> None:
    none = weighed(rows(0), np.zeros(150))
    assert cross_validate(setting("ridge"), none, none) is None


def test_rows_of_weight_0_are_answered_by_folds_of_the_others() -> None:
    rows, weights = of_classes(0), some_weights()
    own = cross_validate(LogisticSpec(), *[weighed(rows, weights)] * 2)
    assert own is not None
    assert own.held_out.all()
    assert np.isfinite(own.answers["scores"]).all()


def test_means_are_of_rows_with_a_weight() -> None:
    rows = of_classes(0)
    with pytest.raises(DataError, match="at least two need training rows"):
        solve_head(MeanSpec(), weighed(rows, np.zeros(150)), some_of(rows, NONE))


@every_kind
def test_a_learning_curve_counts_rows_with_a_weight(rows: Any) -> None:
    train = weighed(rows(0), np.repeat([1.0, 0.0], [100, 50]))
    curve = score_curve(setting("ridge", l2=(0.1,)), train, rows(1), draws=1)
    assert curve is not None
    assert curve.points[-1].rows == 100
    if train.target.link == "softmax":
        shown = learning_curve(0.1, train, rows(1), draws=1)
        assert shown is not None
        assert [point.rows for point in shown.points][-1] == 100


def test_case_weights_multiply_the_votes_of_neighbours() -> None:
    x, y = np.eye(3, dtype=np.float32), np.array([0, 1, 2])
    rows = weighed(Rows(x, y, ClassTarget(("a", "b", "c"))), [1, 2, 4])
    head = solve_head(NearestSpec(neighbours=(3,)), rows, some_of(rows, NONE)).head
    same = np.ones((1, 3), np.float32)
    assert (head.scores(same)[0] * 4 - 1 / 3).tolist() == pytest.approx([3 / 7, 6 / 7, 12 / 7])
    again = load_nearest(head.tensors(), head.settings())
    assert (again.scores(x) == head.scores(x)).all()


def test_a_tiny_weight_is_no_zero_vote() -> None:
    rows = of_numbers(0)
    own = weighed(rows, np.r_[1e-60, np.ones(149)])
    assert np.isfinite(solve_head(NearestSpec(), own, some_of(rows, NONE)).head.raw(rows.x)).all()


def test_a_head_that_knows_no_weights_is_refused(centre: None) -> None:
    rows = weighed(of_classes(0), some_weights())
    with pytest.raises(SpecError, match="A centre head takes rows that count alike"):
        solve_head(CentreSpec(), rows, some_of(rows, NONE))


def test_rows_in_other_columns_keep_their_weights() -> None:
    rows = weighed(of_classes(0), some_weights())
    turned = Rotation.of(rows.x, 3)(rows)
    assert turned.supervision is rows.supervision


# -------------------------------------------------------------------------------- training


def weights_of(rows: Splits, weights: Array) -> Splits:
    """The splits with weights of the training rows, and 1 for the others."""
    others = {p: replace(getattr(rows, p), weights=(1.0,) * len(getattr(rows, p))) for p in PARTS}
    return replace(rows, train=replace(rows.train, weights=tuple(weights.tolist())), **others)


PARTS = ("val", "test")


def classes() -> Splits:
    data = hs.read((pixels(N), ["a", "b"] * (N // 2)))
    return Splits(data[:36], data[36:48], data[48:])


@pytest.mark.parametrize("kind", ["classes", *SPLITS])
def test_rows_of_weight_0_have_no_part_in_training(kind: str, backbone: Backbone) -> None:
    data = classes() if kind == "classes" else SPLITS[kind]()
    weights = np.repeat([1.0, 0.0], [30, 6])
    spec = TwoPhaseSpec(
        FeatureExtraction(LinearSpec(epochs=2)), TUNED, keep="finetune", refit=False
    )
    own = fit(spec, backbone, weights_of(data, weights), store=None)
    out = fit(spec, backbone, replace(data, train=data.train[:30]), store=None)
    lines = [replace(line, seconds=0.0) for line in own.history]
    assert lines == [replace(line, seconds=0.0) for line in out.history]
    for name, values in own.model.head.tensors().items():
        assert (values == out.model.head.tensors()[name]).all()


@pytest.mark.parametrize(("kind", "mixup"), [("classes", 0.2), *((kind, 0.0) for kind in SPLITS)])
def test_weights_count_in_every_step(kind: str, mixup: float, backbone: Backbone) -> None:
    data = classes() if kind == "classes" else SPLITS[kind]()
    tuned = replace(TUNED, mixup=mixup, keep="last")
    start = fit(FeatureExtraction(RidgeSpec(l2=(1.0,))), backbone, data, store=None)
    same, other = np.full(36, 3.0), np.linspace(0.1, 9, 36)
    plain, alike, own = (
        fit(tuned, start, rows, store=None).model.head.tensors()
        for rows in (data, weights_of(data, same), weights_of(data, other))
    )
    for name in plain:  # equal weights are none
        np.testing.assert_allclose(plain[name], alike[name], atol=1e-6)
    assert any(not np.allclose(plain[name], own[name], atol=1e-4) for name in plain)


def test_a_step_on_all_rows_is_that_with_the_rows_repeated(backbone: Backbone) -> None:
    data, weights = classes(), np.tile([1.0, 2.0, 3.0, 1.0], 9)
    head = LinearSpec(epochs=3, lr=0.5, batch_size=200, optimizer="sgd", keep="last")
    spec = TwoPhaseSpec(FeatureExtraction(head), None, refit=False)
    own, alike = (
        fit(spec, backbone, rows, store=None) for rows in (weights_of(data, weights), data)
    )
    rows = np.repeat(np.arange(36), weights.astype(int))
    ids = tuple(f"{i}" for i in range(len(rows)))
    again = data.train
    twice = Dataset(
        ids,
        tuple(again.sources[int(row)] for row in rows),
        tuple(again.labels[row] for row in rows),
        again.target,
        input=again.input,
    )
    other = fit(spec, backbone, replace(data, train=twice), store=None)
    for name, values in own.model.head.tensors().items():
        np.testing.assert_allclose(values, other.model.head.tensors()[name], atol=1e-6)
        assert not np.allclose(values, alike.model.head.tensors()[name], atol=1e-3)


def test_views_of_a_row_have_its_weight() -> None:
    rows = weighed(of_classes(0), some_weights())
    table = FeatureTable(tuple(map(str, range(150))), rows.x, rows.y, rows.target, "test")
    views = stacked([replace(table, supervision=rows.supervision)] * 2)
    assert views.supervision.weights is not None
    assert views.supervision.weights.tolist() == some_weights().tolist() * 2
    soft = Supervision(None, np.eye(3)[rows.y])
    twice = stacked([replace(table, supervision=soft)] * 2).supervision.soft
    assert twice is not None
    assert (twice == np.eye(3)[views.y]).all()


def test_training_rows_that_all_have_weight_0_are_refused(backbone: Backbone) -> None:
    data = weights_of(classes(), np.zeros(36))
    with pytest.raises(DataError, match="All 36 rows of training have weight 0"):
        fit(FeatureExtraction(), backbone, data, store=None)


def test_the_key_of_a_phase_covers_the_weights(backbone: Backbone, tmp_path: Path) -> None:
    data = classes()
    own = Checkpointing(tmp_path, "job", 60.0)
    context = RunContext(None, Runtime().resolved(), Listener(), own)

    def key(rows: Splits) -> str:
        made = TrainingData(Start(backbone), rows, TwoPhaseSpec().views, context)
        return made.phase("head", backbone).checkpoints.job

    keys = {key(data), key(weights_of(data, np.ones(36))), key(weights_of(data, np.full(36, 2.0)))}
    assert len(keys) == 3
    assert _asked(Job(), data.train) != _asked(Job(), weights_of(data, np.ones(36)).train)


def test_balanced_classes_are_counted_by_weight() -> None:
    y, case = np.array([0, 0, 0, 1]), np.array([1.0, 1.0, 0.0, 2.0])
    assert ClassTarget(("a", "b")).balance("balanced", y, case).tolist() == [1.0, 1.0]
    labels = LabelsTarget(("a", "b"))
    there = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], np.int8)
    assert labels.row_weights("balanced", there, case=case).tolist() == [1.0] * 4


def test_a_run_whose_validation_rows_of_a_class_have_weight_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One training row of the second class is all that there is to learn it from."""
    rng, lines = np.random.default_rng(0), ["path,label,part,weight"]
    of = {("a", "train", 1): 20, ("b", "train", 1): 1, ("a", "val", 1): 5, ("b", "val", 0): 3}
    for (label, part, weight), count in (of | {("a", "test", 1): 2, ("b", "test", 1): 2}).items():
        for _ in range(count):
            pixels = rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{len(lines)}.png")
            lines.append(f"{len(lines)}.png,{label},{part},{weight}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    usual: dict[str, Any] = {"backbone": "tiny:8", "insights": "none", "store": None}
    run = hs.train(tmp_path / "list.csv", tmp_path / "run", strategy="extract", **usual)
    assert run.fitted.chosen["by"] == "log loss on validation"
    with pytest.raises(DataError, match="there are 26 rows with a weight above 0"):
        hs.search(tmp_path / "list.csv", backbones=["tiny:8"], store=None)


def test_a_run_on_a_manifest_with_weights(tmp_path: Path, shapes: Path) -> None:
    files = sorted(shapes.rglob("*.png"))
    lines = [f"{p.relative_to(tmp_path)},{p.parent.name},{i % 3}" for i, p in enumerate(files)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,weight", *lines]))
    told = hs.train(
        tmp_path / "list.csv",
        tmp_path / "run",
        backbone="tiny:32",
        epochs=1,
        batch_size=8,
        strategy="finetune",
        insights="none",
    )
    assert 0 in told.splits.train.weights
    remarks = told.checks.findings.remarks
    assert str(remarks[0]) == "rows count in training by 0 to 2; 8 of 24 rows have 0"
    assert "case weights" in (told.folder / "report.html").read_text()
    assert told.evaluation.accuracy.n == len(told.splits.test)  # rows of weight 0 are judged too
