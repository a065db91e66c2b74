"""Charts as SVG files of their own, with their title, legend and styles inside."""

import re

from markupsafe import Markup, escape

from headstart.modalities.images.svg_drawing import PAPER, css
from headstart.reporting.blocks import Figure

TITLE = 34  # height of the title
LINE = 20  # height of a line of the legend
EDGE = 10
KEY = 38  # width of a mark in the legend
LETTER = 7.2  # width of a letter of the legend, about


def standalone_svg(figure: Figure) -> str:
    """Return a chart as an SVG file with its title, its legend and its colours, on white."""
    width, height = _size(figure.svg)
    keys, top = _legend(figure, width)
    drawing = re.sub(r"^<svg[^>]*>|</svg>$", "", str(figure.svg))
    title = Markup(str(figure.title)).striptags()
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top + height}" '
        f'width="{width}" height="{top + height}" role="img" aria-label="{escape(title)}">'
        f"<style>{css()}</style>"
        f'<rect width="{width}" height="{top + height}" fill="{PAPER}"/>'
        f'<text class="title" x="{EDGE}" y="22">{escape(_capital(title))}</text>{keys}'
        f'<g transform="translate(0 {top})">{drawing}</g></svg>\n'
    )


def _size(svg: str) -> tuple[float, float]:
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert found is not None
    return float(found[1]), float(found[2])


def _legend(figure: Figure, width: float) -> tuple[str, float]:
    """Return the legend, its entries in lines, and the height that it and the title take."""
    x, y, parts = float(EDGE), float(TITLE + 6), list[str]()
    for key in figure.keys:
        text = Markup(str(key.text)).striptags()
        wide = KEY + LETTER * len(text) + 14
        if x > EDGE and x + wide > width:
            x, y = float(EDGE), y + LINE
        parts.append(
            f'<g class="series {escape(key.style)}" transform="translate({x:.0f} {y - 11:.0f})">'
            '<line x1="1" x2="29" y1="7" y2="7"/><g class="dot">'
            '<circle cx="15" cy="7" r="3.6"/><rect x="11.7" y="3.7" width="6.6" height="6.6"/>'
            f'</g></g><text class="key" x="{x + KEY:.0f}" y="{y:.0f}">{escape(text)}</text>'
        )
        x += wide
    return "".join(parts), y + (LINE if figure.keys else 0) - 8


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
