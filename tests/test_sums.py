"""Ridge regression from sums, over features that need not fit into memory."""

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_solved_heads import close, of_grades, of_labels, of_numbers

from headstart.base.errors import Mismatch
from headstart.heads import ridge
from headstart.heads.families import head_within, solve_head, spec_named
from headstart.heads.fit import fit_head
from headstart.heads.head import BLOCK, Fitted, Rows
from headstart.heads.ridge import sampled
from headstart.heads.specs import LogisticSpec, NearestSpec, RidgeSpec, UsualSpec
from headstart.heads.sums import RidgeSums
from headstart.targets.classes import ClassTarget
from headstart.targets.supervision import Supervision
from headstart.training.feeds import SLICE, batches, by_slices

Array = NDArray[Any]
NAMES = ("ant", "bee", "cat", "dog")


def of_classes(seed: int, n: int = 150, dim: int = 6) -> Rows:
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n)  # no row of "dog"
    centres = np.random.default_rng(9).normal(size=(3, dim))
    x = (centres[y] + rng.normal(size=(n, dim))).astype(np.float32)
    return Rows(x, y, ClassTarget(NAMES), supervision=Supervision(rng.uniform(0.5, 2, n)))


def fitted(train: Rows, val: Rows, **settings: Any) -> Fitted:
    return solve_head(RidgeSpec(**settings), train, Rows(val.x, val.y, train.target))


def rows_with_targets(n: int = 400, mean: float = 0.0) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(n, 12)) + mean).astype(np.float32)
    y = x[:, :3].astype(np.float64) - mean + rng.normal(size=(n, 3))
    return x, y, rng.uniform(0.1, 3, n)


def test_four_parts_merged_in_any_order_are_the_whole() -> None:
    x, y, weights = rows_with_targets(mean=30.0)
    whole = RidgeSums.of(x, y, weights)
    quarters = [slice(i, None, 4) for i in range(4)]
    parts = [RidgeSums.of(x[q], y[q], weights[q]) for q in quarters]
    for order in permutations(parts):
        own = order[0].merge(order[1]).merge(order[2].merge(order[3]))
        for name, values in whole.tensors().items():
            np.testing.assert_allclose(own.tensors()[name], values, rtol=1e-12, atol=1e-10)
        for one, other in zip(own.solved(0.1), whole.solved(0.1), strict=True):
            close(one, other, by=1e-12)


def test_sums_travel_between_machines_as_arrays() -> None:
    own = RidgeSums.of(*rows_with_targets())
    again = RidgeSums.of_tensors(own.tensors())
    assert all((again.tensors()[n] == v).all() for n, v in own.tensors().items())
    with pytest.raises(Mismatch, match="fit one another"):
        RidgeSums.of_tensors({**own.tensors(), "xy": np.zeros((3, 3))})
    with pytest.raises(Mismatch, match="the same columns"):
        own.merge(RidgeSums.none(12, 4))


def test_large_means_cost_no_digits() -> None:
    x, y, weights = rows_with_targets()
    far = RidgeSums.of(x.astype(np.float64) + 1e5, y, weights).solved(0.1)[0]
    close(far, RidgeSums.of(x, y, weights).solved(0.1)[0], by=1e-9)


def test_many_columns_of_zeros_are_multiplied_without_them() -> None:
    x, _, weights = rows_with_targets()
    hot = np.eye(50)[np.arange(400) % 50]
    centred = x - weights @ x.astype(np.float64) / weights.sum()
    plain = (centred * weights[:, None]).T @ (hot - weights @ hot / weights.sum())
    close(RidgeSums.of(x, hot, weights).xy, plain, by=1e-10)


def balanced(seed: int) -> Rows:
    return of_classes(seed)


