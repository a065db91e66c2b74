"""Preparation of texts: from bytes to the token windows of a backbone."""

import hashlib
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.inputs import INPUTS, Batch, Input, fetched
from headstart.base.cells import not_utf8
from headstart.base.display import display
from headstart.base.errors import BundleError, DataError, SpecError
from headstart.base.notebook import escape
from headstart.base.tables import BOMS
from headstart.base.values import as_key, fingerprint
from headstart.modalities.text.catalogue import for_language
from headstart.modalities.text.language import Detected, detect, sampled, spoken
from headstart.modalities.text.tokens import (
    Format,
    Tokenizer,
    prefixed,
    tokenizer_of,
    window_spans,
    windows,
)

if TYPE_CHECKING:
    from torch import nn

    from headstart.backbones.in_graph import InGraph
    from headstart.base.onnx_nodes import Nodes
    from headstart.data.dataset import Dataset
    from headstart.modalities.text.baseline import TextBaseline
    from headstart.modalities.text.survey import TextSurveyor

VERSION = 1  # raise it when the same text would become other tokens
SHOWN = 300  # characters of a text that are displayed
SAMPLED = 500  # texts whose language is detected to choose a backbone
SHORTEST = 8  # tokens of a window
SERVED_BYTES = 200_000  # of a text sent to a server: some 200 windows
LONGEST = 2**17  # tokens of a window, at most
MOST_PREFIX = 1000  # characters
GOLDEN = "A test sentence, the same for every network: 12 small cats sat on 3 mats."
FILES: dict[str, str] = {"tokenizers": "tokenizer.json", "sentencepiece": "tokenizer.model"}


