"""How far data lies from a backbone's source task, by the backbone's own statistics.

A batch norm stores the mean and variance of each channel on the source task. Data like the source
reproduces them; the farther the data, the less. White noise through the same network gives the
other end of the scale. For a backbone without batch norms, only the confidence of its source head
is measured.

Only the deeper half of the norms is used: the first ones separate small, grey or blurred pictures
from sharp ones, which a network copes with, and place dull pictures farther away than noise.
"""

import math
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.backbone import Backbone, SourceHead
from headstart.backbones.frozen import Frozen
from headstart.backbones.inputs import Batch, Input, has_parts
from headstart.base.errors import DataError
from headstart.base.listener import Listener
from headstart.base.runtime import Runtime, torch_threads
from headstart.base.threads import ordered_map
from headstart.data.content import prepared
from headstart.data.dataset import CheckedFile, Dataset
from headstart.data.sampling import sample as sample
from headstart.evaluation.evaluation import Estimate, Z, brief
from headstart.evaluation.norm_statistics import (
    ExampleStats,
    Floats,
    SourceStats,
    concatenated,
    measuring,
    source_stats,
)
from headstart.features.engine_table import check_device

MOST = 100  # examples measured: enough for an error of 0.03 (bench/unlike.py)
FEW = 5  # fewer examples give no distance
BATCH = 16
NOISE = 16  # examples of noise
FAR, VERY_FAR = 0.30, 0.68  # least distances of "far" and "very far" (bench/unlike.py)
UNSURE = 0.20  # below this confidence of the source head, data is "far", too
FORGETFUL = (
    "holds no statistics of a source task (batch norms that were trained), nor a source head that "
    "was trained."
)
ADVICE = {
    "near": "A head on frozen features is likely to do well (--strategy extract); fine-tuning a "
    "few blocks may add a little.",
    "far": "A head on frozen features is likely to fall short: fine-tune the upper half of the "
    "network (what --strategy auto tries) or more, as --thaw all.",
    "very far": "Expect little from frozen features: fine-tune everything at a low rate "
    "(--thaw all), and train --baseline cnn from scratch beside it, to see what pretraining is "
    "worth here.",
}


@dataclass(frozen=True)
class SourceDistance:
    """How far examples are from a backbone's source task.

    distance: 0 for the statistics of the source task, 1 for those of noise, or more; None without
    trained batch norms. sure: mean highest score of the source head; None without one. named:
    number of different source classes predicted. why: the reason if the distance is unknown.
    """

    backbone: str
    examples: int = 0
    distance: Estimate | None = None
    sure: Estimate | None = None
    named: int = 0
    why: str = ""

    @property
    def word(self) -> str:
        """near, far or very far; "" if unknown. The source head alone never gives very far."""
        if self.why:
            return ""
        if self.distance is not None and self.distance.value >= VERY_FAR:
            return "very far"
        strange = self.distance is not None and self.distance.value >= FAR
        unsure = self.sure is not None and self.sure.high < UNSURE
        return "far" if strange or unsure else "near"

    @property
    def sentence(self) -> str:
        """A clause that states where the data lies, without a full stop."""
        if not self.word:
            return f"how far it lies from what {self.backbone} learned on can't be told"
        place = self.word if self.word == "near" else f"{self.word} from"
        return f"{place} what {self.backbone} learned on"

    @property
    def advice(self) -> str:
        """Advice on training, or the reason why the distance is unknown."""
        return ADVICE.get(self.word, self.why)

    def table(self) -> list[tuple[str, str, str]]:
        """Return rows (name, value with interval, explanation of the scale)."""
        rows = list[tuple[str, str, str]]()
        if self.distance is not None:
            scale = f"0 as there, 1 as noise; far from {FAR:.2f} on, very far from {VERY_FAR:.2f}"
            rows += [("distance", brief(self.distance, 2), scale)]
        if self.sure is not None:
            scale = f"how sure it is ({self.named} classes named); far below {UNSURE:.2f}"
            rows += [("its own head", brief(self.sure, 2), scale)]
        return rows

    def to_plain(self) -> dict[str, Any]:
        return {
            "backbone": self.backbone,
            "word": self.word or None,
            "advice": self.advice,
            "pictures": self.examples,
            "distance": self.distance and self.distance.to_plain(),
            "sure": self.sure and self.sure.to_plain(),
            "named": self.named,
            "limits": {"far": FAR, "very_far": VERY_FAR, "unsure": UNSURE},
        }


def has_distance(backbone: Backbone | Frozen) -> bool:
    """Return whether a distance from the source task is defined: not for examples in parts."""
    return not has_parts(backbone.card.input)


