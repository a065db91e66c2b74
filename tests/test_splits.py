"""No row lost, nothing that belongs together torn apart, everybody's share kept."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.base.errors import DataError, SpecError
from headstart.data.dataset import PARTS, Dataset
from headstart.data.splits import SplitPlan, Splits, split
from headstart.data.units import Units


def rows(
    labels: Sequence[int],
    *,
    parts: Sequence[str] = (),
    groups: Sequence[str] = (),
    strata: Sequence[str] = (),
) -> Dataset:
    """Rows named r0, r1, … with these labels; there are no files behind them."""
    ids = tuple(f"r{i}" for i in range(len(labels)))
    classes = tuple(f"c{c}" for c in range(max(labels) + 1))
    return Dataset(
        ids,
        tuple(map(Path, ids)),
        tuple(labels),
        classes,
        parts=tuple(parts),
        groups=tuple(groups),
        strata=tuple(strata),
    )


def parts_of(splits: Splits) -> dict[str, str]:
    return {id: part for part in PARTS for id in getattr(splits, part).ids}


def parts(splits: Splits) -> tuple[Dataset, Dataset, Dataset]:
    return splits.train, splits.val, splits.test


def sizes(splits: Splits) -> tuple[int, int, int]:
    return len(splits.train), len(splits.val), len(splits.test)


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    enough = [label for label in range(draw(st.integers(1, 4))) for _ in range(SplitPlan().fewest)]
    more = draw(st.lists(st.integers(0, 3), max_size=60))
    labels = [*enough, *(label for label in more if label in enough)]
    n = len(labels)  # the first of each class stand alone, so that it can fill three parts
    tied = st.sampled_from(["", "", "", "a", "b", "c"])
    groups = [""] * len(enough) + [draw(tied) for _ in labels[len(enough) :]]
    strata = draw(st.lists(st.sampled_from("xy"), min_size=n, max_size=n))
    return rows(labels, groups=groups, strata=strata)


def in_training_order(data: Dataset, part: Dataset) -> bool:
    place = {id: i for i, id in enumerate(data.ids)}
    return sorted(part.ids, key=place.__getitem__) == list(part.ids)


@settings(max_examples=60, deadline=None)
@given(datasets(), st.integers(0, 5), st.lists(st.integers(0, 79), max_size=6, unique=True))
def test_every_row_is_in_one_part_and_nothing_is_torn(
    data: Dataset, seed: int, twins: list[int]
) -> None:
    alone = SplitPlan().fewest * len(data.classes)
    twins = [row for row in twins if alone <= row < len(data)]
    splits = split(data, SplitPlan(seed=seed), together=[twins])
    part = parts_of(splits)
    assert sum(sizes(splits)) == len(part) == len(data)
    assert not splits.left_out
    assert set(splits.train.labels) == set(data.labels)
    assert len({part[f"r{row}"] for row in twins}) <= 1
    for name in "abc":
        assert len({part[i] for i, g in zip(data.ids, data.groups, strict=True) if g == name}) <= 1
    assert all(in_training_order(data, getattr(splits, p)) for p in PARTS)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(5, 60), min_size=1, max_size=12), st.integers(0, 3))
def test_every_class_and_the_whole_get_their_shares(counts: list[int], seed: int) -> None:
    data = rows([c for c, n in enumerate(counts) for _ in range(n)])
    plan = SplitPlan(val=0.2, test=0.2, seed=seed)
    splits = split(data, plan)
    for part in PARTS:
        got = getattr(splits, part).counts
        for c, n in enumerate(counts):
            assert got[f"c{c}"] >= 1
            assert abs(got[f"c{c}"] - plan.share(part) * n) < 2
    if min(counts) >= 10:  # no class so small that a part needs more than its share of it
        assert all(abs(len(getattr(splits, p)) - plan.share(p) * len(data)) < 1.01 for p in PARTS)


@settings(max_examples=30, deadline=None)
@given(datasets())
def test_the_same_seed_gives_the_same_split(data: Dataset) -> None:
    assert split(data) == split(data)


def test_a_seed_changes_who_is_where_but_not_how_many() -> None:
    data = rows([0, 1] * 50)
    one, two = split(data, SplitPlan(seed=1)), split(data, SplitPlan(seed=2))
    assert sizes(one) == sizes(two) == (70, 15, 15)
    assert one.test.ids != two.test.ids


def test_each_stratum_gets_its_share_too() -> None:
    data = rows([0] * 60 + [1] * 40, strata=["x", "y", "y", "y"] * 25)
    splits = split(data, SplitPlan(val=0.2, test=0.2))
    for part, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
        taken = getattr(splits, part)
        cells = Counter(zip(taken.labels, taken.strata, strict=True))
        for cell, n in Counter(zip(data.labels, data.strata, strict=True)).items():
            assert abs(cells[cell] - share * n) <= 1, (part, cell)


@pytest.mark.parametrize(
    ("val", "test", "fewest"), [(0.15, 0.15, 5), (0.2, 0.2, 5), (0.01, 0.01, 5), (0.4, 0.4, 3)]
)
def test_a_class_that_cannot_fill_three_parts_is_refused_with_the_number_it_takes(
    val: float, test: float, fewest: int
) -> None:
    plan = SplitPlan(val=val, test=test)
    for n in range(1, fewest):
        with pytest.raises(DataError, match=f"takes {fewest} different .*; 'c1' has {n}\\. Add"):
            split(rows([0] * 40 + [1] * n), plan)
    for twins in (0, 2):
        data = rows([0] * 40 + [1] * (fewest + twins))
        together = [range(40, 41 + twins)]  # copies count once
        small = [part.counts["c1"] for part in parts(split(data, plan, together=together))]
        assert min(small) >= 1
    assert fewest < 5 or small[0] > sum(small[1:])


def test_small_classes_are_named_with_their_numbers_and_a_few_of_many() -> None:
    with pytest.raises(DataError, match=r"'c1' has 3, 'c2' has 1\. Add"):
        split(rows([0] * 9 + [1] * 3 + [2]))
    with pytest.raises(DataError, match=r"'c4' has 1 and 3 more classes too few\. Add"):
        split(rows(list(range(8))))
    with pytest.raises(DataError, match=r"'c1' has 30 in 1\. Add"):  # one group has no parts
        split(rows([0] * 30 + [1] * 30, groups=[""] * 30 + ["g"] * 30))


def test_three_groups_of_many_pictures_fill_three_parts() -> None:
    data = rows([0] * 30 + [1] * 30, groups=[""] * 30 + list("abc") * 10)
    assert [part.counts["c1"] for part in parts(split(data))] == [10, 10, 10]
    with pytest.raises(DataError, match="'c1' has 4"):  # too few in all, copies counted once
        split(rows([0] * 30 + [1] * 6, groups=[""] * 30 + list("abcabc")), together=[range(33, 36)])


def test_a_class_of_one_in_parts_that_the_data_names_stays_there() -> None:
    data = rows([0] * 9 + [1], parts=["train", "val", "test"] * 3 + ["train"])
    assert split(data).train.counts["c1"] == 1
    with pytest.raises(DataError, match="'c1' has 1"):  # all parts are made from train
        split(replace(data, parts=("train",) * 10))


@pytest.mark.parametrize("seed", range(12))
def test_a_class_that_is_outvoted_in_all_its_groups_still_trains(seed: int) -> None:
    labels = [0, 0, 1] * 5 + [0] * 20
    groups = [f"g{i // 3}" if i < 15 else "" for i in range(35)]
    splits = split(rows(labels, groups=groups), SplitPlan(val=0.4, test=0.4, seed=seed))
    assert splits.train.counts["c1"] >= 1


def test_large_groups_still_give_each_part_about_its_share() -> None:
    rng = np.random.default_rng(0)
    groups = [f"g{g}" for g in range(60) for _ in range(rng.integers(1, 12))]
    data = rows([0] * len(groups), groups=groups)
    plan = SplitPlan(val=0.2, test=0.2)
    splits = split(data, plan)
    for part in PARTS:
        assert abs(len(getattr(splits, part)) - plan.share(part) * len(data)) <= 11


def test_chains_of_twins_and_groups_stay_in_one_part() -> None:
    data = rows([0] * 60, groups=["", "g", "g", *[""] * 57])
    part = parts_of(split(data, together=[(0, 1), (2, 3), (3, 4, 5)]))
    assert len({part[f"r{i}"] for i in range(6)}) == 1


@pytest.mark.parametrize(
    ("given_parts", "expected"),
    [
        (("train", "val", "test"), (40, 40, 40)),
        (("train", "val"), (40, 20, 20)),
        (("train", "test"), (33, 7, 40)),  # val takes 0.15 of 0.85
        (("val", "test"), (33, 7, 40)),
        (("train",), (28, 6, 6)),
        (("test",), (28, 6, 6)),
    ],
)
def test_parts_that_are_missing_are_carved_from_what_is_there(
    given_parts: tuple[str, ...], expected: tuple[int, int, int]
) -> None:
    data = rows([0, 1] * (20 * len(given_parts)), parts=[p for p in given_parts for _ in range(40)])
    splits = split(data)
    found = sizes(splits)
    assert all(abs(a - b) <= 1 for a, b in zip(found, expected, strict=True)), found
    donor = {"train", "val"} == set(given_parts) and {*splits.val.parts, *splits.test.parts}
    assert donor in (False, {"val"})


def test_a_row_without_a_part_trains_or_follows_its_group() -> None:
    parts = ["train", "val", "test"] * 10 + ["", ""]
    data = rows([0] * 32, parts=parts, groups=["", "", "g", *[""] * 28, "g"])
    part = parts_of(split(data))
    assert (part["r30"], part["r31"]) == ("train", "test")


def test_of_twins_in_given_parts_the_one_that_is_judged_by_stays() -> None:
    data = rows([0] * 9, parts=["train", "val", "test"] * 3)
    splits = split(data, together=[(0, 2), (3, 4), (6, 7, 8)])
    assert parts_of(splits) == {
        "r2": "test",
        "r4": "val",
        "r8": "test",
        "r1": "val",
        "r5": "test",
    } | {id: "train" for id in splits.train.ids}
    assert {out.path: out.reason for out in splits.left_out} == {
        "r0": "the same picture as r2, which is in test; this one was in train",
        "r3": "the same picture as r4, which is in val; this one was in train",
        "r6": "the same picture as r8, which is in test; this one was in train",
        "r7": "the same picture as r8, which is in test; this one was in val",
    }


def test_a_group_in_two_given_parts_is_kept_where_it_is_judged_by() -> None:
    data = rows([0] * 6, parts=["train", "val", "test"] * 2, groups=["g", "", "g", "", "", ""])
    splits = split(data)
    assert splits.left_out[0].path == "r0"
    assert splits.left_out[0].reason.startswith("of one group with r2, which is in test")


def test_a_class_with_nothing_to_train_on_is_refused() -> None:
    data = rows([0, 0, 0, 1], parts=["train", "val", "test", "test"])
    with pytest.raises(DataError, match="'c1' has none in train"):
        split(data)


@pytest.mark.parametrize("bad", [{"val": 0.0}, {"test": -0.1}, {"val": 0.5, "test": 0.5}])
def test_a_plan_that_leaves_no_part_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(SpecError, match="must leave some for training"):
        replace(SplitPlan(), **bad)  # type: ignore[arg-type]


def test_a_hundred_thousand_rows_are_split_in_seconds() -> None:
    rng = np.random.default_rng(0)
    data = rows(rng.integers(0, 1000, 100_000).tolist())
    began = time.perf_counter()
    splits = split(data, together=[(i, i + 1) for i in range(0, 20_000, 2)])
    assert time.perf_counter() - began < 15
    assert sum(sizes(splits)) == 100_000


def test_units_are_taken_and_lose_rows_as_tuples_do() -> None:
    units = Units.of([(0, 4), (2, 3, 7)], 9)
    each = [(0, 4), (1,), (2, 3, 7), (5,), (6,), (8,)]
    assert units == each
    assert units.take([2, 0, 5]) == [each[2], each[0], each[5]]
    assert units.take([]) == []
    assert list(units.several()) == [(0, 4), (2, 3, 7)]
    assert units.without([3, 5, 0]) == [(4,), (1,), (2, 7), (6,), (8,)]
    assert units.without([]) is units