@pytest.mark.parametrize("rows", [of_classes, balanced, of_labels, of_grades, of_numbers])
@pytest.mark.parametrize("val", [60, 0], ids=["validation", "folds"])
def test_sums_give_the_head_of_rows_in_memory(
    rows: Any, val: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    how: Any = "balanced" if rows is balanced else "none"
    train, other = rows(0), rows(1)
    other = Rows(other.x[:val], other.y[:val], other.target)
    monkeypatch.setattr(ridge, "BLOCK", 64)
    streamed = fitted(train, other, class_weights=how)
    monkeypatch.setattr(ridge, "_few", lambda *_: True)
    in_memory = fitted(train, other, class_weights=how)
    assert streamed.chosen["l2"] == in_memory.chosen["l2"]
    x = rows(2).x
    close(streamed.head.scores(x), in_memory.head.scores(x), by=1e-4)


class Mapped:
    """Features that can be read only in slices, as those of a file larger than memory."""

    def __init__(self, x: Array) -> None:
        self.x, self.shape, self.ndim, self.size = x, x.shape, 2, x.size

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Any) -> Array:
        taken = self.x[rows]
        assert len(taken) <= BLOCK, "more than a slice was read"
        return taken


@pytest.mark.parametrize("val", [60, 0], ids=["validation", "folds"])
def test_features_are_read_in_slices(val: int) -> None:
    train, other = of_classes(0, n=3 * BLOCK), of_classes(1, n=val)
    mapped: Any = Mapped(train.x)
    own = Rows(mapped, train.y, train.target)
    found = fit_head(RidgeSpec(), own, Rows(other.x, other.y, train.target))
    test = of_classes(2)
    assert (found.head.scores(test.x).argmax(axis=1) == test.y).mean() > 0.8


def test_a_sample_for_the_calibration_has_rows_of_every_stratum() -> None:
    strata = np.array([0] * 9_000 + [1] * 980 + [2] * 20)
    numbers, stands_for = sampled(strata, most=500, least=20)
    assert np.bincount(strata[numbers]).tolist() == [450, 49, 20]
    close(np.bincount(strata[numbers], stands_for), [9_000, 980, 20], by=1e-9)


def test_a_sampled_calibration_is_close_to_that_of_all_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train, val = of_labels(0, n=2_000), of_labels(1)
    x, whole = of_labels(2).x, fitted(train, val)
    monkeypatch.setattr(ridge, "CALIBRATION_ROWS", 500)
    sample = fitted(train, val)
    apart = np.abs(sample.head.raw(x) - whole.head.raw(x)).max()
    assert 0 < apart < 0.5


def test_the_temperature_of_very_many_classes_is_of_fewer_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train, val = of_classes(0, n=2_000), of_classes(1)
    x, whole = of_classes(2).x, fitted(train, val)
    monkeypatch.setattr(ridge, "CALIBRATION_CELLS", 500 * len(NAMES))
    seen = set[int]()

    def drawn(strata: Array, most: int, least: int) -> tuple[Array, Array]:
        seen.add(most)
        return sampled(strata, most, least)

    monkeypatch.setattr(ridge, "sampled", drawn)
    sample = fitted(train, val)
    assert seen == {500}
    apart = np.abs(sample.head.raw(x) - whole.head.raw(x)).max()
    assert 0 < apart < 0.5


def test_a_slow_head_is_named_with_heads_that_are_not() -> None:
    many = ClassTarget(tuple(f"c{i:04d}" for i in range(1_000)))
    for spec in (LogisticSpec(), NearestSpec()):
        rows = 100_000 if spec.family == "nearest" else 10_000
        assert head_within(spec, many, 1_000, 64) == (spec, "")
        same, why = head_within(spec, many, rows, 1_280)
        assert same is spec
        assert why.startswith(f"{spec.family} takes about ")
        assert "--head ridge" in why
        assert "--head linear" in why
    usual, why = head_within(UsualSpec(l2=(0.5,)), many, 10_000, 1_280)
    assert usual == RidgeSpec(l2=(0.5,))
    assert why.startswith("ridge, since logistic takes about 10 min 40 s of one core for 10,000 ")
    assert head_within(spec_named("linear"), many, 10**9, 1_280)[1] == ""


def test_large_features_are_shuffled_by_slices() -> None:
    n = 20 * SLICE
    order = by_slices(np.arange(n), np.random.default_rng(0))
    assert (np.sort(order) == np.arange(n)).all()
    first = np.unique(order[: 16 * SLICE] // SLICE)
    assert len(first) == 16  # whole slices,
    assert np.abs(np.diff(order[:1_000])).mean() > SLICE  # but no neighbours
    drawn = [np.concatenate(batches(n, 50, e, 0, sliced=True)).tolist() for e in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