def source_distance(
    backbone: Backbone,
    data: Dataset,
    *,
    runtime: Runtime | None = None,
    listener: Listener | None = None,
) -> SourceDistance:
    """Measure how far a stratified sample of `data` lies from the source task of `backbone`.

    Unreadable examples are skipped; raises DataError if none can be read.
    """
    card, source = backbone.card, source_stats(backbone.module)
    if data.input is not None and data.input.kind != card.input.kind:
        why = f"{card.name} takes {card.input.noun}, and the data holds {data.input.noun}"
        return SourceDistance(card.name, why=why)
    if source is None and trained_head(backbone) is None:
        return SourceDistance(card.name, why=f"{card.name} {FORGETFUL}")
    now, few = (runtime or Runtime()).resolved(), sample(data, MOST, seed=0)
    check_device(now)
    with torch_threads(now.threads), measuring(backbone, source, now.device) as measure:
        with closing(_batches(card.input, few, now, listener or Listener())) as batches:
            examples = concatenated([measure(batch) for batch in batches])
        noise = measure(white_noise(card.input)) if source else None
    return distance_of(backbone, source, examples, noise)


def distance_of(
    backbone: Backbone,
    source: SourceStats | None,
    examples: ExampleStats,
    noise: ExampleStats | None,
) -> SourceDistance:
    """Return the distance of examples from their statistics; noise: None without batch norms."""
    name, head, n = backbone.card.name, trained_head(backbone), len(examples)
    if n < FEW:
        return SourceDistance(name, n, why=f"It takes {FEW} pictures or more to tell.")
    if not all(np.isfinite(x).all() for x in (examples.mean, examples.second, examples.features)):
        why = f"{name} answers with numbers that are not finite: are its weights whole?"
        return SourceDistance(name, n, why=why)
    distance = distance_estimate(source, examples, noise) if source and noise else None
    if head is None:
        return SourceDistance(name, n, distance)
    scores = head.scores(examples.features)
    named = len(set(scores.argmax(axis=1)))
    return SourceDistance(name, n, distance, _mean(scores.max(axis=1)), named)


def trained_head(backbone: Backbone) -> SourceHead | None:
    """Return the head of the source task; None if its weights are random."""
    return None if backbone.card.origin == "random" else backbone.source_head


def distance_estimate(source: SourceStats, examples: ExampleStats, noise: ExampleStats) -> Estimate:
    """Return the distance of the examples' population in units of the distance of noise.

    The mean of few examples is off, which makes their distance too large; the jackknife removes
    this bias and gives the standard error (Efron and Tibshirani 1993, eq. 10.8 and 11.5).
    """
    n, mean, second = len(examples), examples.mean.sum(axis=0), examples.second.sum(axis=0)
    rest = zip((mean - examples.mean) / (n - 1), (second - examples.second) / (n - 1), strict=True)
    whole, left = source.distance(mean / n, second / n), [source.distance(*one) for one in rest]
    value, error = n * whole - (n - 1) * np.mean(left), np.sqrt((n - 1) * np.var(left))
    unit = source.distance(noise.mean.mean(axis=0), noise.second.mean(axis=0))
    return _estimate(float(value) / unit, float(error) / unit, n)


def white_noise(input: Input[Any]) -> Batch:
    """Return NOISE fixed random examples: uniform for integer inputs, normal for float inputs."""
    rng = np.random.default_rng(0)
    return {name: _noise(rng, values) for name, values in input.blank(NOISE).items()}


def _noise(rng: np.random.Generator, like: NDArray[Any]) -> NDArray[Any]:
    if like.dtype.kind == "f":
        return rng.standard_normal(like.shape).astype(like.dtype)
    low, high = np.iinfo(like.dtype).min, np.iinfo(like.dtype).max
    return rng.integers(low, high, like.shape, dtype=like.dtype, endpoint=True)


def _batches(
    input: Input[Any], data: Dataset, runtime: Runtime, listener: Listener
) -> Generator[Batch]:
    """Yield the readable rows as batches for the network."""
    fetched = ordered_map(
        lambda source: _readable(source, input),
        data.files,
        threads=runtime.decode_threads,
        ahead=2 * BATCH,
    )
    waiting = list[Batch]()
    with closing(fetched):
        for done, example in enumerate(fetched, start=1):
            waiting += [] if example is None else [example]
            if len(waiting) == BATCH or (waiting and done == len(data)):
                yield input.collate(waiting)
                waiting.clear()
            listener.progress("unlike", done, len(data))


def _readable(source: CheckedFile, input: Input[Any]) -> Batch | None:
    try:
        return prepared(input, source)
    except (OSError, DataError):
        return None


def _mean(values: Floats) -> Estimate:
    """Return the mean of numbers from 0 to 1 with its normal interval."""
    error = values.std(ddof=1) / np.sqrt(len(values))
    return _estimate(float(values.mean()), float(error), len(values), most=1.0)


def _estimate(value: float, error: float, n: int, most: float = math.inf) -> Estimate:
    low, high = max(0.0, value - Z * error), min(most, value + Z * error)
    return Estimate(max(0.0, value), low, high, n)
