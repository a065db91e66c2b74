import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.base.errors import SpecError, UnknownName
from headstart.base.values import fingerprint, from_plain, to_plain


@dataclass(frozen=True)
class Head:
    l2: tuple[float, ...] = (0.1, 1.0)
    name: str | None = None


@dataclass(frozen=True)
class Recipe:
    head: Head = Head()
    heads: tuple[Head, ...] = ()
    by_class: tuple[tuple[str, float], ...] = ()
    epochs: int = 10

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise SpecError(f"epochs is a count; got {self.epochs}.")


numbers = st.floats(allow_nan=False, allow_infinity=False)
heads = st.builds(Head, st.lists(numbers).map(tuple), st.none() | st.text())
recipes = st.builds(
    Recipe,
    heads,
    st.lists(heads, max_size=3).map(tuple),
    st.lists(st.tuples(st.text(), numbers), max_size=3).map(tuple),
    st.integers(0, 100),
)


@given(recipes)
def test_a_spec_survives_json(recipe: Recipe) -> None:
    plain = json.loads(json.dumps(to_plain(recipe)))
    assert from_plain(plain, Recipe, Head) == recipe


def test_specs_inside_a_plain_dict_are_rebuilt_too() -> None:
    @dataclass(frozen=True)
    class Board:
        heads: dict[str, Head]

    board = Board({"a": Head(), "b": Head((2.0,))})
    assert from_plain(json.loads(json.dumps(to_plain(board))), Board, Head) == board


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(SpecError, match=r"Head has no setting 'l22'. It takes \['l2', 'name'\]"):
        from_plain({"kind": "Head", "l22": [1.0]}, Head)


def test_an_unknown_kind_is_answered_with_a_near_one() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'Recipe'"):
        from_plain({"kind": "Recipes"}, Recipe, Head)


def test_a_kind_that_was_not_offered_is_refused_even_inside() -> None:
    with pytest.raises(UnknownName, match="no kind of value named 'Head'"):
        from_plain(to_plain(Recipe()), Recipe)


@pytest.mark.parametrize("epochs", [-1, "ten"])
def test_a_setting_out_of_range_or_of_another_type_is_refused(epochs: object) -> None:
    with pytest.raises(SpecError, match="epochs|not supported"):
        from_plain({"kind": "Recipe", "head": to_plain(Head()), "epochs": epochs}, Recipe, Head)


def test_a_missing_setting_is_refused() -> None:
    @dataclass(frozen=True)
    class Cut:
        block: int

    with pytest.raises(SpecError, match="block"):
        from_plain({"kind": "Cut"}, Cut)


def test_fingerprints_are_pinned() -> None:
    assert fingerprint("a", 1) == "2657442bb4a48d62"
    assert fingerprint(Recipe()) == "9730aeb40b1cbab1"


@given(recipes, recipes)
def test_fingerprints_tell_specs_apart(a: Recipe, b: Recipe) -> None:
    assert (fingerprint(a) == fingerprint(b)) == (to_plain(a) == to_plain(b))


def test_fingerprints_tell_parts_and_types_apart() -> None:
    parts: list[tuple[object, ...]] = [("ab",), ("a", "b"), (1,), (1.0,), (True,), ("1",), (None,)]
    assert len({fingerprint(*p) for p in parts}) == len(parts)


def test_fingerprints_take_names_that_are_not_utf8() -> None:
    assert fingerprint("caf\udce9.jpg") != fingerprint("caf\udce8.jpg")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, np.int64(1), object()])
def test_what_has_no_exact_plain_form_is_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        fingerprint(value)


@dataclass(frozen=True)
class Programme(Recipe):
    """`Recipe`, had it been renamed."""

    SAVED_AS: ClassVar[str] = "Recipe"


def test_a_renamed_class_is_saved_and_read_under_its_old_name() -> None:
    plain = to_plain(Recipe(epochs=3))
    assert to_plain(Programme(epochs=3)) == plain
    assert from_plain(plain, Programme, Head) == Programme(epochs=3)
    assert fingerprint(Programme()) == fingerprint(Recipe())
