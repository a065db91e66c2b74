"""The facts that a survey stores of each text, and what is remarkable about a data set's texts."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.inputs import Input, fetched
from headstart.base.errors import DataError
from headstart.base.grouping import Pair
from headstart.base.store import DIGEST_BYTES, Layout, digest
from headstart.base.values import fingerprint
from headstart.data.findings import OddSize, Remark
from headstart.data.survey import CONTENT, Facts
from headstart.modalities.text import likeness
from headstart.modalities.text.language import Detected, detect, language_name, sampled, spoken
from headstart.modalities.text.tokens import WORDS

if TYPE_CHECKING:
    from headstart.data.dataset import Dataset

VERSION = 1  # raise it when the same text would give other facts
CODE = 3  # bytes of a language's code
SURE = 0.8  # probability from which a text in another language is reported
MOSTLY = 0.8  # share of the main language below which the data is of several
LONG, TIMES = 2000, 10  # words; and times the median: a text with more than both is very long
READ = 20_000  # texts that are searched for leaked labels
SEARCHED = 100_000  # characters of each
FEWEST = 5  # rows of a class that such a search needs
DECIDES, ELSEWHERE = 0.95, 0.01  # shares of rows with a token that alone decides
MOST_CLASSES = 50


class TextSurveyor:
    """words: (N, 1) int32. language: (N, 3) uint8, its code. sure: (N, 1) float32. signature:
    (N, SIGNATURE) uint32; see `likeness`."""

    layout: Layout = {
        CONTENT: (np.uint8, (DIGEST_BYTES,)),
        "words": (np.int32, (1,)),
        "language": (np.uint8, (CODE,)),
        "sure": (np.float32, (1,)),
        "signature": (np.uint32, (likeness.SIGNATURE,)),
    }

    def __init__(self, input: Input[str]) -> None:
        self.input = input

    @property
    def table(self) -> str:
        return fingerprint("survey of texts", VERSION, likeness.VERSION)

    def look(self, data: bytes) -> Facts:
        text = self.input.read(data)
        normal = likeness.normal(text)
        language = detect(text)
        code = language.code.encode()[:CODE].ljust(CODE, b"\0")
        return {
            CONTENT: np.frombuffer(digest(normal.encode()), np.uint8),
            "words": np.array([len(normal.split())], np.int32),
            "language": np.frombuffer(code, np.uint8),
            "sure": np.array([language.sure], np.float32),
            "signature": likeness.signature(normal),
        }

    def near(self, facts: Facts, threads: int) -> Sequence[Pair]:
        return likeness.near_duplicates(facts["signature"])

    def odd(self, ids: Sequence[str], facts: Facts) -> Iterator[OddSize]:
        return iter(())

    def remarks(self, dataset: "Dataset", facts: Facts) -> Iterator[Remark]:
        """Yield what is remarkable: languages, very long texts, and labels that texts give away."""
        yield from _about_languages(dataset.ids, facts)
        yield from _very_long(dataset.ids, facts["words"][:, 0])
        yield from _leaks(dataset, self.input)


def languages(facts: Facts) -> list[Detected]:
    """Return the language of each row."""
    codes = (bytes(row).rstrip(b"\0").decode() for row in facts["language"])
    return [Detected(*pair) for pair in zip(codes, facts["sure"][:, 0].tolist(), strict=True)]


def _about_languages(ids: Sequence[str], facts: Facts) -> Iterator[Remark]:
    found = languages(facts)
    main = spoken(found)
    if not main.code:
        return
    values = ("language", main.name), ("share", main.share)
    yield Remark("", "language", f"most texts are {main}", "language", values)
    if main.share < MOSTLY:
        return
    for name, (code, sure) in zip(ids, found, strict=True):
        if code not in ("", main.code) and sure >= SURE:
            other = language_name(code)
            values = ("language", other), ("share", sure)
            yield Remark(name, "other language", f"looks {other} ({sure:.0%})", "other", values)


def _very_long(ids: Sequence[str], words: NDArray[Any]) -> Iterator[Remark]:
    most = max(LONG, TIMES * float(np.median(words)) if len(words) else 0)
    for row in np.flatnonzero(words > most).tolist():
        n = int(words[row])
        why = f"{n:,} words; read in windows, none cut off"
        yield Remark(ids[row], "very long", why, "long", (("n", n),))


def _leaks(dataset: "Dataset", input: Input[str]) -> Iterator[Remark]:
    """Yield tokens that alone decide a label, and labels that stand in their own texts."""
    rows = sampled(range(len(dataset)), READ)
    labels = dataset.target.decode(dataset.y[rows]) if rows else []
    texts = [set(_words(input, dataset.sources[row])) for row in rows]
    counts = Counter(labels)
    if 1 < len(counts) <= MOST_CLASSES:
        yield from _deciding_tokens(labels, texts, counts)
    own = [set(WORDS.findall(label.lower())) for label in labels]
    named = [bool(name) and name <= words for name, words in zip(own, texts, strict=True)]
    if len(counts) > 1 and len(labels) >= FEWEST and np.mean(named) >= DECIDES:
        share = float(np.mean(named))
        why = f"the label itself stands in {share:.0%} of the texts"
        yield Remark("", "leaked label", why, "label", (("share", share),))


def _words(input: Input[str], source: Any) -> list[str]:
    with suppress(OSError, DataError):  # it could be read a moment ago
        return WORDS.findall(input.read(fetched(input, source))[:SEARCHED].lower())
    return []


def _deciding_tokens(
    labels: Sequence[str], texts: Sequence[set[str]], counts: Counter[str]
) -> Iterator[Remark]:
    having = defaultdict[str, Counter[str]](Counter)
    for label, words in zip(labels, texts, strict=True):
        for word in words:
            having[word][label] += 1
    for word, by_label in sorted(having.items()):
        label, n = by_label.most_common(1)[0]
        others = sum(by_label.values()) - n
        own, rest = n / counts[label], others / max(1, len(labels) - counts[label])
        if counts[label] >= FEWEST and own >= DECIDES and rest <= ELSEWHERE:
            why = f"{word!r} stands in {own:.0%} of the texts of {label!r} and in {rest:.1%} of the"
            facts = ("word", word), ("label", label), ("share", own), ("rest", rest)
            yield Remark("", "leaked label", f"{why} others: it alone decides", "token", facts)