@dataclass(frozen=True)
class TextInput(Input[str]):
    """How a text becomes the tokens of a backbone.

    window: the most tokens that the network reads at once, special ones included; a longer text is
    read in several windows, never cut. format: of the tokenizer's file; "hashed" needs none.
    digest: of this file (SHA-256). pad: the id that fills up shorter windows. prefix: text that the
    network expects before each window. file: the bytes of the tokenizer's file, saved beside the
    card (`assets`).
    """

    kind: ClassVar[str] = "text"
    noun: ClassVar[str] = "texts"
    suffixes: ClassVar[Collection[str]] = (".txt",)
    unmeant: ClassVar[str] = "not a text file (.txt)"
    column: ClassVar[str] = "text"

    window: int = 256
    format: Format = "hashed"
    digest: str = ""
    pad: int = 0
    prefix: str = ""
    file: bytes | None = field(
        default=None, compare=False, repr=False, metadata=as_key("file", written=False)
    )

    def __post_init__(self) -> None:
        if not SHORTEST <= self.window <= LONGEST:
            raise SpecError(
                f"A window holds at least {SHORTEST} tokens, and {LONGEST:,} at most; got "
                f"window={self.window}. A longer one reads more of a text at once."
            )
        if not 0 <= self.pad < 2**31 or len(self.prefix) > MOST_PREFIX:
            raise SpecError(
                f"pad is the number of a token, and a prefix has up to {MOST_PREFIX} characters; "
                f"got pad={self.pad} and {len(self.prefix):,} characters."
            )
        if self.format not in get_args(Format):
            raise SpecError(f"format is one of {', '.join(get_args(Format))}; got {self.format!r}.")
        if self.file is not None and hashlib.sha256(self.file).hexdigest() != self.digest:
            raise BundleError(
                "The tokenizer's file must be the one that the network was saved with; its "
                "SHA-256 is another. Get the file again."
            )

    @classmethod
    def of(
        cls, format: Format, file: bytes, window: int, pad: int = 0, prefix: str = ""
    ) -> "TextInput":
        """Return the input for a tokenizer's file."""
        return cls(window, format, hashlib.sha256(file).hexdigest(), pad, prefix, file)

    def changed(self, **settings: Any) -> "TextInput":
        """Return a copy with these fields changed; `window` alone can be."""
        if others := settings.keys() - {"window"}:
            raise SpecError(f"{', '.join(sorted(others))} can't be chosen for {self.noun}.")
        return replace(self, **settings)

    def fetch(self, where: Any) -> bytes:
        """Return the bytes of a text: of a file, if `where` is a path, otherwise of a table."""
        return where.read_bytes() if isinstance(where, Path) else self.encode(where)

    def encode(self, example: Any) -> bytes:
        """Return a text as UTF-8."""
        if not isinstance(example, str):
            raise DataError(f"A text is given as a str or a path; got a {type(example).__name__}.")
        try:
            return example.encode()
        except UnicodeEncodeError:
            raise DataError("holds half of a character (a lone surrogate); it is no text") from None

    def read(self, data: bytes) -> str:
        """Decode a text: UTF-8, or UTF-16 or UTF-32 with a byte order mark; in NFC.

        Raises DataError for other encodings, with a guess, for a NUL and for an empty text.
        """
        text = unicodedata.normalize("NFC", _decoded(data))
        if "\0" in text:
            raise DataError("holds a NUL; it is no text")
        if not text.strip():
            raise DataError("is empty")
        return text

    def check_served(self, data: bytes) -> None:
        if len(data) > SERVED_BYTES:
            raise DataError(f"has {len(data):,} bytes, and a server reads up to {SERVED_BYTES:,}")

    def display(self, raw: str, caption: str, width: int = 160) -> str:
        """Return the beginning of a text as HTML, everything escaped."""
        return (
            f'<figure style="margin:4px;min-width:{width}px;overflow-wrap:anywhere">'
            f"<blockquote>{escape(shortened(raw))}</blockquote>"
            f"<figcaption>{escape(display(caption))}</figcaption></figure>"
        )

    def excerpt(self, raw: str) -> str:
        return shortened(raw)

    def prepare(self, raw: str) -> Batch:
        """Return ids and mask, (P, L) int64 each: one row per window of the text."""
        found = windows(self.tokenizer, raw, self.window)
        rows = [np.array(ids, np.int64)[None] for ids in found]
        return self.collate([{"ids": ids, "mask": np.ones_like(ids)} for ids in rows])

    def spans(self, raw: str) -> NDArray[np.int64]:
        """Return the characters, from and to (exclusive), of each token of `prepare`: (P, L, 2).

        Those of special tokens and of filled up places are -1.
        """
        rows = list(window_spans(self.tokenizer, raw, self.window))
        found = np.full((len(rows), max(map(len, rows)), 2), -1, np.int64)
        for row, spans in zip(found, rows, strict=True):
            row[: len(spans)] = spans
        return found

    @property
    def tokenizer(self) -> Tokenizer:
        own = tokenizer_of(self.format, self.digest, self.file)
        return prefixed(own, self.prefix) if self.prefix else own

    @property
    def neutral(self) -> int | None:
        """The id of the token that stands for a hidden one; None if the tokenizer has none."""
        return self.tokenizer.mask

    def collate(self, examples: Sequence[Batch]) -> Batch:
        """Join the windows of several texts; shorter ones are filled up, with a mask of 0."""
        longest = max(example["ids"].shape[1] for example in examples)
        fill = {"ids": self.pad, "mask": 0}
        return {
            name: np.concatenate([_padded(e[name], longest, value) for e in examples])
            for name, value in fill.items()
        }

    def part_weights(self, batch: Batch) -> NDArray[np.float64]:
        """Return the number of tokens in each window: (P,)."""
        return np.asarray(batch["mask"], np.float64).sum(axis=1)

    def part_lengths(self, batch: Batch) -> NDArray[np.int64]:
        """Return the number of tokens in each window: (P,)."""
        return np.asarray(batch["mask"], np.int64).sum(axis=1)

    def about_parts(self, parts: NDArray[np.int64]) -> str:
        """Return how many texts are longer than a window, and in how many windows they are read."""
        window, long = f"one window of {self.window} tokens", parts[parts > 1]
        if not len(long):
            return f"all texts fit in {window}" if len(parts) else ""
        share = f"{100 * len(long) / len(parts):.3g} % of the texts"
        most = f"2 to {long.max():,}" if long.max() > 2 else "2"
        return (
            f"{share} ({len(long):,} of {len(parts):,}) are longer than {window}: read in {most} "
            f"windows, nothing is cut"
        )

    def parts_facts(self, parts: NDArray[np.int64]) -> tuple[str, tuple[tuple[str, int], ...]]:
        """Return the name and the values of the remark that `about_parts` writes."""
        long, most = int((parts > 1).sum()), int(parts.max(initial=0))
        if not long:
            return ("windows_fit", (("window", self.window),)) if len(parts) else ("", ())
        facts = (("n", long), ("of", len(parts)), ("window", self.window))
        return ("windows_more", (*facts, ("most", most))) if most > 2 else ("windows", facts)

    def dynamic_axes(self) -> Mapping[str, Mapping[int, str]]:
        """Return the axis of the tokens, which differs from text to text."""
        return {"ids": {1: "tokens"}, "mask": {1: "tokens"}}

    def assets(self) -> Mapping[str, bytes]:
        """Return the tokenizer's file by its name; {} without one."""
        return {FILES[self.format]: self.file} if self.file is not None else {}

    def with_assets(self, assets: Mapping[str, bytes]) -> "TextInput":
        """Return the input with the tokenizer's file; BundleError if it is missing or another."""
        if self.format == "hashed":
            return self
        if FILES[self.format] not in assets:
            raise BundleError(
                f"A network for texts is saved with its tokenizer; {FILES[self.format]} is missing."
            )
        return replace(self, file=assets[FILES[self.format]])

    def surveyor(self) -> "TextSurveyor":
        from headstart.modalities.text.survey import TextSurveyor

        return TextSurveyor(self)

    def default_backbone(self, data: "Dataset") -> tuple[str, str]:
        """Return the packaged backbone for the language of most texts, and a sentence on it."""
        return for_language(spoken(_languages(self, data)))

    def baseline(self, train: "Dataset", val: "Dataset") -> "TextBaseline | None":
        """Fit TF-IDF under a linear model, which needs no pretrained network."""
        from headstart.modalities.text.baseline import fit_baseline

        return fit_baseline(self, train, val)

    def in_graph(self, nodes: "Nodes", *, prepares: bool = True) -> "InGraph":
        from headstart.modalities.text.exported import text_in_graph

        return text_in_graph(nodes)

    def graph_inputs(self, raw: str) -> Batch:
        from headstart.modalities.text.exported import one_text

        return one_text(self.prepare(raw))

    def examples_in(self, inputs: Batch) -> list[Batch]:
        from headstart.modalities.text.exported import texts_in

        return texts_in(inputs)

    def known_inputs(self) -> list[Batch]:
        from headstart.modalities.text.exported import known_inputs, one_text

        made = known_inputs(self.prepare, self.collate, self.window)
        return [one_text(self.golden()), *made]

    def export_facts(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("format", "window", "pad", "prefix")}
        return {"kind": self.kind, "file": next(iter(self.assets()), ""), **own}

    def standalone(self, engine: str) -> str:
        from headstart.modalities.text.exported import standalone

        return standalone(engine, self.format)

    def first_layer(self) -> "nn.Module":
        from headstart.modalities.text.networks import AsGiven

        return AsGiven()

    def blank(self, n: int) -> Batch:
        ids = np.ones((n, SHORTEST), np.int64)
        return {"ids": ids, "mask": np.ones_like(ids)}

    def golden(self) -> Batch:
        return self.prepare(GOLDEN)

    def describe(self) -> str:
        return f"windows of {self.window} tokens"

    def fingerprint(self) -> str:
        """Return a fingerprint of all that decides the tokens of a text."""
        prefix = (self.prefix,) if self.prefix else ()
        return fingerprint("text", VERSION, self.format, self.digest, self.window, *prefix)


