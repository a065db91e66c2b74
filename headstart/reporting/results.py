"""Section: the test results of a target whose answers can be partly right: metrics, charts,
tables and the worst rows."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from headstart.evaluation.evaluation import Estimate, Evaluation
from headstart.reporting.blocks import (
    Figures,
    Gallery,
    Heading,
    Matrix,
    PageBlock,
    TableBlock,
    Text,
    card_of,
)
from headstart.reporting.boxes import OWN_TABLES, box_blocks
from headstart.reporting.charts import drawn
from headstart.reporting.facts import Facts, spelt, spread
from headstart.reporting.words import Words, data
from headstart.targets.predictions import joined_names
from headstart.targets.target import Baseline, Table


@dataclass(frozen=True)
class OwnBlocks:
    """The blocks that a kind of target has of its own, in place of these tables and worst rows."""

    blocks: Callable[[Facts, Words], list[PageBlock]]
    tables: tuple[str, ...] = ()


OF_KINDS = {"boxes": OwnBlocks(box_blocks, OWN_TABLES)}
SHOWN = 12  # rows in the sample of predictions
WORST = 12  # rows with the largest losses


def results(facts: Facts, w: Words) -> list[PageBlock]:
    test = facts.evaluation.test
    own = OF_KINDS.get(test.target.kind)
    blocks = [headline(w, test), *_charts(facts, w)]
    shown = (table for table in test.tables if own is None or table.name not in own.tables)
    blocks += [block for table in shown for block in _table(w, table)]
    known = np.flatnonzero(facts.test.known)
    if not len(known):
        return blocks
    sample = spread(known.tolist(), SHOWN)
    return [
        *blocks,
        *(own.blocks(facts, w) if own else _worst(facts, w, known)),
        *(
            Heading(w("test.sample")),
            Text(w("results.sample_note"), "note"),
            _cards(facts, w, sample),
        ),
    ]


def _worst(facts: Facts, w: Words, known: NDArray[np.intp]) -> list[PageBlock]:
    losses = facts.test.target.row_losses(facts.test.outputs, facts.test.labels)[known]
    rows = known[np.argsort(-losses, kind="stable")][:WORST].tolist()
    note = Text(w("results.worst_note"), "note")
    return [Heading(w("results.worst")), note, _cards(facts, w, rows)]


def headline(w: Words, test: Evaluation) -> PageBlock:
    """Return the table of the metrics and of the baseline."""
    rows = list[Sequence[Any]]()
    for name in test.target.shown or test.metrics:
        meaning = f"metric_note.{test.target.kind}.{name}"
        meaning = meaning if meaning in w else f"metric_note.{name}"
        note = w(meaning) if meaning in w else ""
        rows.append([w.named("metric", name), w.measure(test.metrics[name]), note])
    if base := test.baseline:
        note = w("results.baseline_note", metric=w.named("metric", base.name))
        rows.append([baseline_name(w, base), w.measure(base.metric), note])
    head = [w("test.number"), w("test.value"), w("test.meaning")]
    return TableBlock(head, rows, left=(0, 2), caption=w("test.caption", n=test.n))


def baseline_name(w: Words, base: Baseline) -> Markup:
    """Return a phrase for the constant answer: "always the mean, 3.2"."""
    key = f"baseline.{base.kind}"
    return w(key if key in w else "baseline.other", answer=data(w.label(base.answer)))


def _charts(facts: Facts, w: Words) -> list[PageBlock]:
    charts = facts.insights.charts
    return [Figures([drawn(chart, w.named, w.tick) for chart in charts])] if charts else []


def _table(w: Words, table: Table) -> list[PageBlock]:
    if not table.rows:
        return []
    title = Heading(w.named("table", table.name, table.title))
    counts = all(type(cell) is int for row in table.rows for cell in row)
    if not table.keys and counts and len(table.rows) == len(table.columns):
        known = table.name if f"matrix.{table.name}" in w else "other"
        return [title, Matrix(table.columns, table.rows, w("matrix." + known))]
    keys = table.keys or table.columns
    head = [w.named("column", k, c) for k, c in zip(keys, table.columns, strict=True)]
    return [
        title,
        TableBlock(
            head,
            [[_row_name(w, table, row[0]), *map(partial(_cell, w), row[1:])] for row in table.rows],
        ),
    ]


def _row_name(w: Words, table: Table, name: Any) -> Any:
    """Return the first cell of a row: a range of sizes, such as "middle third, up to 20 px"."""
    key = f"row.{table.name}.{str(name).partition(',')[0]}"
    return w(key, px=re.sub(r"\D", "", str(name).partition(",")[2])) if key in w else _cell(w, name)


def _cell(w: Words, value: Any) -> Any:
    if value is None or isinstance(value, Estimate):
        return w.measure(value)
    if isinstance(value, float):
        return w.brief(value)
    return w.count(value) if isinstance(value, int) else data(value)


def _cards(facts: Facts, w: Words, rows: Sequence[int]) -> PageBlock:
    paths = {row: spelt(facts.test.ids[row]) for row in rows}
    return Gallery([card_of(facts.album, p, *_lines(facts, w, row)) for row, p in paths.items()])


def _lines(facts: Facts, w: Words, row: int) -> list[Markup]:
    """Return the lines below a row: its answer and its label, and its region if it has one."""
    test = facts.test
    answer = test.target.answer_at(test.outputs, row)
    lines = [w("results.answer", answer=data(_plain(w, answer)))]
    label = facts.caption(test.target.decode(test.labels[row : row + 1])[0])
    lines.append(w("results.label", label=data(w.label(label))))
    region = {name: _plain(w, column[row]) for name, column in test.region.items()}
    if {"low", "high"} == set(region):
        return [*lines, _note(w("results.range", low=region["low"], high=region["high"]))]
    others = {name: text for name, text in region.items() if text != _plain(w, answer)}
    names = {name: w.named("column", name) for name in others}
    return [
        *lines,
        *(_note(w("results.end", name=names[n], value=v or "–")) for n, v in others.items()),
    ]


def _note(text: Markup) -> Markup:
    return Markup('<span class="note">{}</span>').format(text)


def _plain(w: Words, value: Any) -> str:
    plain = value.item() if hasattr(value, "item") else value
    return w.brief(plain) if isinstance(plain, float) else joined_names(plain)
