"""Charts as SVG strings; colours are CSS classes, so one drawing serves light and dark pages."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

from headstart.reporting.blocks import Figure, Key
from headstart.targets.target import Chart

WIDTH, HEIGHT = 440, 290  # about as wide as a phone, so that its text stays legible there
LEFT, RIGHT, TOP, BOTTOM = 56, 22, 22, 46
STRIP = 62  # height of the counts below a chart
MAP = 600  # side of the map's square
EDGE = 14  # free margin of the map
MARKS = 5  # shapes of points, see `mark`
LONGEST = 24  # letters of a name beside a matrix
COLOURS = 8  # of the style sheet: c0 to c7

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """points: (x, y); NaN for a missing point. style: CSS classes. notes: tooltips of the points.
    band, ranges: (low, high) for each point, drawn as an area or as a bar at each point. dots:
    whether points are marked."""

    points: Sequence[Point]
    style: str
    notes: Sequence[str] = ()
    band: Sequence[tuple[float, float]] = ()
    dots: bool = True
    ranges: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Counts:
    """How many rows are behind each part of the x axis, drawn below it. bins: (low, high, n)."""

    label: str
    bins: Sequence[tuple[float, float, int]]


@dataclass(frozen=True)
class Cloud:
    """Many points (x, y) without tooltips. style: CSS classes."""

    points: Sequence[Point]
    style: str = "dots"


@dataclass(frozen=True)
class Axis:
    """low, high: the ends of the axis. show: formats a value."""

    label: str
    low: float
    high: float
    show: Callable[[float], str]


def axis(label: str, values: Sequence[float], show: Callable[[float], str]) -> Axis:
    """Return an axis around all values, with round ends; within 0 and 1 if all values are."""
    real = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
    low, high = min(real), max(real)
    shares = low >= 0 and high <= 1
    if high - low < 1e-9:
        low, high = low - 0.05, high + 0.05
    if shares:
        low, high = max(low, 0.0), min(high, 1.0)
    step = _step(low, high)
    return Axis(label, math.floor(low / step) * step, math.ceil(high / step) * step, show)


def line_chart(
    title: str,
    x: Axis,
    y: Axis,
    series: Sequence[Series],
    keys: Sequence[Key],
    marks: Sequence[tuple[float, str]] = (),
    dots: Sequence[Cloud] = (),
    counts: Counts | None = None,
) -> Figure:
    """Draw series and dots over axes, with a legend of `keys`. marks: vertical lines (x, text).
    counts: drawn below the x axis."""
    fx, fy = _scale(x, LEFT, WIDTH - RIGHT), _scale(y, HEIGHT - BOTTOM, TOP)
    parts = [_grid(x, y, fx, fy), *(_mark(fx(at), text) for at, text in marks)]
    parts += [_series(s, fx, fy) for s in series]
    parts += [_dots(d, fx, fy) for d in dots]
    parts += [_strip(counts, fx)] if counts else []
    height = HEIGHT + (STRIP if counts else 0)
    return Figure(_svg(WIDTH, height, "chart", title, "".join(parts)), title, keys)


def _strip(counts: Counts, fx: Callable[[float], float]) -> str:
    """Draw the counts as bars below the axis, each with its number over it."""
    foot, room = HEIGHT + STRIP - 6, STRIP - 32
    most = max((n for *_, n in counts.bins), default=1)
    parts = [_text(4, HEIGHT + 8, counts.label, "start", "label")]
    for low, high, n in counts.bins:
        left, right = max(fx(low), LEFT), fx(high)
        tall = max(room * n / most, 1.0)
        parts.append(f'<g class="bars">{_rect(left, right, foot, foot - tall)}</g>')
        parts.append(_text((left + right) / 2, foot - tall - 3, str(n), "middle", "count"))
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" {_at("y", foot)}/>')
    return "".join(parts)


def drawn(
    chart: Chart, named: Callable[[str, str, str], Markup], show: Callable[[float], str]
) -> Figure:
    """Draw a target's chart. named: the text for a prefix, a name and its English text."""
    title = named("chart", chart.name, chart.title)
    xs, ys = ([p[i] for p in chart.points] for i in (0, 1))
    if chart.diagonal:
        xs = ys = xs + ys
    if chart.kind == "bars":
        ys = [0.0, *ys]
        xs = [*xs, min(xs, default=0) - _bar(xs) / 2, max(xs, default=1) + _bar(xs) / 2]
    x = axis(plain_text(named("axis", chart.x, chart.x)), xs, show)
    y = axis(plain_text(named("axis", chart.y, chart.y)), ys, show)
    fx, fy = _scale(x, LEFT, WIDTH - RIGHT), _scale(y, HEIGHT - BOTTOM, TOP)
    parts = [_grid(x, y, fx, fy)]
    if chart.diagonal:
        low, high = max(x.low, y.low), min(x.high, y.high)
        parts.append(_series(Series([(low, low), (high, high)], "ideal", dots=False), fx, fy))
    parts.append(_marks(chart, fx, fy, _bar([p[0] for p in chart.points])))
    svg = _svg(WIDTH, HEIGHT, "chart", plain_text(title), "".join(parts))
    return Figure(
        svg,
        title,
        [Key("ideal", named("chart_key", "diagonal", "equal"))] if chart.diagonal else (),
    )


