"""Alike texts: normal forms for copies, and MinHash for near copies.

The likeness of two texts is the share of their runs of 5 characters that both have (Jaccard),
estimated from MinHash signatures (Broder 1997). Rows that agree in a band of a signature are
compared, so that not every pair is.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from headstart.base.grouping import Pair

VERSION = 1  # raise it when the same text would give another signature
RUN = 5  # characters of a shingle
BANDS, BAND = 21, 6  # of a signature; finds 99.8 % of pairs with a likeness of .8
SIGNATURE = BANDS * BAND
ALIKE = 0.8  # likeness of near duplicates; the estimate is right to .04
LONGEST = 1_000_000  # characters of a text that are compared
MOST = 20_000  # shingles of a long text, those with the smallest hashes
APART = re.compile(r"[\W_]+")

Signature = NDArray[np.uint32]
_RNG = np.random.default_rng(0)
_FACTORS = _RNG.integers(0, 2**63, SIGNATURE, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_SHIFTS = _RNG.integers(0, 2**63, SIGNATURE, dtype=np.uint64)


def normal(text: str) -> str:
    """Return a text without differences of case, space and punctuation.

    >>> normal(" Good,  GOOD film!")
    'good good film'
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = APART.sub(" ", folded).strip()
    return words or " ".join(folded.split())  # of punctuation alone: that is the text


def signature(normal: str) -> Signature:
    """Return the MinHash signature (SIGNATURE,) of a text in normal form."""
    hashes = _shingles(normal)
    lowest = np.full(SIGNATURE, np.iinfo(np.uint64).max, np.uint64)
    for start in range(0, len(hashes), 1024):
        part = hashes[start : start + 1024, None]
        lowest = np.minimum(lowest, (part * _FACTORS + _SHIFTS).min(axis=0))
    return (lowest >> np.uint64(32)).astype(np.uint32)


def _shingles(text: str) -> NDArray[np.uint64]:
    """Return hashes of the distinct runs of characters."""
    data = text[:LONGEST].ljust(RUN).encode("utf-32-le")
    points = np.frombuffer(data, np.uint32).astype(np.uint64)
    powers = np.uint64(0x9E3779B97F4A7C15) ** np.arange(1, RUN + 1, dtype=np.uint64)
    hashes = np.zeros(len(points) - RUN + 1, np.uint64)
    for k, power in enumerate(powers):
        hashes += points[k : k + len(hashes)] * power
    hashes ^= hashes >> np.uint64(29)
    return np.unique(hashes * np.uint64(0xBF58476D1CE4E5B9))[:MOST]


def near_duplicates(signatures: NDArray[np.uint32]) -> Sequence[Pair]:
    """Return pairs of rows of (N, SIGNATURE) with a likeness of at least ALIKE.

    Of many alike rows, not every pair is returned, but pairs that join them.
    """
    found = dict[tuple[int, int], float]()
    for a, b in dict.fromkeys(_candidates(signatures)):
        likeness = float((signatures[a] == signatures[b]).mean())
        if likeness >= ALIKE:
            found[a, b] = round(likeness, 3)
    return [Pair(a, b, likeness) for (a, b), likeness in sorted(found.items())]


def _candidates(signatures: NDArray[np.uint32]) -> Iterator[tuple[int, int]]:
    """Yield rows a < b that agree in a band: each with the first such row and with the last one."""
    for start in range(0, SIGNATURE, BAND):
        band = np.ascontiguousarray(signatures[:, start : start + BAND])
        keys = band.view(np.dtype((np.void, band.itemsize * BAND))).ravel()
        order = np.argsort(keys, kind="stable")
        first = last = -1
        for row in order.tolist():
            if first >= 0 and keys[row] == keys[first]:
                yield first, row
                if last != first:
                    yield last, row
            else:
                first = row
            last = row
