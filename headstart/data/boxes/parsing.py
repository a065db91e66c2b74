"""Parse annotation files that may be damaged or hostile: JSON, XML and the YAML of data.yaml."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from headstart.base.display import display
from headstart.base.errors import DataError
from headstart.data.dataset import LeftOut

MAX_BYTES = 2_000_000_000  # COCO's largest file has 450 MB; parsed, it takes ten times as much
MAX_DEPTH = 64  # elements inside each other
KEY = re.compile(
    r"""(?P<indent> *)(?P<key>"[^"]*"|'[^']*'|[^\s'"#:][^:]*?)\s*:(?:\s+(?P<rest>.*))?$"""
)
ITEM = re.compile(r" *-\s+(?P<rest>.*)$")


def read_bytes(path: Path) -> bytes:
    """Return the content of an annotation file; DataError if it is too large or unreadable."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise DataError(
                f"An annotation file has at most {MAX_BYTES / 1e9:.0f} GB; {display(path)} has "
                f"{size / 1e9:.1f} GB. Split it into parts."
            )
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{display(path)} cannot be read: {error.strerror or error}.") from error


def read_text(path: Path) -> str:
    """Return the text of an annotation file; DataError unless it is UTF-8."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{display(path)} must be text in UTF-8, and is not. Save it so."
        ) from error


def read_json(path: Path) -> Any:
    """Return the value of a JSON file; raises DataError for anything else, or too deep nesting."""
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise DataError(f"{display(path)} must be JSON, and is not: {display(why)}.") from error


def read_xml(path: Path) -> Element:
    """Return the root of an XML file; DataError as of `parse_xml`."""
    return parse_xml(read_bytes(path), display(path))


def parse_xml(content: bytes, name: str) -> Element:
    """Return the root of XML; DataError for damage, a document type, or too deep nesting.

    A document type may define entities, which grow without limit or read other files. name: of the
    file, for messages.
    """
    tree, depth = TreeBuilder(), [0]

    def refuse(*_: Any) -> None:
        raise DataError("it has a document type (<!DOCTYPE>), which is never read; take it out")

    def start(tag: str, attributes: dict[str, str]) -> None:
        depth[0] += 1
        if depth[0] > MAX_DEPTH:
            raise DataError(f"its elements are nested more than {MAX_DEPTH} deep")
        tree.start(tag, attributes)

    def end(tag: str) -> None:
        depth[0] -= 1
        tree.end(tag)

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = tree.data
    try:
        parser.Parse(content, True)
        return tree.close()
    except (expat.ExpatError, DataError, ValueError, LookupError) as error:
        raise DataError(f"{name} must be XML, and is not read: {error}.") from error


def each(
    items: object, where: Callable[[int], str], use: Callable[[Any], None]
) -> Sequence[LeftOut]:
    """Call `use` on each item of a list; return the items that it refuses, by their places.

    So one bad annotation never stops the others.
    """
    left_out = list[LeftOut]()
    for i, item in enumerate(items if isinstance(items, list) else ()):
        try:
            use(item)
        except DataError as error:
            left_out.append(LeftOut(where(i), str(error)))
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            why = f"not as this format has it ({type(error).__name__}: {display(str(error))[:80]})"
            left_out.append(LeftOut(where(i), why))
    return left_out


# ------------------------------------------------------------ YAML
def read_yaml(path: Path) -> dict[str, Any]:
    """Return the top keys of a data.yaml: texts, lists of texts, and mappings to texts.

    Only this part of YAML is read: plain and quoted scalars, [a, b], {0: a}, lists and mappings
    indented below a key. All values are texts. Raises DataError for a line of another kind.
    """
    found, key = dict[str, Any](), ""
    for number, raw in enumerate(read_text(path).splitlines(), 1):
        line = _without_comment(raw).rstrip()
        if not line.strip() or line.strip() in ("---", "..."):
            continue
        if match := ITEM.match(line):
            if key and not isinstance(found[key], list):
                found[key] = []
            _at(path, number, bool(key))
            found[key].append(_scalar(match["rest"]))
        elif (pair := KEY.match(line)) and pair["indent"]:
            if key and not isinstance(found[key], dict):
                found[key] = {}
            _at(path, number, bool(key))
            found[key][_scalar(pair["key"])] = _value(pair["rest"] or "")
        elif pair:
            key = _scalar(pair["key"])
            found[key] = _value(pair["rest"] or "")
        else:
            _at(path, number, bool(key) and raw.startswith(" "))
    return found


def _at(path: Path, number: int, fits: bool) -> None:
    if not fits:
        raise DataError(
            f"{display(path)}, line {number}: a data.yaml has a key and a value in each line, such "
            f"as `train: images/train`, or names below `names:`. Write it so."
        )


def _value(text: str) -> Any:
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        return [_scalar(item) for item in _items(text[1:-1])]
    if text.startswith("{") and text.endswith("}"):
        pairs = (item.partition(":") for item in _items(text[1:-1]))
        return {_scalar(key): _scalar(value) for key, _, value in pairs}
    return _scalar(text)


def _items(text: str) -> list[str]:
    """Split at the commas outside quotation marks."""
    found = re.findall(r"""\s*((?:"[^"]*"|'[^']*'|[^,'"]+)+)\s*(?:,|$)""", text)
    return [item for item in found if item.strip()]


def _scalar(text: str) -> str:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1].replace("''", "'") if text[0] == "'" else text[1:-1]
    return text


def _without_comment(line: str) -> str:
    """Return a line without the comment after a # that stands outside quotation marks."""
    kept = re.match(r"""(?:"[^"]*"|'[^']*'|(?<!\s)#|(?!\s#|^#)[^'"#]|(?<=\w)['"])*""", line)
    return kept[0] if kept and not line.lstrip().startswith("#") else ""
