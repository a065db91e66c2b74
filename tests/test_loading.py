import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.base.threads import ordered_map


@given(st.lists(st.integers()), st.integers(1, 6), st.integers(0, 9))
def test_results_come_in_the_order_of_the_items(items: list[int], threads: int, ahead: int) -> None:
    assert list(ordered_map(str, items, threads=threads, ahead=ahead)) == [str(i) for i in items]


def test_order_holds_when_a_later_item_is_done_first() -> None:
    second_is_done = threading.Event()

    def work(i: int) -> int:
        if i == 0:
            assert second_is_done.wait(timeout=10)
        if i == 1:
            second_is_done.set()
        return i

    assert list(ordered_map(work, range(4), threads=2, ahead=4)) == [0, 1, 2, 3]


@pytest.mark.parametrize(("threads", "ahead"), [(1, 0), (1, 3), (4, 2), (4, 8)])
def test_no_more_is_taken_than_was_asked_for(threads: int, ahead: int) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for i in range(100):
            taken += 1
            yield i

    for given_back, _ in enumerate(ordered_map(abs, items(), threads=threads, ahead=ahead), 1):
        assert taken <= given_back + ahead
    assert taken == 100


def test_nothing_is_begun_before_the_first_is_asked_for() -> None:
    begun: list[int] = []
    ordered_map(begun.append, range(9), threads=2, ahead=4)
    assert not begun


def test_an_error_comes_out_in_its_place_and_stops_the_rest() -> None:
    begun: list[int] = []

    def work(i: int) -> float:
        begun.append(i)
        return 1 / (i - 3)

    results = ordered_map(work, range(1000), threads=2, ahead=4)
    assert [next(results) for _ in range(3)] == [1 / -3, 1 / -2, 1 / -1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert len(begun) <= 3 + 1 + 4
    assert not _workers()


def test_an_error_of_the_source_comes_out_too() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the list of files cannot be read")

    with pytest.raises(OSError, match="list of files"):
        list(ordered_map(abs, items(), threads=2, ahead=0))
    assert not _workers()


def test_closing_stops_the_threads() -> None:
    begun: list[int] = []
    results = ordered_map(begun.append, range(1000), threads=3, ahead=5)
    next(results)
    results.close()
    assert len(begun) <= 6
    assert not _workers()


def _workers() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("headstart-decode")]
