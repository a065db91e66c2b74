"""The kinds of examples (`Input`): how an example is read, prepared for a network and identified.

A backbone's card holds one `Input`, so that the same bytes become the same arrays in training,
evaluation, explanation, export and serving. Input classes are registered by their `kind`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import DataError, Mismatch, SpecError
from headstart.base.extensions import Extensions
from headstart.base.location import Location, read_at
from headstart.base.notebook import html_table
from headstart.base.store import digest
from headstart.base.values import from_plain, to_plain

if TYPE_CHECKING:
    from torch import nn

    from headstart.backbones.in_graph import InGraph
    from headstart.base.onnx_nodes import Nodes

# Prepared examples by the graph's input names. The first axis, of all arrays, counts parts: an
# image has one part, a long text one for each window.
Batch = Mapping[str, NDArray[Any]]
Raw = TypeVar("Raw")  # one decoded example; an image is (H, W, 3) uint8


PATH = "path"  # the column of a manifest that names files
FRAME = "frame"  # an array of a batch that no network is given: where the example lies in it


@dataclass(frozen=True, repr=False)
class Encoded:
    """An example in memory, as the bytes of a file. name: for messages."""

    name: str
    data: bytes

    def __repr__(self) -> str:
        return f"Encoded({self.name!r}, {len(self.data):,} bytes)"

    __str__ = __repr__


class Input(Protocol[Raw]):
    """One kind of example. Subclass it as a frozen dataclass, whose fields a card saves.

    kind: name in cards. noun: name of the examples in messages. suffixes: of example files in a
    folder. unmeant: the answer of `why_not` for other files. column: of a manifest, which holds
    the path of an example or, under another name than "path", the example itself as text, which
    `fetch` is then given. in_parts: whether an example may have several parts, as windows of a
    long text; see `part_weights`. Inputs with `dynamic_axes` need not say so.
    """

    kind: ClassVar[str]
    noun: ClassVar[str]
    suffixes: ClassVar[Collection[str]] = ()
    unmeant: ClassVar[str] = "not an example"
    column: ClassVar[str] = PATH
    in_parts: ClassVar[bool] = False
    examples: ClassVar[str] = ""  # the kind of the data's examples, if another than `kind`

    def fetch(self, where: Any) -> bytes:
        """Return the bytes of an example, which identify it; raises OSError or DataError."""
        ...

    def encode(self, example: Any) -> bytes:
        """Return a user's example, such as an array, as bytes that `read` accepts.

        Raises DataError for a type that this kind of input does not know.
        """
        raise DataError(f"{self.noun} are given by their paths; got a {type(example).__name__}.")

    def read(self, data: bytes) -> Raw:
        """Decode one example from its bytes; raises DataError."""
        ...

    def check_served(self, data: bytes) -> None:
        """Raise DataError if an example is larger than a server decodes for anyone who asks."""
        return None

    def display(self, raw: Raw, caption: str, width: int = 160) -> str:
        """Return a decoded example as HTML, everything escaped. width: in pixels."""
        return html_table([(caption,), (str(raw)[:200],)])

    def excerpt(self, raw: Raw) -> str:
        """Return the beginning of an example for a report, as text; "" if it is no text."""
        return ""

    def prepare(self, raw: Raw) -> Batch:
        """Return the parts of one example (P = 1 for an image), ready for the network."""
        ...

    def part_weights(self, batch: Batch) -> NDArray[np.float64]:
        """Return each part's weight (P,) in the mean of its example's features: by default equal.

        For a text, the number of tokens in each window.
        """
        return np.ones(length(batch))

    @property
    def answers(self) -> bool:
        """Whether the network gives answers instead of features.

        Only the usual engine runs it then, by which it was checked.
        """
        return False

    def settled(self, x: NDArray[Any], batch: Batch) -> NDArray[Any]:
        """Return a network's features (N, D) of examples as they are kept.

        batch: the examples; answers that are places in them are brought into their own frame.
        """
        return x

    def part_lengths(self, batch: Batch) -> NDArray[np.int64]:
        """Return the length of each part (P,) along the dynamic axes, without zeros at its end."""
        lengths = np.ones(length(batch), np.int64)
        for name, axes in self.dynamic_axes().items():
            for axis in axes:
                others = tuple(i for i in range(1, batch[name].ndim) if i != axis)
                held = (batch[name] != 0).any(axis=others)  # (P, L)
                ends = held * np.arange(1, held.shape[1] + 1)
                lengths = np.maximum(lengths, ends.max(axis=1, initial=1))
        return lengths

    def about_parts(self, parts: NDArray[np.int64]) -> str:
        """Return a remark on how many parts the examples of a data set have, (N,); "" for none."""
        return ""

    def parts_facts(self, parts: NDArray[np.int64]) -> tuple[str, tuple[tuple[str, int], ...]]:
        """Return the name of the same remark in a report's words, and its values; "" for none."""
        return "", ()

    def dynamic_axes(self) -> Mapping[str, Mapping[int, str]]:
        """Return the axes besides the first whose length varies, by array: {"ids": {1: "tokens"}}.

        The exported graph accepts any length there; `collate` pads.
        """
        return {}

    def fingerprint(self) -> str:
        """Return a part of the cache keys that changes whenever `prepare` changes."""
        ...

    def first_layer(self) -> "nn.Module":
        """Return the layer from a batch's arrays (as tensors) to the backbone module's input.

        It is exported inside the graph and contains normalisation and casts.
        """
        ...

    def blank(self, n: int) -> Batch:
        """Return n parts with the right shapes and dtypes, for tracing."""
        ...

    def golden(self) -> Batch:
        """Return one fixed example, whose scores are saved with a bundle."""
        return self.blank(1)

    def constants(self) -> tuple[Any, ...]:
        """Return the constants of `first_layer`, which are part of the weights' fingerprint."""
        return ()

    def store_key(self, data: bytes, file: bytes) -> bytes:
        """Return the cache key of what is computed from `data`; `file` is the digest of `data`."""
        return file

    def collate(self, examples: Sequence[Batch]) -> Batch:
        """Join the parts of examples along the first axis; dynamic axes are padded with zeros."""
        dynamic = self.dynamic_axes()
        return {
            name: _joined([e[name] for e in examples], dynamic.get(name, {}))
            for name in examples[0]
        }

    def assets(self) -> Mapping[str, bytes]:
        """Return the files, by name, that a bundle must carry besides the card's settings."""
        return {}

    def with_assets(self, assets: Mapping[str, bytes]) -> Self:
        """Return the input with the files of `assets`, as read from a bundle."""
        return self

    def default_backbone(self, data: Any) -> tuple[str, str]:
        """Return the usual backbone for a `Dataset` of this kind, and why, to be printed.

        "" stands for the backbone of the recipe.
        """
        return "", ""

    def baseline(self, train: Any, val: Any) -> Any:
        """Fit a model without a pretrained network, which stands beside every result; None: none.

        train, val: `Dataset`s, of which `val` chooses settings. The model has a `name`,
        `raw(dataset)`, the raw outputs (N, K), and a `target`, whose `activate` makes answers of
        them.
        """
        return None

    def why_not(self, file: Path) -> str:
        """Return why a file in a folder is not an example, or "" if it is one; raises OSError."""
        return "" if file.suffix.lower() in self.suffixes else self.unmeant

    def known_set(self, folder: Path) -> Any:
        """Return the `Dataset` in a folder that holds a known public data set, otherwise None."""
        return None

    def surveyor(self) -> Any:
        """Return a `data.survey.Surveyor`; with None only byte-identical copies are found."""
        return None

    def describe(self) -> str:
        """Return a short description of the network's input for a run's report."""
        return self.noun

    @property
    def test_views(self) -> int:
        """The number of views of an example, its parts, whose mean features stand for it."""
        return 1

    def averaging(self, views: Any, count: int = 0) -> "Input[Raw]":
        """Return the input that prepares test-time views of examples, to average their features.

        views: the `ViewSpec` of training, whose changes they are. count: 0 for the usual number, 1
        for the example alone. Raises SpecError if there are no such views.
        """
        if count == 1:
            return self
        raise SpecError(
            f"Test-time views are flips, turns and crops of pictures, and {self.noun} have none: "
            f"leave tta out."
        )

    def finding(self, sizes: NDArray[np.int64], longest: int) -> "Input[Raw]":
        """Return the input for a network that finds places in examples.

        sizes: (N, 2), of the data's examples. longest: of the sides of what the network is given;
        0 for the usual one.
        """
        raise SpecError(f"Places are found in pictures; {self.noun} have none.")

    def in_graph(self, nodes: "Nodes", *, prepares: bool = True) -> "InGraph":
        """Add the inputs of an exported graph, and what makes the network's arrays of them.

        prepares: whether the graph prepares examples, or is given prepared ones alone. Raises
        SpecError if this kind of input can't be exported.
        """
        raise not_exported(self)

    def graph_inputs(self, raw: Raw) -> Mapping[str, NDArray[Any]]:
        """Return the inputs of an exported graph for one decoded example, by name."""
        raise not_exported(self)

    def examples_in(self, inputs: Mapping[str, NDArray[Any]]) -> list[Batch]:
        """Return the prepared examples, as of `prepare`, in the inputs of an exported graph."""
        raise not_exported(self)

    def known_inputs(self) -> Iterable[Mapping[str, NDArray[Any]]]:
        """Return inputs of the exported graph, by which it is compared with the model."""
        return ()

    def export_facts(self) -> Mapping[str, Any]:
        """Return the facts that a program needs to prepare examples for an export, as JSON."""
        return {"kind": self.kind}

    def standalone(self, engine: str) -> str:
        """Return a program that predicts with an export and needs no Headstart.

        engine: onnx or openvino.
        """
        raise not_exported(self)

    def changed(self, **settings: Any) -> "Input[Raw]":
        """Return the input with other settings; raises SpecError for a setting that it lacks."""
        if settings:
            raise SpecError(f"{', '.join(settings)} can't be chosen for {self.noun}.")
        return self


