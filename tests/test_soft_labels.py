"""Probabilities of classes in place of labels: read, learned by the loss, used by nothing else."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scales import scale_of
from test_generic_training import TUNED, N, backbone, pixels
from test_head_specs import CentreSpec, centre
from test_targets import manifest
from test_weights import of_classes

import headstart as hs
from headstart.backbones.backbone import Backbone
from headstart.base.errors import DataError, SpecError
from headstart.data.checks import check
from headstart.data.choosing import with_kind
from headstart.data.dataset import Dataset
from headstart.data.splits import Splits
from headstart.heads.families import solve_head, spec_named
from headstart.heads.fit import fit_head
from headstart.heads.head import Rows, some_of
from headstart.heads.specs import LinearSpec, LogisticSpec, MlpSpec, RidgeSpec
from headstart.modalities.reading import survey
from headstart.modalities.text.baseline import fit_baseline
from headstart.modalities.text.inputs import TextInput
from headstart.models.fitting import fit
from headstart.models.specs import FeatureExtraction, FineTune, TwoPhaseSpec
from headstart.targets.classes import ClassTarget
from headstart.targets.numbers import NumberTarget
from headstart.targets.plan import TargetPlan
from headstart.targets.soft_labels import soft_of_present
from headstart.targets.supervision import Supervision
from headstart.training.objective import Objective, mixed

__all__ = ["backbone", "centre"]  # fixtures
NONE = np.arange(0)
THREE = ClassTarget(("a", "b", "c"))


def rounded(data: Dataset) -> list[list[float]]:
    return np.round(data.soft, 6).tolist()


def taught(rows: Rows, soft: Any, weights: Any = None) -> Rows:
    return replace(rows, supervision=Supervision(weights, np.asarray(soft, np.float64)))


# -------------------------------------------------------------------------------- reading


def test_a_probability_is_that_of_the_second_class_and_makes_the_label(tmp_path: Path) -> None:
    data = hs.read(manifest(tmp_path, "path,Probability", "0.2", "0.5", "1"))
    assert data.classes == ("no", "yes")
    assert data.labels == (0, 1, 1)
    assert rounded(data) == [[0.8, 0.2], [0.5, 0.5], [0, 1]]
    assert data.choice == "classes; training learns the column probability, that of 'yes'"


def test_labels_name_the_two_classes_and_stay_as_they_are(tmp_path: Path) -> None:
    data = hs.read(manifest(tmp_path, "path,label,probability", "ok,.9", "bad,.2", "ok,.4", "bad,"))
    assert data.classes == ("bad", "ok")
    assert data.labels == (1, 0, 1, 0)
    assert rounded(data) == [[0.1, 0.9], [0.8, 0.2], [0.6, 0.4], [1, 0]]


def test_a_probability_of_the_first_class_is_refused(tmp_path: Path) -> None:
    path = manifest(tmp_path, "path,label,probability", "good,.1", "defect,.9")
    with pytest.raises(DataError, match="of 'good', the second class.*p:defect and p:good"):
        hs.read(path)


@pytest.mark.parametrize("cells", [("a,1", "b,5", "c,9"), ("a,.3", "a,.4")])
def test_a_probability_beside_other_labels_than_two_is_not_read(
    tmp_path: Path, cells: tuple[str, ...]
) -> None:
    data = hs.read(manifest(tmp_path, "path,label,probability", *cells))
    assert data.soft == ()
    assert "the column probability is not read" in data.choice
    with pytest.raises(DataError, match="row 4: the label is empty"):
        hs.read(manifest(tmp_path, "path,label,probability", "a,1", "b,1", ",1", "c,1"))


def test_columns_of_classes_are_read_from_every_format(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    rows = [("one", 0.5, 0.2, 0.3), ("two", 0.25, 0.25, 0.5), ("three", 0, 1, 0)]
    frame = pandas.DataFrame(rows, columns=["text", "p:Cat", " p:ape", "P:dog"])
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "b.parquet")
    lines = [json.dumps(dict(zip(frame.columns, row, strict=True))) for row in rows]
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    for source in (tmp_path / "a.csv", tmp_path / "b.parquet", tmp_path / "c.jsonl", frame):
        data = hs.read(source)
        assert data.classes == ("Cat", "ape", "dog")
        assert data.labels == (0, 2, 1)
        assert rounded(data) == [[0.5, 0.2, 0.3], [0.25, 0.25, 0.5], [0, 1, 0]]
    table = data.to_frame()
    assert table["p:ape"].tolist() == [0.2, 0.25, 1]
    assert data[1:].soft == data.soft[1:]


def test_rows_may_have_a_label_only(tmp_path: Path) -> None:
    data = hs.read(manifest(tmp_path, "path,label,p:a,p:b,p:c", "b,,,", ",.33,.33,.33", "c,1,0,0"))
    assert data.labels == (1, 0, 2)
    assert rounded(data) == [[0, 1, 0], [0.333333] * 3, [1, 0, 0]]


@pytest.mark.parametrize(
    ("header", "cells", "message"),
    [
        ("path,p:a,p:b", ".5,.6", "row 3: the probabilities of a row sum to 1; got 1.1"),
        ("path,p:a,p:b", "-.1,1.1", "row 3: a probability is a number from 0 to 1; got '-.1'"),
        ("path,p:a,p:b", "1,", "row 3: a probability is a number from 0 to 1; got ''"),
        ("path,p:a,p:b", ",", "row 3: a row has probabilities, or else a label"),
        ("path,probability", "50", "row 3: a probability is a number from 0 to 1; got '50'"),
        ("path,probability", "nan", "row 3: a probability is a number from 0 to 1; got 'nan'"),
        ("path,label,p:a,p:b", "d,.5,.5", "row 3: .*'d'"),
    ],
)
def test_wrong_probabilities_are_refused_by_their_row(
    tmp_path: Path, header: str, cells: str, message: str
) -> None:
    columns = header.count(",")
    good = {1: ".5", 2: "1,0", 3: "a,1,0"}[columns]
    with pytest.raises(DataError, match=message):
        hs.read(manifest(tmp_path, header, good, cells))


@pytest.mark.parametrize("header", ["path,p:a", "path,p:a,p: a", "path,p:,p:a"])
def test_columns_name_two_classes_or_more_once(tmp_path: Path, header: str) -> None:
    with pytest.raises(DataError, match="for each of two classes or more|name of the class"):
        hs.read(manifest(tmp_path, header, *[",".join("10"[: header.count(",")])] * 2))


def test_other_targets_refuse_or_leave_probabilities(tmp_path: Path) -> None:
    path = manifest(tmp_path, "path,label,p:1,p:2", "1,1,0", "2,0,1")
    with pytest.raises(DataError, match="probabilities of classes, which --target number can't"):
        hs.read(path, target="number")
    number = hs.read(manifest(tmp_path, "path,value,probability", "1,.5", "2,.5"))
    assert number.soft == ()
    assert "for them say --target class" in number.choice
    with pytest.raises(DataError, match="--target number can't learn"):
        with_kind(hs.read(manifest(tmp_path, "path,probability", ".5", "1")), "number")
    with pytest.raises(DataError, match="are for classes, not for a number"):
        Dataset(("a",), ("a",), (1.0,), NumberTarget(), soft=((1.0,),))


@pytest.mark.parametrize("soft", [(0.5, 0.6), (-0.1, 1.1), (1.0,), (float("nan"), 1.0)])
def test_a_dataset_refuses_what_are_no_probabilities(soft: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="which sum to 1; got .* for b"):
        Dataset(("a", "b"), ("a", "b"), (0, 1), ("x", "y"), soft=((1.0, 0.0), soft))


def test_a_dataset_divides_probabilities_by_their_sum_as_a_table_does() -> None:
    exact = (0.25, 0.75)
    data = Dataset(("a", "b"), ("a", "b"), (0, 1), ("x", "y"), soft=((0.495, 0.495), exact))
    assert data.soft == ((0.5, 0.5), exact)
    assert data.supervision.soft is not None
    assert data.supervision.soft.sum(axis=1).tolist() == [1, 1]
    assert data.soft[1] is exact


def test_a_class_that_no_row_is_likeliest_of_is_left_out(tmp_path: Path) -> None:
    data = hs.read(manifest(tmp_path, "path,p:a,p:b,p:c", ".6,.3,.1", ".2,.2,.6", "1,0,0"))
    rows = check(data, survey(data)).dataset
    assert rows.classes == ("a", "c")
    assert rounded(rows) == [[0.857143, 0.142857], [0.25, 0.75], [1, 0]]
    remarks = check(data, survey(data)).findings.remarks
    assert [str(remark) for remark in remarks] == ["2 of 3 rows are of no certain class"]
    new = ClassTarget(("a", "c"))
    assert soft_of_present([(0.0, 1.0, 0.0)], THREE, new, [1]) == ((0.0, 1.0),)


# -------------------------------------------------------------------------------- solved heads


@pytest.mark.parametrize("family", ["logistic", "ridge", "nearest"])
@pytest.mark.parametrize("weighs", ["none", "balanced"])
def test_certain_rows_give_the_head_of_their_labels(family: str, weighs: str) -> None:
    rows, val = of_classes(0), of_classes(1)
    spec = spec_named(family, None, class_weights=weighs)
    own = fit_head(spec, taught(rows, np.eye(3)[rows.y]), val)
    other = fit_head(spec, rows, val)
    assert own.chosen == other.chosen
    np.testing.assert_allclose(own.head.raw(val.x), other.head.raw(val.x), rtol=0, atol=1e-6)


def soft_rows() -> Rows:
    rows = of_classes(0)
    soft = np.random.default_rng(3).dirichlet([0.5] * 3, len(rows.y)).round(1)
    soft[:, 2] = 1 - soft[:, :2].sum(axis=1)
    soft = np.abs(soft).round(1)
    return taught(replace(rows, y=soft.argmax(axis=1)), soft)


def test_logistic_regression_of_probabilities_is_that_of_weighted_rows() -> None:
    rows, spec = soft_rows(), LogisticSpec(l2=(0.1,))
    assert rows.supervision.soft is not None
    number, classes = np.nonzero(rows.supervision.soft)
    shares = rows.supervision.soft[number, classes]
    split = Rows(rows.x[number], classes, rows.target, supervision=Supervision(shares))
    own, other = (fit_head(spec, r, some_of(r, NONE)).head.raw(rows.x) for r in (rows, split))
    np.testing.assert_allclose(own, other, rtol=0, atol=1e-3)


def test_ridge_regresses_on_probabilities() -> None:
    from sklearn.linear_model import Ridge

    rows = soft_rows()
    assert rows.supervision.soft is not None
    head = fit_head(RidgeSpec(l2=(0.3,)), rows, some_of(rows, NONE)).head
    z = (rows.x - rows.x.mean(axis=0)) / scale_of(rows.x)
    theirs = Ridge(alpha=0.3 * len(z)).fit(z, 2 * rows.supervision.soft - 1).predict(z)
    own = head.raw(rows.x)
    slope = float((own[:, 0] - own[:, 1]) @ (theirs[:, 0] - theirs[:, 1]))
    slope /= float(((theirs[:, 0] - theirs[:, 1]) ** 2).sum())  # one temperature
    gaps = [own[:, c] - own[:, 0] - slope * (theirs[:, c] - theirs[:, 0]) for c in (1, 2)]
    np.testing.assert_allclose(gaps, 0, atol=1e-4 * slope)


def test_doubtful_rows_make_a_less_certain_head() -> None:
    rows = of_classes(0)
    doubt = 0.6 * np.eye(3)[rows.y] + 0.4 / 3
    for family in ("logistic", "ridge"):
        sure, unsure = (
            fit_head(spec_named(family, None, l2=(0.01,)), r, some_of(r, NONE)).head.scores(rows.x)
            for r in (rows, taught(rows, doubt))
        )
        assert unsure.max(axis=1).mean() < sure.max(axis=1).mean() - 0.05


def test_neighbours_vote_for_their_labels() -> None:
    rows = of_classes(0)
    own, other = (
        fit_head(spec_named("nearest"), r, of_classes(1)).head.scores(rows.x)
        for r in (rows, taught(rows, np.full((150, 3), 1 / 3)))
    )
    assert (own == other).all()


def test_a_family_that_knows_no_probabilities_is_refused(centre: None) -> None:
    with pytest.raises(SpecError, match="under one label each; this data has weights or prob"):
        solve_head(CentreSpec(), soft_rows(), of_classes(1))


def test_the_baseline_of_texts_learns_them(tmp_path: Path) -> None:
    words = ["good fine film", "bad poor film", "good or bad film"]
    texts = [words[i % 3] + f" {i}" for i in range(30)]
    share = [(0.9, 0.1, 0.5)[i % 3] for i in range(30)]
    lines = [json.dumps({"text": t, "probability": p}) for t, p in zip(texts, share, strict=True)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    data = hs.read(tmp_path / "a.jsonl")
    hard = replace(data, soft=())
    own, other = (fit_baseline(TextInput(), d, data[:0]) for d in (data, hard))
    assert own is not None
    assert other is not None
    p, q = (b.target.activate(b.raw(data))["scores"][:, 1] for b in (own, other))
    assert np.ptp(p) < np.ptp(q)  # nearer to the doubt
    certain = replace(data, soft=tuple(map(tuple, np.eye(2)[data.y].tolist())))
    same = fit_baseline(TextInput(), certain, data[:0])
    assert same is not None
    assert (same.raw(data) == other.raw(data)).all()


# -------------------------------------------------------------------------------- training


def pictures(soft: Any) -> Splits:
    data = hs.read((pixels(N), ["a", "b"] * (N // 2)))
    rows = replace(data, soft=tuple(map(tuple, soft(np.eye(2)[data.y]).tolist())))
    return Splits(rows[:36], rows[36:48], rows[48:])


def certain(hot: Any) -> Any:
    return hot


def doubtful(hot: Any) -> Any:
    return 0.6 * hot + 0.2


@pytest.mark.parametrize(
    ("head", "tuned"),
    [
        (LogisticSpec(), TUNED),
        (LinearSpec(epochs=2), replace(TUNED, label_smoothing=0.1, class_weights="balanced")),
        (MlpSpec(hidden=(8,), epochs=2), replace(TUNED, mixup=0.2)),
        (LinearSpec(epochs=2, output="sigmoid"), replace(TUNED, resample="balanced")),
    ],
)
def test_training_on_certain_rows_is_that_on_their_labels(
    head: Any, tuned: FineTune, backbone: Backbone
) -> None:
    tuned = replace(tuned, keep="last")
    spec = TwoPhaseSpec(FeatureExtraction(head), tuned, keep="finetune")
    data = pictures(certain)
    train, val, test = (replace(part, soft=()) for part in (data.train, data.val, data.test))
    hard = Splits(train, val, test)
    own, other, unsure = (
        fit(spec, backbone, rows, store=None) for rows in (data, hard, pictures(doubtful))
    )
    heads = [found.model.head.tensors() for found in (own, other, unsure)]
    for name, values in heads[0].items():
        np.testing.assert_allclose(values, heads[1][name], rtol=0, atol=1e-6)
    assert any(not np.allclose(heads[0][name], heads[2][name], atol=1e-4) for name in heads[0])
    for line, same in zip(own.history, other.history, strict=True):
        assert line.train_loss == pytest.approx(same.train_loss, abs=1e-6)


def test_the_history_tells_the_loss_of_labels(backbone: Backbone) -> None:
    data = pictures(doubtful)
    start = fit(FeatureExtraction(LogisticSpec(l2=(0.01,))), backbone, data, store=None)
    still = replace(TUNED, lr=1e-9, epochs=1)
    before, after = fit(still, start, data, store=None).history
    assert after.train_loss == pytest.approx(before.train_loss, abs=1e-4)


def objective(soft: Any, smoothing: float = 0.0, **plan: Any) -> Objective:
    target = THREE.planned(TargetPlan(**plan)) if plan else THREE
    y = np.asarray(soft).argmax(axis=1)
    own = Supervision(None, np.asarray(soft, np.float64))
    return Objective.of(target, y, own, {"a": 3.0}, smoothing)


def test_the_loss_is_cross_entropy_against_the_probabilities() -> None:
    import torch

    soft = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    own, raw = objective(soft, 0.3), torch.randn(2, 3)
    labels = own.batch(np.arange(2))
    expected = torch.tensor(soft).float() * 0.7 + 0.1
    assert torch.allclose(labels.learned, expected)
    losses = own.target.loss(raw, labels.learned)
    assert torch.allclose(losses, -(expected * raw.log_softmax(1)).sum(1))
    whole = objective(soft)
    weights = whole.weights(whole.batch(np.arange(2)))  # class weights are those of the labels
    assert torch.allclose(weights, torch.tensor([0.75, 0.25]))


def test_focal_loss_and_mixup_take_probabilities() -> None:
    import torch

    soft, raw = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]), torch.randn(2, 3)
    own = objective(soft, loss="focal", focal_gamma=2.0)
    labels, p = own.batch(np.arange(2)), raw.softmax(1)
    expected = -(torch.tensor(soft).float() * (1 - p) ** 2 * p.log()).sum(1)
    assert torch.allclose(own.target.loss(raw, labels.learned), expected, atol=1e-5)
    x, blended = mixed(torch.eye(2), labels, 1.0, (0, 1, 2))
    assert isinstance(x, torch.Tensor)
    assert torch.allclose(blended.learned, x @ labels.learned)


def test_a_run_on_a_manifest_of_probabilities(tmp_path: Path, shapes: Path) -> None:
    files = sorted(shapes.rglob("*.png"))
    shares = [0.9 - i % 3 / 10 if p.parent.name == "dark" else 0.1 for i, p in enumerate(files)]
    lines = [f"{p.relative_to(tmp_path)},{s}" for p, s in zip(files, shares, strict=True)]
    (tmp_path / "list.csv").write_text("\n".join(["path,probability", *lines]))
    usual: dict[str, Any] = {"backbone": "tiny:32", "insights": "none"}
    tuned: dict[str, Any] = {"epochs": 1, "batch_size": 8, "lr": 1e-3, "thaw": "1"}
    for strategy, settings in {"extract": usual, "finetune": usual | tuned}.items():
        out = tmp_path / strategy
        run = hs.train(tmp_path / "list.csv", out, strategy=strategy, **settings)
        assert run.model.classes == ("no", "yes")
        assert run.kept == {"extract": "head", "finetune": "finetune"}[strategy]
        assert "soft" not in (run.folder / "recipe.json").read_text()
    again = hs.evaluate(run.model, tmp_path / "list.csv")
    assert again.accuracy.n == len(files)
