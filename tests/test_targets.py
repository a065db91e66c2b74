"""Targets: a kind that the package does not know is judged, compared and kept as classes are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.base.errors import DataError, Mismatch, SpecError, UnknownName
from headstart.evaluation.evaluation import compare, evaluate_predictions, evaluation_rows
from headstart.targets import registry
from headstart.targets.classes import ClassTarget
from headstart.targets.predictions import Predictions, read_predictions, write_csv
from headstart.targets.target import Array, Baseline, Mean, Metric, Outputs, Row, Table, Target

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

    def loss(self, raw: "Tensor", y: "Tensor") -> "Tensor":
        from torch.nn.functional import poisson_nll_loss

        return poisson_nll_loss(raw[:, 0], y.float(), reduction="none")

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
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))
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
    result = evaluate_predictions(some, fitted=CountTarget().fitted(some.labels))
    assert result.mean_error.low < result.mean_error.value < result.mean_error.high
    assert result.sizes["all"].error == result.mean_error
    headline, table = evaluation_rows(result)
    assert [name for name, _ in headline] == ["mean error", "baseline: always '4.45'"]
    assert [row[0] for row in table] == ["size", "all"]
    plain = result.to_plain()
    assert plain["target"] == {"kind": "count", "mean": 0.0}
    assert plain["baseline"]["mean_error"]["value"] > plain["mean_error"]["value"]
    assert registry.evaluated_target(plain) == CountTarget()
    with pytest.raises(AttributeError, match="its metrics are mean_error"):
        result.accuracy  # noqa: B018


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


def test_the_columns_of_the_data_say_what_is_asked() -> None:
    assert registry.detect(("path", "label", "part")) is ClassTarget
    assert registry.detect(("path", "count")) is CountTarget
    assert registry.detect(("path", "label", "count")) is ClassTarget  # as without the package
    assert registry.detect(("path",)) is None


@pytest.mark.parametrize("target", [ClassTarget(("a", "b"), "b"), CountTarget(2.5)])
def test_a_target_comes_back_from_its_settings(target: Target) -> None:
    assert registry.target_from_plain(registry.target_to_plain(target)) == target
    evaluated = registry.evaluated_target(target.heading())
    assert evaluated.kind == target.kind


def test_two_kinds_of_one_name_are_refused() -> None:
    registry.register(CountTarget)  # the same again is no clash
    with pytest.raises(SpecError, match="'count' is CountTarget"):
        registry.register(type("Other", (CountTarget,), {}))
    with pytest.raises(UnknownName, match="count"):
        registry.target_kind("cuont")