def not_exported(input: Input[Any]) -> SpecError:
    """Return the error for a kind of input that `headstart export` does not know."""
    return SpecError(f"{input.noun.capitalize()} are not known to `headstart export`.")


def fetched(input: Input[Any], source: Any) -> bytes:
    """Return the bytes of an example in memory or at a place, or those that the input fetches."""
    if isinstance(source, Location):
        return input.fetch(Path(source.source)) if source.is_file else read_at(source)
    return source.data if isinstance(source, Encoded) else input.fetch(source)


def check_kind(takes: Input[Any], data: Input[Any] | None, name: str) -> None:
    """Raise Mismatch unless the data is of the kind that the backbone called `name` takes."""
    if data is not None and data.kind not in (takes.kind, takes.examples):
        raise Mismatch(
            f"A backbone is given the kind of examples that it was made for: {name} takes "
            f"{takes.noun}, and the data holds {data.noun}. Name another --backbone."
        )


def digest_of(example: Batch) -> bytes:
    """Return the digest of the arrays of one prepared example."""
    if len(example) == 1 and (only := next(iter(example.values()))).dtype == np.uint8:
        return digest(only.tobytes())  # keys of images in stores since the first version
    parts = (f"{k} {v.dtype.str} {v.shape}".encode() + v.tobytes() for k, v in example.items())
    return digest(*parts)


