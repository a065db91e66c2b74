"""Show values in Python and in notebooks: aligned text, small pieces of HTML, data frames."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from headstart.base.display import display
from headstart.base.errors import MissingPackage

WIDTH, HEIGHT = 320, 140  # of a chart, in pixels
COLOURS = ("#1f77b4", "#d95f02", "#1b9e77", "#7570b3", "#e7298a", "#66a61e")


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Return aligned lines, one per row.

    >>> print(text_table([("accuracy", "0.9"), ("n", "12")]))
    accuracy  0.9
    n         12
    """
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    lines = (
        "  ".join(f"{cell:{wide}}" for cell, wide in zip(row, widths, strict=False)) for row in rows
    )
    return "\n".join(display(line.rstrip()) for line in lines)


def html_table(rows: Iterable[Sequence[str]], header: Sequence[str] = ()) -> str:
    """Return a table of texts, each escaped.

    >>> html_table([("cat", "<3")])
    '<table><tr><td>cat</td><td>&lt;3</td></tr></table>'
    """
    lines = [_line("th", header)] if header else []
    return f"<table>{''.join([*lines, *(_line('td', row) for row in rows)])}</table>"


def escape(text: str) -> str:
    """Return a text for HTML."""
    from html import escape as escaped  # late, as it is slow to import for `--help`

    return escaped(text)


def _line(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(display(cell))}</{tag}>' for cell in cells)}</tr>"


def html_image(png: bytes, caption: str = "", width: int = 160) -> str:
    """Return a picture with a caption. png: its file. width: in pixels."""
    import base64

    data = base64.b64encode(png).decode()
    text = escape(display(caption))
    return (
        f'<figure style="display:inline-block;margin:4px;width:{width}px">'
        f'<img width="{width}" alt="{text}" src="data:image/png;base64,{data}">'
        f'<figcaption style="overflow-wrap:anywhere">{text}</figcaption></figure>'
    )


def html_curves(title: str, curves: Mapping[str, Sequence[float]]) -> str:
    """Return a line chart. curves: the values at epochs 1, 2, …, by name."""
    values = [value for curve in curves.values() for value in curve]
    if not values:
        return ""
    low, high = min(values), max(values)
    most = max(max(map(len, curves.values())) - 1, 1)
    drawn, legend = list[str](), list[str]()
    for (name, curve), colour in zip(curves.items(), COLOURS * len(curves), strict=False):
        places = " ".join(
            f"{i / most * WIDTH:.1f},{(high - v) / (high - low or 1) * HEIGHT:.1f}"
            for i, v in enumerate(curve)
        )
        drawn.append(f'<polyline points="{places}" fill="none" stroke="{colour}"/>')
        legend.append(f'<span style="color:{colour}">{escape(display(name))}</span>')
    return (
        f'<figure style="display:inline-block;margin:8px"><figcaption>{escape(title)}: '
        f'{" ".join(legend)} ({low:.3g} to {high:.3g})</figcaption><svg width="{WIDTH}" '
        f'height="{HEIGHT}" style="overflow:visible">{"".join(drawn)}</svg></figure>'
    )


def data_frame(columns: Mapping[str, Sequence[Any]]) -> Any:
    """Return a pandas DataFrame; raises MissingPackage if pandas is not installed."""
    try:
        import pandas
    except ImportError as error:
        raise MissingPackage("pandas", purpose="A data frame", extra="pandas") from error
    return pandas.DataFrame(columns)
