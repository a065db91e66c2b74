"""The test results of boxes beside metrics: curves, thresholds, errors, the worst pictures."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from markupsafe import Markup

from headstart.evaluation.evaluation import Evaluation
from headstart.evaluation.missing_labels import MissingLabel
from headstart.evaluation.precision_curves import PrecisionCurve
from headstart.modalities.images.box_drawing import DrawnBox, drawn_detections, drawn_labels
from headstart.reporting.blocks import (
    ExampleCard,
    Figure,
    Figures,
    Heading,
    Key,
    LargeCards,
    PageBlock,
    TableBlock,
    Text,
)
from headstart.reporting.charts import Axis, Cloud, Series, line_chart
from headstart.reporting.facts import Facts, spelt
from headstart.reporting.words import Words, data, path_line
from headstart.targets.box_errors import KINDS, MISSED, RIGHT, JudgedBoxes
from headstart.targets.box_matching import Detections
from headstart.targets.box_values import ExampleBoxes
from headstart.targets.boxes import BoxesTarget

CURVES = 12  # classes whose curves are drawn, those of the most boxes
WORST = 8  # pictures
NAMED = 4  # classes that a sentence names
OWN_TABLES = ("at_threshold", "errors")  # that these blocks show


def box_blocks(facts: Facts, w: Words) -> list[PageBlock]:
    """Return the blocks about boxes, as far as the run has what they need."""
    return [*_curves(facts, w), *_thresholds(facts, w), *_errors(facts, w), *_worst(facts, w)]


def _curves(facts: Facts, w: Words) -> list[PageBlock]:
    curves = sorted(facts.insights.precision_curves, key=lambda own: -own.boxes)[:CURVES]
    if not curves:
        return []
    figures = Figures([_curve(own, w) for own in curves])
    return [Heading(w("boxes.curves")), Text(w("boxes.curves_note"), "note"), figures]


def _curve(own: PrecisionCurve, w: Words) -> Figure:
    points = [
        (x, y) for x, y, top in zip(own.reached, own.precision, own.high, strict=True) if top > 0
    ]
    band = list(zip(own.low, own.high, strict=True))[: len(points)]
    shown = [(x, y if y > 0 else np.nan) for x, y in points]
    keys = [Key("train", w("boxes.precision")), Key("at", w("boxes.at"))]
    number = w("boxes.of_boxes", n=own.boxes)
    drawn = line_chart(
        f"{own.name}: {number}",
        Axis(str(w("boxes.recall")), 0, 1, w.percent),
        Axis(str(w("boxes.precision")), 0, 1, w.percent),
        [Series(shown, "train", band=band, dots=False)],
        keys[: 2 if own.at else 1],
        dots=[Cloud([(own.at[0], own.at[1])], "dots at")] if own.at else [],
    )
    return replace(drawn, title=Markup("{}: {}").format(data(own.name), number))


def _thresholds(facts: Facts, w: Words) -> list[PageBlock]:
    """Show the threshold of each class, and what it lets through on validation and on test."""
    test, val = _table(facts.evaluation.test), _table(facts.evaluation.val)
    if not test:
        return []
    none = {"precision": None, "recall": None}
    rows = [
        [
            data(name),
            w.number(own["threshold"], 2),
            *(w.measure(val.get(name, none)[key]) for key in none),
            *(w.measure(own[key]) for key in none),
        ]
        for name, own in test.items()
    ]
    head = [w("test.class"), w("boxes.threshold")]
    head += [w(f"boxes.{key}_{part}") for part in ("val", "test") for key in none]
    note = Text(w("boxes.thresholds_note"), "note")
    return [Heading(w("boxes.thresholds")), note, TableBlock(head, rows)]


def _table(evaluation: Evaluation | None, name: str = "at_threshold") -> dict[str, dict[str, Any]]:
    """Return the rows of a table with keys, by their first cell; {} if there is none."""
    tables = evaluation.tables if evaluation else ()
    return {
        row[0]: dict(zip(table.keys[1:], row[1:], strict=True))
        for table in tables
        if table.name == name
        for row in table.rows
    }


def _errors(facts: Facts, w: Words) -> list[PageBlock]:
    rows = [
        [w.named("box_error", kind), w.count(own["count"]), _cost(w, own["AP50_lost"])]
        for kind, own in _table(facts.evaluation.test, "errors").items()
    ]
    if not rows:
        return []
    head = [w("boxes.error"), w("boxes.count"), w("boxes.cost")]
    note = Text(w("boxes.errors_note"), "note")
    return [Heading(w("boxes.errors")), note, TableBlock(head, rows)]


def _cost(w: Words, value: float) -> str:
    return w.number(value + 0.0, 3)


def _worst(facts: Facts, w: Words) -> list[PageBlock]:
    """Show the pictures with the most errors, with labels and detections."""
    test, target = facts.test, facts.test.target
    assert isinstance(target, BoxesTarget)
    known = np.flatnonzero(test.known)
    if not len(known) or not target.thresholds:
        return []
    some = test.take(known)
    judged = target.scored(some.outputs, some.labels).judged
    kept = judged.reaching(target.thresholds)
    errors = judged.by_row(kept)
    order = np.argsort(-errors.sum(axis=1), kind="stable")[:WORST]
    cards = [
        _card(facts, w, judged, kept, int(row), spelt(some.ids[row]))
        for row in order
        if errors[row].any()
    ]
    if not cards:
        return [Heading(w("results.worst")), Text(w("boxes.no_errors"), "note")]
    return [Heading(w("results.worst")), Text(w("boxes.worst_note"), "note"), LargeCards(cards)]


def _card(
    facts: Facts, w: Words, judged: JudgedBoxes, kept: Any, row: int, path: str
) -> ExampleCard:
    names = facts.test.target.settings()["names"]
    own = kept & (judged.rows == row)
    missed = judged.missed(kept)
    boxes = _drawn(judged, own, missed, row, names)
    shown = facts.album.with_boxes(path, boxes, judged.truth[row].size)
    return ExampleCard(shown, [_why(w, judged, own, missed, row, names), path_line(path)])


def _drawn(
    judged: JudgedBoxes, own: Any, missed: Any, row: int, names: Sequence[str]
) -> list[DrawnBox]:
    """Return what to draw: the wrong detections and the missed boxes have texts."""
    wrong = judged.kinds[own] != RIGHT
    found = Detections(judged.corners[own], judged.scores[own], judged.labels[own])
    bad, good = (
        drawn_detections(_of(found, wrong), names),
        drawn_detections(_of(found, ~wrong), names),
    )
    truth = judged.truth[row]
    lost = missed[judged.truth.rows == row]
    labels = drawn_labels(
        truth, [names[c] if gone else "" for c, gone in zip(truth.labels, lost, strict=True)]
    )
    return [*bad, *labels, *(DrawnBox(box.corners, "", box.colour) for box in good)]


def _of(found: Detections, which: Any) -> Detections:
    return Detections(found.corners[which], found.scores[which], found.labels[which])


def _why(
    w: Words, judged: JudgedBoxes, own: Any, missed: Any, row: int, names: Sequence[str]
) -> Markup:
    """Return the sentence that counts the errors of one picture by kind and class."""
    truth = judged.truth
    parts = list[Markup]()
    lost = truth.boxes.labels[missed & (truth.rows == row)]
    if len(lost):
        parts.append(w("box_why.missed", n=len(lost), names=_named(lost, names)))
    for kind, name in enumerate(KINDS[:MISSED]):
        labels = judged.labels[own & (judged.kinds == kind)]
        if len(labels):
            parts.append(w(f"box_why.{name}", n=len(labels), names=_named(labels, names)))
    text = Markup(", ").join(parts)
    return text[:1].upper() + text[1:] + "."


def _named(labels: Any, names: Sequence[str]) -> Markup:
    counts = Counter(names[c] for c in labels.tolist()).most_common()
    some = [Markup("{} {}").format(data(name), n) for name, n in counts[:NAMED]]
    return Markup(", ").join([*some, *(["…"] if len(counts) > NAMED else [])])


def unlabelled_card(
    facts: Facts, w: Words, path: str, rows: Sequence[MissingLabel], labels: ExampleBoxes
) -> ExampleCard:
    """Return the card of a picture with confident detections where no box is labelled."""
    names = facts.test.target.settings()["names"]
    found = Detections(
        np.array([row.box for row in rows]),
        np.array([row.score for row in rows]),
        np.array([names.index(row.label) for row in rows]),
    )
    drawn = [*drawn_detections(found, names), *drawn_labels(labels)]
    shown = facts.album.with_boxes(path, drawn, labels.size)
    text = w("suspects.unlabelled", names=_named(found.labels, names))
    return ExampleCard(shown, [text, path_line(path)])
