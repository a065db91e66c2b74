import errno
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from headstart.errors import Mismatch, StoreError
from headstart.store import Store, Table, digest

BENCH = Path(__file__).parents[1] / "bench"


def named(*numbers: int) -> list[bytes]:
    return [digest(b"row %d" % n) for n in numbers]


def rows(*numbers: int) -> NDArray[np.float32]:  # (len(numbers), 5)
    return np.array([[n, n + 0.5, -n, n * 1e-9, n * 1e9] for n in numbers], np.float32)


def filled(folder: Path, *shards: tuple[int, ...]) -> Table:
    table = Store(folder).table("t")
    for numbers in shards:
        table.append(named(*numbers), {"x": rows(*numbers)})
    return table


def shards_of(folder: Path) -> list[Path]:
    return sorted((folder / "t").glob("*.safetensors"))


def test_rows_come_back_in_the_order_asked_for(tmp_path: Path) -> None:
    filled(tmp_path, (0, 1, 2), (3, 4), (5,))
    wanted = (4, 0, 5, 2, 2, 1, 3)
    again = Store(tmp_path).table("t")
    np.testing.assert_array_equal(again.rows(named(*wanted), "x"), rows(*wanted))
    assert sorted(again.names()) == sorted(named(*range(6)))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8", "int64", "bool"])
def test_every_column_keeps_its_type_and_shape(tmp_path: Path, dtype: str) -> None:
    x = np.arange(24).reshape(2, 3, 4).astype(dtype)
    filled(tmp_path).append(named(0, 1), {"cut": x, "features": x[:, 0, ::2]})
    again = Store(tmp_path).table("t")
    for column, value in {"cut": x, "features": x[:, 0, ::2]}.items():
        got = again.rows(named(0, 1), column)
        assert got.dtype == value.dtype
        np.testing.assert_array_equal(got, value)


def test_tables_do_not_see_each_other(tmp_path: Path) -> None:
    filled(tmp_path, (0,))
    assert named(0)[0] not in Store(tmp_path).table("other")


def test_a_row_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    table = filled(tmp_path, (0, 1))
    assert [n in table for n in named(0, 7)] == [True, False]
    with pytest.raises(KeyError, match=named(7)[0].hex()):
        table.rows(named(0, 7), "x")


def test_nothing_is_written_for_no_rows(tmp_path: Path) -> None:
    filled(tmp_path).append([], {"x": rows()})
    assert not shards_of(tmp_path)


def test_columns_must_be_as_long_as_the_names(tmp_path: Path) -> None:
    with pytest.raises(Mismatch, match="'x' has 2 for 3 rows"):
        filled(tmp_path).append(named(0, 1, 2), {"x": rows(0, 1)})


def test_the_same_rows_twice_make_one_shard(tmp_path: Path) -> None:
    filled(tmp_path, (0, 1), (0, 1))
    assert len(shards_of(tmp_path)) == 1


def test_a_shard_is_named_by_its_bytes(tmp_path: Path) -> None:
    filled(tmp_path, (0, 1))
    (path,) = shards_of(tmp_path)
    assert path.stem == digest(path.read_bytes()).hex()


@given(st.data())
def test_a_flipped_bit_makes_rows_absent_never_wrong(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("store")
    filled(folder, (0, 1), (2,))
    path = data.draw(st.sampled_from(shards_of(folder)))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    table = Store(folder).table("t")
    there = [n for n in (0, 1, 2) if named(n)[0] in table]
    assert len(there) in (1, 2)
    np.testing.assert_array_equal(table.rows(named(*there), "x"), rows(*there))


@pytest.mark.parametrize("harm", ["flipped", "cut short", "emptied", "swapped"])
def test_a_damaged_shard_is_listed_and_its_rows_can_be_written_again(
    tmp_path: Path, harm: str
) -> None:
    filled(tmp_path, (0, 1), (2, 3))
    bad, good = shards_of(tmp_path)
    content = bad.read_bytes()
    bad.write_bytes(
        {
            "flipped": content[:-1] + bytes([content[-1] ^ 1]),
            "cut short": content[:-7],
            "emptied": b"",
            "swapped": good.read_bytes(),
        }[harm]
    )
    table = Store(tmp_path).table("t")
    there = [n for n in range(4) if named(n)[0] in table]
    assert len(there) == 2
    assert table.damaged == [bad]
    lost = tuple({0, 1, 2, 3} - set(there))
    table.append(named(*lost), {"x": rows(*lost)})
    np.testing.assert_array_equal(table.rows(named(0, 1, 2, 3), "x"), rows(0, 1, 2, 3))
    assert Store(tmp_path).table("t").damaged == []  # the same rows, so the same name


def test_a_row_in_two_shards_survives_the_loss_of_one(tmp_path: Path) -> None:
    filled(tmp_path, (0, 1), (1, 2))
    first = shards_of(tmp_path)[0]
    first.write_bytes(first.read_bytes()[:-1] + b"?")
    np.testing.assert_array_equal(Store(tmp_path).table("t").rows(named(1), "x"), rows(1))


def test_a_temporary_file_is_not_a_shard(tmp_path: Path) -> None:
    filled(tmp_path, (0,))
    (tmp_path / "t" / ".part-1-a").write_bytes(shards_of(tmp_path)[0].read_bytes()[:50])
    table = Store(tmp_path).table("t")
    assert named(0)[0] in table
    assert table.damaged == []


def append_in_turn(folder: Path, first: int) -> None:
    table = Store(folder).table("t")
    for i in range(first, first + 40, 2):
        table.append(named(i, i + 1), {"x": rows(i, i + 1)})


def test_two_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=append_in_turn, args=(tmp_path, n)) for n in (0, 20)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=60)
    assert [w.exitcode for w in writers] == [0, 0]
    everything = range(60)  # 20 to 39 were written by both
    table = Store(tmp_path).table("t")
    np.testing.assert_array_equal(table.rows(named(*everything), "x"), rows(*everything))


