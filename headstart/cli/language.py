"""The language of what a command prints."""

from headstart.base.phrasebook import ENGLISH, Phrasebook, phrasebook

LANGUAGES = (ENGLISH, "ru")
_book: Phrasebook = phrasebook(ENGLISH)


def speak(language: str) -> None:
    """Print in this language from now on; in English for one that is not known."""
    global _book
    _book = phrasebook(language if language in LANGUAGES else ENGLISH)


def said(text: str) -> str:
    """Return a sentence in the language of the command, or as it is where no phrase is known."""
    return _book(text)


def named(text: str) -> str:
    """Return a short name of ours, of a stage or a column, in the language of the command."""
    return _book.label(text)
