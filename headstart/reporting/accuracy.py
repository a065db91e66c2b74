"""Section: metrics and predictions on the test rows."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from headstart.evaluation.evaluation import Evaluation, cell
from headstart.modalities.images.thumbnails import Album
from headstart.reporting.blocks import (
    Block,
    Cell,
    Confusion,
    Gallery,
    Heading,
    PictureCard,
    Section,
    TableBlock,
    Text,
)
from headstart.reporting.facts import Facts, spelt
from headstart.reporting.words import Words, data, path_line
from headstart.targets.predictions import Predictions
from headstart.targets.target import Table

SHOWN = 24  # pictures in the sample of predictions
FEW = 12  # pictures among the worst mistakes, and among the least confident
PAIRS = 10  # most confused pairs listed


def test_section(facts: Facts, w: Words, album: Album) -> Section:
    test, predictions = facts.evaluation.test, facts.test
    if not len(predictions):
        return Section("test", w("test.title"), [Text(w("test.none"), "empty")])
    if not test.classes:
        tables = [block for table in test.tables for block in _table(table)]
        return Section("test", w("test.title"), [_headline(w, test), *tables])
    blocks = list[Block]([_headline(w, test), Heading(w("test.per_class")), _per_class(w, test)])
    blocks += [Heading(w("test.confusion")), Text(w("test.confusion_note"), "note")]
    blocks += [_confusion(w, test), *_confused(w, test)]
    known = np.flatnonzero(predictions.known)
    picked = known[[i * len(known) // SHOWN for i in range(SHOWN)]] if len(known) > SHOWN else known
    blocks += [Heading(w("test.sample")), Text(w("test.sample_note"), "note")]
    blocks.append(Gallery(_cards(facts, w, album, picked)))
    blocks += [Heading(w("test.worst")), *_worst(facts, w, album)]
    blocks += [Heading(w("test.unsure")), Text(w("test.unsure_note"), "note")]
    blocks.append(Gallery(_cards(facts, w, album, _least_sure(predictions))))
    return Section("test", w("test.title"), blocks)


def _headline(w: Words, test: Evaluation) -> TableBlock:
    rows = list[Sequence[Any]]()
    for name in test.target.shown or test.metrics:
        e = test.metrics[name]
        shown = w.plain_estimate(e) if name in ("log_loss", "auroc") else w.estimate(e)
        rows.append(
            [
                w.named("metric", name),
                shown,
                w("metric_note." + name) if "metric_note." + name in w else "",
            ]
        )
    if base := test.baseline:
        label = w("test.majority", majority=data(base.answer))
        rows.append([label, w.estimate(base.metric), w("test.majority_note")])
    head = [w("test.number"), w("test.value"), w("test.meaning")]
    return TableBlock(head, rows, left=(0, 2), caption=w("test.caption", n=test.n))


def _table(table: Table) -> list[Block]:
    rows = [[data(cell(value)) for value in row] for row in table.rows]
    return [Heading(data(table.title)), TableBlock([data(c) for c in table.columns], rows)]


def _per_class(w: Words, test: Evaluation) -> TableBlock:
    rows = [
        [data(name), w.count(c.n), *map(w.estimate, (c.precision, c.recall, c.f1))]
        for name, c in test.per_class.items()
    ]
    head = [w("test.class"), w("test.rows"), w("test.precision"), w("test.recall"), w("test.f1")]
    return TableBlock(head, rows)


def _confusion(w: Words, test: Evaluation) -> Confusion:
    names = test.classes
    cells = [
        [
            Cell(n, n / max(1, sum(row)), f"{names[i]} → {names[j]}: {w.count(n)}" if n else "")
            for j, n in enumerate(row)
        ]
        for i, row in enumerate(test.confusion)
    ]
    return Confusion(names, cells, w("test.truth"), w("test.said"))


def _confused(w: Words, test: Evaluation) -> list[Block]:
    names, table = test.classes, np.array(test.confusion, np.int64)
    off = table * (1 - np.eye(len(table), dtype=np.int64))
    order = np.argsort(-off, axis=None, kind="stable")[:PAIRS]
    rows = list[Sequence[Any]]()
    for i, j in zip(*np.unravel_index(order, off.shape), strict=True):
        if n := int(off[i, j]):
            share = w.share(n / int(table[i].sum()))
            rows.append([data(names[i]), data(names[j]), w.count(n), share])
    if not rows:
        return [Text(w("test.no_mistakes"), "note")]
    head = [w("test.truth"), w("test.said"), w("test.rows"), w("test.of_class")]
    return [Heading(w("test.confused")), TableBlock(head, rows, left=(0, 1))]


def _worst(facts: Facts, w: Words, album: Album) -> list[Block]:
    predictions = facts.test
    wrong = np.flatnonzero(predictions.known & ~predictions.correct)
    if not len(wrong):
        return [Text(w("test.no_mistakes"), "note")]
    order = wrong[np.argsort(-predictions.scores[wrong].max(axis=1), kind="stable")]
    cards = _cards(facts, w, album, order[:FEW])
    return [Text(w("test.worst_note", n=len(wrong)), "note"), Gallery(cards)]


def _least_sure(predictions: Predictions) -> NDArray[np.intp]:
    return np.argsort(predictions.scores.max(axis=1), kind="stable")[:FEW]


def _cards(facts: Facts, w: Words, album: Album, rows: Iterable[int]) -> list[PictureCard]:
    predictions, cards = facts.test, list[PictureCard]()
    for i in map(int, rows):
        name, truth = predictions.classes[predictions.predicted[i]], int(predictions.labels[i])
        score = w.share(float(predictions.scores[i].max()), 0)
        lines = [Markup("{} <span class=number>{}</span>").format(data(name), score)]
        mark = "" if truth < 0 else "right" if predictions.correct[i] else "wrong"
        if mark == "wrong":
            lines.append(w("test.really", label=data(predictions.classes[truth])))
        path = spelt(predictions.ids[i])
        cards.append(
            PictureCard(
                album.picture(path),
                [*lines, path_line(path)],
                mark,
                w("test." + mark) if mark else "",
            )
        )
    return cards