def matrix_chart(
    title: str, names: Sequence[str], rows: Sequence[Sequence[int]], axes: tuple[str, str]
) -> Figure:
    """Draw counts by row and column, the stronger coloured the larger their share of the row.

    axes: what the rows and the columns are. The columns have numbers, which stand before the names
    of the rows too.
    """
    side = max(14.0, min(56.0, (WIDTH - 150) / len(names)))
    shown = [
        f"{i}  {name if len(name) <= LONGEST else name[: LONGEST - 1] + '…'}"
        for i, name in enumerate(names, 1)
    ]
    left = 14 + 6.6 * max(map(len, shown))
    parts = [_text(4, 12, f"{axes[0]} ↓   {axes[1]} →", "start", "label")]
    for i, row in enumerate(rows):
        y = 36 + i * side
        parts.append(_text(left + (i + 0.5) * side, 30, str(i + 1), "middle", "name"))
        parts.append(_text(left - 6, y + side / 2 + 4, shown[i], "end", "name"))
        parts += [
            _cell(left + j * side, y, side, n, n / max(1, sum(row)), i == j)
            for j, n in enumerate(row)
        ]
    width, height = round(max(left + len(names) * side + 8, WIDTH)), round(44 + len(names) * side)
    return Figure(_svg(width, height, "chart", title, "".join(parts)), title)


def _cell(x: float, y: float, side: float, n: int, share: float, same: bool) -> str:
    """Draw a cell of a matrix with its count, framed on the diagonal."""
    box = f'x="{x + 1:.1f}" y="{y + 1:.1f}" width="{side - 2:.1f}" height="{side - 2:.1f}"'
    parts = [f'<rect class="empty" {box}/>']
    if n:
        parts.append(f'<rect class="cell" fill-opacity="{share:.2f}" {box}/>')
    if same:
        parts.append(f'<rect class="same" {box}/>')
    if n and side >= 20:
        style = "on" if share > 0.5 else "inside"
        parts.append(_text(x + side / 2, y + side / 2 + 4, str(n), "middle", style))
    return "".join(parts)


def plain_text(text: Markup) -> str:
    """Return a text without the HTML of `words.data`, for use in a drawing."""
    return text.striptags()


def _marks(
    chart: Chart, fx: Callable[[float], float], fy: Callable[[float], float], wide: float
) -> str:
    if chart.kind == "line":
        return _series(Series(chart.points, "train", dots=False), fx, fy)
    if chart.kind == "bars":
        bars = (_rect(fx(x - wide / 2), fx(x + wide / 2), fy(0), fy(y)) for x, y in chart.points)
        return f'<g class="bars">{"".join(bars)}</g>'
    return _dots(Cloud(chart.points), fx, fy)


def _rect(left: float, right: float, foot: float, top: float) -> str:
    """Draw a bar with a gap of a pixel to the next one."""
    return (
        f'<rect x="{left + 0.5:.1f}" width="{max(right - left - 1, 1):.1f}" '
        f'y="{min(foot, top):.1f}" height="{abs(foot - top):.1f}"/>'
    )


def _dots(dots: Cloud, fx: Callable[[float], float], fy: Callable[[float], float]) -> str:
    circles = (f'<circle cx="{fx(x):.1f}" cy="{fy(y):.1f}" r="2.6"/>' for x, y in dots.points)
    return f'<g class="{dots.style}">{"".join(circles)}</g>'


def _bar(xs: Sequence[float]) -> float:
    """Return the width of a bar: the least distance of two bars."""
    ordered = sorted({*xs})
    return min((b - a for a, b in pairwise(ordered)), default=1.0)


def scatter(
    points: Sequence[Point], groups: Sequence[int], label: str, styles: Sequence[str]
) -> Markup:
    """Draw points (x, y), scaled to a square, with the styles of their groups, as of `mark`."""
    shapes = [style.split(" ") for style in styles]
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    fx = _scale(Axis("", min(xs), max(xs), str), EDGE, MAP - EDGE)
    fy = _scale(Axis("", min(ys), max(ys), str), MAP - EDGE, EDGE)
    marks = "".join(
        f'<use href="#{shapes[group][0]}" class="{shapes[group][1]}" data-g="{group}" '
        f'x="{fx(px):.1f}" y="{fy(py):.1f}"/>'
        for (px, py), group in zip(points, groups, strict=True)
    )
    return _svg(MAP, MAP, "points", label, marks)


