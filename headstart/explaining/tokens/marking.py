"""A text as HTML with marked words: by colour and by underline and weight."""

from collections.abc import Sequence

from headstart.base.notebook import escape
from headstart.explaining.tokens.saved import MarkedWord

FAINTEST = 0.15  # share of the largest value; smaller ones are not marked
HEAVY = 0.5  # share from which words are bold
STYLE = """
mark { color: inherit; border-radius: 3px; padding: 0 1px; }
mark.for { background: rgb(226 74 18 / calc(var(--s) * 60%)); text-decoration: underline 2px; }
mark.against { background: rgb(28 98 200 / calc(var(--s) * 60%));
  text-decoration: underline dashed 2px; }
mark.heavy { font-weight: 700; }
"""


def marked(text: str, words: Sequence[MarkedWord]) -> str:
    """Return a text as HTML, everything escaped, its words marked by what they add.

    Words for the answer are underlined, words against it by dashes; the strongest are bold.

    >>> marked("a<b", [MarkedWord(0, 1, 2.0)])
    '<mark class="for heavy" style="--s:1.00" title="+2.000">a</mark>&lt;b'
    """
    most = max((abs(word.adds) for word in words), default=0.0) or 1.0
    made, at = list[str](), 0
    for word in words:
        made.append(escape(text[at : word.start]))
        made.append(_mark(text[word.start : word.end], word.adds, abs(word.adds) / most))
        at = word.end
    return "".join([*made, escape(text[at:])])


def _mark(text: str, adds: float, share: float) -> str:
    if share < FAINTEST:
        return escape(text)
    kind = ("for" if adds > 0 else "against") + (" heavy" if share >= HEAVY else "")
    return f'<mark class="{kind}" style="--s:{share:.2f}" title="{adds:+.3f}">{escape(text)}</mark>'
