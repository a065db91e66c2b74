import errno
import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load as unpack
from safetensors.numpy import save as pack

from headstart.base import compacting
from headstart.base.compacting import compact, verify
from headstart.base.errors import Mismatch, StoreError
from headstart.base.shards import FileDigests
from headstart.base.store import ANY, Layout, Store, StoredTable, digest
from headstart.cli.main import main

BENCH = Path(__file__).parents[1] / "bench"


def named(*numbers: int) -> list[bytes]:
    return [digest(b"row %d" % n) for n in numbers]


def rows(*numbers: int) -> NDArray[np.float32]:  # (len(numbers), 5)
    return np.array([[n, n + 0.5, -n, n * 1e-9, n * 1e9] for n in numbers], np.float32)


def filled(folder: Path, *shards: tuple[int, ...]) -> StoredTable:
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


@pytest.mark.skipif(os.name != "posix", reason="pipes and links")
@pytest.mark.parametrize("what", ["pipe", "folder", "socket", "loop", "dangling link", "link"])
def test_what_is_no_file_in_the_place_of_a_shard_is_passed_over(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, (0, 1))
    (path,) = shards_of(tmp_path)
    kept = path.rename(tmp_path / "kept")
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        (path / "precious").mkdir(parents=True)
    elif what == "socket":
        monkeypatch.chdir(path.parent)  # the path of a socket is at most 100 letters long
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    else:
        path.symlink_to({"loop": path, "link": kept}.get(what, tmp_path / "gone"))
    table = Store(tmp_path).table("t")
    assert (named(0)[0] in table) is (what == "link")
    assert table.damaged == ([] if what == "link" else [path])
    table.append(named(0, 1), {"x": rows(0, 1)})
    np.testing.assert_array_equal(Store(tmp_path).table("t").rows(named(1, 0), "x"), rows(1, 0))


def renamed(path: Path, data: bytes) -> None:
    """Put `data` in the place of a shard, under the name that it would have had itself."""
    path.unlink()
    path.with_name(f"{digest(data).hex()}.safetensors").write_bytes(data)


@pytest.mark.parametrize("how", ["a flipped bit", "saved again", "saved again with its facts"])
def test_other_content_under_its_own_digest_is_passed_over(tmp_path: Path, how: str) -> None:
    filled(tmp_path, (0, 1))
    (path,) = shards_of(tmp_path)
    data, columns = path.read_bytes(), unpack(path.read_bytes())
    columns["x"] = columns["x"][::-1].copy()
    with safe_open(path, "numpy") as file:
        facts = file.metadata() if "facts" in how else None
    flipped = data[:-1] + bytes([data[-1] ^ 1])
    renamed(path, flipped if how == "a flipped bit" else pack(columns, facts))
    assert named(0)[0] not in Store(tmp_path).table("t")


def test_a_shard_of_another_table_is_passed_over(tmp_path: Path) -> None:
    filled(tmp_path, (0, 1))
    other = Store(tmp_path).table("other")
    other.append(named(2), {"x": rows(2)})
    (path,) = shards_of(tmp_path)
    shutil.copy(path, tmp_path / "other")
    table = Store(tmp_path).table("other")
    assert [n in table for n in named(0, 1, 2)] == [False, False, True]
    assert table.damaged == [tmp_path / "other" / path.name]


def of_version_0_1(folder: Path, *numbers: int, **columns: NDArray[Any]) -> None:
    """A shard as it was written before there were seals."""
    keys = np.frombuffer(b"".join(named(*numbers)), np.uint8).reshape(len(numbers), -1)
    data = pack({"__digests__": keys, **(columns or {"x": rows(*numbers)})})
    (folder / "t").mkdir(exist_ok=True)
    (folder / "t" / f"{digest(data).hex()}.safetensors").write_bytes(data)


def test_a_table_of_an_earlier_version_is_still_read_and_added_to(tmp_path: Path) -> None:
    of_version_0_1(tmp_path, 0, 1)
    Store(tmp_path).table("t").append(named(2), {"x": rows(2)})
    table = Store(tmp_path).table("t", {"x": ("float32", (5,))})
    np.testing.assert_array_equal(table.rows(named(0, 1, 2), "x"), rows(0, 1, 2))
    assert table.damaged == []


