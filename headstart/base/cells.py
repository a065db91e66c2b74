"""A cell of a table (CSV, Parquet, a file of predictions) or a folder's name, as text."""

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
NOT_UTF8 = re.compile("[\udc80-\udcff]")  # a byte that is not UTF-8, as surrogateescape marks it
# What spreadsheets run, full-width forms included, and what would be mistaken for a defused one.
FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
EMPTY = "is empty"  # the reason for which a missing cell is refused
LARGE = 10**18  # from here on a whole number is written as its type writes it
MISSING = ("NAType", "NaTType")  # of pandas, which need not be installed


@dataclass(frozen=True)
class Unsupported:
    """A cell of a type that is no single text, number or date; `kind` says which."""

    kind: str


def as_text(value: object) -> str:
    """Return a cell as text: blanks at its ends stripped, accents composed (NFC), "" if missing.

    Missing are None, NaN, NaT and blanks. A whole number loses its ".0" (Parquet makes floats of
    integers beside a missing one), truth values are "True" and "False", as in a CSV that Python
    wrote, and dates are ISO 8601, without a time at midnight. Bytes are read as UTF-8.

    Raises DataError, with the reason in a phrase, for bytes that are not UTF-8 and for any other
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
    """Return a cell as the name of a class: not missing, and without control characters."""
    text = as_text(value)
    if not text:
        raise DataError(EMPTY)
    if CONTROLS.search(text):
        raise DataError(f"holds control characters ({display(text)})")
    return text


def path_text(value: object) -> str:
    """Return a cell as a path, neither stripped nor composed; bytes that are not UTF-8 are kept."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    return value if isinstance(value, str) else as_text(value)


def defused(text: str) -> str:
    """Return a cell that no spreadsheet runs as a formula; `restored` gives the text back.

    An apostrophe is put before a text that begins with a character which starts a formula (=, +,
    -, @, a tab or line break, full-width forms), plain numbers excepted, and before one that
    begins as such a text would afterwards.

    >>> defused("=1+1"), restored("'=1+1"), defused("-1"), defused("'=x"), defused("'s")
    ("'=1+1", '=1+1', '-1', "''=x", "'s")
    """
    if FORMULA.match(text) and not NUMBER.fullmatch(text):
        return f"'{text}"
    return text


def restored(text: str) -> str:
    """Return what `defused` was given."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def _without_numpy(value: object) -> object:
    if isinstance(value, np.floating):
        return float(str(value))  # the shortest number that is this one, in its own precision
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
    """Return the phrase which says that a text is not UTF-8, with its encoding guessed."""
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