INPUTS.add(TextInput.kind, TextInput)


def _languages(input: TextInput, data: "Dataset") -> Iterator[Detected]:
    """Yield the languages of a sample of the texts, the same every time."""
    for source in sampled(data.sources, SAMPLED):
        with suppress(OSError, DataError):  # the check of the data names unreadable texts
            yield detect(input.read(fetched(input, source)))


def shortened(text: str, most: int = SHOWN) -> str:
    """Return the beginning of a text, cut after a word, with an ellipsis if something is left."""
    text = " ".join(text.split()) if len(text) <= 4 * most else " ".join(text[: 4 * most].split())
    if len(text) <= most:
        return text
    return f"{text[:most].rpartition(' ')[0] or text[:most]} …"


def _decoded(data: bytes) -> str:
    for mark, encoding in BOMS.items():
        if data.startswith(mark):
            try:
                return data.decode(encoding)
            except UnicodeDecodeError as error:
                name = encoding.removesuffix("-sig").upper()
                raise DataError(f"begins as {name} and is not: save the text as UTF-8") from error
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise DataError(not_utf8(data)) from None


def _padded(values: NDArray[Any], length: int, value: int) -> NDArray[np.int64]:
    return np.pad(values, ((0, 0), (0, length - values.shape[1])), constant_values=value)
