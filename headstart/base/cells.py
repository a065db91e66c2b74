"""Table cells (CSV, Parquet, predictions) and folder names as text."""

import re
import unicodedata
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np

from headstart.base.display import CONTROLS, display
from headstart.base.encodings import guessed_encoding
from headstart.base.errors import DataError

EDGES = re.compile("^[\\s\ufeff\u200b]+|[\\s\ufeff\u200b]+$")  # blank in every spreadsheet
NOT_UTF8 = re.compile("[\udc80-\udcff]")  # a byte that is not UTF-8, decoded by surrogateescape
# Starts of a spreadsheet formula, full-width forms too, and of a text that looks defused.
FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
EMPTY = "is empty"  # the reason given for a missing cell
LARGE = 10**18  # floats and decimals this large keep their own notation
MISSING = ("NAType", "NaTType")  # pandas types by name: pandas need not be installed


@dataclass(frozen=True)
class Unsupported:
    """A cell of a type that is not one text, number or date; `kind` names the type."""

    kind: str


def as_text(value: object) -> str:
    """Return a cell as text: stripped, accents composed (NFC), "" if missing.

    None, NaN, NaT and blanks are missing. A whole number loses its ".0" (Parquet stores integers
    beside a missing value as floats), booleans become "True" and "False", dates become ISO 8601,
    without a time at midnight. Bytes are decoded as UTF-8.

    Raises DataError, with the reason as a phrase, for bytes that are not UTF-8 and for any other
    type (lists, maps, times of day, durations).
    """
    value = _without_numpy(value)
    if _missing(value):
        return ""
    match value:
        case str():
            return _tidy(value)
        case bytes() | bytearray():
            return _tidy(bytes(value).decode("utf-8", "surrogateescape"))
        case bool() | int():
            return str(value)
        case float() | Decimal():
            return _number(value)
        case date():
            return value.isoformat().removesuffix("T00:00:00")
        case np.datetime64():
            return _moment(value)
    raise DataError(f"is {_kind(value)}, where one text, number or date must be")


def as_label(value: object) -> str:
    """Return a cell as a class name; DataError if missing or holding control characters."""
    text = as_text(value)
    if not text:
        raise DataError(EMPTY)
    if CONTROLS.search(text):
        raise DataError(f"holds control characters ({display(text)})")
    return text


def path_text(value: object) -> str:
    """Return a cell as a path, not stripped or composed; bytes that are not UTF-8 are kept."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    return value if isinstance(value, str) else as_text(value)


def defused(text: str) -> str:
    """Return a text that no spreadsheet runs as a formula; `restored` is the inverse.

    An apostrophe is put before a text that begins like a formula (=, +, -, @, a tab or line break,
    full-width forms; numbers are left alone) or like an already defused one.

    >>> defused("=1+1"), restored("'=1+1"), defused("-1"), defused("'=x"), defused("'s")
    ("'=1+1", '=1+1', '-1', "''=x", "'s")
    """
    if FORMULA.match(text) and not NUMBER.fullmatch(text):
        return f"'{text}"
    return text


def restored(text: str) -> str:
    """Return the text that `defused` was given."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def _without_numpy(value: object) -> object:
    if isinstance(value, np.floating):
        return float(str(value))  # the shortest decimal for its own precision: float32 0.1 -> 0.1
    if isinstance(value, np.generic) and not isinstance(value, np.datetime64):
        return value.item()
    return value


def _missing(value: Any) -> bool:
    if value is None or type(value).__name__ in MISSING:
        return True
    if isinstance(value, np.datetime64):
        return bool(np.isnat(value))
    return isinstance(value, float | Decimal) and value != value


def _tidy(text: str) -> str:
    if NOT_UTF8.search(text):
        raise DataError(not_utf8(text.encode("utf-8", "surrogateescape")))
    return EDGES.sub("", unicodedata.normalize("NFC", text))


def not_utf8(data: bytes) -> str:
    """Return the phrase for bytes that are not UTF-8, with a guess of their encoding."""
    return f"is not UTF-8, but looks like {guessed_encoding(data)}: save the text as UTF-8"


def _number(value: float | Decimal) -> str:
    if -LARGE < value < LARGE and value == int(value):
        return str(int(value))
    return format(value.normalize(), "f") if isinstance(value, Decimal) else repr(value)


def _moment(value: np.datetime64) -> str:
    day, _, time = str(value).partition("T")
    time = time.rstrip("0").rstrip(".") if "." in time else time
    return f"{day}T{time}" if time not in ("", "00:00:00") else day


def _kind(value: object) -> str:
    if isinstance(value, Unsupported):
        return value.kind
    return f"a {type(value).__name__}"
