"""The texts of the page, from one catalogue per language, and the formatting of numbers."""

import json
import math
import re
from importlib.resources import files
from typing import Any

from markupsafe import Markup, escape

from headstart.base.errors import UnknownName
from headstart.evaluation.evaluation import Estimate, decimals

LANGUAGES = ("en", "ru")
NARROW = "\N{NO-BREAK SPACE}"
LONG_NUMBER = re.compile(r"-?\d+\.\d{4,}", re.ASCII)


def catalogue(language: str) -> dict[str, str]:
    """Read the texts of a language by key; raises UnknownName for an unsupported language."""
    if language not in LANGUAGES:
        raise UnknownName("language of the report", language, LANGUAGES)
    found: dict[str, str] = _words(language)
    return found


def nouns(kind: str, language: str) -> dict[str, str]:
    """Return, for a kind of input other than pictures, its nouns by those of the catalogue."""
    found: dict[str, str] = _words("nouns").get(kind, {}).get(language, {})
    return found


def _words(name: str) -> Any:
    text = (files("headstart.reporting") / "words" / f"{name}.json").read_text(encoding="utf-8")
    return json.loads(text)


def _renamed(text: str, names: dict[str, str]) -> str:
    """Return a text with other nouns, capitalised where the old ones are.

    >>> _renamed("Pictures, and the MAE of one picture", {"picture": "text", "pictures": "texts"})
    'Texts, and the MAE of one text'
    """

    def other(match: re.Match[str]) -> str:
        name = names.get(match[0].lower())
        if name is None:  # an abbreviation such as MAE keeps its capitals
            return match[0]
        return name.capitalize() if match[0][0].isupper() else name

    return re.sub(r"\w+", other, text) if names else text


def data(text: Any) -> Markup:
    """Mark a text that must not be translated: a path, a class, a name in a recipe."""
    return Markup('<span class="data" translate="no">{}</span>').format(text)


def code(text: str) -> Markup:
    return Markup('<code translate="no">{}</code>').format(text)


def path_line(path: str) -> Markup:
    return Markup('<span class="path" translate="no">{}</span>').format(path)


class Words:
    """Looks texts up by key and inserts values, which are escaped.

    Plural forms are separated by "|" and chosen by `n`: in English one and more; in Russian one
    (1, 21), few (2 to 4, 22) and many. kind: of the input, whose noun stands for "picture".
    """

    def __init__(self, language: str, kind: str = "") -> None:
        self.language = language
        names = nouns(kind, language)
        self.texts = {key: _renamed(text, names) for key, text in catalogue(language).items()}

    def __contains__(self, key: str) -> bool:
        return key in self.texts

    def __call__(self, key: str, **values: Any) -> Markup:
        forms = self.texts[key].split("|")
        n = values.get("n")
        text = forms[self._form(n)] if len(forms) > 1 and isinstance(n, int) else forms[0]
        if isinstance(n, int):
            values["n"] = self.count(n)
        return Markup(text).format(**values)

    def named(self, prefix: str, name: str, otherwise: str = "") -> Markup:
        """Return the text for PREFIX.NAME (a stage, a part), or `otherwise` or the name itself."""
        key = f"{prefix}.{name}"
        return self(key) if key in self else data(otherwise or name)

    def name_of_language(self, english: str) -> str:
        """Return the name of a language of texts, from its English name."""
        names: dict[str, str] = _words("languages").get(self.language, {})
        return names.get(english, english)

    def count(self, n: int) -> str:
        return f"{n:,}".replace(",", "," if self.language == "en" else NARROW)

    def number(self, value: float | None, digits: int = 3) -> str:
        if value is None:
            return self.texts["none"]
        text = f"{value:.{digits}f}"
        return text if self.language == "en" else text.replace(".", ",")

    def share(self, value: float | None, digits: int = 1) -> str:
        """Format a share as a percentage."""
        if value is None:
            return self.texts["none"]
        return self.number(100 * value, digits) + ("%" if self.language == "en" else NARROW + "%")

    def percent(self, value: float) -> str:
        """Format a share as a whole percentage."""
        return self.share(value, 0)

    def points(self, value: float) -> str:
        """Format a difference of shares in percentage points: +3.1."""
        text = self.number(100 * value, 1)
        return text.replace("-", "\N{MINUS SIGN}") if value < 0 else "+" + text

    def gain(self, e: Estimate) -> Markup:
        """Format a difference of shares with its interval: +3.0 [+1.0; +5.0]."""
        return _with_interval(self.points(e.value), self.points(e.low), self.points(e.high), "; ")

    def plain_gain(self, e: Estimate) -> Markup:
        """Format a difference of any size with its interval: +0.31 [+0.1, +0.5]."""
        digits = decimals([v for v in (e.value, e.low, e.high) if math.isfinite(v)])
        signed = (
            ("+" if v >= 0 else "") + self.number(v, digits) for v in (e.value, e.low, e.high)
        )
        value, low, high = (text.replace("-", "\N{MINUS SIGN}") for text in signed)
        return _with_interval(value, low, high, "; ")

    def estimate(self, e: Estimate | None) -> Markup:
        """Format a share with its interval: 86.8% [83.1, 89.8]."""
        if e is None:
            return escape(self.texts["none"])
        low, high = self.number(100 * e.low, 1), self.number(100 * e.high, 1)
        return _with_interval(self.share(e.value), low, high)

    def plain_estimate(self, e: Estimate | None) -> Markup:
        """Format a number with its interval: 0.336 [0.272, 0.415]."""
        if e is None:
            return escape(self.texts["none"])
        return _with_interval(*(self.number(v) for v in (e.value, e.low, e.high)))

    def measure(self, e: Estimate | None) -> Markup:
        """Format a number of any size with its interval: 1,234 [1,190, 1,301]."""
        if e is None:
            return escape(self.texts["none"])
        ends = [v for v in (e.value, e.low, e.high) if math.isfinite(v)]
        shown = [self.number(v, decimals(ends)) for v in ends]
        return _with_interval(*shown) if len(shown) == 3 else escape(shown[0])

    def brief(self, value: float) -> str:
        """Format a number of any size with three or more significant digits."""
        return self.number(value, decimals([value])) if math.isfinite(value) else "–"

    def label(self, text: str) -> str:
        """Return a label; of a number with many digits the first ones: "1.467"."""
        return self.brief(float(text)) if LONG_NUMBER.fullmatch(text) else text

    def tick(self, value: float) -> str:
        """Format the number beside a tick of an axis with the decimals that it needs."""
        text = f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
        return text if self.language == "en" else text.replace(".", ",")

    def seconds(self, s: float) -> Markup:
        if s < 1:
            return self("time.ms", v=self.number(1000 * s, 1 if s < 0.1 else 0))
        if s < 120:
            return self("time.s", v=self.number(s, 1 if s < 10 else 0))
        if s < 7200:
            return self("time.min", v=self.number(s / 60, 1))
        return self("time.h", v=self.number(s / 3600, 1))

    def _form(self, n: int) -> int:
        if self.language == "en":
            return 0 if n == 1 else 1
        if n % 10 == 1 and n % 100 != 11:
            return 0
        return 1 if 2 <= n % 10 <= 4 and not 12 <= n % 100 <= 14 else 2


def _with_interval(value: str, low: str, high: str, gap: str = "") -> Markup:
    gap = gap or ("; " if "," in low + high else ", ")
    return Markup('{} <span class="interval">[{}{}{}]</span>').format(value, low, gap, high)
