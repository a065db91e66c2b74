"""One function makes a cell of any reader a label; what is no text is refused, never guessed."""

import datetime
import os
import unicodedata
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.base.cells import as_label, as_text
from headstart.base.encodings import guessed_encoding
from headstart.base.errors import DataError
from headstart.data.dataset import Dataset
from headstart.modalities.reading import read
from headstart.targets.predictions import read_predictions

pyarrow = pytest.importorskip("pyarrow")
NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
EAST = {"cp1251": "Кошка", "koi8-r": "Собака", "cp1252": "café", "shift_jis": "ねこ", "gbk": "小狗"}


def pictures(folder: Path, *names: str) -> None:
    for level, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), level).save(folder / name, "PNG")


def labels(data: Dataset) -> list[str]:
    return [data.classes[label] for label in data.labels]


def parquet(folder: Path, **columns: Any) -> Path:
    """A manifest of the pictures 0.png, 1.png, … with these columns."""
    from pyarrow import parquet

    rows = len(next(iter(columns.values())))
    names = [f"{i}.png" for i in range(rows)]
    pictures(folder, *names)
    parquet.write_table(pyarrow.table({"path": names} | columns), folder / "list.parquet")
    return folder / "list.parquet"


def csv(folder: Path, text: str | bytes, encoding: str = "utf-8") -> Path:
    pictures(folder, "a.png", "b.png")
    data = text if isinstance(text, bytes) else text.encode(encoding)
    (folder / "list.csv").write_bytes(data)
    return folder / "list.csv"


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        *((missing, "") for missing in (None, float("nan"), Decimal("nan"), "", " \t", "\u00a0")),
        *((missing, "") for missing in (np.float32("nan"), np.datetime64("NaT", "ns"))),
        *((same, "cat") for same in ("cat", " cat\n", "\ufeffcat", b"cat", np.str_("cat"))),
        *((same, NFC) for same in (NFC, NFD, NFD.encode())),
        *((same, "3") for same in (3, 3.0, Decimal("3.00"), "3", np.int8(3), np.float16(3))),
        *((same, "0.1") for same in (0.1, np.float32(0.1), Decimal("0.10"), np.float16(0.1))),
        *((same, "-2") for same in (-2, -2.0)),
        *((same, "True") for same in (True, np.bool_(True), "True")),
        (2**64 - 1, "18446744073709551615"),
        (-0.0, "0"),
        (1e300, "1e+300"),
        (float("inf"), "inf"),
        *((same, "2024-01-31") for same in (datetime.date(2024, 1, 31), "2024-01-31")),
        (datetime.datetime(2024, 1, 31), "2024-01-31"),
        (datetime.datetime(2024, 1, 31, 12, 30), "2024-01-31T12:30:00"),
        (np.datetime64("2024-01-31T12:30:00.500000000"), "2024-01-31T12:30:00.5"),
        *((kept, kept) for kept in ("a/", "./a", "a//b", "..", "a\\b", "C:\\x", "a b", "nan")),
    ],
    ids=repr,
)
def test_a_cell_is_one_text_whatever_its_type(cell: object, text: str) -> None:
    assert as_text(cell) == text


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (["cat"], "is a list"),
        ({"a": 1}, "is a dict"),
        (datetime.timedelta(1), "is a timedelta"),
        (datetime.time(1), "is a time,"),
        ("Кошка".encode("cp1251"), r"is not UTF-8, but looks like windows-1251"),
        (b"\xff\xfe", "is not UTF-8"),
    ],
)
def test_a_cell_that_is_no_text_is_refused_with_its_type(cell: object, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        as_text(cell)


@pytest.mark.parametrize("bad", ["a\x1b[2Jb", "a\nb", "a\tb", "a\x00b", "a\x9bb", "a\u202eb"])
def test_a_class_with_control_characters_is_refused(tmp_path: Path, bad: str) -> None:
    with pytest.raises(DataError, match=r"holds control characters \(a\\x") as refused:
        as_label(bad)
    assert str(refused.value).isprintable()
    if "\0" not in bad:
        pictures(tmp_path, f"{bad}/1.png", "cat/2.png")
        with pytest.raises(DataError, match=r"'a\\x.*b' holds control characters"):
            read(tmp_path)


def test_a_folder_called_nothing_but_blanks_is_a_class_with_a_name(tmp_path: Path) -> None:
    pictures(tmp_path, " /1.png", "cat/2.png")
    assert read(tmp_path).classes == (" ", "cat")


def test_every_column_of_parquet_becomes_labels(tmp_path: Path) -> None:
    date, time = datetime.date(2024, 1, 31), datetime.datetime(2024, 1, 31, 9, 0, 1)
    for n, (column, text) in enumerate(
        [
            (pyarrow.array([1.0, 2.0]), "1"),
            (pyarrow.array([0.1, 2], pyarrow.float32()), "0.1"),
            (pyarrow.array([True, False]), "True"),
            (pyarrow.array([b"cat", b"dog"]), "cat"),
            (pyarrow.array([b"cat", b"dog"], pyarrow.binary(3)), "cat"),
            (pyarrow.array(["cat ", "dog"]).dictionary_encode(), "cat"),
            (pyarrow.array([NFD, "dog"], pyarrow.large_string()), NFC),
            (pyarrow.array([Decimal("1.0"), Decimal("2")]), "1"),
            (pyarrow.array([date, date]), "2024-01-31"),
            (pyarrow.array([date, date], pyarrow.date64()), "2024-01-31"),
            (pyarrow.array([time, time], pyarrow.timestamp("ns")), "2024-01-31T09:00:01"),
            (pyarrow.array([2**48, 0], pyarrow.timestamp("ms")), "10889-08-02T05:31:50.656"),
            (pyarrow.array([time, time], pyarrow.timestamp("us", "UTC")), "2024-01-31T09:00:01Z"),
            (pyarrow.array([0, 1], pyarrow.timestamp("s", "UTC")), "1970-01-01Z"),
        ]
    ):
        (tmp_path / str(n)).mkdir()
        assert labels(read(parquet(tmp_path / str(n), label=column)))[0] == text


def test_missing_groups_strata_and_parts_tie_nothing_together(tmp_path: Path) -> None:
    missing = pyarrow.array([float("nan"), None, 3.0])
    data = read(parquet(tmp_path, label=["a", "b", "a"], group=missing, stratum=missing))
    assert data.groups == data.strata == ("", "", "3")
    assert not read(csv(tmp_path, "path,label,part,group\na.png,x, , \nb.png,y,,\n")).groups


def test_a_missing_label_is_refused_with_its_row(tmp_path: Path) -> None:
    for column in ([1.0, float("nan")], ["cat", None], ["cat", "  "]):
        with pytest.raises(DataError, match="row 2: the label is empty"):
            read(parquet(tmp_path, label=pyarrow.array(column)))


def invalid(text: bytes) -> Any:
    """A column of strings whose bytes are not UTF-8, as careless writers make them."""
    return pyarrow.array([text, text]).view(pyarrow.string())


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (lambda: pyarrow.array([["cat"], ["dog"]]), "row 1: the label is a list<.*>, where one"),
        (lambda: pyarrow.array([{"a": 1}, None]), "row 1: the label is a struct<"),
        (lambda: pyarrow.array([1, 2], pyarrow.duration("s")), r"the label is a duration\[s\]"),
        (lambda: pyarrow.array([1, 2], pyarrow.time64("ns")), r"the label is a time64\[ns\]"),
        (lambda: invalid("Кошка".encode("cp1251")), "the label is not UTF-8.*windows-1251"),
        (lambda: pyarrow.array([b"\xff\xd8", b""]), "the label is not UTF-8"),
        (lambda: pyarrow.nulls(2), "row 1: the label is empty"),
    ],
)
def test_parquet_that_holds_no_label_is_refused_by_row(
    tmp_path: Path, column: Callable[[], Any], reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        read(parquet(tmp_path, label=column()))


def test_parquet_with_two_columns_of_a_name_or_cut_short_is_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path, label=["a", "b"], Label=["c", "d"])
    assert labels(read(path)) == ["a", "b"]  # the exact name goes first
    with pytest.raises(DataError, match="two columns named 'label'"):
        read(parquet(tmp_path, Label=["a", "b"], LABEL=["c", "d"]))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_csv_of_any_marked_encoding_and_delimiter_is_read(
    tmp_path: Path, encoding: str, delimiter: str
) -> None:
    text = f"Path,label \na.png,{NFD} \n,\n\nb.png,Кошка\n".replace(",", delimiter)
    assert labels(read(csv(tmp_path, text, encoding))) == [NFC, "Кошка"]
    stated = f"sep={delimiter}\n{text}"
    assert labels(read(csv(tmp_path, stated, encoding))) == [NFC, "Кошка"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_big_endian_utf16_and_any_line_end_are_read(tmp_path: Path, end: str) -> None:
    text = f"\ufeffpath,label{end}a.png,Кошка{end}b.png,x{end}"
    assert labels(read(csv(tmp_path, text, "utf-16-be"))) == ["Кошка", "x"]


def test_quotation_marks_after_blanks_are_no_part_of_a_label(tmp_path: Path) -> None:
    assert read(csv(tmp_path, b'path, label\n"a.png", "cat"\n"b.png", "dog, wild"\n')).classes == (
        "cat",
        "dog, wild",
    )
    assert read(csv(tmp_path, b'path,label\na.png,5" disk\nb.png,x\n')).classes == ('5" disk', "x")


@pytest.mark.parametrize("encoding", EAST)
def test_another_encoding_is_refused_and_guessed(tmp_path: Path, encoding: str) -> None:
    text = f"path,label\na.png,cat\nb.png,{EAST[encoding]}\n"
    guess = encoding.replace("_", "-")
    with pytest.raises(DataError, match=f"(?i)looks like .*{guess}.*: save the text as UTF-8"):
        read(csv(tmp_path, text, encoding))


def test_a_guess_between_encodings_that_read_alike_names_them_all() -> None:
    assert guessed_encoding("кот".encode("cp1251")).startswith("windows-1251")
    assert guessed_encoding("고양이".encode("euc_kr")).count(" or ") >= 1
    assert guessed_encoding(bytes(range(128, 256))) == "an unknown encoding"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"path,label\na.png\n", "row 2: fewer fields than the header"),
        (b"path,label\n\na.png,cat,\n", "row 3: more fields than the header"),
        (b"path,label\na.png,c\0t\n", "row 2: holds a NUL"),
        ("path,label\na.png,cat\n".encode("utf-16-le"), "looks like UTF-16 without its"),
        (b"path,label,label\na.png,cat,cat\n", "two columns named 'label'"),
        (b"a.png,cat\n", "named in its first row; it has no column path and no label"),
        (b"path,label\na.png," + b"x" * 200_000, "row 2: the label may hold 131,072 characters"),
        ("path,label\na.png,cat\n".encode("utf-16")[:-1], "is not a CSV file that can be read"),
        (b"path,label\na.png,a\x1b[31mb\n", r"row 2: the label holds control characters"),
        (b"path,label,part\na.png,a,\xf2\n", "is not UTF-8"),
        (b"PK\3\4\x14\0\6\0" + bytes(range(256)), "is a ZIP archive, as Excel's .xlsx is. Save"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1" + bytes(99), "is an Excel file"),
        (b"PAR1\x15\4", "is a Parquet file"),
    ],
)
def test_a_csv_that_is_wrong_is_refused_in_one_sentence(
    tmp_path: Path, text: bytes, reason: str
) -> None:
    with pytest.raises(DataError, match=reason) as refused:
        read(csv(tmp_path, text))
    assert str(refused.value).isprintable()


