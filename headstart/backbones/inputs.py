"""What an example is: how it is read, brought to a network and named. Pictures are one kind.

A backbone's card owns one `Input`, so that the same bytes become the same arrays in training,
evaluation, explanation, export and serving. Classes of inputs are known by their `kind`.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import SpecError
from headstart.base.extensions import Extensions
from headstart.base.store import digest
from headstart.base.values import from_plain, to_plain

if TYPE_CHECKING:
    from torch import nn

Batch = Mapping[str, NDArray[Any]]  # N prepared examples, by the graph's input names: first axis N
Raw = TypeVar("Raw")  # one example as it is read: for pictures (H, W, 3) uint8


class Input(Protocol[Raw]):
    """One kind of example. Subclass it as a frozen dataclass: its fields are what a card saves.

    kind: its name in cards. noun: what messages call its examples. suffixes: of the files that a
    folder of such examples holds. unmeant: what `why_not` says of a file that nobody meant as one.
    """

    kind: ClassVar[str]
    noun: ClassVar[str]
    suffixes: ClassVar[Collection[str]] = ()
    unmeant: ClassVar[str] = "not an example"

    def fetch(self, where: Any) -> bytes:
        """The bytes of an example, which name it; raises OSError, or DataError with the reason."""
        ...

    def read(self, data: bytes) -> Raw:
        """Decode one example from its bytes; raises DataError with the reason."""
        ...

    def prepare(self, raw: Raw) -> Batch:
        """One example (N = 1) as the network is given it."""
        ...

    def fingerprint(self) -> str:
        """Part of the store's keys: changes whenever `prepare` would give other values."""
        ...

    def first_layer(self) -> "nn.Module":
        """From the arrays of a batch, as tensors, to what the backbone's module takes.

        It is exported inside the graph: normalisation and casts.
        """
        ...

    def blank(self, n: int) -> Batch:
        """A batch of the right shapes and types, for tracing."""
        ...

    def golden(self) -> Batch:
        """One example that is the same everywhere: its scores are saved with a bundle."""
        return self.blank(1)

    def constants(self) -> tuple[Any, ...]:
        """Numbers in `first_layer`, which belong to the weights: part of their fingerprint."""
        return ()

    def store_key(self, data: bytes, file: bytes) -> bytes:
        """The name in the store of what is computed from these bytes; `file` is their digest."""
        return file

    def collate(self, examples: Sequence[Batch]) -> Batch:
        """The examples joined along N; an input whose examples differ in length pads them here."""
        return {name: np.concatenate([e[name] for e in examples]) for name in examples[0]}

    def why_not(self, file: Path) -> str:
        """Why a file in a folder is no such example, or "" if it is one; raises OSError."""
        return "" if file.suffix.lower() in self.suffixes else self.unmeant

    def known_set(self, folder: Path) -> Any:
        """The `Dataset` that a folder holds if it is a known public one, or None."""
        return None

    def surveyor(self) -> Any:
        """A `data.survey.Surveyor` of such examples; without one only copies of bytes are found."""
        return None

    def describe(self) -> str:
        """What the network is given, in a few words for the report of a run."""
        return self.noun

    def changed(self, **settings: Any) -> "Input[Raw]":
        """The same with other settings, as a recipe asks; raises SpecError for one it has not."""
        if settings:
            raise SpecError(f"{', '.join(settings)} can't be chosen for {self.noun}.")
        return self


def digest_of(example: Batch) -> bytes:
    """Names the arrays of one prepared example; of a single array of bytes, those alone."""
    if len(example) == 1 and (only := next(iter(example.values()))).dtype == np.uint8:
        return digest(only.tobytes())  # as stores have named pictures from the first version on
    parts = (f"{k} {v.dtype.str} {v.shape}".encode() + v.tobytes() for k, v in example.items())
    return digest(*parts)


def only_array(batch: Batch) -> NDArray[Any]:
    """The array of a batch; raises SpecError if there are several."""
    if len(batch) != 1:
        raise SpecError(
            f"A whole network is trained on examples of one array; these have {', '.join(batch)}. "
            f"Thaw fewer layers, so that training starts from a cut."
        )
    return next(iter(batch.values()))


def length(batch: Batch) -> int:
    """N, the number of examples."""
    return len(next(iter(batch.values())))


def rows_of(batch: Batch, rows: Any) -> Batch:
    """Some examples of a batch: a slice, numbers or a mask."""
    return {name: values[rows] for name, values in batch.items()}


def input_to_plain(input: Input[Any]) -> dict[str, Any]:
    """The kind of an input and its settings, ready for JSON."""
    return {**to_plain(input), "kind": input.kind}


def input_from_plain(plain: Any) -> Input[Any]:
    """Rebuild what `input_to_plain` made; raises SpecError or UnknownName if it is no input."""
    if not isinstance(plain, dict):
        raise SpecError(f"A card's input is a JSON object; got {type(plain).__name__}.")
    kind = input_class(str(plain.get("kind")))
    return from_plain({**plain, "kind": kind.__name__}, kind)


INPUTS: Extensions[Any] = Extensions("kind of input", "inputs")  # classes, or one of each


def input_class(kind: str) -> type[Input[Any]]:
    """The class of a kind; raises UnknownName with the nearest."""
    found = INPUTS[kind]
    return found if isinstance(found, type) else type(found)
