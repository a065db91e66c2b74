"""Aligned tables for the screen, and numbers as people read them."""

from collections.abc import Mapping, Sequence

Row = Mapping[str, object]


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Columns in the order in which they first appear."""
    return list(dict.fromkeys(key for row in rows for key in row))


def cells_of(rows: Sequence[Row]) -> list[list[str]]:
    """Each row's values as text, "" where it has none."""
    return [[shown(row.get(c, "")) for c in columns_of(rows)] for row in rows]


def numeric(rows: Sequence[Row]) -> list[bool]:
    """Of each column, whether it holds a number."""
    return [any(is_number(row.get(c)) for row in rows) for c in columns_of(rows)]


def table(rows: Sequence[Row]) -> str:
    """The rows aligned, numbers to the right.

    >>> print(table([{"what": "a", "ms": 1.5}, {"what": "bc", "ms": 20.0}]))
    what    ms
    a     1.50
    bc    20.0
    """
    lines = [columns_of(rows), *cells_of(rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(w) if right else cell.ljust(w)
            for cell, w, right in zip(line, widths, numeric(rows), strict=True)
        ).rstrip()
        for line in lines
    )


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table of a Markdown page."""
    rules = ["---:" if number else "---" for number in numeric(rows)]
    lines = [columns_of(rows), rules, *cells_of(rows)]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def shown(value: object) -> str:
    """Three digits that count: 0.00123, 0.500, 1.23, 12.3, 123, 12,345; yes and no; "" for None."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return ""
    if not isinstance(value, float):
        return f"{value:,}" if is_number(value) else str(value)
    if (size := abs(value)) < 1:
        return f"{value:#.3g}"
    return f"{value:,.{2 if size < 10 else 1 if size < 100 else 0}f}"
