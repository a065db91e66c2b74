"""Texts in an exported graph, and what travels with it: known texts, a program that predicts."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from headstart.backbones.in_graph import InGraph, mean_of_parts
from headstart.backbones.inputs import Batch
from headstart.base.errors import SpecError
from headstart.base.onnx_nodes import Nodes, whole

Join = Callable[[list[Batch]], Batch]
TEXT = "text"  # the input with the number of the text that each window is of
SHORT = ("Good.", "The cat sat on the mat, and nobody minded.")
SENTENCE = "This sentence, number {}, is one of many that are too long together for a window. "


def text_in_graph(nodes: Nodes) -> InGraph:
    """Add the inputs: ids and mask (P, L) of windows, and the number (P,) of each one's text.

    The numbers count from 0; without them each window is a text of its own.
    """
    ids, mask = (nodes.input(name, np.int64, ["windows", "tokens"]) for name in ("ids", "mask"))
    text = nodes.input(TEXT, np.int64, ["numbered"], np.zeros(0, np.int64))
    count = nodes("Shape", ids, start=0, end=1)
    every = nodes("Range", np.int64(0), nodes("Squeeze", count), np.int64(1))
    own = nodes("Slice", every, nodes("Shape", text), count, whole(0))
    example = nodes("Concat", text, own, axis=0)
    tokens = nodes("ReduceSum", mask, whole(1), keepdims=0)
    return InGraph({"ids": ids, "mask": mask}, lambda x: mean_of_parts(nodes, x, tokens, example))


def one_text(batch: Batch) -> Batch:
    """Return the windows of one text as an exported graph is given them."""
    return {**batch, TEXT: np.zeros(len(batch["ids"]), np.int64)}


def texts_in(inputs: Batch) -> list[Batch]:
    """Return the texts that an exported graph is given."""
    ids, mask = inputs["ids"], inputs["mask"]
    text = inputs.get(TEXT, np.arange(len(ids)))
    rows = (text == number for number in range(int(text.max()) + 1))
    return [{"ids": ids[own], "mask": mask[own]} for own in rows]


def known_inputs(prepare: Callable[[str], Batch], join: Join, window: int) -> list[Batch]:
    """Return short texts as a batch, and a text of several windows.

    prepare, join: `prepare` and `collate` of the input.
    """
    sentences = "".join(SENTENCE.format(n) for n in range(2 + window // 8))
    return [join([prepare(text) for text in SHORT]), one_text(prepare(sentences))]


def standalone(engine: str, format: str) -> str:
    """Return the text of predict.py; raises SpecError for tokenizers that it can't read."""
    if engine != "onnx":
        raise SpecError("Models of texts are exported to onnx: name --to onnx.")
    return Path(__file__).with_name(f"predict_{format}.txt").read_text(encoding="utf-8")
