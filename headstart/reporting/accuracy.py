"""Section: metrics and predictions on the test rows."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from headstart.evaluation.evaluation import Evaluation
from headstart.reporting.blocks import (
    Confusion,
    ExampleCard,
    Gallery,
    Heading,
    PageBlock,
    TableBlock,
    Text,
    answer_card,
)
from headstart.reporting.facts import Facts, spelt, spread
from headstart.reporting.results import results
from headstart.reporting.words import Words, data
from headstart.targets.tallies import MANY

SHOWN = 24  # pictures in the sample of predictions
FEW = 12  # pictures among the worst mistakes, and among the least confident
PAIRS = 10  # most confused pairs listed


def test_section(facts: Facts, w: Words) -> list[PageBlock]:
    test, predictions = facts.evaluation.test, facts.test
    if not len(predictions):
        return [Text(w("test.none"), "empty")]
    if not test.classes:
        return [*results(facts, w), *_folds(facts, w), *_few_shots(facts, w)]
    blocks = [_headline(w, test), *_folds(facts, w), *_few_shots(facts, w)]
    blocks += [Heading(w("test.per_class")), *_per_class(w, test)]
    if hasattr(test, "confusion"):
        blocks += [Heading(w("test.confusion")), Text(w("test.confusion_note"), "note")]
        blocks += [Confusion(test.classes, test.confusion)]
    blocks += _confused(w, test)
    picked = spread(np.flatnonzero(predictions.known).tolist(), SHOWN)
    blocks += [Heading(w("test.sample")), Text(w("test.sample_note"), "note")]
    blocks += [Gallery(_cards(facts, w, picked))]
    blocks += [Heading(w("test.worst")), *_worst(facts, w)]
    least_sure = np.argsort(predictions.scores.max(axis=1), kind="stable")[:FEW]
    blocks += [Heading(w("test.unsure")), Text(w("test.unsure_note"), "note")]
    return [*blocks, Gallery(_cards(facts, w, least_sure.tolist()))]


def _folds(facts: Facts, w: Words) -> list[PageBlock]:
    """Show the metrics of each fold of a cross-validated run."""
    folds = facts.evaluation.folds
    if not folds:
        return []
    spell = w.estimate if facts.of_classes else w.measure
    names = list(folds[0].metrics)[:2]
    rows = [
        [
            w.count(own.fold),
            w.named("phase", own.kept),
            w.count(own.n),
            *(spell(own.metrics[name]) for name in names),
        ]
        for own in folds
    ]
    head = [w("test.fold"), w("test.kept"), w("test.rows"), *(w.named("metric", n) for n in names)]
    note = Text(w("test.folds_note"), "note")
    return [Heading(w("test.folds")), TableBlock(head, rows, left=(0, 1)), note]


def _few_shots(facts: Facts, w: Words) -> list[PageBlock]:
    """Show how heads did on a few examples of each class, over the draws."""
    found = facts.evaluation.few_shots
    if found is None:
        return []
    rows = [
        [data(name), *map(w.number, (own.mean, own.sd, own.least, own.most))]
        for name, own in found.heads.items()
    ]
    metric = w.named("metric", found.metric)
    head = [w("few.head"), w("few.mean", metric=metric), w("few.sd"), w("few.least")]
    shots, draws = w.count(found.shots), w.count(found.draws)
    note = w("few.note", shots=shots, draws=draws, rows=w.count(found.rows))
    table = TableBlock([*head, w("few.most")], rows)
    return [Heading(w("few.title", shots=shots)), table, Text(note, "note")]


def _headline(w: Words, test: Evaluation) -> PageBlock:
    rows = list[Sequence[Any]]()
    for name in test.target.shown or test.metrics:
        estimate = w.plain_estimate if name in ("log_loss", "auroc") else w.estimate
        meaning = f"metric_note.{name}"
        note = w(meaning) if meaning in w else ""
        rows.append([w.named("metric", name), estimate(test.metrics[name]), note])
    if base := test.baseline:
        label = w("test.majority", majority=data(base.answer))
        rows.append([label, w.estimate(base.metric), w("test.majority_note")])
    head = [w("test.number"), w("test.value"), w("test.meaning")]
    return TableBlock(head, rows, left=(0, 2), caption=w("test.caption", n=test.n))


def _per_class(w: Words, test: Evaluation) -> list[PageBlock]:
    """Show precision, recall and F1; of very many classes those of the lowest F1."""
    classes = list(test.per_class.items())
    notes = list[PageBlock]()
    if len(classes) > MANY:
        classes.sort(key=lambda own: math.inf if own[1].f1 is None else own[1].f1.value)
        classes = classes[:MANY]
        notes = [Text(w("test.lowest", n=MANY, all=w.count(len(test.classes))), "note")]
    rows = [
        [data(name), w.count(c.n), *map(w.estimate, (c.precision, c.recall, c.f1))]
        for name, c in classes
    ]
    head = [w("test.class"), w("test.rows"), w("test.precision"), w("test.recall"), w("test.f1")]
    return [*notes, TableBlock(head, rows)]


def _confused(w: Words, test: Evaluation) -> list[PageBlock]:
    sizes = {name: own.n for name, own in test.per_class.items()}
    rows = [
        [data(true), data(predicted), w.count(n), w.share(n / sizes[true])]
        for true, predicted, n in _mistakes(test)[:PAIRS]
    ]
    if not rows:
        return [Text(w("test.no_mistakes"), "note")]
    head = [w("test.truth"), w("test.said"), w("test.rows"), w("test.of_class")]
    return [Heading(w("test.confused")), TableBlock(head, rows, left=(0, 1))]


def _mistakes(test: Evaluation) -> Sequence[tuple[str, str, int]]:
    """Return true class, predicted class and number of rows of each confused pair, largest first.

    Only the first PAIRS of few classes.
    """
    if not hasattr(test, "confusion"):
        return list(test.confused)
    names, table = test.classes, np.array(test.confusion, np.int64)
    off = table * (1 - np.eye(len(table), dtype=np.int64))
    order = np.argsort(-off, axis=None, kind="stable")[:PAIRS]
    places = zip(*np.unravel_index(order, off.shape), strict=True)
    return [(names[i], names[j], int(off[i, j])) for i, j in places if off[i, j]]


def _worst(facts: Facts, w: Words) -> list[PageBlock]:
    predictions = facts.test
    wrong = np.flatnonzero(predictions.known & ~predictions.correct)
    if not len(wrong):
        return [Text(w("test.no_mistakes"), "note")]
    order = wrong[np.argsort(-predictions.scores[wrong].max(axis=1), kind="stable")]
    cards = _cards(facts, w, order[:FEW].tolist())
    return [Text(w("test.worst_note", n=len(wrong)), "note"), Gallery(cards)]


def _cards(facts: Facts, w: Words, rows: Sequence[int]) -> list[ExampleCard]:
    return [_card(facts, w, row) for row in rows]


def _card(facts: Facts, w: Words, row: int) -> ExampleCard:
    predictions, path = facts.test, spelt(facts.test.ids[row])
    name = predictions.classes[predictions.predicted[row]]
    label = predictions.classes[predictions.labels[row]] if predictions.known[row] else ""
    score = float(predictions.scores[row].max())
    picture, excerpt = facts.album.picture(path), facts.album.excerpt(path)
    return answer_card(w, picture, path, name, score, label, excerpt)
