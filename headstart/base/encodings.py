"""Guess the encoding of a text that is not UTF-8, for error messages only."""

import re
from typing import Any

CYRILLIC = {"cp1251": "windows-1251 (cp1251)", "koi8-r": "KOI8-R", "cp866": "cp866"}
# Byte patterns of the commonest characters (level 1 of each standard).
EAST_ASIAN = {
    "shift_jis": ("Shift-JIS", rb"[\x88-\x97][\x40-\xfc]|[\x81-\x83][\x40-\xfc]"),
    "gbk": ("GBK", rb"[\xb0-\xd7][\xa1-\xfe]"),
    "big5": ("Big5", rb"[\xa4-\xc6][\x40-\x7e\xa1-\xfe]"),
    "euc_kr": ("EUC-KR", rb"[\xb0-\xc8][\xa1-\xfe]"),
    "euc_jp": ("EUC-JP", rb"[\xa4\xa5\xb0-\xcf][\xa1-\xfe]"),
}
LATIN = "windows-1252 (cp1252, Latin-1) or windows-1250"
UNKNOWN = "an unknown encoding"


def guessed_encoding(data: bytes) -> str:
    """Return the likeliest encoding of bytes that are not UTF-8; ties are joined by "or".

    Mostly single bytes above 127 mean accents of a Latin script. Longer runs are Cyrillic or East
    Asian: the encoding with the largest share of usual words or characters wins.
    """
    if data.count(0) > len(data) // 4:
        return "UTF-16 without its byte order mark"
    runs = re.findall(rb"[\x80-\xff]+", data)
    if sum(len(run) == 1 for run in runs) > len(runs) / 2:
        return LATIN
    scores = dict[str, float]()
    for codec, name in CYRILLIC.items():
        words = re.findall(r"(?:[^\W\d_]|[^\x00-\x7f])+", _decoded(data, codec))  # linear in time
        words = [word for word in words if not word.isascii()]
        scores[name] = _share(words, r"[А-ЯЁ]?[а-яё]+|[А-ЯЁ]+")  # plausible words
    for codec, (name, usual) in EAST_ASIAN.items():
        characters = [c.encode(codec) for c in _decoded(data, codec) if c > "\x7f"]
        scores[name] = _share(characters, usual)
    best = max(scores.values())
    alike = [name for name, score in scores.items() if score >= best - 1e-9]
    return " or ".join(alike) if best >= 0.6 else UNKNOWN


def _decoded(data: bytes, codec: str) -> str:
    try:
        return data.decode(codec)
    except UnicodeDecodeError:
        return ""


def _share(found: list[Any], usual: Any) -> float:
    """Return the share of the texts (or bytes) that match the pattern `usual`, 0 of none."""
    return sum(bool(re.fullmatch(usual, text)) for text in found) / len(found) if found else 0.0
