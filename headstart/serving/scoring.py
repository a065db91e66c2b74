"""One version of a model: from the bytes of examples to answers, the same as `predict` gives."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.frozen import Frozen
from headstart.backbones.inputs import Batch, Input, has_parts, length
from headstart.base.errors import BundleError, DataError, HeadstartError
from headstart.features.batches import features_by
from headstart.features.engines import Engine, OnnxEngine
from headstart.features.extract import FeatureTable
from headstart.models.bundle import MANIFEST, load_bundle
from headstart.models.bundle_files import bundle_digest
from headstart.models.golden import TOLERANCE, Arrays, difference
from headstart.models.model import Model
from headstart.models.plain_answers import UNKNOWN, plain_answer

UNFIT = "The network can't compute this example."


@dataclass(frozen=True, eq=False)
class PreparedExample:
    """An example as the network takes it, and the SHA-256 of the bytes that were sent."""

    batch: Batch
    sha256: str


@dataclass(frozen=True, eq=False)
class ScoredExample:
    """The answer for one example.

    plain: as JSON values, without the path. outputs: the target's arrays of this row. names: what
    was answered, to be counted. distance: to the training rows; None for a model without limits.
    unlike: whether it is beyond the limit. value: a predicted number, else None.
    """

    plain: Mapping[str, Any]
    outputs: Mapping[str, NDArray[Any]]
    doubt: str
    names: tuple[str, ...]
    confidence: float | None
    distance: float | None
    unlike: bool
    value: float | None


@dataclass(frozen=True, eq=False)
class Scorer:
    """A loaded model. version: the beginning of its bundle's digest."""

    model: Model
    engine: Engine
    version: str

    @property
    def input(self) -> Input[Any]:
        return self.model.backbone.card.input

    @cached_property
    def tensors(self) -> Mapping[str, NDArray[Any]]:
        """One prepared example by the graph's inputs; {} if the network is given no such arrays.

        Examples in parts, or whose answers are brought back into their own frame, are not.
        """
        own = self.input
        whole = not (has_parts(own) or own.test_views > 1 or own.answers)
        return own.blank(1) if whole else {}

    def prepare(self, data: bytes) -> PreparedExample:
        """Return an example from its bytes; raises DataError."""
        self.input.check_served(data)
        batch = self.input.prepare(self.input.read(data))
        return PreparedExample(batch, hashlib.sha256(data).hexdigest())

    def score(self, examples: Sequence[PreparedExample]) -> list[ScoredExample | DataError]:
        """Return the answers for examples, in their order, DataError for what can't be computed.

        If a batch fails, each of its examples is computed alone, so that one of them takes none of
        the others with it.
        """
        try:
            return self._scored(examples)
        except HeadstartError:
            if len(examples) == 1:
                return [DataError(UNFIT)]
            return [one for example in examples for one in self.score([example])]

    def _scored(self, examples: Sequence[PreparedExample]) -> list[ScoredExample | DataError]:
        x = features_by(self.engine, self.input, [example.batch for example in examples])
        finite = np.isfinite(x).all(axis=1)
        if not finite.all() and len(examples) == 1:
            raise DataError(UNFIT)
        if not finite.all():
            return [one for example in examples for one in self.score([example])]
        return [*self._answered(x, [example.sha256 for example in examples])]

    def _answered(self, x: NDArray[np.float32], digests: Sequence[str]) -> list[ScoredExample]:
        target, limits, n = self.model.target, self.model.limits, len(x)
        ids = tuple(str(row) for row in range(n))
        predictions = self.model.predict_table(
            FeatureTable(ids, x, target.unknown(n), target, made_by="")
        )
        away = limits.distance(x)
        doubts = limits.doubts_at(target, predictions.outputs, away, self.input.noun)
        held = limits.region(target, predictions.outputs).get("not_ruled_out")
        sure = target.confidence(predictions.outputs)
        found = []
        for row, doubt in enumerate(doubts):
            plain = plain_answer(predictions, row, doubt, None if held is None else held[row])
            del plain["path"]
            if limits.seen is not None:
                plain["distance"] = round(float(away[row]), 6)
            found.append(
                ScoredExample(
                    plain={**plain, "sha256": digests[row]},
                    outputs={name: values[row] for name, values in predictions.outputs.items()},
                    doubt=doubt,
                    names=names_of(plain, doubt),
                    confidence=None if sure is None else float(sure[row]),
                    distance=None if limits.seen is None else float(away[row]),
                    unlike=bool(away[row] > limits.far),
                    value=_number(plain.get("predicted")),
                )
            )
        return found

    def check(self) -> None:
        """Raise BundleError unless a known example has the same answer alone and in a batch.

        `load_bundle` has compared the answer with the one that was saved.
        """
        known, blank = self.input.golden(), self.input.blank(1)
        off = difference(self._comparable([known])[0], self._comparable([blank, known])[1])
        if not off <= TOLERANCE:
            raise BundleError(
                f"A model must give a known example the same answer alone and beside others, to "
                f"{TOLERANCE}; these differ by {off:.2g}."
            )

    def _comparable(self, batches: Sequence[Batch]) -> list[Arrays]:
        """Return what of each example's answer is nearly the same on every processor."""
        x = features_by(self.engine, self.input, batches)
        found = self.model.target.comparable(self.model.answers(x))
        return [
            {name: values[row] for name, values in found.items()} for row in range(len(batches))
        ]


def load_scorer(folder: Path, threads: int, digests: Sequence[str] = ()) -> Scorer:
    """Load, verify and try a bundle; raises BundleError.

    digests: of the bundles that may be loaded; () for any.
    """
    version = version_of(folder)
    model = load_bundle(folder, sha256=_demanded(folder, digests)).model
    assert isinstance(model.backbone, Frozen)
    scorer = Scorer(model, OnnxEngine(model.backbone, threads), version)
    scorer.check()
    return scorer


def _demanded(folder: Path, digests: Sequence[str]) -> str:
    """Return the digest that the bundle must have when it is read, "" for any."""
    if not digests:
        return ""
    own = bundle_digest(folder)
    if own not in [digest.lower() for digest in digests]:
        raise BundleError(
            f"{folder} must be a bundle with one of the digests of --sha256; its own is {own}."
        )
    return own


def version_of(folder: Path) -> str:
    """Return the version of the bundle in a folder, "" if it can't be read."""
    try:
        return str(json.loads((folder / MANIFEST).read_bytes())["sha256"])[:16]
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def names_of(plain: Mapping[str, Any], doubt: str) -> tuple[str, ...]:
    """Return what an answer is counted as: its names, "unknown", or () for a number.

    >>> names_of({"predicted": "cat", "score": 0.9}, "")
    ('cat',)
    >>> names_of({"found": [{"label": "cell"}, {"label": "cell"}]}, "")
    ('cell', 'cell')
    """
    if doubt:
        return (UNKNOWN,)
    if "found" in plain:
        return tuple(str(thing["label"]) for thing in plain["found"])
    answer = plain.get("predicted")
    if answer in plain.get("scores", {}):  # a class, whose name may hold a bar
        return (str(answer),)
    return tuple(answer.split("|")) if isinstance(answer, str) else ()


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def rows_of_tensor(batch: Batch) -> list[PreparedExample]:
    """Return the examples of arrays as the network takes them, first axis N."""
    rows = ({name: array[i : i + 1] for name, array in batch.items()} for i in range(length(batch)))
    return [PreparedExample(row, _digest(row)) for row in rows]


def _digest(row: Batch) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in row.values())).hexdigest()
