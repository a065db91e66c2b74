"""Targets: a kind that the package does not know is judged, compared and kept as classes are."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import photo, saved

from headstart.base.errors import DataError, Mismatch, SpecError, UnknownName
from headstart.cli.main import main
from headstart.data.dataset import Dataset
from headstart.data.splits import SplitPlan, split
from headstart.evaluation.evaluation import compare, evaluate, evaluation_rows, resampled
from headstart.evaluation.insights import Insights
from headstart.modalities.reading import read
from headstart.models.bundle import load_bundle
from headstart.targets import registry
from headstart.targets.classes import ClassTarget
from headstart.targets.predictions import Predictions, read_predictions, write_csv
from headstart.targets.target import (
    Array,
    Baseline,
    Chart,
    Mean,
    Metric,
    Outputs,
    Resampled,
    Row,
    Table,
    Target,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class CountTarget(Target):
    """A count; raw outputs are logarithms of rates."""

    mean: float = 0.0
    kind: ClassVar[str] = "count"
    reads: ClassVar[tuple[str, ...]] = ("count",)

    def fitted(self, y: Array) -> "CountTarget":
        return CountTarget(float(y.mean()))

    def encode(self, row: Row) -> float:
        if not row["count"].removesuffix(".0").isdigit():
            raise DataError(f"a count is a whole number from 0 on; got {row['count']!r}")
        return float(row["count"])

    def labels(self, values: Sequence[Any]) -> NDArray[np.float64]:
        return np.array(values, np.float64)

    def unknown(self, n: int) -> NDArray[np.float64]:
        return np.full(n, np.nan)

    def known(self, y: Array) -> NDArray[np.bool_]:
        return ~np.isnan(y)

    def loss(self, raw: "Tensor", soft: "Tensor") -> "Tensor":
        from torch.nn.functional import poisson_nll_loss

        return poisson_nll_loss(raw[:, 0], soft, reduction="none")

    def activate(self, raw: Array) -> Outputs:
        return {"rate": np.exp(raw[:, 0]).astype(np.float32)}

    def row_scores(self, answers: Outputs, y: Array) -> NDArray[np.float64]:
        return -np.abs(answers["rate"] - y)

    def metrics(self, answers: Outputs, y: Array) -> Mapping[str, Metric | None]:
        return {"mean_error": Mean(np.abs(answers["rate"] - y)) if len(y) else None}

    def baseline(self, y: Array) -> Baseline:
        metric = Mean(np.abs(self.mean - y)) if len(y) else None
        return Baseline("mean", f"{self.mean:g}", "mean_error", metric)

    def tables(self, answers: Outputs, y: Array) -> tuple[Table, ...]:
        rows = (("all", len(y), self.metrics(answers, y)["mean_error"]),)
        return (Table("sizes", "By size", ("size", "n", "error"), rows, ("size", "n", "error")),)

    def settings(self) -> dict[str, Any]:
        return {"mean": self.mean}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = dict(registry.TARGETS._registered)
    monkeypatch.setattr(registry.TARGETS, "_registered", kept)
    registry.register(CountTarget)


def counted(n: int = 40, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    y = np.random.default_rng(9).poisson(4, n).astype(np.float64)
    rate = (y + rng.normal(0, 0.5, n)).astype(np.float32)
    return Predictions(tuple(map(str, range(n))), {"rate": rate}, y, CountTarget())


def test_another_targets_predictions_come_back_bit_for_bit(tmp_path: Path) -> None:
    some = counted()
    some = replace(some, labels=np.append(some.labels[:-1], np.nan))
    write_csv(some, tmp_path / "p.csv")
    again = read_predictions(tmp_path / "p.csv", CountTarget())
    assert again.ids == some.ids
    assert np.array_equal(again.labels, some.labels, equal_nan=True)
    assert again.outputs["rate"].tobytes() == some.outputs["rate"].tobytes()
    with pytest.raises(DataError, match="is not a file of predictions"):
        read_predictions(tmp_path / "p.csv")


def test_another_targets_metrics_have_intervals_and_are_attributes() -> None:
    some = counted()
    result = evaluate(some, fitted=CountTarget().fitted(some.labels))
    assert result.mean_error.low < result.mean_error.value < result.mean_error.high
    assert result.sizes["all"].error == result.mean_error
    headline, table = evaluation_rows(result)
    assert [name for name, _ in headline] == ["mean error", "baseline: mean"]
    assert [row[0] for row in table] == ["size", "all"]
    plain = result.to_plain()
    assert plain["target"] == {"kind": "count", "mean": 4.45}
    assert plain["baseline"]["mean_error"]["value"] > plain["mean_error"]["value"]
    assert registry.target_from_plain(plain) == CountTarget(4.45)
    with pytest.raises(AttributeError, match="its metrics are mean_error"):
        result.accuracy  # noqa: B018


def r2(answers: Array, y: Array) -> Resampled:
    def of(rows: Array) -> float:
        return float(1 - ((answers - y)[rows] ** 2).mean() / y[rows].var())

    return Resampled(len(y), of)


def test_a_statistic_of_rows_has_the_interval_of_its_samples() -> None:
    rng, held = np.random.default_rng(0), 0
    for _ in range(60):  # the R² of the population is 0.8
        y = rng.normal(0, 1, 200)
        found = resampled(r2(y + rng.normal(0, 0.2**0.5, 200), y), 300, 0)
        assert found is not None
        held += found.low <= 0.8 <= found.high
    assert 50 <= held < 60


def test_a_statistic_without_a_value_is_none_and_undefined_samples_are_left_out() -> None:
    assert resampled(r2(np.ones(5), np.ones(5)), 50, 0) is None
    assert resampled(r2(np.ones(0), np.ones(0)), 50, 0) is None
    rare = np.array([0.0, 0.0, 1.0])
    found = resampled(r2(rare, rare), 50, 0)  # some samples hold no 1
    assert found is not None
    assert (found.value, found.low, found.high, found.n) == (1.0, 1.0, 1.0, 3)


def test_a_chart_keeps_few_finite_points_and_comes_back_from_insights() -> None:
    points = ((np.nan, 1.0), *((float(i), 0.0) for i in range(5000)))
    chart = Chart("fit", "Fit", "true", "answer", "points", points, diagonal=True)
    assert (len(chart.points), chart.points[:2]) == (2000, ((0.0, 0.0), (2.0, 0.0)))
    found = Insights(charts=(chart,))
    assert Insights.read(json.loads(json.dumps(found.to_plain()))) == found
    assert "charts" not in Insights().to_plain()  # files of classes stay as they were


def test_runs_of_another_target_are_compared_by_its_scores_of_rows() -> None:
    near, far = counted(), counted()
    far = replace(far, outputs={"rate": far.outputs["rate"] + 2})
    gain = compare(near, far)
    assert 0 < gain.low < gain.value < gain.high
    classes = Predictions(
        near.ids, np.full((40, 2), 0.5, np.float32), np.zeros(40, np.int64), ("a", "b")
    )
    with pytest.raises(Mismatch, match="can be compared"):
        compare(near, classes)


def manifest(folder: Path, header: str, *cells: str) -> Path:
    for i in range(len(cells)):
        picture = photo(np.random.default_rng(i), 40, 40)
        (folder / f"{i}.png").write_bytes(saved(picture, "PNG"))
    lines = [header, *(f"{i}.png,{text}" for i, text in enumerate(cells))]
    (folder / "m.csv").write_text("\n".join(lines) + "\n")
    return folder / "m.csv"


@pytest.mark.parametrize(
    ("header", "cells", "asked", "labels"),
    [
        ("path,label", ("b", "a", "b"), ClassTarget(("a", "b")), (1, 0, 1)),
        ("path,count", ("3", "0", "7.0"), CountTarget(), (3.0, 0.0, 7.0)),
        ("path,Count", ("3", "0", "7"), CountTarget(), (3.0, 0.0, 7.0)),
        ("path,label,count", ("b,1", "a,2"), ClassTarget(("a", "b")), (1, 0)),  # as without it
    ],
)
def test_the_columns_of_a_manifest_say_what_is_asked(
    tmp_path: Path, header: str, cells: tuple[str, ...], asked: Target, labels: tuple[float, ...]
) -> None:
    data = read(manifest(tmp_path, header, *cells))
    assert (data.target, data.labels, len(data.y)) == (asked, labels, len(cells))


def test_a_kind_may_be_asked_for_by_name(tmp_path: Path) -> None:
    path = manifest(tmp_path, "path,label,count", "b,1", "a,2")
    assert read(path, target="count").labels == (1.0, 2.0)
    with pytest.raises(UnknownName, match="count"):
        read(path, target="cuont")
    with pytest.raises(DataError, match="row 3: a count is a whole number.*'few'"):
        read(manifest(tmp_path, "path,count", "3", "few"))


def test_a_split_of_another_target_keeps_shares_and_needs_no_rows_of_every_label() -> None:
    ids = tuple(map(str, range(20)))
    data = Dataset(ids, tuple(map(Path, ids)), tuple(map(float, range(20))), CountTarget())
    parts = split(data, SplitPlan(val=0.2, test=0.2))
    assert [len(p) for p in (parts.train, parts.val, parts.test)] == [12, 4, 4]
    assert parts.train.classes == ()
    with pytest.raises(DataError, match="A data set takes 5 different pictures"):
        split(data.take(range(3)))


@pytest.mark.parametrize("target", [ClassTarget(("a", "b"), "b"), CountTarget(2.5)])
def test_a_target_comes_back_from_its_settings(target: Target) -> None:
    assert registry.target_from_plain(registry.target_to_plain(target)) == target
    evaluated = registry.target_from_plain(target.heading())
    assert evaluated.kind == target.kind


def test_two_kinds_of_one_name_are_refused() -> None:
    registry.register(CountTarget)  # the same again is no clash
    with pytest.raises(SpecError, match="'count' is CountTarget"):
        registry.register(type("Other", (CountTarget,), {}))
    with pytest.raises(UnknownName, match="count"):
        registry.TARGETS["cuont"]


@pytest.mark.long
def test_another_target_goes_all_the_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = manifest(tmp_path, "path,count", *(str(i % 7) for i in range(40)))
    run, store = str(tmp_path / "run"), ["--store", str(tmp_path / "store")]
    trained = ["--backbone", "tiny:32", "--head", "linear", "--head-epochs", "2", "--epochs", "1"]
    for words in (
        ["check", str(path)],
        ["train", str(path), "--out", run, *trained, *store],
        ["evaluate", run, str(path), *store],
        ["report", run],
        ["predict", run, str(tmp_path / "0.png"), "--json"],
    ):
        capsys.readouterr()
        assert main(words) == 0, words
    assert json.loads(capsys.readouterr().out)[0]["rate"] > 0
    model = load_bundle(tmp_path / "run" / "model").model
    assert isinstance(model.target, CountTarget)
    assert model.target.mean > 0
    assert "mean_error" in (tmp_path / "run" / "report.html").read_text()


def test_a_head_that_cannot_answer_a_target_is_refused_with_those_that_can(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = manifest(tmp_path, "path,count", *(str(i % 7) for i in range(40)))
    words = ["train", str(path), "--out", str(tmp_path / "r"), "--backbone", "tiny:8"]
    assert main([*words, "--head", "logistic"]) == 2
    assert "can answer a count; logistic cannot. Name another --head: linear, mlp" in " ".join(
        capsys.readouterr().err.split()
    )
