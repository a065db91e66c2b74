"""An explanation of an answer about a text: its values, and the page that shows them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.base.atomic import write_json, write_text
from headstart.base.display import Verbatim
from headstart.base.errors import DataError
from headstart.base.notebook import escape
from headstart.base.paths import user_path
from headstart.data.content import read_checked
from headstart.explaining.neighbours import Neighbour
from headstart.explaining.saved import NearestExample
from headstart.explaining.tokens.marking import STYLE, marked
from headstart.explaining.tokens.saved import ExplainedText, ExplainedTextRow, MarkedWord
from headstart.explaining.tokens.word_deletion import WordDeletion
from headstart.heads.head import Floats
from headstart.modalities.text.inputs import TextInput, shortened

LISTED = 8  # words for and against that are listed, at most
PRINTED, ROOM = 3, 66  # alike texts that are printed; characters of a line
PAGE = """<!DOCTYPE html>
<html><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title><style>
:root {{ color-scheme: light dark; }}
body {{ max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }}
body {{ font: 1rem/1.6 system-ui, sans-serif; }}
.text {{ white-space: pre-wrap; overflow-wrap: anywhere; font-size: 1.1rem; }}
li {{ overflow-wrap: anywhere; }}{style}</style></head>
<body>{body}</body></html>
"""


@dataclass(frozen=True, eq=False)
class TextExplanation:
    """Why a text gets an answer: `adds` of each word says how much it adds to the evidence.

    name: of what is explained, such as a class. score: its probability; of a number or a grade, the
    place on a scale of 0 to 1. answer: the number or grade, else "". features: (D,) of the text.
    nearest: training examples, empty without training rows.
    """

    path: str
    text: str
    name: str
    score: float
    words: tuple[MarkedWord, ...]
    windows: int
    difference: float
    error: float
    deletion: WordDeletion
    features: Floats
    nearest: tuple[Neighbour, ...] = ()
    input: TextInput = TextInput()
    answer: str = ""

    def __repr__(self) -> str:
        return f"TextExplanation({self.path!r}, {self.name!r}, score {self.score:.4f})"

    def _repr_html_(self) -> str:
        return f"<style>{STYLE}</style>{self._body()}"

    @property
    def saved(self) -> ExplainedText:
        """The explanation as it is written to files."""
        near = (NearestExample(n.id, n.label, round(n.distance, 4)) for n in self.nearest)
        return ExplainedText(
            path=self.path,
            name=self.name,
            score=self.score,
            answer=self.answer,
            text=self.text,
            words=tuple(MarkedWord(w.start, w.end, round(w.adds, 5)) for w in self.words),
            windows=self.windows,
            difference=round(self.difference, 5),
            error=round(self.error, 5),
            deletion=self.deletion.saved(),
            nearest=tuple(near),
        )

    def to_plain(self) -> dict[str, Any]:
        """Return `saved`, ready for JSON."""
        return self.saved.to_plain()

    def row(self, label: str, right: bool) -> ExplainedTextRow:
        """Return the row of explained.json for an example with this label."""
        return ExplainedTextRow(**vars(self.saved), label=label, right=right)

    def html(self) -> str:
        """Return the marked text as a page."""
        return PAGE.format(title=escape(self.path), style=STYLE, body=self._body())

    def save(self, path: Path | str) -> None:
        """Write `html()`, and `to_plain()` beside it as .json; raises OSError."""
        page, values = files_of(user_path(path))
        write_text(page, self.html())
        write_json(values, self.to_plain())

    def strongest(self, sign: int, count: int = LISTED) -> list[tuple[str, float]]:
        """Return the words that add most (sign 1) or take most away (-1), with their values."""
        own = [word for word in self.words if word.adds * sign > 0]
        own.sort(key=lambda word: -word.adds * sign)
        return [(self.text[word.start : word.end], word.adds) for word in own[:count]]

    def details(self) -> tuple[tuple[str, str], ...]:
        """Return titles and lines to print: words for and against, the checks, alike texts."""
        near = [(n.label, f"{n.distance:.2f}  {self._excerpt(n)[:ROOM]}") for n in self.nearest]
        alike = [("alike", Verbatim(f"{label} {line}"[:ROOM])) for label, line in near[:PRINTED]]
        return tuple((title, line) for title, line in (*self._facts(), *alike) if line)

    def _facts(self) -> tuple[tuple[str, str], ...]:
        ours, random = self.deletion.area("ours"), self.deletion.area("random")
        hiding = f"mean answer {ours:.3f} in this order, {random:.3f} at random"
        return (
            ("for", Verbatim(_listed(self.strongest(1)))),
            ("against", Verbatim(_listed(self.strongest(-1)))),
            ("hiding", hiding),
            ("sum", f"{self.difference:+.3f} of all words, error {self.error:.3f}"),
        )

    def _body(self) -> str:
        shown = self.answer or f"{self.score:.3f}"
        title = f"<h1>{escape(self.name)} {escape(shown)}</h1><p>{escape(self.path)}</p>"
        text = f'<p class="text" dir="auto">{marked(self.text, self.words)}</p>'
        key = (
            '<p><mark class="for" style="--s:1">underlined</mark> words speak for it, <mark '
            'class="against" style="--s:1">dashed</mark> ones against it.</p>'
        )
        facts = ((escape(title), escape(line)) for title, line in self._facts() if line)
        lines = "".join(f"<li><b>{title}</b>: {line}</li>" for title, line in facts)
        near = "".join(self._neighbour(n) for n in self.nearest)
        nearest = f"<h2>Training texts most alike</h2><ul>{near}</ul>" if near else ""
        return f"{title}{key}{text}<ul>{lines}</ul>{nearest}"

    def _neighbour(self, near: Neighbour) -> str:
        name = f"{near.label}, {near.distance:.2f} away"
        return f'<li><b>{escape(name)}</b>: <span dir="auto">{escape(self._excerpt(near))}</span>'

    def _excerpt(self, near: Neighbour) -> str:
        """Return the beginning of a training text, or its id if it can't be read."""
        try:
            return shortened(self.input.read(read_checked(self.input, near.source)[0]))
        except (OSError, DataError):
            return near.id


def files_of(page: Path) -> tuple[Path, Path]:
    """Return the files of an explanation: its page, and beside it its values."""
    return page, page.with_suffix(".json")


def _listed(words: Sequence[tuple[str, float]]) -> str:
    """Return words with their values, as many as a line holds."""
    line = ""
    for text, adds in words:
        longer = f"{line}, {text} {adds:+.2f}" if line else f"{text[:ROOM]} {adds:+.2f}"
        if len(longer) > ROOM:
            break
        line = longer
    return line
