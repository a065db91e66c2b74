"""Make text from outside safe to print: names of files, classes, cards, columns."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

# Control characters (escape sequences, line breaks), bidirectional marks, and surrogates.
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

ESCAPED = re.compile(r"\\\\|(?:\\x[0-9a-f]{2})+")  # what `display` writes for escaped characters


class Verbatim(str):
    """A text of the user in a table, such as a class or a folder, which is printed in no other
    language."""


def display(text: Path | str) -> str:
    r"""Return a path or a text as printable characters only, on one line.

    Control characters, bidirectional marks and bytes that are not UTF-8 become \xNN. In a Path
    backslashes are doubled, so that two paths never look the same; a printable str is unchanged.

    >>> display(Path("caf\udce9/1.png"))
    'caf\\xe9/1.png'
    >>> display("cat\x1b[2J")
    'cat\\x1b[2J'
    """
    if isinstance(text, Path):
        name = text.as_posix()
        if name.isprintable():  # the fast path: there may be 100,000 names
            return name.replace("\\", r"\\")
        return "".join(r"\\" if c == "\\" else _printable(c) for c in name)
    return text if text.isprintable() else "".join(map(_printable, text))


def displayed(text: str) -> str:
    r"""Return, as text, the Path that `display` was given.

    >>> displayed(display(Path("caf\udce9/a\nb/c\\d.png"))) == "caf\udce9/a\nb/c\\d.png"
    True
    """
    return ESCAPED.sub(lambda found: "\\" if found[0] == r"\\" else _unescaped(found[0]), text)


def source_of(data: Path) -> str:
    """Return the resolved path of the data as a run records it, in characters of UTF-8."""
    return os.fsencode(data.resolve()).decode("utf-8", "backslashreplace")


def _unescaped(run: str) -> str:
    return bytes.fromhex(run.replace(r"\x", "")).decode("utf-8", "surrogateescape")


def _printable(character: str) -> str:
    if character.isprintable() or character == "\u3000":
        return character
    data = character.encode("utf-8", "surrogatepass")
    if "\udc80" <= character <= "\udcff":  # a byte that is not UTF-8, decoded by os.fsdecode
        data = bytes([ord(character) - 0xDC00])
    return "".join(f"\\x{byte:02x}" for byte in data)


def escaped_json(text: str) -> str:
    r"""Return equivalent JSON with control characters as \uNNNN, except line breaks."""
    return CONTROLS.sub(lambda c: c[0] if c[0] == "\n" else f"\\u{ord(c[0]):04x}", text)


def escaped_page(text: str) -> str:
    """Return a multi-line text with control characters other than tabs escaped as by `display`."""
    return CONTROLS.sub(lambda c: c[0] if c[0] in "\n\t" else _printable(c[0]), text)


def by_reason(items: Iterable[tuple[str, str]]) -> list[tuple[list[str], str]]:
    """Return the names that share a reason, with it, in the order of the first of each.

    >>> by_reason([("a", "empty"), ("b", "damaged"), ("c", "empty")])
    [(['a', 'c'], 'empty'), (['b'], 'damaged')]
    """
    names = dict[str, list[str]]()
    for name, reason in items:
        names.setdefault(reason, []).append(name)
    return [(found, reason) for reason, found in names.items()]
