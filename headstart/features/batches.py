"""Batches as engines take them: examples of one part, or parts of similar length."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from headstart.backbones.inputs import (
    Batch,
    Input,
    cut_short,
    has_parts,
    length,
    pooled,
    rows_of,
)
from headstart.features.engines import Engine, Features
from headstart.features.parts import chunks

PARTS = 32  # parts of an example or several in one batch, on a CPU
POSITIONS = 128  # positions per part of a full batch: longer parts make smaller batches

Part = tuple[int, int]  # the number of an example, and of its part


def batches(
    input: Input[Any], examples: Sequence[Batch], engine: Engine
) -> Iterator[tuple[list[Part], Batch]]:
    """Yield batches for an engine, and which part of which example each row is."""
    if has_parts(input) or input.test_views > 1:
        yield from part_batches(input, examples, engine.batch)
        return
    for start in range(0, len(examples), engine.batch):
        some = examples[start : start + engine.batch]
        yield [(start + i, 0) for i in range(len(some))], input.collate(some)


def part_batches(
    input: Input[Any], examples: Sequence[Batch], most: int
) -> Iterator[tuple[list[Part], Batch]]:
    """Yield batches of parts of similar length, of PARTS or `most` parts at most."""
    places = [(i, part) for i, example in enumerate(examples) for part in range(length(example))]
    lengths = np.concatenate([input.part_lengths(example) for example in examples])
    most = max(PARTS, most)
    for chosen in chunks(lengths, most, most * POSITIONS):
        own, longest = [places[i] for i in chosen], int(lengths[chosen].max())
        single = (rows_of(examples[i], slice(part, part + 1)) for i, part in own)
        yield own, input.collate([cut_short(input, part, longest) for part in single])


def features_by(engine: Engine, input: Input[Any], examples: Sequence[Batch]) -> Features:
    """Return the features of examples, (N, D), each pooled over its parts."""
    parts: dict[Part, Features] = {}
    for places, batch in batches(input, examples, engine):
        parts |= dict(zip(places, input.settled(engine(batch)[0], batch), strict=True))
    weights = [input.part_weights(example) for example in examples]
    return np.stack(
        [
            pooled(np.stack([parts[i, part] for part in range(len(own))]), own)
            for i, own in enumerate(weights)
        ]
    )
