"""English sentences in another language, by templates: for texts that are made far from where
they are printed, such as the reason why a file is left out or a message of a stage."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

MEASURED = ("time", "size", "rate")  # gaps that may hold nothing but a measure
GAP = re.compile(r"\{(\w*)\}")  # {name} in a template
FORMS = re.compile(r"\{(\w+)\|([^{}|]*)\|([^{}|]*)\|([^{}|]*)\}")  # {n|one|few|many}
MEASURES = re.compile(r"(?:[\d.,]+ ?(?:s|min|h|ms|kB|MB|GB|/s)(?: |$))+")  # "2 min 30 s", "9.6/s"
UNIT = re.compile(r"(?<=[\d ])(?:/s|[A-Za-z]+)")
NUMBER = r"[-+\d.,]+%? *"
ENGLISH = "en"


@dataclass(frozen=True)
class Phrasebook:
    """Templates of English texts and their translations. A gap {name} holds any text, which is
    translated too if the book knows it; {n} holds a number, and {n|one|few|many} chooses a form by
    the number in {n}. labels: of single words and short names, such as of a stage or a column,
    which would be too bold to translate wherever they stand; a gap {name_} holds such a label.
    Units are labels too, and are translated where a measure is expected: what looks like one may be
    the name of a folder.

    >>> book = Phrasebook({"{n} files: {why}": "{n} {n|файл|файла|файлов}: {why}", "wet": "мокро"})
    >>> book.translated("22 files: wet"), book.translated("no such text")
    ('22 файла: мокро', '')
    """

    templates: Mapping[str, str]
    labels: Mapping[str, str] = field(default_factory=dict)

    def translated(self, text: str) -> str:
        """Return the translation of a text; "" if the book does not know it."""
        if text in self.templates and not GAP.search(text):
            return self.templates[text]
        for pattern, template in _compiled(tuple(self.templates.items())):
            if (match := pattern.fullmatch(text)) is not None:
                return _filled(template, {k: self._gap(k, v) for k, v in match.groupdict().items()})
        return self._in_parts(text)

    def _in_parts(self, text: str) -> str:
        """Translate the parts between semicolons, or what follows a name and a colon."""
        parts = text.split("; ")
        translations = [self.translated(part) for part in parts] if len(parts) > 1 else []
        if any(translations):
            return "; ".join(a or b for a, b in zip(translations, parts, strict=True))
        name, _, rest = text.partition(": ")
        return f"{name}: {other}" if rest and (other := self.translated(rest)) else ""

    def __call__(self, text: str) -> str:
        """Return the translation of a text, or the text itself."""
        return self.translated(text) or text

    def label(self, text: str) -> str:
        """Return the translation of a short name, or the name itself."""
        return self.labels.get(text) or text

    def cell(self, text: str) -> str:
        """Return the translation of a cell of ours: a measure, a sentence or a short name."""
        return self._measure(text) or self.translated(text) or self.label(text)

    def _measure(self, text: str) -> str:
        """Return a measure with its units translated; "" for any other text."""
        if not MEASURES.fullmatch(text):
            return ""
        return UNIT.sub(lambda unit: self.label(unit[0]), text)

    def _gap(self, name: str, value: str) -> str:
        if name.endswith("_"):
            return self.label(value)
        if name in MEASURED and (measure := self._measure(value)):
            return measure
        return self(value) if re.search("[A-Za-z]", value) else value


def phrasebook(language: str) -> Phrasebook:
    """Return the phrases of a language; none for English."""
    if language == ENGLISH:
        return Phrasebook({})
    return Phrasebook(_read(language) | _read(f"{language}.errors"), _read(f"{language}.labels"))


@cache
def _read(name: str) -> dict[str, str]:
    text = (files("headstart.base") / "phrases" / f"{name}.json").read_text(encoding="utf-8")
    found: dict[str, str] = json.loads(text)
    return found


@cache
def _compiled(templates: tuple[tuple[str, str], ...]) -> list[tuple[re.Pattern[str], str]]:
    """Return the templates with gaps as patterns; those with the most words of their own first."""
    gapped = [(english, other) for english, other in templates if GAP.search(english)]
    gapped.sort(key=lambda pair: -len(GAP.sub("", pair[0])))
    return [(_pattern(english), other) for english, other in gapped]


def _pattern(template: str) -> re.Pattern[str]:
    parts = GAP.split(template)  # texts and names in turn
    texts = [re.escape(text) for text in parts[::2]]
    gaps = [f"(?P<{name}>{NUMBER if name == 'n' else '.+?'})" for name in parts[1::2]]
    pieces = [piece for pair in zip(texts, [*gaps, ""], strict=True) for piece in pair]
    return re.compile("".join(pieces), re.DOTALL)


def _filled(template: str, values: Mapping[str, str]) -> str:
    chosen = FORMS.sub(lambda m: m[2 + _form(values.get(m[1], ""))], template)
    return GAP.sub(lambda m: values.get(m[1], m[0]), chosen)


def _form(text: str) -> int:
    """Return which of the Russian forms goes with a number: one (1, 21), few (2 to 4) or many."""
    digits = re.sub(r"[,\s]", "", text)
    n = int(digits) if digits.isdecimal() else 5
    if n % 10 == 1 and n % 100 != 11:
        return 0
    return 1 if 2 <= n % 10 <= 4 and not 12 <= n % 100 <= 14 else 2