@pytest.mark.parametrize(
    "columns",
    [
        {"x": rows(0, 1).astype(np.float64)},
        {"x": rows(0, 1)[:, :1]},
        {"x": rows(0, 1)[0]},
        {"x": rows(0, 1)[..., None]},
        {"x": rows(0)},
        {"y": rows(0, 1)},
        {"x": rows(0, 1), "y": rows(0, 1)},
    ],
    ids=lambda columns: " ".join(f"{k}{v.dtype}{v.shape}" for k, v in columns.items()),
)
def test_rows_of_another_type_or_shape_are_passed_over(
    tmp_path: Path, columns: dict[str, NDArray[Any]]
) -> None:
    of_version_0_1(tmp_path, 0, 1, **columns)
    of_version_0_1(tmp_path, 2)
    table = Store(tmp_path).table("t", {"x": ("float32", (5,))})
    assert [n in table for n in named(0, 1, 2)] == [False, False, True]
    assert len(table.damaged) == 1


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 9999,
        b'{"__digests__": 1}',
        b'{"__digests__": {"dtype": "U8", "shape": [-1, 16], "data_offsets": [0, -16]}}',
        b'{"__digests__": {"dtype": "U8", "shape": [1e9, 16], "data_offsets": [0, 16]}}',
        b'{"__digests__": {"dtype": "BF16", "shape": [0, 16], "data_offsets": [0, 0]}}',
        b'{"__digests__": {"dtype": "U8", "shape": [9, 16], "data_offsets": [0, 144]}}',
    ],
    ids=lambda header: header[:70].decode(),
)
def test_a_header_that_can_not_be_is_no_shard(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "t").mkdir()
    data = len(header).to_bytes(8, "little") + header
    (tmp_path / "t" / f"{digest(data).hex()}.safetensors").write_bytes(data)
    table = Store(tmp_path).table("t")
    assert (len(table.damaged), table.names()) == (1, [])


@pytest.mark.parametrize("harm", ["cut short", "flipped", "replaced", "removed", "a pipe"])
@pytest.mark.parametrize("read_before", [False, True])
def test_a_shard_damaged_while_its_rows_are_read_is_told_in_a_sentence(
    tmp_path: Path, harm: str, read_before: bool
) -> None:
    table = filled(tmp_path, (0, 1), (2, 3))
    reader = table.reader(named(0, 1, 2, 3), "x")
    bad = table._shards[int(reader.shard[2])]
    if read_before:
        np.testing.assert_array_equal(reader[[2, 0]], rows(2, 0))
    data = bytearray(bad.read_bytes())
    data[-1] ^= 1
    bad.unlink() if harm in ("removed", "a pipe", "replaced") else None
    if harm in ("flipped", "replaced"):
        bad.write_bytes(data)
    elif harm == "cut short":
        os.truncate(bad, len(data) - 12)
    elif harm == "a pipe":
        os.mkfifo(bad)
    with pytest.raises(StoreError, match=f"{bad.name} .*Run the same command again"):
        reader[[0, 3]]
    assert named(2)[0] not in table
    assert bad in table.damaged
    np.testing.assert_array_equal(reader[[1]], rows(1))  # of the other shard


def test_a_shard_written_again_while_its_rows_are_read_is_the_same(tmp_path: Path) -> None:
    table = filled(tmp_path, (0, 1))
    reader, (path,) = table.reader(named(0, 1), "x"), shards_of(tmp_path)
    for _ in range(2):
        np.testing.assert_array_equal(reader[[1, 0]], rows(1, 0))
        filled(tmp_path, (0, 1))  # by another process, say
        os.utime(path, ns=(0, 0))
    assert table.damaged == []


def test_a_row_in_two_shards_survives_the_loss_of_one(tmp_path: Path) -> None:
    filled(tmp_path, (0, 1), (1, 2))
    first = shards_of(tmp_path)[0]
    first.write_bytes(first.read_bytes()[:-1] + b"?")
    np.testing.assert_array_equal(Store(tmp_path).table("t").rows(named(1), "x"), rows(1))


def test_many_names_are_looked_up_together_and_a_damaged_shard_does_not_count(
    tmp_path: Path,
) -> None:
    table = filled(tmp_path, (0, 1), (1, 2), (3,))
    assert table.has(named(3, 9, 1, 0, 2)).tolist() == [True, False, True, True, True]
    assert table.has([]).tolist() == []
    for path in shards_of(tmp_path):
        if named(2)[0] in Store(tmp_path).table("t").names_in(path).tobytes():
            path.write_bytes(path.read_bytes()[:-1] + b"?")
    fresh = Store(tmp_path).table("t")
    assert fresh.has(named(0, 1, 2, 3)).tolist() == [True, True, False, True]
    assert len(fresh.damaged) == 1


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


@pytest.mark.long
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


@pytest.mark.long
def test_flipped_bits_differ_never_in_silence_and_without_the_check_they_do() -> None:
    harness = (
        "from kill_store import flip\n"
        "real, blind = flip(20, seed=0), flip(20, seed=0, blind=True)\n"
        "assert (real.different, real.passed_over) == (0, 20), real\n"
        "assert blind.different, blind\n"
    )
    subprocess.run([sys.executable, "-c", harness], cwd=BENCH, check=True, timeout=60)


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


