"""The words of a text, and what tokens add up to in them."""

import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Span = tuple[int, int]  # characters: from, to (exclusive)
LONE = (
    (0x3040, 0x30FF),
    (0x3400, 0x9FFF),
    (0xF900, 0xFAFF),
)  # written without spaces
JOINERS = ("Mn", "Mc", "Me", "Cf", "Sk")  # belong to the character before: accents, skin colours


def words_of(text: str) -> list[Span]:
    """Return the spans of a text's words and marks; spaces are in none.

    A word is a run of letters, numbers and apostrophes, or a single Chinese or Japanese character.

    >>> [("I'm here!")[a:b] for a, b in words_of("I'm here!")]
    ["I'm", 'here', '!']
    """
    found, before = list[Span](), ""
    for at, kind in enumerate(_kinds(text)):
        if kind == "joined" and before not in ("", "space"):
            kind = before
        if kind != "space" and kind == before and not (kind == "lone" and _is_lone(text[at])):
            found[-1] = found[-1][0], at + 1
        elif kind != "space":
            found.append((at, at + 1))
        before = kind
    return found


def by_word(
    values: NDArray[np.float64], spans: NDArray[np.int64], words: Sequence[Span]
) -> NDArray[np.float64]:
    """Return the sum of the tokens' values in each word, (W,).

    values: (T,). spans: (T, 2) of the tokens. A token over several words is divided among them by
    characters; what lies in no word goes to the next one, or the last.
    """
    sums = np.zeros(len(words))
    for value, (start, end) in zip(values, spans, strict=True):
        shares = _shares(int(start), int(end), words)
        for word, share in shares:
            sums[word] += value * share
    return sums


def tokens_of(words: Sequence[Span], spans: NDArray[np.int64]) -> list[NDArray[np.intp]]:
    """Return the numbers of the tokens, of spans (T, 2), that each word shares characters with."""
    found: list[list[int]] = [[] for _ in words]
    for token, (start, end) in enumerate(spans):
        for word, _ in _shares(int(start), int(end), words):
            found[word].append(token)
    return [np.array(tokens, np.intp) for tokens in found]


def _shares(start: int, end: int, words: Sequence[Span]) -> list[tuple[int, float]]:
    """Return the words that a token is in, and the share of its characters in each."""
    if start < 0 or not words:
        return []
    first = _first_after(start, words)
    held = list[tuple[int, float]]()
    for word in range(first, len(words)):
        if words[word][0] >= end:
            break
        held.append((word, min(end, words[word][1]) - max(start, words[word][0])))
    total = sum(share for _, share in held)
    return [(word, share / total) for word, share in held] or [(min(first, len(words) - 1), 1.0)]


def _first_after(start: int, words: Sequence[Span]) -> int:
    """Return the first word that ends after a character, by bisection."""
    low, high = 0, len(words)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if words[middle][1] <= start else (low, middle)
    return low


def _kinds(text: str) -> Iterator[str]:
    """Yield the kind of each character: space, word, lone, mark, or joined to the one before."""
    joiner = False
    for letter in text:
        category = unicodedata.category(letter)
        if letter.isspace():
            kind = "space"
        elif category in JOINERS or joiner:
            kind = "joined"
        elif _is_lone(letter):
            kind = "lone"
        else:
            kind = "word" if category[0] in "LN" or letter in "'’_" else "mark"
        joiner = letter == "\u200d"  # zero width joiner, between the parts of an emoji
        yield kind


def _is_lone(letter: str) -> bool:
    return any(low <= ord(letter) <= high for low, high in LONE)
