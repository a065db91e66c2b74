"""Tokenizers: from a text to token ids, in windows of a limited length.

Nothing is cut off: a long text becomes several windows, each with the special tokens that the
network expects around a text. Only `tokenizers` or `sentencepiece` is needed, and a network for
tests needs neither.
"""

import re
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from headstart.base.errors import BundleError, MissingPackage

Format = Literal["hashed", "tokenizers", "sentencepiece"]
HASHED = 2048  # ids of the tokenizer of hashed words: 0 pads, 1 begins a text
WORDS = re.compile(r"\w+|[^\w\s]")
SENTENCE_END = frozenset(".!?…。！？")
NOWHERE = (-1, -1)  # the span of a special token
MASKS = ("[MASK]", "<mask>")
NEAR = 0.5  # a window ends after a sentence only if this share of it stays filled


@dataclass(frozen=True)
class Tokens:
    """The tokens of a text, without special ones.

    starts: whether a word begins with the token. ends: whether a sentence ends with it. spans: the
    characters of the text, from and to (exclusive), that became the token.
    """

    ids: Sequence[int]
    starts: Sequence[bool]
    ends: Sequence[bool]
    spans: Sequence[tuple[int, int]]


class Tokenizer(Protocol):
    """before, after: the special tokens around each window. mask: the id of the token that stands
    for a hidden one; None without such a token."""

    @property
    def before(self) -> tuple[int, ...]: ...
    @property
    def after(self) -> tuple[int, ...]: ...
    @property
    def mask(self) -> int | None: ...
    def tokens(self, text: str) -> Tokens: ...


def windows(tokenizer: Tokenizer, text: str, length: int) -> Iterator[list[int]]:
    """Yield the ids of each window of a text, at most `length` with the special tokens."""
    tokens = tokenizer.tokens(text)
    for start, end in divided(tokenizer, tokens, length):
        yield [*tokenizer.before, *tokens.ids[start:end], *tokenizer.after]


def window_spans(tokenizer: Tokenizer, text: str, length: int) -> Iterator[list[tuple[int, int]]]:
    """Yield the characters, from and to, of the tokens of each window; NOWHERE of special ones."""
    tokens = tokenizer.tokens(text)
    before, after = ([NOWHERE] * len(ids) for ids in (tokenizer.before, tokenizer.after))
    for start, end in divided(tokenizer, tokens, length):
        yield [*before, *tokens.spans[start:end], *after]


def divided(tokenizer: Tokenizer, tokens: Tokens, length: int) -> Iterator[tuple[int, int]]:
    """Yield the first and last (exclusive) token of each window.

    A window ends after a sentence if that leaves it half full, otherwise before a word; only a word
    that is longer than a window is cut. A text without tokens is one window.
    """
    room = max(1, length - len(tokenizer.before) - len(tokenizer.after))
    start = 0
    while True:
        end = _end(tokens, start, room)
        yield start, end
        start = end
        if start >= len(tokens.ids):
            return


def _end(tokens: Tokens, start: int, room: int) -> int:
    """Return where the window that begins at `start` ends (exclusive)."""
    last = start + room
    if last >= len(tokens.ids):
        return len(tokens.ids)
    for end in range(last, start + int(NEAR * room), -1):
        if tokens.ends[end - 1] and tokens.starts[end]:
            return end
    return next((end for end in range(last, start, -1) if tokens.starts[end]), last)


@dataclass(frozen=True)
class HashedWords:
    """Words in lower case, each a checksum modulo the number of ids: for tests."""

    before: tuple[int, ...] = (1,)
    after: tuple[int, ...] = ()
    mask: int | None = None

    def tokens(self, text: str) -> Tokens:
        found = list(WORDS.finditer(text))
        words = [match[0].lower() for match in found]
        ids = [2 + zlib.crc32(word.encode()) % (HASHED - 2) for word in words]
        ends = [word in SENTENCE_END for word in words]
        return Tokens(ids, [True] * len(ids), ends, [match.span() for match in found])


