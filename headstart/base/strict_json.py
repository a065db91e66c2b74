"""Read JSON that a stranger may have written: of bounded size and depth, each key once, finite."""

import json
import re
from collections import Counter
from typing import Any

import numpy as np

from headstart.base.errors import SpecError

MOST_BYTES = 4 * 2**20
DEEPEST = 24  # lists and objects inside each other; those of a bundle are 8 at most
SHOWN = 40  # characters of a foreign text in a message
_TEXTS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)


def read_strictly(data: bytes, most: int = MOST_BYTES) -> Any:
    """Return the value of a JSON text in UTF-8; raises SpecError, the end of a sentence, if it is
    no JSON, too large or too deep, or has a key twice or a number that JSON has not.

    >>> read_strictly(b'{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    """
    if len(data) > most:
        raise SpecError(f"it has {len(data):,} bytes, and at most {most:,} are read")
    if _depth(data) > DEEPEST:
        raise SpecError(f"its lists and objects are more than {DEEPEST} deep")
    try:
        return json.loads(
            data.decode(), object_pairs_hook=_once, parse_constant=_refused, parse_float=_finite
        )
    except SpecError:
        raise
    except (ValueError, RecursionError) as error:
        raise SpecError(f"it is not JSON ({str(error)[:SHOWN]})") from error


def _depth(data: bytes) -> int:
    marks = np.frombuffer(_TEXTS.sub(b"", data), np.uint8)
    opened, closed = (np.isin(marks, list(both)).astype(np.int32) for both in (b"[{", b"]}"))
    return int((opened - closed).cumsum(dtype=np.int32).max(initial=0))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise SpecError(f"its key {twice[:SHOWN]!r} is there twice")
    return found


def _refused(constant: str) -> Any:
    raise SpecError(f"it holds {constant}, which is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value - value != 0:
        raise SpecError(f"it holds {text[:SHOWN]}, which is no finite number")
    return value