def test_labels_never_pass_through_a_path(tmp_path: Path) -> None:
    names = ["a/", "./a", "a", "a\\b", "a\\\\b", "C:\\x"]
    pictures(tmp_path, *(f"{i}.png" for i in range(6)))
    rows = "".join(f'{i}.png,"{name}"\n' for i, name in enumerate(names))
    assert labels(read(csv(tmp_path, "path,label\n" + rows))) == names
    pictures(tmp_path / "folders", "a\\b/1.png", f"{NFD} /1.png", f"{NFC}/2.png")
    assert read(tmp_path / "folders").classes == ("a\\b", NFC)


def test_a_path_is_found_as_its_file_is_spelled(tmp_path: Path) -> None:
    pictures(tmp_path, "in/a.png", f"{NFD}.png", " odd .png")
    text = f'path,label\nin\\a.png,1\n" in/a.png ",2\n{NFC}.png,3\n" odd .png",4\n'
    with pytest.raises(DataError, match=r"'in/a\.png' appears more than once"):
        read(csv(tmp_path, text))
    data = read(csv(tmp_path, text.replace('" in/a.png ",2\n', "")))
    assert [source.exists() for source in data.sources] == [True] * 3
    assert data.ids == ("in/a.png", f"{NFD}.png", " odd .png")


