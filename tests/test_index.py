"""`headstart index`: examples in files, tar shards and tables are the same examples."""

import io
import json
import os
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import ipc
from pyarrow import parquet as pq

import headstart as hs
from headstart.base.errors import DataError, SpecError
from headstart.base.location import Location, read_at
from headstart.base.store import Reader, StoredTable, digest
from headstart.cli.main import main
from headstart.data.index_file import Locations
from headstart.modalities.images.encoding import encoded_picture

Row = tuple[str, str, bytes]  # name, label, bytes
LONG_AGO = 1_600_000_000


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    rng = np.random.default_rng(0)
    labels = ["dark", "light"] * 8
    pictures = [rng.integers(0, 90, (9, 9, 3)) + 150 * (label == "light") for label in labels]
    return [
        (f"{label}/a.v{n}.png", label, encoded_picture(pixels.astype(np.uint8)))
        for n, (label, pixels) in enumerate(zip(labels, pictures, strict=True))
    ]


def as_folder(folder: Path, rows: list[Row]) -> Path:
    for name, _, data in rows:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return settled(folder)


def as_tar(path: Path, rows: list[Row], **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **how) as tar:
        for name, _, data in rows:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return settled(path)


def as_parquet(path: Path, rows: list[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {"picture": [row[2] for row in rows], "label": [row[1] for row in rows]}
    pq.write_table(pa.table(table), path, row_group_size=5)
    return settled(path)


def as_datasets(folder: Path, rows: list[Row]) -> Path:
    """The files that `Dataset.save_to_disk` of datasets writes, with one shard for each half."""
    features = {
        "image": {"_type": "Image"},
        "y": {"names": ["dark", "light"], "_type": "ClassLabel"},
    }
    kinds = {"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "y": pa.int64()}
    facts = {"huggingface": json.dumps({"info": {"features": features}})}
    schema, names = pa.schema(list(kinds.items()), metadata=facts), list[dict[str, str]]()
    folder.mkdir(parents=True)
    for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
        names.append({"filename": f"data-{len(names):05}-of-00002.arrow"})
        cells = [{"image": {"bytes": d, "path": n}, "y": int(y == "light")} for n, y, d in half]
        with ipc.new_stream(folder / names[-1]["filename"], schema) as file:
            file.write_table(pa.Table.from_pylist(cells, schema=schema))
    (folder / "state.json").write_text(json.dumps({"_data_files": names}))
    return settled(folder)


def settled(place: Path) -> Path:
    """Make files old: those changed within two seconds are never trusted."""
    for path in [place, *place.rglob("*")]:
        os.utime(path, (LONG_AGO, LONG_AGO))
    return place


def indexed(data: Path, **how: Any) -> hs.Dataset:
    out = data.with_suffix(".index.parquet")
    hs.index(data, out, **how)
    return hs.read(out)


def contents(data: hs.Dataset) -> dict[bytes, str]:
    """The label of each example by the digest of its bytes."""
    return {digest(read_at(e.source)): e.label for e in data}


WAYS = {
    "files": lambda folder, rows: as_folder(folder / "files", rows),
    "tar": lambda folder, rows: as_tar(folder / "own.tar", rows),
    "shards": lambda folder, rows: (
        as_tar(as_tar(folder / "tars/1.tar", rows[7:]).with_name("0.tar"), rows[:7]).parent
    ),
    "parquet": lambda folder, rows: as_parquet(folder / "t.parquet", rows),
    "datasets": lambda folder, rows: as_datasets(folder / "hf", rows),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_example_is_read_from_where_it_lies(way: str, tmp_path: Path, rows: list[Row]) -> None:
    data = indexed(WAYS[way](tmp_path, rows))
    assert contents(data) == {digest(row[2]): row[1] for row in rows}
    assert isinstance(data.sources, Locations)
    assert [e.source.id for e in data[[3, 1]]] == [data.ids[3], data.ids[1]]


def test_the_same_pictures_anywhere_are_computed_once(tmp_path: Path, rows: list[Row]) -> None:
    store, network = hs.Store(tmp_path / "store"), hs.load_backbone("tiny:32")
    forwards, features = list[int](), list[Any]()
    for way, write in WAYS.items():
        table = hs.extract(indexed(write(tmp_path / way, rows)), backbone=network, store=store)
        forwards.append(table.forwards)
        features.append(np.sort(table.x, axis=0).tobytes())
    assert forwards == [len(rows), 0, 0, 0, 0]
    assert len(set(features)) == 1


def test_what_has_not_changed_is_not_read_again(
    tmp_path: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, store = indexed(as_tar(tmp_path / "t.tar", rows)), hs.Store(tmp_path / "store")
    hs.extract(data, backbone="tiny:32", store=store)

    def read(place: Location) -> bytes:
        raise AssertionError(place)

    monkeypatch.setattr("headstart.backbones.inputs.read_at", read)
    assert hs.extract(data, backbone="tiny:32", store=store).hits == len(rows)
    with pytest.raises(AssertionError):
        hs.extract(data, backbone="tiny:32", store=hs.Store(store.root, reread=True))


def test_places_and_results_are_looked_up_by_slices(
    tmp_path: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.data.known_places.SLICE", 5)
    monkeypatch.setattr("headstart.features.extract.AHEAD", 5)  # two slices are kept for threads
    data, store = indexed(as_tar(tmp_path / "t.tar", rows)), hs.Store(tmp_path / "store")
    before = hs.extract(data, backbone="tiny:32", store=store)
    asked = list[int]()
    one_by_one = StoredTable.reader

    def counted(table: StoredTable, names: Sequence[bytes], column: str) -> Reader:
        asked.append(len(names))
        return one_by_one(table, names, column)

    monkeypatch.setattr(StoredTable, "reader", counted)
    again = hs.extract(data, backbone="tiny:32", store=store)
    assert (again.hits, again.x.tobytes()) == (len(rows), before.x.tobytes())
    assert asked.count(5) == 3 * 3  # of each whole slice the digests, the keys and the examples
    assert asked.count(1) < 2 * len(rows)  # by one, each row would ask three times


def test_a_changed_file_is_noticed(tmp_path: Path, rows: list[Row]) -> None:
    folder, store = as_folder(tmp_path / "f", rows), hs.Store(tmp_path / "store")
    data = indexed(folder)
    hs.extract(data, backbone="tiny:32", store=store)
    (folder / rows[0][0]).write_bytes(rows[1][2] + b"more")
    assert hs.extract(data, backbone="tiny:32", store=store).hits == len(rows)  # equal pixels
    (folder / rows[0][0]).write_bytes(encoded_picture(np.full((9, 9, 3), 7, np.uint8)))
    assert hs.extract(data, backbone="tiny:32", store=store).forwards == 1


def test_reread_finds_a_change_that_kept_size_and_time(tmp_path: Path, rows: list[Row]) -> None:
    folder, root = as_folder(tmp_path / "f", rows), tmp_path / "store"
    data = indexed(folder)
    before = hs.extract(data, backbone="tiny:32", store=hs.Store(root)).x
    path, pixels = folder / rows[0][0], np.zeros((9, 9, 3), np.uint8)
    old = len(path.read_bytes())
    new = encoded_picture(pixels)
    path.write_bytes(new + bytes(old - len(new)))
    settled(folder)
    unread = hs.extract(data, backbone="tiny:32", store=hs.Store(root)).x
    reread = hs.extract(data, backbone="tiny:32", store=hs.Store(root, reread=True)).x
    later = hs.extract(data, backbone="tiny:32", store=hs.Store(root)).x
    row = data.ids.index(rows[0][0])
    assert (unread == before).all()  # by its stamp, as documented
    assert (reread[row] != before[row]).any()
    assert (later == reread).all()


def test_a_tar_that_was_written_anew_is_never_read_at_old_places(
    tmp_path: Path, rows: list[Row]
) -> None:
    path = as_tar(tmp_path / "t.tar", rows)
    data = indexed(path)
    as_tar(path, rows[::-1])
    with pytest.raises(DataError, match=r"t\.tar has changed since it was indexed: run"):
        data[0].read()


def as_arrow(path: Path, rows: list[Row]) -> Path:
    table = pa.table({"picture": [row[2] for row in rows], "label": [row[1] for row in rows]})
    with ipc.new_file(path, table.schema) as file:
        file.write_table(table)
    return settled(path)


@pytest.mark.parametrize("write", [as_parquet, as_arrow])
def test_a_table_that_was_written_anew_is_refused_and_a_copy_is_not(
    tmp_path: Path, rows: list[Row], write: Callable[[Path, list[Row]], Path]
) -> None:
    path = write(tmp_path / f"t.{write.__name__[3:]}", rows)
    data, store = indexed(path), hs.Store(tmp_path / "store")
    os.utime(path, (LONG_AGO + 9, LONG_AGO + 9))  # as of a copy
    assert hs.extract(data, backbone="tiny:32", store=store).forwards == len(rows)
    write(path, rows[::-1])
    newer = indexed(path)
    assert hs.extract(newer, backbone="tiny:32", store=store).forwards == 0
    old = hs.extract(data, backbone="tiny:32", store=store)
    assert {item.path for item in old.left_out} == {*data.ids}
    assert f"{path.name} has changed since it was indexed: run" in old.left_out[0].reason
    with pytest.raises(DataError, match="has changed since it was indexed"):
        data[0].read()


def test_an_earlier_index_of_a_table_knows_its_size(tmp_path: Path, rows: list[Row]) -> None:
    path = as_parquet(tmp_path / "t.parquet", rows)
    place = Location("1", str(path), 0, column="picture", etag=f"{path.stat().st_size:x}-abc")
    assert read_at(place) == rows[0][2]
    with pytest.raises(DataError, match=r"t\.parquet has changed since it was indexed"):
        read_at(replace(place, etag="1-abc"))


def test_members_are_named_in_full(tmp_path: Path, rows: list[Row]) -> None:
    """WebDataset cuts names at the first dot, so that x.v1.png and x.v2.png become one."""
    long = "dark/" + 3 * "a long name/" + 90 * "x" + ".png"
    named = [*rows, ("./dark/кот.png", "dark", rows[0][2]), (long, "dark", rows[1][2])]
    for how in ({"format": tarfile.PAX_FORMAT}, {"format": tarfile.GNU_FORMAT}):
        data = indexed(as_tar(tmp_path / "t.tar", named, **how))
        assert {*data.ids} == {*(row[0] for row in rows), "dark/кот.png", long}
        assert all(e.read().shape == (9, 9, 3) for e in data)


def test_labels_may_lie_beside_the_examples(tmp_path: Path, rows: list[Row]) -> None:
    members = [(f"{n:03}.v1.png", "", row[2]) for n, row in enumerate(rows)]
    labels = [(f"{n:03}.v1.cls", "", row[1].encode()) for n, row in enumerate(rows)]
    as_tar(tmp_path / "s/train-0.tar", members[:9] + labels[:9])
    as_tar(tmp_path / "s/test-0.tar", members[9:] + labels[9:])
    data = indexed(tmp_path / "s")
    assert contents(data) == {digest(row[2]): row[1] for row in rows}
    assert data.parts == ("test",) * 7 + ("train",) * 9


def with_labels(numbers: Sequence[int], rows: list[Row], folder: str = "") -> list[Row]:
    """Members as WebDataset has them: a picture, and its label beside it."""
    pictures = [(f"{folder}{n:03}.png", "", rows[n][2]) for n in numbers]
    return pictures + [(f"{folder}{n:03}.cls", "", rows[n][1].encode()) for n in numbers]


@pytest.mark.parametrize("kind", ["tables", "tars", "one tar", "names before folders"])
def test_parts_are_those_of_folders(kind: str, tmp_path: Path, rows: list[Row]) -> None:
    folder, test = tmp_path / "d", [10, 11, 12]
    train = [n for n in range(len(rows)) if n not in test]
    if kind == "tables":
        as_parquet(folder / "train/0.parquet", [rows[n] for n in train])
        as_parquet(folder / "test/0.parquet", [rows[n] for n in test])
    elif kind == "tars":
        as_tar(folder / "train/0.tar", with_labels(train, rows))
        as_tar(folder / "test/0.tar", with_labels(test, rows))
    elif kind == "one tar":
        both = with_labels(train, rows, "train/") + with_labels(test, rows, "test/")
        as_tar(folder / "0.tar", both)
    else:
        as_tar(folder / "train/a-test-0.tar", with_labels(test, rows))
        as_tar(folder / "train/a-train-0.tar", with_labels(train, rows))
    data = indexed(folder)
    pictures = {digest(read_at(e.source)): part for e, part in zip(data, data.parts, strict=True)}
    own = {digest(rows[n][2]): "train" for n in train} | {digest(rows[n][2]): "test" for n in test}
    assert pictures == own


@pytest.mark.parametrize(
    ("label", "why"),
    [
        (b"", "the label is empty"),
        (b"\xe4gypten", "the label is not UTF-8"),
        (b"a\x1bb", "the label holds control characters"),
    ],
)
def test_a_bad_label_is_named_and_the_rest_of_its_shard_is_read(
    label: bytes, why: str, tmp_path: Path, rows: list[Row]
) -> None:
    members = with_labels(range(8), rows)
    members[8] = ("000.cls", "", label)
    as_tar(tmp_path / "0.tar", [("._000.cls", "", b"\0\5\x16\7"), *members])
    found = hs.index(tmp_path / "0.tar", tmp_path / "m.parquet")
    assert found.rows == 7
    named = {item.path: item.reason for item in found.left_out if not item.expected}
    assert set(named) == {"0.tar/000.cls", "000.png"}
    assert named["0.tar/000.cls"].startswith(why)


@pytest.mark.parametrize("name", ["a//1.png", "a/./1.png", "./a/1.png", "a/b\\1.png", "a/\x07.png"])
@pytest.mark.parametrize("beside", [True, False])
def test_members_with_untidy_names_are_read(
    name: str, beside: bool, tmp_path: Path, rows: list[Row]
) -> None:
    members = [(name, "", rows[0][2]), ("b/2.png", "", rows[1][2])]
    labels = [(name.replace(".png", ".cls"), "", b"x"), ("b/2.cls", "", b"y")]
    data = indexed(as_tar(tmp_path / "t.tar", members + labels * beside))
    assert {digest(read_at(e.source)) for e in data} == {digest(row[2]) for row in rows[:2]}


def test_one_name_in_two_shards_is_two_examples(tmp_path: Path, rows: list[Row]) -> None:
    (_, label, one), (_, other, two) = rows[:2]
    as_tar(tmp_path / "s/0.tar", [(f"{label}/a.png", "", one), (f"{other}/c.png", "", two)])
    as_tar(tmp_path / "s/1.tar", [(f"{label}/a.png", "", two)])
    data = indexed(tmp_path / "s")
    assert set(data.ids) == {"0.tar/dark/a.png", "light/c.png", "1.tar/dark/a.png"}
    assert all(e.read() is not None for e in data)


def test_a_damaged_shard_is_named_and_the_others_are_read(
    tmp_path: Path, rows: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    as_tar(tmp_path / "s/0.tar", rows[:8])
    bad = as_tar(tmp_path / "s/1.tar", rows[8:])
    data = bytearray(bad.read_bytes())
    data[3 * 1024 : 3 * 1024 + 100] = b"?" * 100
    bad.write_bytes(data)
    (tmp_path / "s/2.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    (tmp_path / "s/3.tar").write_bytes(b"no tar" * 200)
    assert main(["index", str(tmp_path / "s"), "--out", str(tmp_path / "m.parquet")]) == 3
    told = capsys.readouterr().err
    for words in ("1.tar: is damaged at byte", "2.tar: is compressed (gzip)", "3.tar: is no tar"):
        assert words in told
    assert len(hs.read(tmp_path / "m.parquet")) > 8


def as_table(path: Path, **columns: Sequence[object]) -> Path:
    """A table of small files, one for each row, beside the given columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [f"{path.stem} {n}".encode() for n in range(len(next(iter(columns.values()))))]
    pq.write_table(pa.table({"image": images, **columns}), path)
    return settled(path)


def test_labels_of_later_shards_are_kept(tmp_path: Path, rows: list[Row]) -> None:
    """The columns of the index are not those of the first shard alone."""
    as_tar(tmp_path / "s/a.tar", with_labels(range(4), rows)[:4])
    as_tar(tmp_path / "s/b.tar", with_labels(range(4, 8), rows))
    found = hs.index(tmp_path / "s", tmp_path / "s.parquet", unlabelled=True)
    assert pq.read_table(found.path).column("label").to_pylist()[4:] == [
        row[1] for row in rows[4:8]
    ]
    as_table(tmp_path / "t/0.parquet", label=["x", "y"])
    as_table(tmp_path / "t/1.parquet", label=["x", "y"], weight=[2, 3], split=["val", "test"])
    data = indexed(tmp_path / "t")
    assert (data.weights, data.parts) == ((1, 1, 2, 3), ("", "", "val", "test"))


SHARES = {"p:x": [1, 0.25, 0.0], "p:y": [0.0, 0.75, 1]}


@pytest.mark.parametrize(
    "columns",
    [
        SHARES,
        SHARES | {"label": ["x", "y", "y"]},
        {"label": ["x", "y", "y"], "probability": [0.1, 0.75, 1.0]},
        {"probability": [0.1, 0.75, 1.0]},
        {"wet": [1, 0, 1], "cold": [True, True, False], "width": [9, 8, 7]},
    ],
)
def test_labels_of_a_table_mean_the_same_in_its_index(
    columns: dict[str, Sequence[object]], tmp_path: Path
) -> None:
    data = indexed(as_table(tmp_path / "t.parquet", **columns))
    table = pa.table({"text": ["a", "b", "c"], **columns})
    pq.write_table(table, tmp_path / "usual.parquet")
    usual = hs.read(tmp_path / "usual.parquet")
    assert (data.target, data.labels, data.soft) == (usual.target, usual.labels, usual.soft)
    assert data.choice == usual.choice


def test_a_table_without_any_label_is_said_to_have_none(tmp_path: Path) -> None:
    path = as_table(tmp_path / "t.parquet", label=["", None, ""])
    hs.index(path, tmp_path / "m.parquet", unlabelled=True)
    with pytest.raises(DataError, match=r"m\.parquet needs the column label .* without labels"):
        hs.read(tmp_path / "m.parquet")


def test_an_index_knows_the_words_for_parts(tmp_path: Path) -> None:
    path = as_table(tmp_path / "t.parquet", label=list("xyxy"), part=["training", "Val", None, ""])
    assert indexed(path).parts == ("train", "val", "", "")
    as_table(path, label=list("xy"), part=["train", "fold1"])
    with pytest.raises(DataError, match=r"t\.index\.parquet: .*part.*fold1"):
        indexed(path)


def test_ids_that_occur_in_several_tables_are_told_apart(tmp_path: Path) -> None:
    as_table(tmp_path / "d/train-0.parquet", label=["x", "y", "x"], id=[0, 1, 7])
    as_table(tmp_path / "d/test-0.parquet", label=["x", "y"], id=["0", "1"])
    data = indexed(tmp_path / "d")
    assert data.ids == (
        *("test-0.parquet/0", "test-0.parquet/1"),
        *("train-0.parquet/0", "train-0.parquet/1", "7"),
    )
    assert data[0].source.source.endswith("test-0.parquet")


def test_tables_are_indexed_again_with_their_index_among_them(tmp_path: Path) -> None:
    as_table(tmp_path / "d/p-0.parquet", label=["x", "y"])
    out = tmp_path / "d/index.parquet"
    before, again = (hs.index(tmp_path / "d", out) for _ in range(2))
    assert before == again
    assert hs.read(out).ids == ("1", "2")


@pytest.mark.parametrize("name", ["S.TAR", "T.PARQUET", "T.ARROW"])
def test_endings_are_read_in_any_case(name: str, tmp_path: Path, rows: list[Row]) -> None:
    ways: dict[str, Callable[[Path, list[Row]], Path]]
    ways = {"S.TAR": as_tar, "T.PARQUET": as_parquet, "T.ARROW": as_arrow}
    data = indexed(ways[name](tmp_path / name, rows))
    assert contents(data) == {digest(row[2]): row[1] for row in rows}


def test_an_index_means_the_same_as_a_manifest_of_its_rows(tmp_path: Path) -> None:
    texts = [f"text {n}" for n in range(6)]
    table = {"text": texts, "value": [0.5 * n for n in range(6)], "group": list("aabbcc")}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    data, usual = indexed(tmp_path / "t.parquet"), hs.read(tmp_path / "t.parquet")
    assert (data.target, data.labels, data.groups) == (usual.target, usual.labels, usual.groups)
    assert [e.read() for e in data] == texts == [e.read() for e in usual]
    assert {digest(read_at(e.source)) for e in data} == {digest(text.encode()) for text in texts}


@pytest.mark.long
def test_every_command_takes_an_index(
    tmp_path: Path, rows: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    as_tar(tmp_path / "s/0.tar", rows)
    index, run = str(tmp_path / "m.parquet"), str(tmp_path / "run")
    store = ["--store", str(tmp_path / "store")]
    easy = ["--backbone", "tiny:32", *store]
    assert main(["index", str(tmp_path / "s"), "--out", index]) == 0
    assert f"headstart train {index} --out RUN" in capsys.readouterr().out
    assert main(["check", index, "--backbone", "none", *store]) == 0
    words = ["--strategy", "extract", "--insights", "none", "--val", "0.2", "--test", "0.2"]
    assert main(["train", index, "--out", run, *easy, *words]) == 0
    capsys.readouterr()
    assert main(["predict", run, index]) == 0
    assert capsys.readouterr().out.count(".png") == len(rows)
    assert main(["evaluate", run, index, *store]) == 0
    assert main(["report", run]) == 0
    assert main(["explain", run, index, "--out", str(tmp_path / "why"), *store]) == 0


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("m.csv", "An index is a Parquet file; name --out with .parquet, not 'm.csv'"),
        ("t.parquet", "t.parquet is there already, and is no index: name another --out"),
    ],
)
def test_nothing_else_is_overwritten(out: str, words: str, tmp_path: Path, rows: list[Row]) -> None:
    as_folder(tmp_path / "f", rows)
    as_parquet(tmp_path / "t.parquet", rows)
    with pytest.raises(SpecError, match=words.replace("--", "")):
        hs.index(tmp_path / "f", tmp_path / out)
    hs.index(tmp_path / "f", tmp_path / "m.parquet")
    hs.index(tmp_path / "f", tmp_path / "m.parquet")  # an index is replaced


def test_a_table_says_which_column_it_lacks(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [b"x"], "b": [b"y"], "c": [1]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"one column with the bytes.*has a, b, c.*Name it with"):
        hs.index(tmp_path / "t.parquet", tmp_path / "m.parquet")
    with pytest.raises(DataError, match=r"c of t\.parquet is a column of int64"):
        hs.index(tmp_path / "t.parquet", tmp_path / "m.parquet", column="c")
    assert hs.index(tmp_path / "t.parquet", tmp_path / "m.parquet", column="b", label="c").rows == 1


def test_rows_without_labels_are_named_or_listed_to_predict(
    tmp_path: Path, rows: list[Row]
) -> None:
    as_tar(tmp_path / "t.tar", [(name.partition("/")[2], "", data) for name, _, data in rows])
    with pytest.raises(DataError, match=r"labelled examples.*in no class folder.*unlabelled"):
        hs.index(tmp_path / "t.tar", tmp_path / "m.parquet")
    assert hs.index(tmp_path / "t.tar", tmp_path / "m.parquet", unlabelled=True).rows == len(rows)
    with pytest.raises(DataError, match=r"m\.parquet.*without labels"):
        hs.read(tmp_path / "m.parquet")
    how: dict[str, Any] = {"backbone": "tiny:8", "strategy": "extract", "store": None}
    model = hs.fit(as_folder(tmp_path / "f", rows), val=0.2, test=0.2, **how).model
    found = hs.predict(model, tmp_path / "m.parquet", store=None)
    assert len(found) == len(rows)
    assert not found.known.any()


def test_a_picture_without_bytes_is_the_file_that_its_row_names(
    tmp_path: Path, rows: list[Row]
) -> None:
    as_folder(tmp_path / "f", rows)
    cells = [{"bytes": None if n % 2 else d, "path": f"f/{p}"} for n, (p, _, d) in enumerate(rows)]
    table = pa.table({"image": cells, "label": [row[1] for row in rows]})
    pq.write_table(table, tmp_path / "t.parquet")
    data = indexed(tmp_path / "t.parquet")
    network = hs.load_backbone("tiny:32")
    assert hs.extract(data, backbone=network, store=None).left_out == ()
    assert [e.source.is_file for e in data] == [False, True] * 8
