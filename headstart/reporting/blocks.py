"""Blocks of a section of the page; the template renders each by its kind."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

Block = Any  # one of the values below


@dataclass(frozen=True)
class Text:
    """A paragraph. tone: "lead", "note", "empty" (the reason why nothing is shown) or ""."""

    kind: ClassVar[str] = "text"
    text: str
    tone: str = ""


@dataclass(frozen=True)
class Heading:
    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Tile:
    """A number in large type, with its label."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True)
class Tiles:
    kind: ClassVar[str] = "tiles"
    tiles: Sequence[Tile]


@dataclass(frozen=True)
class TableBlock:
    """head: one cell per column. left: columns of text, aligned to the left."""

    kind: ClassVar[str] = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    left: Sequence[int] = (0,)
    caption: str = ""


@dataclass(frozen=True)
class Bar:
    """A stacked bar in a table cell; shares: of the longest bar, one per segment."""

    shares: Sequence[float]


@dataclass(frozen=True)
class PictureCard:
    """A picture with lines below it. mark: "right", "wrong" or "". verdict: the mark as text."""

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
    kind: ClassVar[str] = "pairs"
    groups: Sequence[Sequence[PictureCard]]


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
class Figures:
    kind: ClassVar[str] = "figures"
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Cell:
    """n: rows. share: of the rows of the class. title: tooltip."""

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
    """views: pairs (name, SVG of marks). facts: data of the points for the script."""

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
