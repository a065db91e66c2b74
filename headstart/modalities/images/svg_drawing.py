"""The look of the SVG charts that Headstart writes, as CSS, and their drawing as a PNG."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from xml.etree import ElementTree

from PIL import Image, ImageColor, ImageDraw

from headstart.modalities.images.lettering import font, world_font

SCALE = 3  # pixels of a PNG per unit of the drawing: sharp on a slide and in print
FINER = 2  # times as many are drawn, and averaged
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif"
INK, SOFT, RULE, GREY, BLUE, ORANGE, PAPER = (
    *("#1a1f26", "#56606c", "#d9dfe6", "#8a94a0", "#0067a8", "#b95000", "#ffffff"),
)
# What Pillow's own font lacks, and what stands for it.
SIMPLE = {"\N{MINUS SIGN}": "-", "–": "-", "—": "-", "→": ">", "↓": "", "…": "...", "\xa0": " "}
SIMPLE_FONT = str.maketrans(SIMPLE)


@dataclass(frozen=True)
class Style:
    """How a mark is drawn. dash: lengths of strokes and gaps."""

    stroke: str = ""
    fill: str = ""
    width: float = 1.0
    dash: tuple[float, ...] = ()
    opacity: float = 1.0
    size: float = 12.5


# By the class of a mark, or of the group around it and the name of the element.
STYLES = {
    "grid": Style(RULE),
    "axis": Style(GREY),
    "start": Style(INK, width=1.5, dash=(2, 3)),
    "tick": Style(fill=SOFT),
    "label": Style(fill=SOFT),
    "count": Style(fill=SOFT, size=10.5),
    "marked": Style(fill=INK),
    "title": Style(fill=INK, size=15),
    "key": Style(fill=SOFT, size=12.5),
    "cell": Style(fill=BLUE),
    "empty": Style(fill="#f5f7f9"),
    "inside": Style(fill=INK, size=12),
    "on": Style(fill=PAPER, size=12),
    "same": Style(INK, width=1.5),
    "name": Style(fill=SOFT, size=12),
    "train line": Style(BLUE, width=2.2),
    "train polygon": Style(fill=BLUE, opacity=0.16),
    "train circle": Style(fill=BLUE),
    "val line": Style(ORANGE, width=2.2, dash=(7, 4)),
    "val polygon": Style(fill=ORANGE, opacity=0.16),
    "val rect": Style(fill=ORANGE),
    "ideal line": Style(GREY, width=2.2, dash=(2, 4)),
    "start line": Style(INK, width=1.5, dash=(2, 3)),
    "at circle": Style(fill=ORANGE),
    "dots circle": Style(fill=BLUE, opacity=0.5),
    "out circle": Style(fill=ORANGE, opacity=0.8),
    "bars rect": Style(fill=BLUE, opacity=0.75),
    "range": Style(width=1.4, opacity=0.75),
}
COLOURS = {"train": BLUE, "val": ORANGE, "ideal": GREY}


@dataclass(frozen=True)
class Mark:
    """An element of a drawing with its style. numbers: its attributes. points: of a path."""

    kind: str
    style: Style
    numbers: Mapping[str, float] = field(default_factory=dict)
    points: Sequence[tuple[float, float]] = ()
    text: str = ""
    anchor: str = "start"


def bitmap_of(svg: str) -> bytes:
    """Draw an SVG of `reporting.standalone` as a PNG, SCALE pixels per unit."""
    root = ElementTree.fromstring(svg)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    fine = SCALE * FINER
    page = Image.new("RGB", (round(width * fine), round(height * fine)), PAPER)
    pen = ImageDraw.Draw(page, "RGBA")  # which blends colours of less than full opacity
    for shift, mark in _marks(root, (), (0.0, 0.0)):
        _DRAWN[mark.kind](pen, mark, shift, fine)
    file = io.BytesIO()
    page.reduce(FINER).save(file, "PNG")
    return file.getvalue()


def has_letters(text: str) -> bool:
    """Return whether this machine has a font for the text."""
    return text.translate(SIMPLE_FONT).isascii() or world_font(12) is not None


def css() -> str:
    """Return the styles as CSS; what `_shown` leaves out is hidden."""
    rules = [f"text{{font-family:{FONT}}}", "polyline,line{fill:none;stroke-linejoin:round}"]
    for name, style in STYLES.items():
        group, _, element = name.partition(" ")
        elements = ("line", "polyline") if element == "line" else (element,)
        chosen = ",".join(f".{group} {one}" if one else f".{group}" for one in elements)
        rules.append(f"{chosen}{{{_declared(style)}}}")
    rules += [
        f".{name} .range{{stroke:{colour};stroke-dasharray:none}}"
        for name, colour in COLOURS.items()
    ]
    rules.append(".dot rect,.val .dot circle,.ideal .dot,.start .dot,.at line{display:none}")
    rules.append(".val .dot rect{display:inline}.same{fill:none}")
    return "".join(rules)


def _declared(style: Style) -> str:
    properties = {
        "stroke": style.stroke,
        "fill": style.fill,
        "stroke-width": f"{style.width:g}" if style.stroke or not style.fill else "",
        "stroke-dasharray": " ".join(f"{n:g}" for n in style.dash),
        "opacity": f"{style.opacity:g}" if style.opacity < 1 else "",
        "font-size": f"{style.size:g}px" if style.fill else "",
    }
    return ";".join(f"{name}:{value}" for name, value in properties.items() if value)


def _marks(
    element: ElementTree.Element, around: tuple[str, ...], shift: tuple[float, float]
) -> Iterator[tuple[tuple[float, float], Mark]]:
    """Yield the marks of an element with how far they are moved. around: classes outside it."""
    for child in element:
        own = tuple(child.attrib.get("class", "").split())
        moved = re.fullmatch(r"translate\(([\d.]+) ([\d.]+)\)", child.attrib.get("transform", ""))
        at = (shift[0] + float(moved[1]), shift[1] + float(moved[2])) if moved else shift
        name = child.tag.rpartition("}")[2]
        if name == "g":
            yield from _marks(child, (*around, *own), at)
        elif (mark := _mark_of(name, child, own, around)) is not None:
            yield at, mark


def _mark_of(
    name: str, child: ElementTree.Element, own: tuple[str, ...], around: tuple[str, ...]
) -> Mark | None:
    if name not in ("line", "polyline", "polygon", "circle", "rect", "text"):
        return None
    style = _style_of(name, own, around)
    if style is None:
        return None
    if "fill-opacity" in child.attrib:
        style = replace(style, opacity=float(child.attrib["fill-opacity"]))
    numbers = {k: float(v) for k, v in child.attrib.items() if re.fullmatch(r"-?[\d.]+", v)}
    pairs = [pair.split(",") for pair in child.attrib.get("points", "").split()]
    points = [(float(x), float(y)) for x, y in pairs]
    anchor = child.attrib.get("text-anchor", "start")
    return Mark(name, style, numbers, points, child.text or "", anchor)


def _style_of(name: str, own: tuple[str, ...], around: tuple[str, ...]) -> Style | None:
    """Return the style of an element, as the CSS gives it; None if it is not shown."""
    if "dot" in around and not _shown(name, around):
        return None
    if "range" in own:
        colour = next((COLOURS[group] for group in reversed(around) if group in COLOURS), INK)
        return replace(STYLES["range"], stroke=colour)
    if own and (style := STYLES.get(own[-1])) is not None:
        return style
    kind = "line" if name == "polyline" else name
    for group in reversed(around):
        if (style := STYLES.get(f"{group} {kind}")) is not None:
            return style
    return None


def _shown(name: str, around: tuple[str, ...]) -> bool:
    """Return whether a series has this mark: `val` squares, the others circles or none."""
    if {"ideal", "start"} & {*around}:
        return False
    return name == ("rect" if "val" in around else "circle")


def _ink(colour: str, mark: Mark) -> tuple[int, ...] | None:
    """Return a colour with the opacity of a mark, None for no colour."""
    return (*ImageColor.getrgb(colour), round(255 * mark.style.opacity)) if colour else None


def _at(x: float, y: float, shift: tuple[float, float], fine: int) -> tuple[float, float]:
    return (x + shift[0]) * fine, (y + shift[1]) * fine


def _line(pen: Any, mark: Mark, shift: tuple[float, float], fine: int) -> None:
    n = mark.numbers
    if not mark.points and "x1" not in n:  # a curve of nothing
        return
    ends = mark.points or [(n["x1"], n["y1"]), (n["x2"], n["y2"])]
    points, wide = [_at(x, y, shift, fine) for x, y in ends], max(1, round(mark.style.width * fine))
    for stroke in _dashed(points, [length * fine for length in mark.style.dash]):
        pen.line(stroke, _ink(mark.style.stroke, mark), wide, joint="curve")


def _dashed(
    points: Sequence[tuple[float, float]], dash: Sequence[float]
) -> Iterator[list[tuple[float, float]]]:
    """Yield the strokes of a path: all of it without a dash."""
    if not dash:
        yield list(points)
        return
    on, left = True, dash[0]
    for (x, y), (to_x, to_y) in zip(points, points[1:], strict=False):
        length, done = ((to_x - x) ** 2 + (to_y - y) ** 2) ** 0.5, 0.0
        while length - done > 1e-6:
            step = min(left, length - done)
            a, b = done / length, (done + step) / length
            if on:
                yield [
                    (x + (to_x - x) * a, y + (to_y - y) * a),
                    (x + (to_x - x) * b, y + (to_y - y) * b),
                ]
            done, left = done + step, left - step
            if left <= 1e-6:
                on = not on
                left = dash[0 if on else 1]


def _polygon(pen: Any, mark: Mark, shift: tuple[float, float], fine: int) -> None:
    pen.polygon([_at(x, y, shift, fine) for x, y in mark.points], _ink(mark.style.fill, mark))


def _circle(pen: Any, mark: Mark, shift: tuple[float, float], fine: int) -> None:
    n = mark.numbers
    x, y = _at(n["cx"], n["cy"], shift, fine)
    r = n["r"] * fine
    pen.ellipse((x - r, y - r, x + r, y + r), _ink(mark.style.fill, mark))


def _rect(pen: Any, mark: Mark, shift: tuple[float, float], fine: int) -> None:
    n = mark.numbers
    x, y = _at(n.get("x", 0.0), n.get("y", 0.0), shift, fine)
    box = (x, y, x + n["width"] * fine, y + n["height"] * fine)
    fill, stroke = _ink(mark.style.fill, mark), _ink(mark.style.stroke, mark)
    pen.rectangle(box, fill, stroke, max(1, round(mark.style.width * fine)) if stroke else 0)


def _text(pen: Any, mark: Mark, shift: tuple[float, float], fine: int) -> None:
    n, size = mark.numbers, round(mark.style.size * fine)
    own = world_font(size)
    text = mark.text if own is not None else mark.text.translate(SIMPLE_FONT)
    anchor = {"start": "ls", "middle": "ms", "end": "rs"}[mark.anchor]
    place = _at(n["x"], n["y"], shift, fine)
    pen.text(place, text, _ink(mark.style.fill, mark), own or font(size), anchor=anchor)


_DRAWN = {
    "line": _line,
    "polyline": _line,
    "polygon": _polygon,
    "circle": _circle,
    "rect": _rect,
    "text": _text,
}