RAGGED: Layout = {"cut": ("float16", (ANY, 3)), "parts": ("uint32", ())}


def ragged(*numbers: int) -> dict[str, Any]:
    """Row n holds n entries of three numbers."""
    cut = [np.arange(3 * n, dtype=np.float16).reshape(n, 3) + n for n in numbers]
    return {"cut": cut, "parts": np.array(numbers, np.uint32)}


def test_rows_of_their_own_lengths_come_back_without_padding(tmp_path: Path) -> None:
    table = Store(tmp_path).table("t", RAGGED)
    for numbers in ((3, 0, 1), (2,), (5, 4)):
        table.append(named(*numbers), ragged(*numbers))
    wanted = [4, 0, 3, 2, 2]
    for again in (table, Store(tmp_path).table("t", RAGGED)):
        reader = again.reader(named(*wanted), "cut")
        assert reader.lengths().tolist() == wanted
        for row, expected in zip(reader.arrays(range(5)), ragged(*wanted)["cut"], strict=True):
            assert row.dtype == np.float16
            np.testing.assert_array_equal(row, expected)
        (one,) = reader.take([2]).arrays([0])
        assert len(one) == 3
        assert again.rows(named(5, 1), "parts").tolist() == [5, 1]


@pytest.mark.parametrize(
    "ends", [[1, 3, 2], [1, 2, 4], [-1, 2, 3], [1, 3], [[1], [2], [3]], [1.5, 2, 3]]
)
def test_ends_that_a_column_can_not_have_are_passed_over(tmp_path: Path, ends: Any) -> None:
    of_version_0_1(tmp_path, 0, 1, 2, x=np.zeros((3, 3), np.float16), **{"x.ends": np.array(ends)})
    again = Store(tmp_path).table("t")
    assert (again.names(), len(again.damaged)) == ([], 1)


def test_rows_of_their_own_lengths_are_not_rows_of_one(tmp_path: Path) -> None:
    Store(tmp_path).table("t").append(named(0, 1), {"x": [rows(0), rows(1)]})
    table = Store(tmp_path).table("t", {"x": ("float32", (5,))})
    assert (table.names(), len(table.damaged)) == ([], 1)
    assert named(1)[0] in Store(tmp_path).table("t", {"x": ("float32", (ANY, 5))})


@given(st.data())
def test_a_flipped_bit_makes_rows_of_their_own_lengths_absent_never_wrong(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("store")
    table = Store(folder).table("t", RAGGED)
    for numbers in ((1, 2), (3,)):
        table.append(named(*numbers), ragged(*numbers))
    path = data.draw(st.sampled_from(shards_of(folder)))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    again = Store(folder).table("t", RAGGED)
    there = [n for n in (1, 2, 3) if named(n)[0] in again]
    assert len(there) in (1, 2)
    for got, row in zip(
        again.reader(named(*there), "cut").arrays(range(len(there))),
        ragged(*there)["cut"],
        strict=True,
    ):
        np.testing.assert_array_equal(got, row)


def many(folder: Path, count: int = 6) -> StoredTable:
    return filled(folder, *((3 * n, 3 * n + 1, 3 * n + 2) for n in range(count)))


def test_compacted_shards_hold_the_same_rows_in_one_file_with_an_index(tmp_path: Path) -> None:
    many(tmp_path)
    found = compact(Store(tmp_path))
    assert (found.rows, found.files, found.merged, found.damaged) == (18, 2, 6, ())
    table = Store(tmp_path).table("t", {"x": ("float32", (5,))})
    order = (17, 0, 3, 9, 9, 1)
    np.testing.assert_array_equal(table.rows(named(*order), "x"), rows(*order))
    (shard,) = shards_of(tmp_path)
    (index,) = (tmp_path / "t").glob("*.index")
    assert index.stat().st_size == 24 + 16 + 18 * 24
    assert digest(index.read_bytes()).hex() == index.stem
    with safe_open(shard, "np") as file:  # a safetensors file like any other
        assert len(file.get_tensor("x")) == 18
    assert compact(Store(tmp_path)).merged == 0  # there is nothing left to do


def test_rows_written_after_compacting_are_found_too_and_merged_next_time(tmp_path: Path) -> None:
    many(tmp_path, 2)
    compact(Store(tmp_path))
    table = Store(tmp_path).table("t")
    table.append(named(6, 7), {"x": rows(6, 7)})
    for again in (table, Store(tmp_path).table("t")):
        np.testing.assert_array_equal(again.rows(named(7, 0), "x"), rows(7, 0))
    found = compact(Store(tmp_path))
    assert (found.rows, found.files) == (8, 2)


def test_compacting_keeps_rows_of_their_own_lengths(tmp_path: Path) -> None:
    ragged = [np.full((n % 3, 2), n, np.float32) for n in range(6)]
    table = Store(tmp_path).table("t")
    for n in (0, 2, 4):
        table.append(named(n, n + 1), {"cut": ragged[n : n + 2], "weight": rows(n, n + 1)})
    compact(Store(tmp_path))
    reader = Store(tmp_path).table("t").reader(named(*range(6)), "cut")
    for own, expected in zip(reader.arrays(range(6)), ragged, strict=True):
        np.testing.assert_array_equal(own, expected)
    assert reader.lengths().tolist() == [0, 1, 2, 0, 1, 2]


def test_a_row_in_two_shards_is_merged_once(tmp_path: Path) -> None:
    filled(tmp_path, (0, 1), (1, 2))
    assert compact(Store(tmp_path)).rows == 3
    np.testing.assert_array_equal(
        Store(tmp_path).table("t").rows(named(2, 1, 0), "x"), rows(2, 1, 0)
    )


def test_compacted_files_hold_no_more_rows_than_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compacting, "ROWS", 4)
    many(tmp_path, 3)
    assert compact(Store(tmp_path)).files == 4  # of 4, 4 and 1 rows, and the index
    assert Store(tmp_path).table("t").names() != []
    np.testing.assert_array_equal(Store(tmp_path).table("t").rows(named(8, 4), "x"), rows(8, 4))