def spark(shares: Sequence[float]) -> Markup:
    """Draw shares from 0 to 1 as a sparkline for a table cell."""
    width, height, edge = 96, 26, 3
    fx = _scale(Axis("", 0, max(1, len(shares) - 1), str), edge, width - edge)
    fy = _scale(Axis("", 0, 1, str), height - edge, edge)
    points = [(fx(i), fy(share)) for i, share in enumerate(shares)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    x, y = points[-1]
    inside = (
        f'<line class="grid" x1="0" x2="{width}" {_at("y", fy(0))}/>'
        f'<g class="series train"><polyline points="{path}"/>'
        f'<g class="dot"><circle cx="{x:.1f}" cy="{y:.1f}" r="2.4"/></g></g>'
    )
    return Markup(
        f'<svg class="spark" viewBox="0 0 {width} {height}" aria-hidden="true">{inside}</svg>'
    )


def shade(group: int, of: int) -> str:
    """Return the shape and the CSS class of one of several groups with an order, as of `mark`."""
    return f"m0 s{round(group * (COLOURS - 1) / max(of - 1, 1))}"


def mark(group: int) -> str:
    """Return the shape and the CSS class of a group's mark, on the map and in the legend."""
    return f"m{group // COLOURS % MARKS} c{group % COLOURS}"


def _svg(width: int, height: int, style: str, label: str, inside: str) -> Markup:
    return Markup(
        f'<svg class="{style}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(label)}">{inside}</svg>'
    )


def _scale(a: Axis, start: float, end: float) -> Callable[[float], float]:
    span = (a.high - a.low) or 1.0
    return lambda v: start + (v - a.low) / span * (end - start)


def _step(low: float, high: float, about: int = 5) -> float:
    """Return a step of 1, 2 or 5 times a power of ten for about `about` steps."""
    rough = ((high - low) or 1.0) / about
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)


def _ticks(a: Axis) -> list[float]:
    step = _step(a.low, a.high)
    first = math.ceil(a.low / step - 1e-9)
    return [k * step for k in range(first, math.floor(a.high / step + 1e-9) + 1)]


def _grid(x: Axis, y: Axis, fx: Callable[[float], float], fy: Callable[[float], float]) -> str:
    foot, parts = HEIGHT - BOTTOM, list[str]()
    for v in _ticks(y):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" {_at("y", fy(v))}/>')
        parts.append(_text(LEFT - 7, fy(v) + 4, y.show(v), "end"))
    whole = x.high - x.low >= 4
    for v in _ticks(x):
        if whole or abs(v - round(v)) < 1e-9 or x.high <= 1:
            parts.append(_text(fx(v), foot + 17, x.show(v), "middle"))
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" {_at("y", foot)}/>')
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 9, x.label, "middle", "label"))
    parts.append(_text(4, 12, y.label, "start", "label"))
    return "".join(parts)


def _at(name: str, v: float) -> str:
    return f'{name}1="{v:.1f}" {name}2="{v:.1f}"'


def _text(x: float, y: float, text: str, anchor: str, style: str = "tick") -> str:
    return (
        f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )


def _mark(x: float, text: str) -> str:
    """Draw a vertical line, its text on the side that has room."""
    right = x < WIDTH * 0.6
    words = _text(x + (6 if right else -6), TOP - 5, text, "start" if right else "end", "marked")
    return f'<line class="start" {_at("x", x)} y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>{words}'


def _series(s: Series, fx: Callable[[float], float], fy: Callable[[float], float]) -> str:
    parts = list[str]()
    if s.band:
        upper = [(x, high) for (x, _), (_, high) in zip(s.points, s.band, strict=True)]
        lower = [(x, low) for (x, _), (low, _) in zip(s.points, s.band, strict=True)]
        around = " ".join(f"{fx(x):.1f},{fy(y):.1f}" for x, y in [*upper, *reversed(lower)])
        parts.append(f'<polygon class="band" points="{around}"/>')
    parts += [
        f'<line class="range" {_at("x", fx(x))} y1="{fy(low):.1f}" y2="{fy(high):.1f}"/>'
        for (x, _), (low, high) in zip(s.points, s.ranges, strict=False)
    ]
    real = [(x, y) for x, y in s.points if math.isfinite(y)]
    path = " ".join(f"{fx(x):.1f},{fy(y):.1f}" for x, y in real)
    parts.append(f'<polyline points="{path}"/>')
    if s.dots:
        notes = list(s.notes) or [""] * len(s.points)
        parts += [
            _dot(fx(x), fy(y), text)
            for (x, y), text in zip(s.points, notes, strict=True)
            if math.isfinite(y)
        ]
    return f'<g class="series {s.style}">{"".join(parts)}</g>'


def _dot(x: float, y: float, note: str) -> str:
    """Draw a circle and a square; the style sheet shows one of them, by series."""
    title = f"<title>{escape(note)}</title>" if note else ""
    return (
        f'<g class="dot">{title}<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6"/>'
        f'<rect x="{x - 3.3:.1f}" y="{y - 3.3:.1f}" width="6.6" height="6.6"/></g>'
    )
