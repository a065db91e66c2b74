"""Blocks of a section of the page; the template renders each by the name of its class."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from headstart.modalities.images.thumbnails import Album
from headstart.reporting.words import Words, data, path_line


class PageBlock:
    """A part of a section."""

    @property
    def kind(self) -> str:
        return type(self).__name__


@dataclass(frozen=True)
class Text(PageBlock):
    """A paragraph. tone: "lead", "note", "empty" (the reason why nothing is shown) or ""."""

    text: str
    tone: str = ""


@dataclass(frozen=True)
class Heading(PageBlock):
    text: str


@dataclass(frozen=True)
class Tile:
    """A number in large type, with its label."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True)
class Tiles(PageBlock):
    tiles: Sequence[Tile]


@dataclass(frozen=True)
class TableBlock(PageBlock):
    """head: one cell per column. left: columns of text, aligned to the left."""

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    left: Sequence[int] = (0,)
    caption: str = ""

    @property
    def folds(self) -> bool:
        """Whether a narrow screen shows each row as lines: what is wider than a phone."""
        short = any(isinstance(cell, Bar) for row in self.rows for cell in row)
        return len(self.head) > (3 if short else 2)


@dataclass(frozen=True)
class Bar:
    """A stacked bar in a table cell; shares: of the longest bar, one per segment."""

    shares: Sequence[float]


@dataclass(frozen=True)
class ExampleCard:
    """A picture (a data URI), or an excerpt of what is no picture, with lines below it.

    mark: "right", "wrong" or "".
    """

    picture: str
    lines: Sequence[str]
    mark: str = ""
    excerpt: str = ""


@dataclass(frozen=True)
class Gallery(PageBlock):
    cards: Sequence[ExampleCard]


@dataclass(frozen=True)
class LargeCards(PageBlock):
    """Cards whose pictures are large."""

    cards: Sequence[ExampleCard]


@dataclass(frozen=True)
class Pairs(PageBlock):
    groups: Sequence[Sequence[ExampleCard]]


@dataclass(frozen=True)
class Key:
    """An entry of a legend: its CSS classes and its meaning."""

    style: str
    text: str


@dataclass(frozen=True)
class Figure:
    svg: str
    title: str
    keys: Sequence[Key] = ()


@dataclass(frozen=True)
class Figures(PageBlock):
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Confusion(PageBlock):
    """rows: the number of pictures by true class and predicted class."""

    names: Sequence[str]
    rows: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Matrix(PageBlock):
    """rows: counts by two names, such as the rows that have both labels. corner: says which."""

    names: Sequence[str]
    rows: Sequence[Sequence[int]]
    corner: str


@dataclass(frozen=True)
class Map(PageBlock):
    """views: pairs (name, SVG of marks). facts: data of the points for the script."""

    views: Sequence[tuple[str, str]]
    keys: Sequence[Key]
    facts: dict[str, Any] = field(default_factory=dict)
    hint: str = ""


def card_of(album: Album, path: str, *lines: str) -> ExampleCard:
    """Return the card of an example, with its path as the last line."""
    lines = (*lines, path_line(path))
    return ExampleCard(album.picture(path), lines, excerpt=album.excerpt(path))


def answer_card(
    w: Words, uri: str, path: str, name: str, score: float, label: str = "", excerpt: str = ""
) -> ExampleCard:
    """Return the card of a prediction: class `name` with its score; label: the true class.

    uri, excerpt: the picture, or the beginning of what is no picture.
    """
    lines = [Markup("{} <span class=number>{}</span>").format(data(name), w.percent(score))]
    if label and label != name:
        lines.append(w("test.really", label=data(label)))
    mark = "" if not label else "right" if label == name else "wrong"
    return ExampleCard(uri, [*lines, path_line(path)], mark, excerpt)