@pytest.mark.parametrize("which", ["*.safetensors", "*.index"])
def test_damage_in_a_compacted_table_never_gives_wrong_rows(tmp_path: Path, which: str) -> None:
    many(tmp_path)
    compact(Store(tmp_path))
    (path,) = (tmp_path / "t").glob(which)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    table = Store(tmp_path).table("t")
    there = [n for n in range(18) if named(n)[0] in table]
    assert len(there) == (0 if which == "*.safetensors" else 18)  # a shard lists its rows itself
    assert table.damaged == [path]
    np.testing.assert_array_equal(
        table.rows(named(*there), "x").reshape(-1, 5), rows(*there).reshape(-1, 5)
    )


def test_a_damaged_shard_is_left_where_it_is_and_named(tmp_path: Path) -> None:
    many(tmp_path)
    bad = shards_of(tmp_path)[0]
    bad.write_bytes(bad.read_bytes()[:-1] + b"x")
    found = compact(Store(tmp_path))
    assert (found.rows, found.damaged) == (15, (str(bad),))
    assert bad.exists()


def aged(folder: Path) -> None:
    """Make all files old enough for a verification of theirs to be remembered."""
    for path in (folder / "t").iterdir():
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 60))


def test_a_shard_is_read_whole_once_on_a_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(tmp_path, 2)
    aged(tmp_path)
    table = Store(tmp_path).table("t")
    assert named(0)[0] in table
    assert named(3)[0] in table
    monkeypatch.setattr(FileDigests, "of", lambda *_: pytest.fail("a shard was read again"))
    table = Store(tmp_path).table("t")
    np.testing.assert_array_equal(table.rows(named(0, 5), "x"), rows(0, 5))


def test_a_shard_that_was_changed_is_verified_again(tmp_path: Path) -> None:
    many(tmp_path, 1)
    aged(tmp_path)
    assert named(0)[0] in Store(tmp_path).table("t")
    (path,) = shards_of(tmp_path)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert named(0)[0] not in Store(tmp_path).table("t")


def test_verify_reads_all_files_again(tmp_path: Path) -> None:
    many(tmp_path, 2)
    aged(tmp_path)
    assert verify(Store(tmp_path)).damaged == ()
    path, before = shards_of(tmp_path)[0], shards_of(tmp_path)[0].stat()
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a disk that rots
    assert named(0)[0] in Store(tmp_path).table("t")
    assert verify(Store(tmp_path)).damaged == (str(path),)


def test_a_folder_without_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="There is no store in"):
        verify(Store(tmp_path / "nothing"))


def test_the_command_compacts_and_verifies_a_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many(tmp_path)
    assert main(["store", "compact", "--store", str(tmp_path)]) == 0
    assert "1 tables, 18 rows in 2 files" in capsys.readouterr().out
    assert main(["store", "verify", "--store", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["damaged"] == []
    (path,) = shards_of(tmp_path)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert main(["store", "verify", "--store", str(tmp_path)]) == 3
    assert f"{path} can be deleted" in capsys.readouterr().err.replace("\n", " ").replace("  ", " ")
    assert main(["store", "verify", "--store", str(tmp_path / "none")]) == 1