def test_a_path_of_raw_bytes_is_read_where_such_a_file_is(tmp_path: Path) -> None:
    pictures(tmp_path, "x.png")
    os.rename(tmp_path / "x.png", os.path.join(os.fsencode(tmp_path), b"\xe9.png"))
    assert read(csv(tmp_path, b"path,label\n\xe9.png,cat\na.png,dog\n")).ids[0] == r"\xe9.png"
    with pytest.raises(DataError, match="is not UTF-8, but looks like"):
        read(csv(tmp_path, b"path,label\n\xe8.png,cat\na.png,dog\n"))


@pytest.mark.parametrize(
    "header", ["path,label,predicted", "path;label;predicted", "Path,LABEL, predicted"]
)
def test_labels_of_predictions_are_compared_as_those_of_a_manifest(
    tmp_path: Path, header: str
) -> None:
    rows = f"1,cat ,cat\n2,{NFC},{NFD}\n3,{NFD}, {NFC}\n4, ,cat\n"
    separated = rows.replace(",", ";") if ";" in header else rows
    (tmp_path / "p.csv").write_text(f"{header}\n{separated}", encoding="utf-16")
    found = read_predictions(tmp_path / "p.csv")
    assert found.classes == ("café", "cat")
    assert found.correct.tolist() == [True, True, True, False]
    (tmp_path / "p.csv").write_text(f"path,label,score:cat ,score:{NFD}\n1,cat,1,0\n2,{NFC},0,1\n")
    found = read_predictions(tmp_path / "p.csv")
    assert (found.classes, found.correct.tolist()) == (("cat", NFC), [True, True])


def test_numbers_that_name_classes_are_the_same_with_a_point(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("path,label,predicted\n1,3.0,3\n2,,4\n3,4.0,4\n4,0.5,0.5\n")
    found = read_predictions(tmp_path / "p.csv")
    assert found.classes == ("0.5", "3", "4")
    assert found.correct.tolist() == [True, False, True, True]
    (tmp_path / "p.csv").write_text("path,label,score:3,score:4\n1,3.0,1,0\n2,,0,1\n")
    assert read_predictions(tmp_path / "p.csv").labels.tolist() == [0, -1]
    (tmp_path / "p.csv").write_text("path,label,predicted\n1,1.0,2.0\n2,2.0,1.0\n")
    assert read_predictions(tmp_path / "p.csv").classes == ("1.0", "2.0")