def test_a_full_disk_is_told_and_what_was_stored_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(fd: int) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    table = filled(tmp_path, (0, 1))
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(StoreError, match="No space left on device.*--store") as caught:
        table.append(named(2), {"x": rows(2)})
    assert str(tmp_path / "t") in str(caught.value)
    for one in (table, Store(tmp_path).table("t")):
        assert [n in one for n in named(0, 1, 2)] == [True, True, False]
    assert len(list((tmp_path / "t").iterdir())) == 1


@pytest.mark.slow
def test_a_disk_that_is_really_full_is_told_too(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if os.name != "posix" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        table = filled(tmp_path, (0, 1))
        noise = np.random.default_rng(0).random((2, 100_000))
        with pytest.raises(StoreError, match="must be able to keep 1.6 MB more"):
            table.append(named(2, 3), {"x": noise})
        np.testing.assert_array_equal(Store(tmp_path).table("t").rows(named(0, 1), "x"), rows(0, 1))
        assert len(list((tmp_path / "t").iterdir())) == 1
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_store_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("not a folder")
    with pytest.raises(StoreError, match="--store"):
        filled(tmp_path / "store", (0,))


def test_digests_tell_parts_apart() -> None:
    assert digest(b"a", b"bc") != digest(b"ab", b"c") != digest(b"abc")
    assert digest(np.arange(3).data) == digest(np.arange(3).tobytes())


def test_the_usual_store_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADSTART_STORE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Store().folder == tmp_path / "headstart" / "store"
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "here"))
    assert Store().folder == tmp_path / "here"
    assert Store(tmp_path / "there").folder == tmp_path / "there"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the harness forks")
def test_killed_writers_lose_nothing_and_a_naive_one_is_caught() -> None:
    harness = (
        "from kill_store import NaiveKeeper, StoreKeeper, hunt\n"
        "real, naive = hunt(StoreKeeper, 20, seed=0), hunt(NaiveKeeper, 10, seed=0)\n"
        "assert not real.violations, real\n"
        "assert naive.violations, naive\n"
    )
    command = [sys.executable, "-c", harness]
    subprocess.run(command, cwd=BENCH, check=True, timeout=60)


@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8"])
def test_a_reader_gives_the_rows_that_are_asked_for(tmp_path: Path, dtype: str) -> None:
    table = Store(tmp_path).table("t")
    x = np.arange(5 * 2 * 3).reshape(5, 2, 3).astype(dtype)
    table.append(named(0, 1, 2), {"x": x[:3], "other": x[:3, 0]})
    table.append(named(3, 4), {"x": x[3:], "other": x[3:, 0]})
    reader = Store(tmp_path).table("t").reader(named(4, 0, 3, 2), "x")
    assert len(reader) == 4
    assert np.array_equal(reader[[1, 0, 0]], x[[0, 4, 4]])
    assert np.array_equal(reader.take([3, 2])[[0, 1]], x[[2, 3]])
    assert reader[[0]].dtype == np.dtype(dtype)


def test_a_reader_holds_no_file_open(tmp_path: Path) -> None:
    """A thousand shards and views must not use up a process's open files."""
    table = filled(tmp_path, *((n,) for n in range(40)))
    before = len(os.listdir("/proc/self/fd"))
    readers = [table.reader(named(*range(40)), "x") for _ in range(5)]
    assert all(np.array_equal(reader[range(40)], rows(*range(40))) for reader in readers)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_reader_of_rows_that_are_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        filled(tmp_path, (0, 1)).reader(named(0, 7), "x")