class JsonTokenizer:
    """A tokenizer.json of the library tokenizers."""

    def __init__(self, data: bytes) -> None:
        try:
            import tokenizers
        except ImportError:
            raise _missing("tokenizers") from None
        try:
            self._own = tokenizers.Tokenizer.from_str(data.decode())
            self._own.no_truncation()
            self._own.no_padding()
            encoded = self._own.encode("a")
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except BaseException as error:  # the library raises Exception, and panics of Rust
            raise _unreadable(error) from error
        special = encoded.special_tokens_mask
        first = special.index(0) if 0 in special else len(special)
        last = len(special) - special[::-1].index(0) if 0 in special else len(special)
        self.before, self.after = tuple(encoded.ids[:first]), tuple(encoded.ids[last:])
        own = (self._own.token_to_id(name) for name in MASKS)
        self.mask = next((id for id in own if id is not None), None)

    def tokens(self, text: str) -> Tokens:
        encoded = self._own.encode(text, add_special_tokens=False)
        words, spans = encoded.word_ids, encoded.offsets
        starts = [i == 0 or words[i] is None or words[i] != words[i - 1] for i in range(len(words))]
        ends = [text[end - 1 : end] in SENTENCE_END for _, end in spans]
        return Tokens(encoded.ids, starts, ends, spans)


class SentencePieces:
    """A SentencePiece model; a window has its begin and end tokens."""

    def __init__(self, data: bytes) -> None:
        try:
            import sentencepiece
        except ImportError:
            raise _missing("sentencepiece") from None
        try:
            self._own: Any = sentencepiece.SentencePieceProcessor(model_proto=data)
        except (OSError, RuntimeError) as error:
            raise _unreadable(error) from error
        self.before, self.after = (self._own.bos_id(),), (self._own.eos_id(),)
        self.mask: int | None = None

    def tokens(self, text: str) -> Tokens:
        found = self._own.encode(text, return_type="offset_mapping")
        starts = [piece.startswith("\u2581") for piece in found["pieces"]]
        ends = [piece[-1:] in SENTENCE_END for piece in found["pieces"]]
        return Tokens(found["ids"], starts, ends, found["offsets"])


@dataclass(frozen=True)
class PrefixedTokenizer:
    """A tokenizer whose windows all begin with the same text, as "query: " for E5."""

    own: Tokenizer
    before: tuple[int, ...]

    @property
    def after(self) -> tuple[int, ...]:
        return self.own.after

    @property
    def mask(self) -> int | None:
        return self.own.mask

    def tokens(self, text: str) -> Tokens:
        return self.own.tokens(text)


def prefixed(own: Tokenizer, prefix: str) -> PrefixedTokenizer:
    """Return the tokenizer with the tokens of `prefix` at the start of each window."""
    return PrefixedTokenizer(own, (*own.before, *own.tokens(prefix).ids))


_LOADED: dict[tuple[Format, str], Tokenizer] = {}
_LOCK = threading.Lock()


def tokenizer_of(format: Format, digest: str, data: bytes | None) -> Tokenizer:
    """Return the tokenizer of a file, loaded once in a process.

    Raises BundleError if the file is missing, MissingPackage without the library.
    """
    with _LOCK:
        if (format, digest) not in _LOADED:
            _LOADED[format, digest] = _load(format, data)
        return _LOADED[format, digest]


def _load(format: Format, data: bytes | None) -> Tokenizer:
    if format == "hashed":
        return HashedWords()
    if data is None:
        raise BundleError(
            "A network for texts needs the file of its tokenizer, which is missing here. Load the "
            "backbone by its name, or the whole folder that it was saved in."
        )
    return JsonTokenizer(data) if format == "tokenizers" else SentencePieces(data)


def _unreadable(error: BaseException) -> BundleError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:80]
    return BundleError(f"The file of a tokenizer cannot be read: {reason}. Get the file again.")


def _missing(package: str) -> MissingPackage:
    return MissingPackage(package, purpose="Reading texts", extra="text")
