"""The language of texts, detected by py3langid, which works offline."""

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

LETTERS = 20  # a text with fewer is too short to tell
READ = 2000  # characters of a text that are looked at
NAMES = {
    **{"ar": "Arabic", "be": "Belarusian", "bg": "Bulgarian", "bn": "Bengali", "ca": "Catalan"},
    **{"cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English"},
    **{"es": "Spanish", "et": "Estonian", "fa": "Persian", "fi": "Finnish", "fr": "French"},
    **{"he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "hy": "Armenian"},
    **{"id": "Indonesian", "it": "Italian", "ja": "Japanese", "ka": "Georgian", "kk": "Kazakh"},
    **{"ko": "Korean", "lt": "Lithuanian", "lv": "Latvian", "nl": "Dutch", "no": "Norwegian"},
    **{"pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sk": "Slovak"},
    **{"sl": "Slovene", "sr": "Serbian", "sv": "Swedish", "ta": "Tamil", "th": "Thai"},
    **{"tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "vi": "Vietnamese", "zh": "Chinese"},
}


class Detected(NamedTuple):
    """code: ISO 639-1, "" for a text that is too short. sure: the probability."""

    code: str = ""
    sure: float = 0.0


class Spoken(NamedTuple):
    """The language of most texts, and its share among those that are long enough; "" unknown."""

    code: str = ""
    share: float = 0.0

    @property
    def name(self) -> str:
        return language_name(self.code)

    def __str__(self) -> str:
        return f"{self.name} ({self.share:.0%})" if self.code else "of an unknown language"


def language_name(code: str) -> str:
    """Return the English name of a language; its code if there is no name here.

    >>> language_name("ru"), language_name("xx")
    ('Russian', 'xx')
    """
    return NAMES.get(code, code)


def detect(text: str) -> Detected:
    """Return the language of a text; unknown for a short one, and without py3langid."""
    own = _identifier()
    begin = text[:READ]
    if own is None or sum(map(str.isalpha, begin)) < LETTERS:
        return Detected()
    code, sure = own.classify(begin)
    return Detected(str(code), float(sure))


def spoken(found: Iterable[Detected]) -> Spoken:
    """Return the commonest language of texts, weighted by how sure each is."""
    votes = Counter[str]()
    for code, sure in found:
        votes[code] += sure  # type: ignore[assignment]  # a float
    del votes[""]
    if not votes:
        return Spoken()
    code = min(votes, key=lambda name: (-votes[name], name))
    return Spoken(code, float(votes[code]) / float(sum(votes.values())))


def sampled(rows: Sequence[Any], most: int) -> list[Any]:
    """Return at most `most` of the rows, at even steps: the same ones every time."""
    step = max(1, -(-len(rows) // most))
    return list(rows[::step])


_LOCK = threading.Lock()


def _identifier() -> Any:
    """Return the identifier, loaded once; None without the package."""
    with _LOCK:
        return _loaded()


@cache
def _loaded() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        return None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
