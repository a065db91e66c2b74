"""Text that came from outside, made safe to print: names of files, classes, cards, columns."""

from pathlib import Path


def display(text: Path | str) -> str:
    r"""Return a path or a text as printable characters only, on one line.

    Control characters (escape sequences, newlines, tabs), marks that turn the direction of writing
    and bytes that are not UTF-8 become \xNN. In a Path a backslash is doubled, so that no two
    paths read the same; a str keeps its backslashes, so a text that is printable stays as it is.

    >>> display(Path("caf\udce9/1.png"))
    'caf\\xe9/1.png'
    >>> display("cat\x1b[2J")
    'cat\\x1b[2J'
    """
    if isinstance(text, Path):
        return "".join(r"\\" if c == "\\" else _printable(c) for c in text.as_posix())
    return text if text.isprintable() else "".join(map(_printable, text))


def _printable(character: str) -> str:
    if character.isprintable() or character == "\u3000":
        return character
    data = character.encode("utf-8", "surrogatepass")
    if "\udc80" <= character <= "\udcff":  # a byte that is not UTF-8, as os.fsdecode marks it
        data = bytes([ord(character) - 0xDC00])
    return "".join(f"\\x{byte:02x}" for byte in data)
