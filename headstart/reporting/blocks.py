"""What a section of the page is made of; the template knows how each is shown."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

Block = Any  # one of the values below


@dataclass(frozen=True)
class Text:
    """A paragraph. tone: "lead", "note", "empty" (says why there is nothing) or ""."""

    kind: ClassVar[str] = "text"
    text: str
    tone: str = ""


@dataclass(frozen=True)
class Heading:
    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Tile:
    """A number to be seen from afar, and what it is of."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True)
class Tiles:
    kind: ClassVar[str] = "tiles"
    tiles: Sequence[Tile]


@dataclass(frozen=True)
class TableBlock:
    """head: a cell a column. left: the columns that hold words, not numbers."""

    kind: ClassVar[str] = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    left: Sequence[int] = (0,)
    caption: str = ""


@dataclass(frozen=True)
class Bar:
    """A cell of a table: shares of the longest bar, each drawn as a stripe in turn."""

    shares: Sequence[float]


@dataclass(frozen=True)
class PictureCard:
    """A picture with lines below it. mark: "right", "wrong" or "". verdict: that mark in words."""

    picture: str
    lines: Sequence[str]
    mark: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class Gallery:
    kind: ClassVar[str] = "gallery"
    cards: Sequence[PictureCard]


@dataclass(frozen=True)
class Pairs:
    """Pictures that belong together, group by group."""

    kind: ClassVar[str] = "pairs"
    groups: Sequence[Sequence[PictureCard]]


@dataclass(frozen=True)
class Key:
    """A line of a legend: how it is drawn (classes of the style sheet) and what it means."""

    style: str
    text: str


@dataclass(frozen=True)
class Figure:
    svg: str
    title: str
    keys: Sequence[Key] = ()


@dataclass(frozen=True)
class Figures:
    kind: ClassVar[str] = "figures"
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Cell:
    """n: rows. share: of the rows of its class. title: for the pointer."""

    n: int
    share: float
    title: str


@dataclass(frozen=True)
class Confusion:
    kind: ClassVar[str] = "confusion"
    names: Sequence[str]
    cells: Sequence[Sequence[Cell]]
    truth: str
    predicted: str


@dataclass(frozen=True)
class Map:
    """views: a name and an SVG of marks each. facts: what the script shows of point i."""

    kind: ClassVar[str] = "map"
    views: Sequence[tuple[str, str]]
    keys: Sequence[Key]
    facts: dict[str, Any] = field(default_factory=dict)
    hint: str = ""


@dataclass(frozen=True)
class Section:
    id: str
    title: str
    blocks: Sequence[Block]
