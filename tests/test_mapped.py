"""Arrays that do not fit into memory lie in a mapped file, with the same bytes."""

import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.base import mapped
from headstart.base.errors import StoreError
from headstart.base.mapped import empty_rows, rows_of_array
from headstart.data.dataset import Dataset
from headstart.features.extract import FeatureTable
from headstart.models.training_data import stacked


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "memory_bytes", lambda: 400)
    monkeypatch.setattr(mapped, "AT_ONCE", 64)


def numbers(folder: Path) -> NDArray[np.float32]:
    x = empty_rows((50, 4), np.float32, folder)
    x[:] = np.arange(200).reshape(50, 4)
    return x


@pytest.mark.usefixtures("little")
def test_a_large_array_is_mapped_and_leaves_no_file(tmp_path: Path) -> None:
    x = numbers(tmp_path)
    assert isinstance(x, np.memmap)
    assert list(tmp_path.iterdir()) == []
    assert not isinstance(empty_rows((5, 4)), np.memmap)


@pytest.mark.usefixtures("little")
def test_rows_of_a_mapped_array_are_mapped_too(tmp_path: Path) -> None:
    x, rows = numbers(tmp_path), np.array([40, 3, 3, 7, *range(30, 40)])
    some = rows_of_array(x, rows)
    np.testing.assert_array_equal(some, np.asarray(x)[rows])
    assert np.shares_memory(rows_of_array(x, range(3, 9)), x)  # neighbours are not copied
    many = rows_of_array(x, np.arange(49, -1, -1))
    assert isinstance(many, np.memmap)
    np.testing.assert_array_equal(many, np.asarray(x)[::-1])


@pytest.mark.usefixtures("little")
def test_the_parts_of_a_mapped_table_are_not_copied_into_memory(tmp_path: Path) -> None:
    ids = tuple(map(str, range(50)))
    data = Dataset(ids, ids, (0, 1) * 25, ("a", "b"))
    table = FeatureTable(ids, numbers(tmp_path), data.y, data.target, "made")
    part = table.of(data.take(range(48, 0, -1)))
    assert isinstance(part.x, np.memmap)
    np.testing.assert_array_equal(part.x, np.arange(200).reshape(50, 4)[48:0:-1])


@pytest.mark.usefixtures("little")
def test_the_views_of_mapped_features_are_joined_in_a_mapped_array(tmp_path: Path) -> None:
    ids, x = tuple(map(str, range(50))), numbers(tmp_path)
    data = Dataset(ids, ids, (0, 1) * 25, ("a", "b"))
    tables = [FeatureTable(ids, own, data.y, data.target, "made") for own in (x, x + 1)]
    rows = stacked(tables)
    assert isinstance(rows.x, np.memmap)
    np.testing.assert_array_equal(rows.x, np.concatenate([x, x + 1]))
    np.testing.assert_array_equal(rows.y, [*data.y, *data.y])


@pytest.mark.usefixtures("little")
def test_a_disk_without_room_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(StoreError, match=r"do not fit into memory.*No space left"):
        numbers(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of data are counted as Linux does")
def test_of_a_limit_of_data_counts_what_is_left() -> None:
    """What libraries have mapped is gone, whether they touch it or not."""
    code = (
        "import resource, mmap; from headstart.base.runtime import memory_bytes\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (10**9, 10**9)); before = memory_bytes()\n"
        "held = mmap.mmap(-1, 3 * 10**8, mmap.MAP_PRIVATE)\n"
        "print(before, before - memory_bytes())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    left, taken = map(int, done.stdout.split())
    assert 0 < left < 10**9
    assert abs(taken - 3 * 10**8) < 10**7
