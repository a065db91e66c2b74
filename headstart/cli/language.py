"""The language of what a command prints."""

import os
from collections.abc import Sequence

from headstart.base.display import Verbatim
from headstart.base.phrasebook import ENGLISH, Phrasebook, phrasebook
from headstart.cli.flags import word_after

LANGUAGES = (ENGLISH, "ru")
FLAG, VARIABLE = "--language", "HEADSTART_LANGUAGE"
_book: Phrasebook = phrasebook(ENGLISH)


def speak(language: str) -> None:
    """Print in this language from now on; in English for one that is not known."""
    global _book
    _book = phrasebook(language if language in LANGUAGES else ENGLISH)


def language_words(words: Sequence[str]) -> list[str]:
    """Return the flag with the language of the environment; [] if there is none, or `words` name
    one themselves."""
    own = os.environ.get(VARIABLE, "")
    return [FLAG, own] if own and not word_after(words, FLAG) else []


def translated(text: str) -> str:
    """Return a sentence in the language of the command, or as it is where no phrase is known."""
    return _book(text)


def named(text: str) -> str:
    """Return a short name of ours, of a stage or a column, in the language of the command."""
    return _book.label(text)


def worded(cell: str) -> str:
    """Return a cell of a table in the language of the command, but a text of the user as it is."""
    return cell if isinstance(cell, Verbatim) else _book.cell(cell)