def only_array(batch: Batch) -> NDArray[Any]:
    """Return the array of a batch; raises SpecError if there are several."""
    if len(batch) != 1:
        raise SpecError(
            f"A whole network is trained on examples of one array; these have {', '.join(batch)}. "
            f"Thaw fewer layers, so that training starts from a cut."
        )
    return next(iter(batch.values()))


def given(batch: Batch) -> Batch:
    """Return the arrays of a batch that a network is given."""
    return {name: array for name, array in batch.items() if name != FRAME}


def example_of(input: Input[Any]) -> Batch:
    """Return one example as a network is given it: the golden one if lengths vary, else a blank
    one, which takes no memory."""
    return given(input.golden() if input.dynamic_axes() else input.blank(1))


def length(batch: Batch) -> int:
    """Return the number of parts: of an image, 1."""
    return len(next(iter(batch.values())))


def rows_of(batch: Batch, rows: Any) -> Batch:
    """Return some parts of a batch; rows: a slice, indices or a mask."""
    return {name: values[rows] for name, values in batch.items()}


def has_parts(input: Input[Any]) -> bool:
    """Return whether examples may have several parts, or parts of different lengths."""
    return input.in_parts or bool(input.dynamic_axes())


def pooled(x: NDArray[np.floating[Any]], weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the features (D,) of an example: the mean of its parts' (P, D), weighted by (P,).

    Those of a single part are returned as they are.
    """
    if len(x) == 1:
        return x[0].astype(np.float32, copy=False)
    return np.average(x.astype(np.float64), axis=0, weights=weights).astype(np.float32)


def cut_short(input: Input[Any], batch: Batch, longest: int) -> Batch:
    """Return a batch with at most `longest` entries along the dynamic axes: a view."""
    dynamic, out = input.dynamic_axes(), dict(batch)
    for name, axes in dynamic.items():
        whole = range(batch[name].ndim)
        out[name] = batch[name][tuple(slice(longest if i in axes else None) for i in whole)]
    return out


def _joined(arrays: Sequence[NDArray[Any]], axes: Collection[int]) -> NDArray[Any]:
    """Join arrays along the first axis, with zeros after their ends along `axes`."""
    if not axes:
        return np.concatenate(arrays)
    shape = [max(sizes) for sizes in zip(*(array.shape for array in arrays), strict=True)]
    out = np.zeros((sum(map(len, arrays)), *shape[1:]), arrays[0].dtype)
    start = 0
    for array in arrays:
        out[(slice(start, start + len(array)), *map(slice, array.shape[1:]))] = array
        start += len(array)
    return out


def input_to_plain(input: Input[Any]) -> dict[str, Any]:
    """Return the kind of an input and its settings as a dict of JSON values."""
    return {**to_plain(input), "kind": input.kind}


def input_from_plain(plain: Any) -> Input[Any]:
    """Rebuild an input from `input_to_plain`; raises SpecError or UnknownName for anything else."""
    if not isinstance(plain, dict):
        raise SpecError(f"A card's input is a JSON object; got {type(plain).__name__}.")
    kind = input_class(str(plain.get("kind")))
    return from_plain({**plain, "kind": kind.__name__}, kind)


INPUTS: Extensions[Any] = Extensions("kind of input", "inputs")  # classes, or instances of them


def input_class(kind: str) -> type[Input[Any]]:
    """Return the class registered for a kind; raises UnknownName with the nearest kind."""
    found = INPUTS[kind]
    return found if isinstance(found, type) else type(found)
